//! Jobs as their requests describe them, and waits for their ends: of a service whose prover does what its inputs say.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use zkinfer_client::proto::Privacy;
use zkinfer_client::proto::job::State;
use zkinfer_client::{Client, ContextNonce, InputSalt, JobInput, JobRequest, MediaType, ModelRequest, UploadSource, is_final_job};
use zkinfer_server::Config;
use zkinfer_server::limits::Limits;
use zkinfer_server::prover::{InputEncoding, Prover as _};

use crate::scripted_prover::ScriptedProver;
use crate::service::Service;
use crate::{command, refusal};

/// The script of a job that runs for as long as a test could take: until it is cancelled.
const ENDLESS: &str = "steps=100000 ms=20";
/// Longer than any test.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(3600);

/// A service, a client of it, and the name of a model.
pub(crate) async fn start(limits: Limits) -> (Service, Client, String) {
    let service = Service::start_of(Arc::new(ScriptedProver::default()), |data| Config { limits, ..Config::new(data) }).await;
    let client = Client::connect(&service.address).await.unwrap();
    let model = register(&client, ModelRequest::new("digits", "")).await;
    (service, client, model)
}

/// Registers a model of one step; answers its name.
pub(crate) async fn register(client: &Client, request: ModelRequest) -> String {
    let source = client.upload(&UploadSource::from(b"steps=1".to_vec()), MediaType::Onnx).await.unwrap();
    let model = client.create_model(&ModelRequest { source_artifact: source.name, ..request }).await.unwrap();
    client.finish_model(&model.name, |_| {}).await.unwrap();
    model.name
}

pub(crate) fn job(model: &str, script: &str) -> JobRequest {
    JobRequest::new(model, JobInput::Uint8(script.into()))
}

#[tokio::test]
async fn all_that_a_request_says_reaches_the_service() {
    let (service, client, model) = start(Limits::default()).await;
    let (salt, nonce) = (InputSalt::fresh().unwrap(), ContextNonce::of_context(b"order 7"));
    let deadline = SystemTime::now() + FOR_EVER;
    let request = job(&model, "steps=1").with_nonce(nonce).with_priority(-7).with_deadline(deadline).with_label("run", "7");
    let request = request.with_input_salt(salt.clone());
    let expected = ScriptedProver::default().input_commitment(&[], b"steps=1", InputEncoding::Uint8, salt.expose()).unwrap();
    let alone = client.create_job(&request).await.unwrap();
    let mut created = client.create_jobs(std::slice::from_ref(&request)).await.unwrap();
    created.push(alone);
    for created in created {
        let job = client.wait_job(&created.name, FOR_EVER).await.unwrap();
        assert_eq!(job.state(), State::Succeeded, "{:?}", job.failure);
        assert_eq!((job.priority, job.deadline), (-7, Some(deadline.into())));
        assert_eq!((job.labels.len(), job.labels["run"].as_str()), (1, "7"));
        assert_eq!((job.privacy(), &job.context_nonce), (Privacy::InputCommitted, &nonce.to_bytes().to_vec()));
        assert_eq!(job.result.unwrap().statement.unwrap().input_commitment, expected, "the salt is the caller's");
    }
    let wrong = JobRequest { input_salt: Some(salt), ..job(&model, "steps=1").with_priority(101) };
    let refused = refusal(client.create_job(&wrong).await.unwrap_err());
    let fields: Vec<&str> = refused.fields.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["job.priority", "input_salt"]);
    service.stop().await;
}

#[tokio::test]
async fn a_job_whose_deadline_has_passed_expires() {
    let (service, client, model) = start(Limits::default()).await;
    let past = SystemTime::now() - Duration::from_secs(1);
    let created = client.create_job(&job(&model, ENDLESS).with_deadline(past)).await.unwrap();
    let ended = client.wait_job(&created.name, FOR_EVER).await.unwrap();
    assert_eq!((ended.state(), ended.failure.unwrap().reason.as_str()), (State::Expired, "DEADLINE"));

    let input = service.folder().join("input");
    std::fs::write(&input, ENDLESS).unwrap();
    let input = input.to_str().unwrap();
    let prove = ["prove", "--model", "digits", "--input", input, "--priority", "-5", "--deadline", "2020-01-31T12:00:00Z"];
    let (code, said) = command(&service, &prove).await;
    assert_eq!((code, said["reason"].as_str()), (Some(6), Some("DEADLINE")));
    let (code, said) = command(&service, &["jobs", "--state", "expired", "--state", "queued", "--model", "digits"]).await;
    assert_eq!((code, said["jobs"].as_array().unwrap().len(), &said["more"]), (Some(0), 2, &false.into()));
    let newest = &said["jobs"][0];
    assert_eq!((newest["priority"].as_i64(), newest["deadline"].as_str()), (Some(-5), Some("2020-01-31T12:00:00Z")));
    assert_eq!((newest["state"].as_str(), newest["reason"].as_str()), (Some("STATE_EXPIRED"), Some("DEADLINE")));
    service.stop().await;
}

#[tokio::test]
async fn a_wait_ends_with_its_job_or_with_its_time() {
    // It takes many calls.
    let (service, client, model) = start(Limits { wait: Duration::from_millis(10), ..Limits::default() }).await;
    let name = client.create_job(&job(&model, ENDLESS)).await.unwrap().name;
    for timeout in [Duration::ZERO, Duration::from_millis(300)] {
        let waited = client.wait_job(&name, timeout).await.unwrap();
        assert!(!is_final_job(waited.state()), "{:?}", waited.state());
    }
    let (waited, cancelled) = tokio::join!(client.wait_job(&name, FOR_EVER), client.cancel_job(&name, "no longer needed"));
    cancelled.unwrap();
    let waited = waited.unwrap();
    assert_eq!((waited.state(), waited.failure.unwrap().message.as_str()), (State::Cancelled, "no longer needed"));
    let nobody = "tenants/default/jobs/0190c7a2-0000-7000-8000-000000000001";
    assert_eq!(refusal(client.wait_job(nobody, FOR_EVER).await.unwrap_err()).reason, "NOT_FOUND");
    service.stop().await;
}
