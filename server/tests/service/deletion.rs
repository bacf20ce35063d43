//! Jobs that are over are deleted, on request or for their age, and models on request, and their bytes with them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use tonic::Code;
use zkinfer_proto::name::ArtifactName;
use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_server::artifacts::{ArtifactBytes, ArtifactPlace, BytesError, Class, Collector};
use zkinfer_server::auth::{Authentication, KeyFile, Scopes};
use zkinfer_server::engine::sql::SqlEngine;
use zkinfer_server::limits::Limits;

use crate::harness::{Client, ENDLESS, Service, config, expect_error, job_request, with_bearer};
use crate::scripted_prover::PRIVATE_MARK;

fn deletion(name: &str) -> v1::DeleteJobRequest {
    v1::DeleteJobRequest { name: name.into(), allow_missing: false }
}

/// Asserts that a job is not there for anybody who asks.
async fn is_gone(client: &mut Client, name: &str) {
    let name = name.to_owned();
    let refusals = [
        client.proofs.get_job(v1::GetJobRequest { name: name.clone() }).await.unwrap_err(),
        client.proofs.wait_job(v1::WaitJobRequest { name: name.clone(), timeout: None }).await.unwrap_err(),
        client.proofs.watch_job(v1::WatchJobRequest { name: name.clone(), from_sequence: 1 }).await.unwrap_err(),
        client.proofs.list_job_tasks(v1::ListJobTasksRequest { name: name.clone() }).await.unwrap_err(),
        client.proofs.delete_job(deletion(&name)).await.unwrap_err(),
    ];
    for refusal in refusals {
        expect_error(&refusal, Code::NotFound, "NOT_FOUND");
        assert!(refusal.message().contains("was deleted"), "{refusal:?}");
    }
}

/// Executes a statement on the database of a service, beside it.
pub(crate) async fn by_hand(folder: &Path, sql: &str) {
    let options = SqliteConnectOptions::new().filename(folder.join("zkinfer.db")).busy_timeout(Duration::from_secs(10));
    let mut connection = options.connect().await.unwrap();
    connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

/// Deletes what nothing refers to, as if it were old, in the folder of a service that has ended.
async fn sweep(folder: &Path) -> ArtifactBytes {
    by_hand(folder, "UPDATE artifact_holds SET until_ms = 0").await;
    let engine = Arc::new(SqlEngine::open_sqlite(folder, &Limits::default()).await.unwrap());
    let bytes = ArtifactBytes::open(&ArtifactPlace::default(), None, &folder.join("artifacts")).await.unwrap();
    let collector = Collector::new(engine, bytes.clone(), Duration::ZERO);
    while collector.sweep().await.unwrap() > 0 {}
    bytes
}

async fn stored(bytes: &ArtifactBytes, name: &str) -> Result<bytes::Bytes, BytesError> {
    let ArtifactName { tenant, blake3 } = ArtifactName::parse(name).unwrap();
    bytes.get(Class::Public, &tenant, blake3).await
}

/// What a job that succeeded refers to alone.
fn own_artifacts(job: &v1::Job) -> [String; 3] {
    let Some(v1::input::Source::Artifact(input)) = job.input.clone().unwrap().source else { panic!("an input is an artifact") };
    let result = job.result.clone().unwrap();
    [input, result.proof_artifact, result.statement_artifact]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_has_ended_is_deleted_and_its_bytes_with_the_next_sweep() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await;
    let mut request = job_request(&model.name, "steps=2");
    request.request_id = uuid::Uuid::now_v7().to_string();
    let created = client.proofs.create_job(request.clone()).await.unwrap().into_inner();
    let kept = client.create_job(&model.name, "steps=1").await.name;
    let (job, kept) = (client.job_end(&created.name).await, client.job_end(&kept).await);
    assert_eq!((job.state(), kept.state()), (State::Succeeded, State::Succeeded));

    client.proofs.delete_job(deletion(&job.name)).await.unwrap();
    is_gone(&mut client, &job.name).await;
    client.proofs.delete_job(v1::DeleteJobRequest { name: job.name.clone(), allow_missing: true }).await.unwrap();
    let again = client.proofs.create_job(request).await.unwrap().into_inner();
    assert_eq!(again, created, "the request was answered before");
    is_gone(&mut client, &job.name).await;
    let listed = client.proofs.list_jobs(v1::ListJobsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.jobs, std::slice::from_ref(&kept));
    service.stop().await;

    let bytes = sweep(folder.path()).await;
    for name in own_artifacts(&job) {
        assert!(matches!(stored(&bytes, &name).await, Err(BytesError::Missing)), "{name}");
    }
    let key = job.result.unwrap().verifier_key_artifact;
    for name in own_artifacts(&kept).into_iter().chain([key, model.source_artifact]) {
        stored(&bytes, &name).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_has_not_ended_is_not_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let running = client.create_job(&model, ENDLESS).await.name;
    let queued = client.create_job(&model, "steps=1").await.name;
    client.job_runs(&running).await;
    for (name, state) in [(&running, "RUNNING"), (&queued, "QUEUED")] {
        let refusal = client.proofs.delete_job(v1::DeleteJobRequest { name: name.clone(), allow_missing: true }).await.unwrap_err();
        expect_error(&refusal, Code::FailedPrecondition, "JOB_NOT_FINAL");
        assert!(refusal.message().contains(state) && refusal.message().contains("cancel it"), "{refusal:?}");
    }
    client.cancel(&running).await;
    assert_eq!(client.job_end(&running).await.state(), State::Cancelled);
    client.proofs.delete_job(deletion(&running)).await.unwrap();
    is_gone(&mut client, &running).await;
    assert_eq!(client.job_end(&queued).await.state(), State::Succeeded);
    service.stop().await;
}

/// With keys of a tenant, of one who has only these of its scopes, and of another tenant.
async fn service_with_keys(folder: &Path, few_scopes: &str) -> (Service, Client, [String; 3]) {
    let path = folder.join("keys");
    let all = Scopes::of_tenant().to_string();
    let keys =
        [("acme", "all", all.as_str()), ("acme", "few", few_scopes), ("rival", "all", all.as_str())].map(|(tenant, name, scopes)| {
            let key = KeyFile::at(&path).create(tenant, name, Scopes::parse(scopes).unwrap(), None).unwrap();
            key.secret.expose_secret().to_owned()
        });
    let mut config = config(folder);
    config.authentication = Authentication::none().with_keys(&path).unwrap();
    let service = Service::start(config).await;
    let client = service.client().await;
    (service, client, keys)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_deletes_only_its_own_jobs_and_with_the_scope_to_create_them() {
    let folder = tempfile::tempdir().unwrap();
    let (service, mut client, [acme, reader, rival]) = service_with_keys(folder.path(), "jobs.read").await;
    let name = "tenants/acme/jobs/0190c7a2-0000-7000-8000-000000000001";
    let ask = |allow_missing, key: &str| with_bearer(v1::DeleteJobRequest { name: name.into(), allow_missing }, key);
    for allow_missing in [false, true] {
        let refusal = client.proofs.delete_job(ask(allow_missing, &rival)).await.unwrap_err();
        expect_error(&refusal, Code::NotFound, "NOT_FOUND");
        let refusal = client.proofs.delete_job(ask(allow_missing, &reader)).await.unwrap_err();
        expect_error(&refusal, Code::PermissionDenied, "SCOPE_MISSING");
    }
    expect_error(&client.proofs.delete_job(ask(false, &acme)).await.unwrap_err(), Code::NotFound, "NOT_FOUND");
    client.proofs.delete_job(ask(true, &acme)).await.unwrap();
    service.stop().await;
}

fn model_deletion(name: &str) -> v1::DeleteModelRequest {
    v1::DeleteModelRequest { name: name.into(), allow_missing: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_deleted_with_its_weights_and_its_proofs_stay() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await;
    let done = client.create_job(&model.name, "steps=2").await.name;
    let done = client.job_end(&done).await;
    let running = client.create_job(&model.name, ENDLESS).await.name;
    for allow_missing in [false, true] {
        let request = v1::DeleteModelRequest { name: model.name.clone(), allow_missing };
        let refusal = client.models.delete_model(request).await.unwrap_err();
        expect_error(&refusal, Code::FailedPrecondition, "MODEL_HAS_JOBS");
        assert!(refusal.message().contains("1 job of") && refusal.message().contains("cancel"), "{refusal:?}");
    }
    let registering = client.create_model("registering", "steps=1").await.name;
    let refusal = client.models.delete_model(model_deletion(&registering)).await.unwrap_err();
    expect_error(&refusal, Code::FailedPrecondition, "MODEL_NOT_FINAL");
    client.cancel(&running).await;
    assert_eq!(client.job_end(&running).await.state(), State::Cancelled);
    client.model_end(&registering).await;
    client.models.delete_model(model_deletion(&model.name)).await.unwrap();

    let name = model.name.clone();
    for refusal in [
        client.models.get_model(v1::GetModelRequest { name: name.clone() }).await.unwrap_err(),
        client.models.watch_model(v1::WatchModelRequest { name: name.clone(), from_sequence: 0 }).await.unwrap_err(),
        client.models.delete_model(model_deletion(&name)).await.unwrap_err(),
        client.proofs.create_job(job_request(&name, "steps=1")).await.unwrap_err(),
    ] {
        expect_error(&refusal, Code::NotFound, "NOT_FOUND");
    }
    client.models.delete_model(v1::DeleteModelRequest { name: name.clone(), allow_missing: true }).await.unwrap();
    let listed = client.models.list_models(v1::ListModelsRequest::default()).await.unwrap().into_inner().models;
    assert_eq!(listed.iter().map(|model| &model.name).collect::<Vec<_>>(), [&registering]);
    assert_eq!(client.get_job(&done.name).await, done);
    verifies(&mut client, &done).await;
    // Its name is free.
    let again = client.ready_model("mlp").await.name;
    assert_eq!(again, name);
    let job = client.create_job(&again, "steps=3").await.name;
    let job = client.job_end(&job).await;
    verifies(&mut client, &job).await;
    for name in [&again, &registering] {
        client.models.delete_model(model_deletion(name)).await.unwrap();
    }
    service.stop().await;

    // The uploads of the sources are forgotten, as after a day.
    by_hand(folder.path(), "DELETE FROM uploads").await;
    let bytes = sweep(folder.path()).await;
    let registered = model.registered.unwrap();
    for name in [&model.source_artifact, &registered.quantization_report_artifact] {
        assert!(matches!(stored(&bytes, name).await, Err(BytesError::Missing)), "{name}");
    }
    assert!(!is_stored(&folder.path().join("artifacts/internal"), PRIVATE_MARK), "what proving needs of the weights");
    for job in [&done, &job] {
        let key = job.result.clone().unwrap().verifier_key_artifact;
        for name in own_artifacts(job).iter().chain([&key]) {
            stored(&bytes, name).await.unwrap();
        }
    }
}

/// Asserts that the documents of a job are there, and that they verify.
async fn verifies(client: &mut Client, job: &v1::Job) {
    use v1::verify_proof_request::{Proof, Statement, VerifierKey};
    let result = job.result.clone().unwrap();
    for name in [&result.proof_artifact, &result.statement_artifact, &result.verifier_key_artifact] {
        client.read(name).await.unwrap();
    }
    let request = v1::VerifyProofRequest {
        proof: Some(Proof::ProofArtifact(result.proof_artifact)),
        statement: Some(Statement::StatementArtifact(result.statement_artifact)),
        verifier_key: Some(VerifierKey::VerifierKeyArtifact(result.verifier_key_artifact)),
    };
    assert!(client.proofs.verify_proof(request).await.unwrap().into_inner().valid);
}

/// Whether a file below the folder holds these bytes.
fn is_stored(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => is_stored(&path, bytes),
            false => std::fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes),
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_deletes_only_its_own_models_and_with_the_scope_to_register_them() {
    let folder = tempfile::tempdir().unwrap();
    let (service, mut client, [acme, reader, rival]) = service_with_keys(folder.path(), "models.read,jobs.create").await;
    let name = "tenants/acme/models/mlp";
    let ask = |allow_missing, key: &str| with_bearer(v1::DeleteModelRequest { name: name.into(), allow_missing }, key);
    for allow_missing in [false, true] {
        let refusal = client.models.delete_model(ask(allow_missing, &rival)).await.unwrap_err();
        expect_error(&refusal, Code::NotFound, "NOT_FOUND");
        let refusal = client.models.delete_model(ask(allow_missing, &reader)).await.unwrap_err();
        expect_error(&refusal, Code::PermissionDenied, "SCOPE_MISSING");
    }
    expect_error(&client.models.delete_model(ask(false, &acme)).await.unwrap_err(), Code::NotFound, "NOT_FOUND");
    client.models.delete_model(ask(true, &acme)).await.unwrap();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_time_deletes_old_jobs_and_only_if_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.drain = Duration::from_millis(50);
    let service = Service::start(config.clone()).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let old = client.create_job(&model, "steps=1").await.name;
    client.job_end(&old).await;
    service.stop().await;

    let service = Service::start(config.clone()).await;
    let mut client = service.client().await;
    let waits = client.create_job(&model, ENDLESS).await.name;
    client.job_runs(&waits).await;
    assert_eq!(client.get_job(&old).await.state(), State::Succeeded, "nobody said for how long");
    service.stop().await;

    config.job_retention = Some(Duration::from_millis(1));
    let service = Service::start(config).await;
    let mut client = service.client().await;
    while client.proofs.get_job(v1::GetJobRequest { name: old.clone() }).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    is_gone(&mut client, &old).await;
    assert!(!matches!(client.get_job(&waits).await.state(), State::Succeeded));
    client.cancel(&waits).await;
    service.stop().await;
}

/// As when it was deleted while its watcher did not read.
#[tokio::test(flavor = "multi_thread")]
async fn who_watches_a_job_that_is_gone_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.heartbeat = Duration::from_millis(50);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let running = client.create_job(&model, ENDLESS).await.name;
    let queued = client.create_job(&model, "steps=1").await.name;
    let request = v1::WatchJobRequest { name: queued.clone(), from_sequence: 0 };
    let mut stream = client.proofs.watch_job(request).await.unwrap().into_inner();
    for _ in 0..2 {
        assert!(stream.message().await.unwrap().is_some(), "it is there");
    }
    let id = queued.rsplit('/').next().unwrap();
    by_hand(
        folder.path(),
        &format!("DELETE FROM tasks WHERE subject = '{id}'; DELETE FROM events WHERE subject = '{id}'; DELETE FROM jobs WHERE id = '{id}'"),
    )
    .await;
    let refusal = loop {
        match stream.message().await {
            Ok(event) => assert!(event.is_some(), "it does not end as if the job had"),
            Err(refusal) => break refusal,
        }
    };
    expect_error(&refusal, Code::NotFound, "NOT_FOUND");
    client.cancel(&running).await;
    service.stop().await;
}
