//! The supervisor, with shell scripts for children: they die, fall silent, do not want to end, or have a device that is not to be trusted.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use zkinfer_proto::v1;
use zkinfer_server::artifacts::Class;
use zkinfer_server::engine::{ArtifactFacts, Digest, FailedAttempt, Lease, Leased, NewSession, Offer, Outcome, Renewal, TaskFlow, Usage};
use zkinfer_server::supervisor::health::{DeviceHealth, Unwatched};
use zkinfer_server::supervisor::{ChildSpec, Patience, Supervisor};
use zkinfer_server::worker::{Holding, SourceError, SourceFuture, TaskSource, Terms};

/// A service that is told of crashes only.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

fn never<'a, T: Send + 'a>() -> SourceFuture<'a, T> {
    async { Err(SourceError::Refused("a supervisor does no tasks".into())) }.boxed()
}

impl TaskSource for Told {
    fn open(&self, _: NewSession) -> SourceFuture<'_, Terms> {
        never()
    }
    fn lease<'a>(&'a self, _: &'a str, _: Offer) -> SourceFuture<'a, Vec<Leased>> {
        never()
    }
    fn renew<'a>(&'a self, _: &'a str, _: Vec<Lease>) -> SourceFuture<'a, Renewal> {
        never()
    }
    fn progress<'a>(&'a self, _: Holding<'a>, _: v1::Progress) -> SourceFuture<'a, TaskFlow> {
        never()
    }
    fn progress_interval(&self) -> Duration {
        Duration::ZERO
    }
    fn complete<'a>(&'a self, _: Holding<'a>, _: Outcome, _: Usage) -> SourceFuture<'a, ()> {
        never()
    }
    fn fail<'a>(&'a self, _: Holding<'a>, _: FailedAttempt, _: Usage) -> SourceFuture<'a, ()> {
        never()
    }
    fn release<'a>(&'a self, _: Holding<'a>) -> SourceFuture<'a, ()> {
        never()
    }
    fn close<'a>(&'a self, session: &'a str, crashed: bool) -> SourceFuture<'a, ()> {
        assert!(crashed, "others close their sessions themselves");
        self.0.lock().unwrap().push(session.to_owned());
        async { Ok(()) }.boxed()
    }
    fn read<'a>(&'a self, _: Holding<'a>, _: Class, _: Digest) -> SourceFuture<'a, Bytes> {
        never()
    }
    fn write<'a>(&'a self, _: Holding<'a>, _: Class, _: &'a str, _: Bytes) -> SourceFuture<'a, ArtifactFacts> {
        never()
    }
    fn beside(&self) -> Arc<dyn TaskSource> {
        Arc::new(Self::default())
    }
}

/// Each run of the script adds a line to the file `runs` of its folder, whose number is `$n`.
fn script(folder: &Path, text: &str) -> ChildSpec {
    let (folder, text) = (folder.to_owned(), format!("echo run >> runs; n=$(wc -l < runs); n=$((n)); {text}"));
    let command = move || {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", &text]).current_dir(&folder);
        command
    };
    ChildSpec { name: "a script".into(), ordinal: Some(0), command: Arc::new(command) }
}

fn runs(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("runs")).map_or(0, |text| text.lines().count())
}

fn patience() -> Patience {
    Patience {
        silence: Duration::from_millis(300),
        drain: Duration::from_millis(500),
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(20),
        health: Duration::from_millis(10),
        ..Patience::default()
    }
}

/// Keeps the script until `is_enough`; answers whether it drained, and which sessions were told as crashed.
async fn keep(folder: &Path, text: &str, health: Arc<dyn DeviceHealth>, is_enough: impl Fn(&[String]) -> bool) -> (bool, Vec<String>) {
    let told = Arc::new(Told::default());
    let draining = CancellationToken::new();
    let supervisor = Supervisor { source: told.clone(), health, patience: patience() };
    let kept = tokio::spawn(supervisor.run(vec![script(folder, text)], draining.clone()));
    let waiting = async {
        while !is_enough(&told.0.lock().unwrap()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("enough happens");
    draining.cancel();
    let drained = kept.await.unwrap();
    let told = told.0.lock().unwrap().clone();
    (drained, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_dies_is_started_again_and_its_session_is_told_as_crashed() {
    let folder = tempfile::tempdir().unwrap();
    let (_, told) = keep(folder.path(), "echo session s-$n; kill -9 $$", Arc::new(Unwatched), |told| told.len() >= 3).await;
    assert_eq!(told[..3], ["s-1", "s-2", "s-3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_says_nothing_any_more_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let text = "echo session s-$n; echo noise of a driver; exec sleep 1000";
    let (_, told) = keep(folder.path(), text, Arc::new(Unwatched), |told| told.len() >= 2).await;
    assert_eq!(told[..2], ["s-1", "s-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_drains_when_its_input_ends_and_is_killed_if_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let text = "echo session s-$n; cat > /dev/null; echo beat; exit 0";
    let ended = keep(folder.path(), text, Arc::new(Unwatched), |_| runs(folder.path()) == 1).await;
    assert_eq!(ended, (true, vec![]));

    let folder = tempfile::tempdir().unwrap();
    let text = "echo session s-$n; while echo beat; do sleep 0.05; done";
    let (drained, told) = keep(folder.path(), text, Arc::new(Unwatched), |_| runs(folder.path()) == 1).await;
    assert!(!drained);
    assert!(told.len() <= 1, "{told:?}");
}

/// Says that a device is sick once told so.
struct Sick;

impl DeviceHealth for Sick {
    fn sickness(&self, ordinal: usize) -> Option<String> {
        assert_eq!(ordinal, 0);
        Some("Xid 79".into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sick_device_is_given_no_new_child() {
    let folder = tempfile::tempdir().unwrap();
    let ended = folder.path().join("ended");
    let text = "cat > /dev/null; echo > ended; exit 0";
    let (drained, told) = keep(folder.path(), text, Arc::new(Sick), |_| ended.exists()).await;
    assert_eq!((drained, told, runs(folder.path())), (true, vec![], 1));
}
