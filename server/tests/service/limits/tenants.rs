//! What a tenant may have: its places beside those of others, its uploads, its credentials.

use std::time::Duration;

use futures::future::select_all;
use jsonwebtoken::Algorithm;
use secrecy::ExposeSecret as _;
use tonic::{Code, Status, Streaming};
use zkinfer_proto::v1;
use zkinfer_server::auth::{Authentication, KeyFile, Scopes, TokenClaims};

use super::PATIENCE;
use crate::harness::{Client, Service, chunks, config, expect_error, with_bearer};
use crate::tokens::{AUDIENCE, ISSUER, Signer, claims_with};

/// A tenant with a key, on a connection of its own.
pub(super) struct Tenant {
    pub(super) client: Client,
    pub(super) key: String,
}

impl Tenant {
    async fn upload(&mut self, bytes: &[u8]) -> String {
        let blake3 = blake3::hash(bytes).as_bytes().to_vec();
        let request = v1::BeginUploadRequest { size_bytes: bytes.len() as i64, blake3, ..Default::default() };
        let upload = self.client.artifacts.begin_upload(with_bearer(request, &self.key)).await.unwrap().into_inner().upload;
        let stream = with_bearer(tokio_stream::iter(chunks(&upload, bytes, 0, 1 << 20)), &self.key);
        self.client.artifacts.write_chunks(stream).await.unwrap().into_inner().artifact.unwrap().name
    }

    pub(super) async fn model(&mut self) -> String {
        let source_artifact = self.upload(b"steps=1").await;
        let model = Some(v1::Model { source_artifact, ..Default::default() });
        let request = v1::CreateModelRequest { model_id: "mlp".into(), model, ..Default::default() };
        self.client.models.create_model(with_bearer(request, &self.key)).await.unwrap().into_inner().name
    }

    pub(super) async fn watch(&mut self, model: &str) -> Result<Streaming<v1::ModelEvent>, Status> {
        let request = v1::WatchModelRequest { name: model.into(), from_sequence: 0 };
        Ok(self.client.models.watch_model(with_bearer(request, &self.key)).await?.into_inner())
    }

    /// A verification that takes as long as the proof says.
    pub(super) fn verifies(&self, proof: &str) -> tokio::task::JoinHandle<Result<(), Status>> {
        use v1::verify_proof_request::{Proof, Statement, VerifierKey};
        let request = v1::VerifyProofRequest {
            proof: Some(Proof::ProofBytes(proof.into())),
            statement: Some(Statement::StatementBytes(vec![0; 96])),
            verifier_key: Some(VerifierKey::VerifierKeyBytes(vec![0; 32])),
        };
        let (mut client, request) = (self.client.clone(), with_bearer(request, &self.key));
        tokio::spawn(async move { client.proofs.verify_proof(request).await.map(drop) })
    }

    /// Announces an upload; answers its name.
    async fn begin(&mut self, bytes: &[u8]) -> String {
        let blake3 = blake3::hash(bytes).as_bytes().to_vec();
        let request = v1::BeginUploadRequest { size_bytes: bytes.len() as i64, blake3, ..Default::default() };
        self.client.artifacts.begin_upload(with_bearer(request, &self.key)).await.unwrap().into_inner().upload
    }

    async fn write(&mut self, chunks: Vec<v1::WriteChunksRequest>) -> Result<v1::UploadSession, Status> {
        let stream = with_bearer(tokio_stream::iter(chunks), &self.key);
        Ok(self.client.artifacts.write_chunks(stream).await?.into_inner())
    }

    /// How much of an upload is there.
    async fn committed(&mut self, upload: &str) -> usize {
        let request = with_bearer(v1::GetUploadRequest { upload: upload.into() }, &self.key);
        self.client.artifacts.get_upload(request).await.unwrap().into_inner().committed_bytes as usize
    }

    async fn download(&mut self, name: &str) -> Result<Streaming<v1::ReadArtifactResponse>, Status> {
        let request = v1::ReadArtifactRequest { name: name.into(), ..Default::default() };
        Ok(self.client.artifacts.read_artifact(with_bearer(request, &self.key)).await?.into_inner())
    }
}

/// A service with tenants, each with a connection of its own.
pub(super) async fn service_of_two(mut config: zkinfer_server::Config) -> (Service, [Tenant; 2]) {
    let path = config.data_dir.join("keys");
    let keys = ["acme", "rival"].map(|tenant| KeyFile::at(&path).create(tenant, "key", Scopes::of_tenant(), None).unwrap().secret);
    config.authentication = Authentication::none().with_keys(&path).unwrap();
    let service = Service::start(config).await;
    let [acme, rival] = keys.map(|key| key.expose_secret().to_owned());
    let tenants = [Tenant { client: service.client().await, key: acme }, Tenant { client: service.client().await, key: rival }];
    (service, tenants)
}

/// Asserts that there is no place, and of whom there are too many.
pub(super) fn has_no_place<T>(answer: Result<T, Status>, reason: &str, subject: &str) {
    let Err(status) = answer else { panic!("there is a place") };
    let details = expect_error(&status, Code::ResourceExhausted, reason);
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, subject);
    assert!(details.retry_info().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_watches_much_leaves_places_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    // Its models stay as they are.
    config.workers = 0;
    (config.limits.watchers, config.limits.watchers_per_tenant) = (3, 2);
    let (service, [mut acme, mut rival]) = service_of_two(config).await;
    let (of_acme, of_rival) = (acme.model().await, rival.model().await);
    let first = acme.watch(&of_acme).await.unwrap();
    let second = acme.watch(&of_acme).await.unwrap();
    has_no_place(acme.watch(&of_acme).await, "TOO_MANY_WATCHERS", "tenants/acme");
    let mut third = rival.watch(&of_rival).await.unwrap();
    assert!(third.message().await.unwrap().is_some());
    has_no_place(rival.watch(&of_rival).await, "TOO_MANY_WATCHERS", "watchers");
    drop(first);
    let free = async { while acme.watch(&of_acme).await.is_err() {} };
    tokio::time::timeout(PATIENCE, free).await.expect("the place is free again");
    drop((second, third));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_downloads_much_leaves_places_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    (config.limits.downloads, config.limits.downloads_per_tenant) = (2, 1);
    let (service, [mut acme, mut rival]) = service_of_two(config).await;
    let bytes = vec![7; 8_000_000];
    let (of_acme, of_rival) = (acme.upload(&bytes).await, rival.upload(&bytes).await);
    // On a connection of its own, whose window is soon full.
    let mut other = Tenant { client: service.client().await, key: acme.key.clone() };
    let stalled = other.download(&of_acme).await.unwrap();
    has_no_place(acme.download(&of_acme).await, "TOO_MANY_DOWNLOADS", "tenants/acme");
    let mut served = rival.download(&of_rival).await.unwrap();
    let mut n_bytes = 0;
    while let Some(chunk) = served.message().await.unwrap() {
        n_bytes += chunk.data.len();
    }
    assert_eq!(n_bytes, bytes.len());
    drop(stalled);
    let free = async { while acme.download(&of_acme).await.is_err() {} };
    tokio::time::timeout(PATIENCE, free).await.expect("the place is free again");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_verifies_much_leaves_places_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    // One is computed, and two may wait.
    (config.limits.cpu_queue, config.limits.cpu_queue_per_tenant) = (2, 2);
    let (service, [mut acme, rival]) = service_of_two(config).await;
    let source = acme.upload(b"steps=1").await;
    // Whoever has no place is answered first.
    let (refused, _, slow) = select_all((0..3).map(|_| acme.verifies("ms=3000"))).await;
    let status = refused.unwrap().unwrap_err();
    assert!(status.message().contains("2 computations") && status.message().contains("cpu_queue_per_tenant"), "{status:?}");
    has_no_place(Err::<(), _>(status), "TOO_MANY_COMPUTATIONS", "tenants/acme");
    let estimate = v1::EstimateJobRequest { target: Some(v1::estimate_job_request::Target::SourceArtifact(source)), ..Default::default() };
    let estimated = acme.client.proofs.estimate_job(with_bearer(estimate.clone(), &acme.key)).await;
    has_no_place(estimated, "TOO_MANY_COMPUTATIONS", "tenants/acme");
    // Until the first is being computed, both of them wait, and there is no place for another.
    let waiting = loop {
        let (refused, _, mut other) = select_all((0..2).map(|_| rival.verifies("ms=0"))).await;
        has_no_place(refused.unwrap(), "TOO_MANY_COMPUTATIONS", "computations");
        match tokio::time::timeout(Duration::from_millis(100), &mut other[0]).await {
            Ok(answer) => has_no_place(answer.unwrap(), "TOO_MANY_COMPUTATIONS", "computations"),
            Err(_) => break other.remove(0),
        }
    };
    assert!(waiting.await.unwrap().is_ok(), "another tenant is served");
    for call in slow {
        assert!(call.await.unwrap().is_ok());
    }
    acme.client.proofs.estimate_job(with_bearer(estimate, &acme.key)).await.expect("the places are free again");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_uploads_take_much_of_the_disk_leaves_room_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    (config.limits.model_bytes, config.limits.input_bytes) = (1000, 1000);
    (config.limits.upload_disk_bytes, config.limits.upload_disk_per_tenant_bytes) = (2000, 1000);
    let (service, [mut acme, mut rival]) = service_of_two(config).await;
    let [first, second, third] = [7, 8, 9].map(|byte| vec![byte; 1000]);
    let (of_first, of_second) = (acme.begin(&first).await, acme.begin(&second).await);
    let part = |upload: &str, bytes: &[u8]| chunks(upload, bytes, 0, 400).into_iter().take(1).collect::<Vec<_>>();
    acme.write(part(&of_first, &first)).await.unwrap();
    // 400 bytes of the one lie there, and the other will have 1000.
    let status = acme.write(part(&of_second, &second)).await.unwrap_err();
    let details = expect_error(&status, Code::ResourceExhausted, "STORAGE_FULL");
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "tenants/acme");
    assert!(details.retry_info().is_some() && status.message().contains("upload_disk_per_tenant_bytes"), "{status:?}");
    // At the limit of a tenant, beside what lies there.
    let of_rival = rival.begin(&third).await;
    rival.write(part(&of_rival, &third)).await.unwrap();
    for (upload, bytes) in [(&of_first, &first), (&of_second, &second)] {
        let offset = acme.committed(upload).await;
        assert!(acme.write(chunks(upload, bytes, offset, 1000)).await.unwrap().complete);
    }
    assert!(rival.write(chunks(&of_rival, &third, 400, 1000)).await.unwrap().complete);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_uploads_are_counted_and_those_that_are_there_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.uploads_per_tenant = 2;
    let (service, [mut acme, mut rival]) = service_of_two(config).await;
    let begin = |bytes: &[u8]| {
        let blake3 = blake3::hash(bytes).as_bytes().to_vec();
        v1::BeginUploadRequest { size_bytes: bytes.len() as i64, blake3, ..Default::default() }
    };
    let mut uploads = Vec::new();
    for bytes in [b"one", b"two"] {
        let request = with_bearer(begin(bytes), &acme.key);
        uploads.push(acme.client.artifacts.begin_upload(request).await.unwrap().into_inner().upload);
    }
    let status = acme.client.artifacts.begin_upload(with_bearer(begin(b"three"), &acme.key)).await.unwrap_err();
    expect_error(&status, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    rival.upload(b"three").await;
    let stream = with_bearer(tokio_stream::iter(chunks(&uploads[0], b"one", 0, 10)), &acme.key);
    assert!(acme.client.artifacts.write_chunks(stream).await.unwrap().into_inner().complete);
    acme.upload(b"three").await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_read_up_to_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new("of the test", Algorithm::EdDSA);
    let path = folder.path().join("keys.pem");
    std::fs::write(&path, &signer.public_pem).unwrap();
    let token = signer.sign(&claims_with("scope", "jobs.read".into()));
    for (too_few, is_read) in [(0, true), (1, false)] {
        let mut config = config(folder.path());
        config.limits.token_bytes = token.len() - too_few;
        config.authentication = Authentication::none().with_tokens(&path, TokenClaims::new(ISSUER, AUDIENCE)).unwrap();
        let service = Service::start(config).await;
        let mut client = service.client().await;
        match client.proofs.list_jobs(with_bearer(v1::ListJobsRequest::default(), &token)).await {
            Ok(_) => assert!(is_read),
            Err(status) => {
                expect_error(&status, Code::Unauthenticated, "UNAUTHENTICATED");
                assert!(!is_read);
            }
        }
        service.stop().await;
    }
}
