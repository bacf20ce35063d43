//! Log lines and traces of a service: they are of the whole process, so these tests have a process of their own.

#[path = "../collector/mod.rs"]
mod collector;
#[allow(dead_code, reason = "the tests of the service use the rest")]
#[path = "../service/harness.rs"]
mod harness;
#[path = "../support/log.rs"]
mod log;
#[path = "../service/scripted_prover.rs"]
mod scripted_prover;

use std::sync::LazyLock;

use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::{Code, Request};
use zkinfer_proto::v1;
use zkinfer_server::observe::{LogFormat, LogOptions, Logging, TraceDetail, TraceOptions, start_logging};

use collector::{Collector, attribute};
use harness::{Client, Service, config, expect_error, job_request};
use log::Log;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// One runtime, log and collector for all tests.
struct Process {
    runtime: Runtime,
    log: Log,
    collector: Collector,
    _logging: Logging,
}

static PROCESS: LazyLock<Process> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let log = Log::default();
    let (collector, logging) = runtime.block_on(async {
        let collector = Collector::start().await;
        let traces = Some(TraceOptions { endpoint: collector.endpoint.clone(), detail: TraceDetail::Stages });
        let filter = "info,zkinfer_server=trace";
        let logging = start_logging(&LogOptions { filter, format: LogFormat::Json, traces }, log.clone()).unwrap();
        (collector, logging)
    });
    Process { runtime, log, collector, _logging: logging }
});

impl Process {
    fn lines(&self) -> Vec<Value> {
        self.log.text().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }
}

/// A call in the trace of the tests, with a key that must not be logged.
fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", format!("00-{TRACE_ID}-{CALLER}-01").parse().unwrap());
    request.metadata_mut().insert("authorization", "Bearer open-sesame".parse().unwrap());
    request
}

async fn job_in_trace(client: &mut Client, model: &str, script: &str) -> v1::Job {
    let name = client.proofs.create_job(traced(job_request(model, script))).await.unwrap().into_inner().name;
    client.job_end(&name).await
}

/// A field of a line, in any of its spans.
fn field<'a>(line: &'a Value, name: &str) -> Option<&'a str> {
    line["spans"].as_array()?.iter().find_map(|span| span[name].as_str())
}

fn id(name: &str) -> &str {
    name.rsplit('/').next().unwrap()
}

#[test]
fn a_job_is_a_part_of_its_callers_trace_from_the_call_to_its_work() {
    let process = &*PROCESS;
    process.runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::start(config(folder.path())).await;
        let mut client = service.client().await;
        let model = client.ready_model("traced").await.name;
        let job = job_in_trace(&mut client, &model, "steps=3").await;
        assert!(job.trace_parent.starts_with(&format!("00-{TRACE_ID}-")), "{}", job.trace_parent);

        let in_trace = |span: &collector::Span| hex::encode(&span.trace_id) == TRACE_ID;
        let created = "zkinfer.v1.ProofService/CreateJob";
        let call = process.collector.find(created, |span| in_trace(span) && span.name == created).await;
        assert_eq!(hex::encode(&call.parent_span_id), CALLER);
        assert_eq!((attribute(&call, "tenant"), attribute(&call, "trace_id")), (Some("default"), Some(TRACE_ID)));
        let is_work = |span: &collector::Span| in_trace(span) && attribute(span, "job") == Some(id(&job.name));
        let work = process.collector.find("prove", is_work).await;
        assert_eq!((work.name.as_str(), &work.parent_span_id), ("prove", &call.span_id));
        // A call without a trace begins one.
        let registered = process.collector.find("register", |span| attribute(span, "model") == Some("traced")).await;
        let call = process.collector.find("CreateModel", |span| span.span_id == registered.parent_span_id).await;
        assert_eq!((call.name.as_str(), call.parent_span_id.len()), ("zkinfer.v1.ModelService/CreateModel", 0));
        service.stop().await;
    });
}

#[test]
fn an_error_names_the_trace_that_its_log_lines_are_in() {
    let process = &*PROCESS;
    process.runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::start(config(folder.path())).await;
        let mut client = service.client().await;
        let request = v1::GetJobRequest { name: "tenants/default/jobs/00000000-0000-7000-8000-000000000000".into() };
        let status = client.proofs.get_job(traced(request.clone())).await.unwrap_err();
        let details = expect_error(&status, Code::NotFound, "NOT_FOUND");
        assert_eq!(details.request_info().unwrap().serving_data, TRACE_ID);
        let mut twice = traced(request.clone());
        twice.metadata_mut().append("traceparent", format!("00-{TRACE_ID}-{CALLER}-01").parse().unwrap());
        for request in [Request::new(request), twice] {
            let status = client.proofs.get_job(request).await.unwrap_err();
            let own = expect_error(&status, Code::NotFound, "NOT_FOUND").request_info().unwrap().serving_data.clone();
            assert!(own.len() == 32 && own != TRACE_ID, "{own}");
        }
        service.stop().await;
    });
}

#[test]
fn log_lines_carry_the_ids_of_the_work_and_nothing_private() {
    let process = &*PROCESS;
    let (salt, secret) = ([5u8; 32], "steps=2 ms=1 secret-input");
    let job = process.runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::start(config(folder.path())).await;
        let mut client = service.client().await;
        let name = client.create_model("logged", "steps=1 secret-weights").await.name;
        let model = client.model_end(&name).await.name;
        let mut request = job_request(&model, secret);
        request.input_salt = salt.to_vec();
        request.job.as_mut().unwrap().privacy = v1::Privacy::InputCommitted as i32;
        let name = client.proofs.create_job(traced(request)).await.unwrap().into_inner().name;
        let job = client.job_end(&name).await;
        assert_eq!(job.state(), v1::job::State::Succeeded, "{:?}", job.failure);
        job_in_trace(&mut client, &model, "panic").await;
        service.stop().await;
        job
    });
    let lines = process.lines();
    let of_job: Vec<&Value> = lines.iter().filter(|line| field(line, "job") == Some(id(&job.name))).collect();
    let said = |message: &str| of_job.iter().any(|line| line["fields"]["message"] == message);
    assert!(said("started") && said("proved"), "{of_job:?}");
    for line in of_job {
        let fields = ["task", "tenant", "trace_id"].map(|name| field(line, name));
        assert_eq!(fields, [Some("prove"), Some("default"), Some(TRACE_ID)], "{line}");
    }
    assert!(lines.iter().any(|line| field(line, "model") == Some("logged") && field(line, "task") == Some("register")));
    let text = process.log.text();
    let hidden = ["secret-input", "secret-weights", "open-sesame", "private material of the model", "5, 5, 5, 5", &hex::encode(salt)];
    for private in hidden {
        assert!(!text.contains(private), "{private}");
    }
}
