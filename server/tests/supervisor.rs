//! The supervisor, with shell scripts for children: they die, fall silent, do not want to end, or have a device that is not to be trusted.

#[allow(dead_code, reason = "the tests of the service use the rest")]
#[path = "service/scripted_prover.rs"]
mod scripted_prover;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use zkinfer_proto::v1;
use zkinfer_server::artifacts::Class;
use zkinfer_server::engine::{
    ArtifactFacts, Crash, Digest, FailedAttempt, Lease, Leased, NewSession, Offer, Outcome, Renewal, SessionEnd, TaskFlow, Usage,
};
use zkinfer_server::limits::Limits;
use zkinfer_server::observe::{Exposure, HttpPort, Metrics, WORKER_CATALOGUE, WorkerPages};
use zkinfer_server::supervisor::health::{DeviceHealth, Unwatched};
use zkinfer_server::supervisor::{ChildSpec, ChildState, Children, Patience, Supervisor};
use zkinfer_server::worker::{Holding, SourceError, SourceFuture, TaskSource, Terms};

use scripted_prover::ScriptedProver;

/// A service that is told of the ends of sessions only.
#[derive(Default)]
struct Told {
    /// Each session, and whether it crashed or ended.
    closed: Mutex<Vec<String>>,
    /// What is known of each crash.
    crashes: Mutex<Vec<Crash>>,
    /// Calls before it is available.
    n_away: AtomicUsize,
}

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
    fn release<'a>(&'a self, _: Holding<'a>, _: Usage) -> SourceFuture<'a, ()> {
        never()
    }
    fn close<'a>(&'a self, session: &'a str, end: SessionEnd) -> SourceFuture<'a, ()> {
        if self.n_away.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)).is_ok() {
            return async { Err(SourceError::Unavailable("it starts again".into())) }.boxed();
        }
        let how = if end == SessionEnd::InOrder { "ended" } else { "crashed" };
        if let SessionEnd::Crashed(crash) = end {
            self.crashes.lock().unwrap().push(crash);
        }
        self.closed.lock().unwrap().push(format!("{session} {how}"));
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
    ChildSpec { name: "a script".into(), title: "a script (of a test)".into(), ordinal: Some(0), command: Arc::new(command) }
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

/// For children that must not be killed, however slow the machine is.
fn calm() -> Patience {
    Patience { silence: Duration::from_secs(60), drain: Duration::from_secs(60), ..patience() }
}

/// Keeps the script until `is_enough`; answers whether it drained, and which sessions were told as crashed or ended.
async fn keep(folder: &Path, text: &str, health: Arc<dyn DeviceHealth>, is_enough: impl Fn(&[String]) -> bool) -> (bool, Vec<String>) {
    keep_with(Arc::default(), folder, text, health, is_enough).await
}

async fn keep_with(
    told: Arc<Told>,
    folder: &Path,
    text: &str,
    health: Arc<dyn DeviceHealth>,
    is_enough: impl Fn(&[String]) -> bool,
) -> (bool, Vec<String>) {
    let draining = CancellationToken::new();
    let supervisor = Supervisor { source: told.clone(), health, patience: patience(), children: Arc::default() };
    let kept = tokio::spawn(supervisor.run(vec![script(folder, text)], draining.clone()));
    let waiting = async {
        while !is_enough(&told.closed.lock().unwrap()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("enough happens");
    draining.cancel();
    let drained = kept.await.unwrap();
    (drained, told.closed.lock().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_dies_is_started_again_and_its_session_is_told_as_crashed() {
    let folder = tempfile::tempdir().unwrap();
    let (_, told) = keep(folder.path(), "echo session s-$n; kill -9 $$", Arc::new(Unwatched), |told| told.len() >= 3).await;
    assert_eq!(told[..3], ["s-1 crashed", "s-2 crashed", "s-3 crashed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_that_a_dead_child_wrote_is_told_with_its_death() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "echo session s-$n; i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done; printf 'no\\000memory' >&2; kill -ABRT $$";
    let told = Arc::<Told>::default();
    keep_with(told.clone(), folder.path(), text, Arc::new(Unwatched), |told| !told.is_empty()).await;
    let last_words = told.crashes.lock().unwrap()[0].last_words.clone();
    assert!(last_words.ends_with("\nline 1999\nnomemory"), "{last_words}");
    assert!(last_words.len() <= Crash::MAX_LAST_WORDS_BYTES && last_words.len() > Crash::MAX_LAST_WORDS_BYTES - 8, "{}", last_words.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_child_that_ends_for_want_of_memory_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let no_memory = "echo memory allocation of 1073741824 bytes failed >&2; kill -ABRT $$";
    let text = format!("echo session s-$n; [ $n = 2 ] && {{ {no_memory}; }}; kill -KILL $$");
    let told = Arc::<Told>::default();
    keep_with(told.clone(), folder.path(), &text, Arc::new(Unwatched), |told| told.len() >= 3).await;
    let crashes = told.crashes.lock().unwrap()[..3].to_vec();
    assert_eq!(crashes.iter().map(|crash| crash.is_out_of_memory).collect::<Vec<_>>(), [false, true, false]);
    assert!(crashes[1].peak_host_bytes >= 1 << 30, "what it asked for, at least");
    assert_eq!((crashes[0].peak_host_bytes, crashes[2].peak_host_bytes), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_says_nothing_any_more_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let text = "echo session s-$n; echo noise of a driver; exec sleep 1000";
    let (_, told) = keep(folder.path(), text, Arc::new(Unwatched), |told| told.len() >= 2).await;
    assert_eq!(told[..2], ["s-1 crashed", "s-2 crashed"]);
}

/// On one thread, so that the test can hold the supervisor up.
#[tokio::test]
async fn a_child_that_spoke_while_its_supervisor_stood_still_is_not_killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    assert!(std::process::Command::new("mkfifo").arg(file("ask")).status().unwrap().success());
    // Says how often it was asked, and that it has said so.
    let text = "exec 3< ask; while read n <&3; do echo noise; echo work $n 0 0 0 0 0 0; echo $n > said; done; exit 0";
    let patience = Patience { silence: Duration::from_millis(50), health: Duration::from_secs(3600), ..patience() };
    let (draining, children, told) = (CancellationToken::new(), Arc::new(Children::default()), Arc::new(Told::default()));
    let supervisor = Supervisor { source: told.clone(), health: Arc::new(Unwatched), patience, children: children.clone() };
    let kept = tokio::spawn(supervisor.run(vec![script(folder.path(), text)], draining.clone()));
    let pipe = file("ask");
    let mut ask = tokio::task::spawn_blocking(move || std::fs::File::options().write(true).open(pipe)).await.unwrap().unwrap();
    for n in 1..=40 {
        // Nothing else of this thread goes on until it has been said, and would be too late.
        let began = std::time::Instant::now();
        std::io::Write::write_all(&mut ask, format!("{n}\n").as_bytes()).unwrap();
        while std::fs::read_to_string(file("said")).unwrap_or_default().trim() != n.to_string() || began.elapsed() < patience.silence {
            std::thread::sleep(Duration::from_millis(1));
        }
        let heard = async {
            while children.states()["a script"].work.n_ended < n {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), heard).await.unwrap_or_else(|_| panic!("{n} is not heard"));
    }
    assert_eq!(children.states()["a script"].n_starts, 1, "and none was killed");
    draining.cancel();
    drop(ask);
    assert!(kept.await.unwrap());
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
    assert_eq!(told, ["s-1 ended"], "it could not close its session, and did not die of a task");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_draining_child_could_not_settle_is_no_death_though_the_service_is_away_for_a_moment() {
    for (code, n_away) in [(3, 0), (3, 2), (1, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let told = Arc::new(Told { n_away: AtomicUsize::new(n_away), ..Told::default() });
        let text = format!("echo session s-$n; cat > /dev/null; exit {code}");
        let ended = keep_with(told, folder.path(), &text, Arc::new(Unwatched), |_| runs(folder.path()) == 1).await;
        assert_eq!(ended, (true, vec!["s-1 ended".to_owned()]), "{code}, {n_away}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_ends_because_of_its_device_or_was_asked_to_is_no_death_and_another_end_is() {
    for (code, end) in [(3, "ended"), (4, "ended"), (5, "ended"), (1, "crashed")] {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("echo session s-$n; exit {code}");
        let (_, told) = keep(folder.path(), &text, Arc::new(Unwatched), |told| !told.is_empty()).await;
        assert_eq!(told[0], format!("s-1 {end}"), "{code}");
    }
}

/// Keeps a script whose process nobody can kill, until `is_enough`; answers how it was then, what was told, and whether the supervisor says that all ended.
async fn keep_immortal(
    folder: &Path,
    text: &str,
    silence: Duration,
    is_enough: impl Fn(&ChildState) -> bool,
) -> (ChildState, Vec<String>, bool) {
    let (told, children, draining) = (Arc::new(Told::default()), Arc::new(Children::default()), CancellationToken::new());
    let patience = Patience { silence, drain: Duration::from_millis(50), kill: Duration::from_millis(50), ..patience() };
    let supervisor = Supervisor { source: told.clone(), health: Arc::new(Unwatched), patience, children: children.clone() };
    let kept = tokio::spawn(supervisor.run_killing_by(|_| Ok(()), vec![script(folder, text)], draining.clone()));
    let state = async || {
        loop {
            match children.states().remove("a script") {
                Some(state) if is_enough(&state) => return,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), state()).await.expect("enough happens");
    draining.cancel();
    let all_ended = tokio::time::timeout(Duration::from_secs(60), kept).await.expect("it is not waited for for ever").unwrap();
    let told = told.closed.lock().unwrap().clone();
    (children.states().remove("a script").unwrap(), told, all_ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_be_killed_is_told_as_crashed_and_its_device_is_given_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let text = "echo session s-$n; exec sleep 1000";
    let (state, told, all_ended) = keep_immortal(folder.path(), text, Duration::from_millis(300), |child| child.cordoned.is_some()).await;
    assert_eq!((state.cordoned.as_deref(), state.has_session), (Some("its process cannot be killed"), false));
    assert_eq!((told, all_ended, runs(folder.path())), (vec!["s-1 crashed".to_owned()], false, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_be_killed_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let text = "echo session s-$n; exec sleep 1000";
    let (state, told, all_ended) = keep_immortal(folder.path(), text, Duration::from_secs(60), |child| child.has_session).await;
    assert!(!state.has_session);
    assert_eq!((told, all_ended), (vec!["s-1 ended".to_owned()], false));
}

/// Says that a device is sick once told so.
struct Sick;

impl DeviceHealth for Sick {
    fn sickness(&self, ordinal: usize) -> Option<String> {
        assert_eq!(ordinal, 0);
        Some("Xid 79".into())
    }
    fn is_watched(&self, _: usize) -> bool {
        true
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

/// Keeps the script until `is_enough`; answers how it was then.
async fn state_once(spec: ChildSpec, health: Arc<dyn DeviceHealth>, is_enough: impl Fn(&ChildState) -> bool) -> ChildState {
    let (draining, children, name) = (CancellationToken::new(), Arc::new(Children::default()), spec.name.clone());
    let supervisor = Supervisor { source: Arc::new(Told::default()), health, patience: calm(), children: children.clone() };
    let kept = tokio::spawn(supervisor.run(vec![spec], draining.clone()));
    let waiting = async {
        loop {
            match children.states().remove(&name) {
                Some(state) if is_enough(&state) => return state,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let state = tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("enough happens");
    draining.cancel();
    assert!(kept.await.unwrap());
    state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_suspected_again_and_again_is_cordoned_and_a_processor_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let spec = script(folder.path(), "echo session s-$n; exit 5");
    let state = state_once(spec, Arc::new(Unwatched), |child| child.cordoned.is_some()).await;
    assert!(state.cordoned.unwrap().starts_with("it was suspected again and again"));
    assert_eq!((state.n_starts, runs(folder.path())), (3, 3));
    assert!(state.work.device.is_degraded && !state.has_session);

    let folder = tempfile::tempdir().unwrap();
    let spec = ChildSpec { ordinal: None, ..script(folder.path(), "exit 5") };
    let state = state_once(spec, Arc::new(Unwatched), |child| child.n_starts >= 5).await;
    assert_eq!(state.cordoned, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sick_device_is_told_as_cordoned_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let spec = script(folder.path(), "cat > /dev/null; exit 0");
    let state = state_once(spec, Arc::new(Sick), |child| child.cordoned.is_some()).await;
    assert_eq!((state.cordoned.as_deref(), state.is_watched), (Some("Xid 79"), Some(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_given_up_while_its_process_that_lost_it_is_not_back() {
    let folder = tempfile::tempdir().unwrap();
    let spec = script(folder.path(), "[ $n = 1 ] && exit 4; cat > /dev/null; exit 0");
    let told = state_once(spec, Arc::new(Unwatched), |child| child.n_starts == 2).await;
    assert!(told.work.device.is_degraded, "the second process has not said otherwise");
    let folder = tempfile::tempdir().unwrap();
    let spec = script(folder.path(), "[ $n = 1 ] && exit 4; echo work 0 0 4096 0 0 0 0; cat > /dev/null; exit 0");
    let told = state_once(spec, Arc::new(Unwatched), |child| child.work.resident_bytes == 4096).await;
    assert_eq!((told.n_starts, told.work.device.is_degraded), (2, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_cannot_be_started_is_known_all_the_same() {
    let command = || tokio::process::Command::new("/does/not/exist");
    let spec = ChildSpec { name: "cuda:0".into(), title: "cuda:0 (A)".into(), ordinal: Some(0), command: Arc::new(command) };
    let state = state_once(spec, Arc::new(Unwatched), |_| true).await;
    assert_eq!((state.is_kept, state.n_starts, state.has_session), (true, 0, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_devices_are_all_cordoned_is_not_ready_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (draining, children) = (CancellationToken::new(), Arc::new(Children::default()));
    children.pass_over("cuda:1", "cuda:1 (B)", "it failed its self-test: out of memory");
    let port = HttpPort::bind("127.0.0.1:0".parse().unwrap(), Exposure::Loopback).unwrap();
    let address = port.address();
    let pages = WorkerPages { children: children.clone(), draining: draining.clone() };
    let shown = tokio::spawn(async move { pages.serve(port, &Limits::default()).await });
    let supervisor = Supervisor { source: Arc::new(Told::default()), health: Arc::new(Sick), patience: calm(), children: children.clone() };
    let kept = tokio::spawn(supervisor.run(vec![script(folder.path(), "echo session s; cat > /dev/null; exit 0")], draining.clone()));
    let cordoned = async {
        while get(address, "/readyz").await != (503, "every device is cordoned: a script (of a test): Xid 79\n".into()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), cordoned).await.expect("the cause is told");
    let (_, of_worker) = get(address, "/metrics").await;
    let of_service = Metrics::of_service(Arc::<ScriptedProver>::default(), Some(children.clone())).exposition();
    for text in [of_worker, of_service] {
        for sample in
            ["device_cordoned{device=\"a script\"} 1", "device_cordoned{device=\"cuda:1\"} 1", "device_watched{device=\"a script\"} 1"]
        {
            assert!(text.contains(&format!("\nzkinfer_{sample}\n")), "{sample} in\n{text}");
        }
        assert!(!text.contains("zkinfer_worker_up{device=\"cuda:1\"}"), "nothing was started there: {text}");
    }
    draining.cancel();
    assert!(kept.await.unwrap());
    shown.abort();
}

#[test]
fn a_service_that_passed_all_devices_over_tells_of_them_and_of_its_own_processor() {
    let children = Arc::new(Children::default());
    children.pass_over("cuda:0", "cuda:0 (A)", "it failed its self-test: out of memory");
    let text = Metrics::of_service(Arc::<ScriptedProver>::default(), Some(children)).exposition();
    assert!(text.contains("\nzkinfer_device_cordoned{device=\"cuda:0\"} 1\n"), "{text}");
    assert!(text.contains("\nzkinfer_device_jobs{device=\"0\"} 0\n"), "{text}");
    assert!(!text.contains("zkinfer_worker_up"), "{text}");
}

/// Status and body of an answer.
async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_children_tell_is_shown_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let text = "while [ ! -e go ]; do sleep 0.02; echo beat; done; echo session s-$n; echo work 3 1500 4096 1 0 2 0 10 100 1000; cat > /dev/null; exit 0";
    let patience = Patience { silence: Duration::from_secs(60), ..patience() };
    let (draining, children) = (CancellationToken::new(), Arc::new(Children::default()));
    let port = HttpPort::bind("127.0.0.1:0".parse().unwrap(), Exposure::Loopback).unwrap();
    let address = port.address();
    let pages = WorkerPages { children: children.clone(), draining: draining.clone() };
    let shown = tokio::spawn(async move { pages.serve(port, &Limits::default()).await });
    let supervisor = Supervisor { source: Arc::new(Told::default()), health: Arc::new(Unwatched), patience, children: children.clone() };
    let kept = tokio::spawn(supervisor.run(vec![script(folder.path(), text)], draining.clone()));
    for path in ["/livez", "/healthz"] {
        assert_eq!(get(address, path).await, (200, "live\n".into()));
    }
    assert_eq!(get(address, "/readyz").await, (503, "no child has a session with the service\n".into()));
    assert_eq!(get(address, "/else").await.0, 404);
    std::fs::write(folder.path().join("go"), b"").unwrap();
    let told = async {
        loop {
            let (code, text) = get(address, "/metrics").await;
            assert_eq!(code, 200);
            if text.contains("zkinfer_worker_tasks_total{device=\"a script\"} 3\n") {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(60), told).await.expect("the report is shown");
    for sample in [
        "worker_up{device=\"a script\"} 1",
        "worker_starts_total{device=\"a script\"} 1",
        "worker_busy_seconds_total{device=\"a script\"} 1.5",
        "worker_resident_memory_bytes{device=\"a script\"} 4096",
        concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "device_jobs{device=\"a script\"} 1",
        "device_degraded{device=\"a script\"} 0",
        "device_cordoned{device=\"a script\"} 0",
        "device_watched{device=\"a script\"} 0",
        "backend_fallbacks_total{device=\"a script\",reason=\"memory\"} 2",
        "backend_fallbacks_total{device=\"a script\",reason=\"device\"} 0",
        "device_memory_bytes{device=\"a script\",kind=\"limit\"} 1000",
    ] {
        assert!(text.contains(&format!("\nzkinfer_{sample}\n")), "{sample} in\n{text}");
    }
    for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"] {
        assert!(text.contains(&format!("\n{name} ")), "{name} in\n{text}");
    }
    // A service whose children compute tells of theirs, not of its own.
    let of_service = Metrics::of_service(Arc::<ScriptedProver>::default(), Some(children.clone())).exposition();
    assert!(of_service.contains("\nzkinfer_device_memory_bytes{device=\"a script\",kind=\"limit\"} 1000\n"), "{of_service}");
    assert!(!of_service.contains("device=\"0\""), "{of_service}");
    for described in WORKER_CATALOGUE {
        for text in [&text, &of_service] {
            assert!(text.contains(&format!("# TYPE {} {}\n", described.name, described.kind.name())), "{text}");
        }
    }
    assert_eq!(get(address, "/readyz").await, (200, "ready\n".into()));
    draining.cancel();
    assert_eq!(get(address, "/readyz").await.0, 503);
    assert!(kept.await.unwrap());
    assert!(get(address, "/metrics").await.1.contains("zkinfer_worker_up{device=\"a script\"} 0\n"));
    shown.abort();
}
