//! The HTTP port: metrics, liveness, readiness. And what jobs have cost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use zkinfer_proto::v1;
use zkinfer_server::observe::{CATALOGUE, Exposure, HttpPort};

use crate::harness::{Client, ENDLESS, Service, config, job_request};

pub(crate) fn loopback() -> HttpPort {
    HttpPort::bind("127.0.0.1:0".parse().unwrap(), Exposure::Loopback).unwrap()
}

/// Code, head and body of an answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
}

/// The samples of an exposition, by name and labels.
struct Metrics {
    text: String,
    samples: BTreeMap<String, f64>,
}

impl Metrics {
    async fn read(address: SocketAddr) -> Self {
        let (code, head, text) = get(address, "/metrics").await;
        assert!(code == 200 && head.contains("text/plain; version=0.0.4"), "{head}");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
        let samples = samples.collect();
        Self { text, samples }
    }

    /// When no call is running: each is counted a moment after its client has the answer.
    async fn settled(address: SocketAddr) -> Self {
        let settles = async {
            loop {
                let metrics = Self::read(address).await;
                if metrics.value("zkinfer_rpcs") == 0.0 {
                    break metrics;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), settles).await.expect("all calls end")
    }

    fn value(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or_else(|| panic!("no {sample} in\n{}", self.text))
    }

    /// Names with their kinds.
    fn kinds(&self) -> BTreeMap<&str, &str> {
        self.text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
    }

    /// Labels of a metric, without those of buckets.
    fn labels(&self, name: &str) -> Vec<&str> {
        let rest = |sample: &'_ str| -> Option<usize> {
            let tail = sample.strip_prefix(name)?;
            ["{", "_count{", "_bucket{"].iter().find(|start| tail.starts_with(**start)).map(|start| name.len() + start.len())
        };
        let Some((sample, at)) = self.samples.keys().find_map(|sample| Some((sample, rest(sample)?))) else { return Vec::new() };
        let labels = sample[at..].trim_end_matches('}').split("\",").filter_map(|label| label.split('=').next());
        labels.filter(|label| *label != "le" && !label.is_empty()).collect()
    }
}

/// One job of each end, in a service with a port.
async fn ends(client: &mut Client) -> [v1::Job; 3] {
    let model = client.ready_model("mlp").await.name;
    let succeeded = client.create_job(&model, "steps=2").await.name;
    let rejected = client.create_job(&model, "steps=1 reject").await.name;
    let (succeeded, rejected) = (client.job_end(&succeeded).await, client.job_end(&rejected).await);
    let blocker = client.create_job(&model, ENDLESS).await.name;
    client.job_runs(&blocker).await;
    let waiting = client.create_job(&model, "steps=1").await.name;
    client.cancel(&waiting).await;
    client.cancel(&waiting).await;
    client.cancel(&blocker).await;
    client.job_end(&blocker).await;
    [succeeded, rejected, client.get_job(&waiting).await]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_are_those_of_the_catalogue_and_tell_what_happened() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    let port = loopback();
    config.http = Some(port.clone());
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let [succeeded, ..] = ends(&mut client).await;
    let missing = client
        .proofs
        .get_job(v1::GetJobRequest { name: "tenants/default/jobs/00000000-0000-7000-8000-000000000000".into() })
        .await
        .unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);

    let metrics = Metrics::settled(port.address()).await;
    let expected: BTreeMap<&str, &str> = CATALOGUE.iter().map(|described| (described.name, described.kind.name())).collect();
    assert_eq!(metrics.kinds(), expected);
    for described in CATALOGUE {
        assert_eq!(metrics.labels(described.name), described.labels, "{}", described.name);
        assert!(metrics.text.contains(&format!("# HELP {} {}.", described.name, described.help)), "{}", described.name);
    }
    for (sample, value) in [
        ("zkinfer_jobs_total{state=\"succeeded\",reason=\"NONE\"}", 1.0),
        ("zkinfer_jobs_total{state=\"failed\",reason=\"UNSUPPORTED_OP\"}", 1.0),
        ("zkinfer_jobs_total{state=\"cancelled\",reason=\"CANCELLED\"}", 2.0),
        ("zkinfer_jobs_total{state=\"failed\",reason=\"POISONED\"}", 0.0),
        ("zkinfer_registrations_total{state=\"ready\",reason=\"NONE\"}", 1.0),
        ("zkinfer_job_seconds_count{state=\"succeeded\"}", 1.0),
        ("zkinfer_rpc_seconds_count{method=\"zkinfer.v1.ProofService/CreateJob\",code=\"OK\"}", 4.0),
        ("zkinfer_rpc_seconds_count{method=\"zkinfer.v1.ProofService/GetJob\",code=\"NOT_FOUND\"}", 1.0),
        ("zkinfer_queue_wait_seconds_count{kind=\"job\"}", 3.0),
        ("zkinfer_attempts_total{outcome=\"completed\"}", 2.0),
        ("zkinfer_proof_bytes_count", 1.0),
        ("zkinfer_tasks{state=\"ready\"}", 0.0),
        ("zkinfer_tasks{state=\"running\"}", 0.0),
        ("zkinfer_database_up", 1.0),
        ("zkinfer_connections", 1.0),
        ("zkinfer_device_memory_bytes{device=\"0\",kind=\"limit\"}", 1000.0),
        ("zkinfer_backend_fallbacks_total{device=\"0\",reason=\"memory\"}", 3.0),
    ] {
        assert_eq!(metrics.value(sample), value, "{sample}");
    }
    assert!(metrics.value("process_resident_memory_bytes") > 1e6 && metrics.value("process_open_fds") > 3.0);
    // Labels do not name tenants, models or jobs.
    let job_id = succeeded.name.rsplit('/').next().unwrap();
    assert!(!metrics.text.contains(job_id) && !metrics.text.contains("\"mlp\"") && !metrics.text.contains("\"default\""));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_made_again_is_told_from_one_that_fails_its_job() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    let port = loopback();
    config.http = Some(port.clone());
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    for script in ["steps=1 device-once", "steps=1 reject"] {
        let job = client.create_job(&model, script).await.name;
        client.job_end(&job).await;
    }
    let metrics = Metrics::settled(port.address()).await;
    // The registration's was completed too.
    for (outcome, count) in [("retried", 1.0), ("failed", 1.0), ("completed", 2.0)] {
        assert_eq!(metrics.value(&format!("zkinfer_attempts_total{{outcome=\"{outcome}\"}}")), count, "{outcome}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_and_its_watchers_are_told_while_they_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    let port = loopback();
    config.http = Some(port.clone());
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let blocker = client.create_job(&model, ENDLESS).await.name;
    client.job_runs(&blocker).await;
    client.create_job(&model, "steps=1").await;
    let request = v1::WatchJobRequest { name: blocker.clone(), from_sequence: 0 };
    let mut watch = client.proofs.watch_job(request).await.unwrap().into_inner();
    watch.message().await.unwrap();
    let metrics = Metrics::read(port.address()).await;
    assert_eq!(["ready", "running"].map(|state| metrics.value(&format!("zkinfer_tasks{{state=\"{state}\"}}"))), [1.0, 1.0]);
    assert!(metrics.value("zkinfer_oldest_queued_seconds") >= 0.0);
    assert!(metrics.value("zkinfer_watchers") >= 1.0 && metrics.value("zkinfer_rpcs") >= 1.0);
    assert_eq!(metrics.value("zkinfer_device_jobs{device=\"0\"}"), 1.0);
    client.cancel(&blocker).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_service_is_live_and_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    let port = loopback();
    config.http = Some(port.clone());
    let mut service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    assert_eq!(get(port.address(), "/livez").await.0, 200);
    let (code, _, body) = get(port.address(), "/readyz").await;
    assert_eq!((code, body.as_str()), (200, "ready\n"));
    assert_eq!(get(port.address(), "/else").await.0, 404);

    let running = client.create_job(&model, "steps=20 ms=50").await.name;
    client.job_runs(&running).await;
    service.begin_stop();
    let drains = async {
        loop {
            let (code, _, body) = get(port.address(), "/readyz").await;
            if code != 200 {
                break (code, body);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (code, body) = tokio::time::timeout(Duration::from_secs(5), drains).await.unwrap();
    assert_eq!((code, body.as_str()), (503, "draining: the service is shutting down\n"));
    assert_eq!(get(port.address(), "/livez").await.0, 200);
    assert_eq!(Metrics::read(port.address()).await.value("zkinfer_draining"), 1.0);
    drop(client);
    service.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_does_not_show_its_metrics_to_the_network_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = |more: &[&str]| {
        let data = folder.path().join("data");
        let mut command = Command::new(env!("CARGO_BIN_EXE_zkinferd"));
        command.args(["serve", "--device", "cpu", "--listen", "0.0.0.0:0", "--data-dir"]).arg(data).args(more).env("ZKINFER_LOG", "info");
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let refused = daemon(&["--http-listen", "0.0.0.0:0"]);
    assert!(refused.contains("refusing to serve metrics and health on 0.0.0.0:0") && refused.contains("--http-insecure"), "{refused}");
    // Then it is the gRPC port that is refused.
    let allowed = daemon(&["--http-listen", "0.0.0.0:0", "--http-insecure"]);
    assert!(allowed.contains("refusing to listen on 0.0.0.0") && !allowed.contains("--http-insecure"), "{allowed}");
    // Nor does a worker, which would otherwise run until it is told to end.
    let mut worker = tokio::process::Command::new(env!("CARGO_BIN_EXE_zkinferd"));
    worker.args(["worker", "--server", "http://127.0.0.1:9", "--device", "cpu", "--http-listen", "0.0.0.0:0"]);
    let ended = tokio::time::timeout(Duration::from_secs(60), worker.current_dir(folder.path()).kill_on_drop(true).output()).await;
    let refused = String::from_utf8(ended.expect("it ends by itself").unwrap().stderr).unwrap();
    assert!(refused.contains("refusing to serve metrics and health on 0.0.0.0:0"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_tells_what_all_attempts_at_it_have_taken() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let waiting = client.proofs.create_job(job_request(&model, "steps=3 ms=20 device-once device-memory=700")).await.unwrap().into_inner();
    assert_eq!(waiting.cost, None);
    let job = client.job_end(&waiting.name).await;
    assert_eq!(job.state(), v1::job::State::Succeeded, "{:?}", job.failure);
    let cost = job.cost.unwrap();
    assert_eq!(cost.runs, 2);
    let time = |elapsed: Option<prost_types::Duration>| Duration::try_from(elapsed.unwrap()).unwrap();
    let layer = cost.stage_times.iter().find(|stage| stage.name == "layer").unwrap();
    let last_attempt = job.result.unwrap().stage_times.into_iter().find(|stage| stage.name == "layer").unwrap();
    // The attempt that failed had finished its layers too.
    assert!(time(layer.elapsed) >= time(last_attempt.elapsed) + Duration::from_millis(40), "{cost:?}");
    assert!(time(cost.compute_time) >= time(layer.elapsed));
    assert!(cost.peak_host_bytes > 0);
    assert_eq!((cost.peak_device_bytes, cost.device_time), (700, cost.compute_time));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_is_on_the_same_port() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    let port = loopback();
    config.http = Some(port.clone());
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, "steps=2").await.name;
    client.job_end(&job).await;
    let (code, head, _) = get(port.address(), "/").await;
    assert!(code == 307 && head.contains("location: /dashboard/"), "{head}");
    let (code, head, page) = get(port.address(), "/dashboard/").await;
    assert!(code == 200 && head.contains("content-security-policy: ") && page.starts_with("<!doctype html>"), "{head}");
    let (code, _, jobs) = get(port.address(), "/dashboard/api/jobs?state=SUCCEEDED").await;
    assert!(code == 200 && jobs.contains(job.rsplit('/').next().unwrap()), "{jobs}");
    let (code, _, overview) = get(port.address(), "/dashboard/api/overview").await;
    assert!(code == 200 && overview.contains("\"SUCCEEDED\":1") && overview.contains("\"devices\":[\"scripted\"]"), "{overview}");
    drop(client);
    service.stop().await;
}
