//! Workers in processes of their own, kept by a supervisor; each is this program again.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncReadExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zkinfer_server::supervisor::health::Unwatched;
use zkinfer_server::supervisor::{ChildSpec, Children, Patience, Supervisor, Word};
use zkinfer_server::worker::{RemoteOptions, RemoteSource};

use crate::workers::worker_that_says;

const ADDRESS: &str = "ZKINFER_TEST_FAULTS_WORKER";

/// Not a test of its own: the body of the processes.
#[test]
fn worker_process() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // On a line of its own, whatever the harness of tests has written.
        let say = |session: &str| writeln!(std::io::stdout(), "\n{}", Word::Session(session.to_owned())).unwrap();
        let _worker = worker_that_says(address.parse().unwrap(), "mortal", Some(Box::new(say)));
        let _ = tokio::io::stdin().read(&mut [0]).await;
    });
}

/// A supervisor with one such worker.
pub(crate) struct Kept {
    pub(crate) children: Arc<Children>,
    draining: CancellationToken,
    kept: JoinHandle<bool>,
}

impl Kept {
    /// Keeps a worker of the service there. It is started by these words, before the program's name and arguments.
    pub(crate) fn start(address: SocketAddr, starter: &[String]) -> Self {
        let mut line = starter.to_vec();
        line.push(std::env::current_exe().unwrap().to_str().unwrap().to_owned());
        line.extend(["children::worker_process", "--exact", "--nocapture"].map(str::to_owned));
        let command = move || {
            let mut command = tokio::process::Command::new(&line[0]);
            command.args(&line[1..]).env(ADDRESS, address.to_string());
            command
        };
        let spec = ChildSpec { name: "cpu".into(), title: "a worker (of a test)".into(), ordinal: None, command: Arc::new(command) };
        let source = Arc::new(RemoteSource::new(&RemoteOptions::new(format!("http://{address}"))).unwrap());
        // Such a worker gives its supervisor no signs of life.
        let patience = Patience { silence: Patience::default().start, ..Patience::default() };
        let (children, draining) = (Arc::new(Children::default()), CancellationToken::new());
        let supervisor = Supervisor { source, health: Arc::new(Unwatched), patience, children: children.clone() };
        let kept = tokio::spawn(supervisor.run(vec![spec], draining.clone()));
        Self { children, draining, kept }
    }

    /// Processes that were started so far.
    pub(crate) fn n_starts(&self) -> u64 {
        self.children.states()["cpu"].n_starts
    }

    pub(crate) async fn end(self) {
        self.draining.cancel();
        self.kept.await.unwrap();
    }
}
