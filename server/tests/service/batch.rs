//! Batches of jobs: all or none, once.

use tonic::Code;
use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;

use crate::harness::{Service, config, expect_error, fields, job_request};

fn batch(model: &str, scripts: &[&str]) -> v1::BatchCreateJobsRequest {
    v1::BatchCreateJobsRequest { requests: scripts.iter().map(|script| job_request(model, script)).collect(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_jobs_of_a_batch_are_admitted_in_order_and_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let mut request = batch(&model, &["steps=1", "steps=2", "steps=3"]);
    request.request_id = uuid::Uuid::new_v4().to_string();
    for (index, single) in request.requests.iter_mut().enumerate() {
        single.job.as_mut().unwrap().labels.insert("place".to_owned(), index.to_string());
    }
    let jobs = client.proofs.batch_create_jobs(request.clone()).await.unwrap().into_inner().jobs;
    assert_eq!(jobs.iter().map(|job| job.labels["place"].as_str()).collect::<Vec<_>>(), ["0", "1", "2"]);
    let again = client.proofs.batch_create_jobs(request.clone()).await.unwrap().into_inner().jobs;
    assert_eq!(again, jobs, "the first answer is given again");
    for job in &jobs {
        assert_eq!(client.job_end(&job.name).await.state(), State::Succeeded);
    }
    let all = client.proofs.list_jobs(v1::ListJobsRequest::default()).await.unwrap().into_inner();
    assert_eq!(all.jobs.len(), 3);

    request.requests.pop();
    let status = client.proofs.batch_create_jobs(request).await.unwrap_err();
    expect_error(&status, Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_one_job_refuses_the_batch_and_names_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.batch_jobs = 4;
    config.limits.queued_per_tenant = 3;
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;

    let mut request = batch(&model, &["steps=1", "", "steps=1"]);
    request.requests[0].request_id = uuid::Uuid::new_v4().to_string();
    request.requests[2].job = None;
    let status = client.proofs.batch_create_jobs(request).await.unwrap_err();
    let details = expect_error(&status, Code::InvalidArgument, "INVALID_FIELDS");
    let found = fields(&details);
    assert_eq!(found[..3], ["requests[0].request_id", "requests[1].job.input.inline", "requests[2].job"]);

    for count in [0, 5] {
        let status = client.proofs.batch_create_jobs(batch(&model, &vec!["steps=1"; count])).await.unwrap_err();
        assert_eq!(fields(&expect_error(&status, Code::InvalidArgument, "INVALID_FIELDS")), ["requests"]);
    }

    let mut request = batch(&model, &["steps=1", "steps=1"]);
    request.requests[1].job.as_mut().unwrap().model = "tenants/default/models/none".to_owned();
    let status = client.proofs.batch_create_jobs(request).await.unwrap_err();
    let details = expect_error(&status, Code::NotFound, "NOT_FOUND");
    assert_eq!(details.resource_info().unwrap().resource_name, "tenants/default/models/none");

    let status = client.proofs.batch_create_jobs(batch(&model, &["steps=1"; 4])).await.unwrap_err();
    expect_error(&status, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    let all = client.proofs.list_jobs(v1::ListJobsRequest::default()).await.unwrap().into_inner();
    assert!(all.jobs.is_empty(), "of a refused batch nothing is admitted");
    service.stop().await;
}

/// Naming every one of so many wrong fields would exceed the headers that a client takes, and cost it the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_wrong_throughout_is_refused_in_few_words_and_a_large_answer_beforehand() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.message_bytes = 64 << 10;
    config.limits.chunk_bytes = 16 << 10;
    config.limits.inline_input_bytes = 16 << 10;
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let status = client.proofs.batch_create_jobs(batch("", &[""; 256])).await.unwrap_err();
    let details = expect_error(&status, Code::InvalidArgument, "INVALID_FIELDS");
    let found = fields(&details);
    assert_eq!((found.len(), found[0], found[20]), (21, "requests[0].job.model", "*"));
    assert!(status.message().ends_with("492 more fields are wrong"), "{}", status.message());

    let model = client.ready_model("mlp").await.name;
    let status = client.proofs.batch_create_jobs(batch(&model, &["steps=1"; 240])).await.unwrap_err();
    assert_eq!(fields(&expect_error(&status, Code::InvalidArgument, "INVALID_FIELDS")), ["requests"]);
    let all = client.proofs.list_jobs(v1::ListJobsRequest::default()).await.unwrap().into_inner();
    assert!(all.jobs.is_empty());
    service.stop().await;
}
