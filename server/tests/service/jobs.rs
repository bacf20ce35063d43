//! Jobs: admitted, idempotent, cancelled, failed, listed.

use std::time::Duration;

use tonic::Code;
use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;

use crate::harness::{ENDLESS, Service, config, expect_error, fields, job_request};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_gives_a_proof_that_verifies_and_only_for_its_statement() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await;
    let other = client.create_model("other", "steps=2").await;
    client.model_end(&other.name).await;
    let created = client.create_job(&model.name, "steps=2").await;
    assert_eq!(created.state(), State::Queued);
    let job = client.job_end(&created.name).await;
    assert_eq!(job.state(), State::Succeeded, "{:?}", job.failure);
    let result = job.result.unwrap();
    let statement = result.statement.clone().unwrap();
    assert_eq!(statement.model_commitment, model.registered.unwrap().model_commitment);
    assert_eq!(statement.context_nonce, [0; 32]);
    let stages: Vec<&str> = result.stage_times.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(stages, ["layer", "verify"]);

    let request = |key| v1::VerifyProofRequest {
        proof: Some(v1::verify_proof_request::Proof::ProofArtifact(result.proof_artifact.clone())),
        statement: Some(v1::verify_proof_request::Statement::StatementArtifact(result.statement_artifact.clone())),
        verifier_key: Some(key),
    };
    use v1::verify_proof_request::VerifierKey;
    let answer = client.proofs.verify_proof(request(VerifierKey::Model(model.name.clone())));
    let answer = answer.await.unwrap().into_inner();
    assert!(answer.valid, "{}", answer.message);
    assert_eq!(answer.statement, Some(statement));
    let answer = client.proofs.verify_proof(request(VerifierKey::Model(other.name)));
    let answer = answer.await.unwrap().into_inner();
    assert_eq!((answer.valid, answer.reason.as_str()), (false, "OTHER_MODEL"));

    let proof = client.read(&result.proof_artifact).await.unwrap();
    let mut wrong = request(VerifierKey::VerifierKeyArtifact(result.verifier_key_artifact.clone()));
    let mut changed = proof.clone();
    changed[3] ^= 1;
    wrong.proof = Some(v1::verify_proof_request::Proof::ProofBytes(changed));
    let answer = client.proofs.verify_proof(wrong).await.unwrap().into_inner();
    assert_eq!((answer.valid, answer.reason.as_str()), (false, "PROOF_INVALID"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_wrong_fields_of_a_job_are_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let mut request = job_request("models/mlp", "");
    request.input_salt = vec![1; 32];
    let job = request.job.as_mut().unwrap();
    job.context_nonce = vec![0xff; 32];
    job.priority = 101;
    job.input.as_mut().unwrap().encoding = 0;
    let status = client.proofs.create_job(request).await.unwrap_err();
    let details = expect_error(&status, Code::InvalidArgument, "INVALID_FIELDS");
    let expected = ["job.model", "job.priority", "job.context_nonce", "job.input.encoding", "job.input.inline", "input_salt"];
    assert_eq!(fields(&details), expected);

    let status = client.proofs.create_job(job_request("tenants/default/models/none", "steps=1")).await.unwrap_err();
    let details = expect_error(&status, Code::NotFound, "NOT_FOUND");
    assert_eq!(details.resource_info().unwrap().resource_type, "model");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_fails_its_job_and_the_next_one_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let broken = client.create_job(&model, "steps=1 panic").await.name;
    let healthy = client.create_job(&model, "steps=1").await.name;
    let failure = client.job_end(&broken).await.failure.unwrap();
    assert_eq!(failure.reason, "INTERNAL");
    assert!(!failure.message.contains("scripted"), "internals stay inside");
    assert_eq!(client.job_end(&healthy).await.state(), State::Succeeded);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again_and_what_never_verifies_is_not_published() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let once = client.create_job(&model, "steps=1 device-once").await.name;
    let always = client.create_job(&model, "steps=1 device").await.name;
    let wrong = client.create_job(&model, "steps=1 wrong").await.name;
    let job = client.job_end(&once).await;
    assert_eq!(job.state(), State::Succeeded);
    assert_eq!(job.progress.unwrap().attempt, 2);
    let failure = client.job_end(&always).await.failure.unwrap();
    assert_eq!((failure.reason.as_str(), failure.attempts), ("DEVICE_LOST", 8));
    let job = client.job_end(&wrong).await;
    assert_eq!(job.result, None);
    assert_eq!(job.failure.unwrap().reason, "PROOF_INVALID");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_and_running_jobs_are_cancelled_and_final_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let running = client.create_job(&model, ENDLESS).await.name;
    let queued = client.create_job(&model, "steps=1").await.name;
    client.job_runs(&running).await;
    let position = client.get_job(&queued).await.progress.unwrap().queue_position;
    assert_eq!(position, 0);

    let job = client.cancel(&queued).await;
    assert_eq!(job.state(), State::Cancelled);
    assert_eq!(job.failure.unwrap().message, "no longer needed");
    let job = client.cancel(&running).await;
    assert_eq!(job.state(), State::Cancelling);
    let job = client.job_end(&running).await;
    assert_eq!(job.state(), State::Cancelled);
    assert_eq!(job.result, None);
    assert_eq!(client.cancel(&running).await, job, "a final job stays as it is");

    let done = client.create_job(&model, "steps=1").await.name;
    assert_eq!(client.job_end(&done).await.state(), State::Succeeded);
    assert_eq!(client.cancel(&done).await.state(), State::Succeeded);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_running_and_a_queued_job() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let deadline = std::time::SystemTime::now() + Duration::from_millis(300);
    let mut names = Vec::new();
    for _ in 0..2 {
        let mut request = job_request(&model, ENDLESS);
        request.job.as_mut().unwrap().deadline = Some(deadline.into());
        names.push(client.proofs.create_job(request).await.unwrap().into_inner().name);
    }
    for name in names {
        let job = client.job_end(&name).await;
        assert_eq!(job.state(), State::Expired);
        assert_eq!(job.failure.unwrap().reason, "DEADLINE");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_equal_requests_at_once_make_one_job() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let mut request = job_request(&model, "steps=1");
    request.request_id = uuid::Uuid::new_v4().to_string();
    let calls = (0..3).map(|_| {
        let (mut client, request) = (client.clone(), request.clone());
        async move { client.proofs.create_job(request).await.unwrap().into_inner() }
    });
    let answers = futures::future::join_all(calls).await;
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    let all = client.proofs.list_jobs(v1::ListJobsRequest::default()).await.unwrap().into_inner();
    assert_eq!(all.jobs.len(), 1);

    request.job.as_mut().unwrap().priority = 7;
    let status = client.proofs.create_job(request).await.unwrap_err();
    expect_error(&status, Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_filtered_and_run_by_priority() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let blocker = client.create_job(&model, ENDLESS).await.name;
    client.job_runs(&blocker).await;
    let mut names = Vec::new();
    for priority in [0, 5] {
        let mut request = job_request(&model, "steps=1");
        let job = request.job.as_mut().unwrap();
        job.priority = priority;
        job.labels = [("run".to_owned(), priority.to_string())].into();
        names.push(client.proofs.create_job(request).await.unwrap().into_inner().name);
    }
    let labels = [("run".to_owned(), "5".to_owned())].into();
    let request = v1::ListJobsRequest { labels, ..Default::default() };
    let found = client.proofs.list_jobs(request).await.unwrap().into_inner().jobs;
    assert_eq!(found.iter().map(|job| &job.name).collect::<Vec<_>>(), [&names[1]]);
    let states = vec![State::Running as i32];
    let request = v1::ListJobsRequest { states, model: model.clone(), ..Default::default() };
    let found = client.proofs.list_jobs(request).await.unwrap().into_inner().jobs;
    assert_eq!(found.iter().map(|job| &job.name).collect::<Vec<_>>(), [&blocker]);

    client.cancel(&blocker).await;
    let (low, high) = (client.job_end(&names[0]).await, client.job_end(&names[1]).await);
    let time = |job: &v1::Job| job.start_time.map(|t| (t.seconds, t.nanos)).unwrap();
    assert!(time(&high) <= time(&low));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_refused_with_a_time_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.queued_per_tenant = 2;
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let blocker = client.create_job(&model, ENDLESS).await.name;
    client.job_runs(&blocker).await;
    client.create_job(&model, "steps=1").await;
    client.create_job(&model, "steps=1").await;
    let status = client.proofs.create_job(job_request(&model, "steps=1")).await.unwrap_err();
    let details = expect_error(&status, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    assert!(details.quota_failure().is_some());
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    client.cancel(&blocker).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn estimates_come_from_the_model_or_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    use v1::estimate_job_request::Target;
    let request = |target| v1::EstimateJobRequest { target: Some(target), ..Default::default() };
    let cost = client.proofs.estimate_job(request(Target::Model(model))).await.unwrap();
    assert_eq!(cost.into_inner().task_count, 4);
    let source = client.upload(b"steps=7").await;
    let cost = client.proofs.estimate_job(request(Target::SourceArtifact(source))).await.unwrap();
    assert_eq!(cost.into_inner().proof_bytes, 32);
    let source = client.upload(b"reject").await;
    let status = client.proofs.estimate_job(request(Target::SourceArtifact(source))).await.unwrap_err();
    let details = expect_error(&status, Code::InvalidArgument, "UNSUPPORTED_OP");
    assert_eq!(fields(&details), ["source_artifact"]);
    service.stop().await;
}
