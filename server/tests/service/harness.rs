//! A service in this process, and its clients.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use zkinfer_proto::v1;
use zkinfer_proto::v1::artifact_service_client::ArtifactServiceClient;
use zkinfer_proto::v1::model_service_client::ModelServiceClient;
use zkinfer_proto::v1::proof_service_client::ProofServiceClient;
use zkinfer_server::{Config, Ended, ServeError};

use crate::scripted_prover::ScriptedProver;

/// The script of a job that runs for as long as a test could take: until it is cancelled.
pub(crate) const ENDLESS: &str = "steps=100000 ms=20";

pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<Result<Ended, ServeError>>,
}

/// A configuration with short waits.
pub(crate) fn config(data_dir: &Path) -> Config {
    let mut config = Config::new(data_dir);
    config.limits.retry_backoff = Duration::from_millis(10);
    config.reload = Duration::from_millis(20);
    config.drain = Duration::from_secs(5);
    config.drain_grace = Duration::from_secs(2);
    config
}

impl Service {
    pub(crate) async fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, signal) = oneshot::channel();
        let signal = async {
            let _ = signal.await;
        };
        let prover = Arc::new(ScriptedProver::default());
        let ended = tokio::spawn(zkinfer_server::run(config, prover, listener, signal));
        Self { address, shutdown: Some(shutdown), ended }
    }

    pub(crate) async fn stop(mut self) -> Ended {
        self.shutdown.take().unwrap().send(()).unwrap();
        self.ended.await.unwrap().unwrap()
    }

    pub(crate) fn begin_stop(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    pub(crate) async fn ended(self) -> Ended {
        self.ended.await.unwrap().unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) channel: Channel,
    pub(crate) models: ModelServiceClient<Channel>,
    pub(crate) artifacts: ArtifactServiceClient<Channel>,
    pub(crate) proofs: ProofServiceClient<Channel>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
        let mut tries = 0;
        let channel = loop {
            match endpoint.connect().await {
                Ok(channel) => break channel,
                Err(error) if tries > 200 => panic!("cannot connect: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
            }
            tries += 1;
        };
        Self::over(channel)
    }

    pub(crate) fn over(channel: Channel) -> Self {
        Self {
            models: ModelServiceClient::new(channel.clone()),
            artifacts: ArtifactServiceClient::new(channel.clone()),
            proofs: ProofServiceClient::new(channel.clone()),
            channel,
        }
    }

    /// Uploads bytes; answers the artifact's name.
    pub(crate) async fn upload(&mut self, bytes: &[u8]) -> String {
        let session = self
            .artifacts
            .begin_upload(v1::BeginUploadRequest {
                size_bytes: bytes.len() as i64,
                blake3: blake3::hash(bytes).as_bytes().to_vec(),
                media_type: "application/onnx".into(),
                ..Default::default()
            })
            .await
            .unwrap()
            .into_inner();
        if let Some(artifact) = session.artifact {
            return artifact.name;
        }
        let chunks = chunks(&session.upload, bytes, 0, 1 << 20);
        let done = self.artifacts.write_chunks(tokio_stream::iter(chunks)).await.unwrap().into_inner();
        assert!(done.complete);
        done.artifact.unwrap().name
    }

    pub(crate) async fn read(&mut self, name: &str) -> Result<Vec<u8>, Status> {
        let request = v1::ReadArtifactRequest { name: name.into(), ..Default::default() };
        let mut stream = self.artifacts.read_artifact(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.message().await? {
            assert_eq!(chunk.offset as usize, bytes.len());
            assert_eq!(chunk.crc32c, crc32c::crc32c(&chunk.data));
            bytes.extend_from_slice(&chunk.data);
        }
        Ok(bytes)
    }

    /// Creates a model from a script.
    pub(crate) async fn create_model(&mut self, id: &str, script: &str) -> v1::Model {
        let source_artifact = self.upload(script.as_bytes()).await;
        let model = v1::Model { source_artifact, ..Default::default() };
        let request = v1::CreateModelRequest { model_id: id.into(), model: Some(model), ..Default::default() };
        self.models.create_model(request).await.unwrap().into_inner()
    }

    /// Creates a model of a source that is there, and waits for its end.
    pub(crate) async fn create_model_of(&mut self, source: &str, id: &str) -> v1::Model {
        let model = v1::Model { source_artifact: source.to_owned(), ..Default::default() };
        let request = v1::CreateModelRequest { model_id: id.into(), model: Some(model), ..Default::default() };
        let name = self.models.create_model(request).await.unwrap().into_inner().name;
        self.model_end(&name).await
    }

    /// Waits until a model is READY or FAILED.
    pub(crate) async fn model_end(&mut self, name: &str) -> v1::Model {
        let request = v1::WatchModelRequest { name: name.into(), from_sequence: 0 };
        let mut stream = self.models.watch_model(request).await.unwrap().into_inner();
        while stream.message().await.unwrap().is_some() {}
        let request = v1::GetModelRequest { name: name.into() };
        self.models.get_model(request).await.unwrap().into_inner()
    }

    /// A model that is READY.
    pub(crate) async fn ready_model(&mut self, id: &str) -> v1::Model {
        let name = self.create_model(id, "steps=1").await.name;
        let model = self.model_end(&name).await;
        assert_eq!(model.state(), v1::model::State::Ready);
        model
    }

    pub(crate) async fn create_job(&mut self, model: &str, script: &str) -> v1::Job {
        self.proofs.create_job(job_request(model, script)).await.unwrap().into_inner()
    }

    pub(crate) async fn get_job(&mut self, name: &str) -> v1::Job {
        let request = v1::GetJobRequest { name: name.into() };
        self.proofs.get_job(request).await.unwrap().into_inner()
    }

    /// Waits until a job is final.
    pub(crate) async fn job_end(&mut self, name: &str) -> v1::Job {
        let timeout = Some(prost_types::Duration { seconds: 20, nanos: 0 });
        let request = v1::WaitJobRequest { name: name.into(), timeout };
        self.proofs.wait_job(request).await.unwrap().into_inner()
    }

    /// Waits until a job runs.
    pub(crate) async fn job_runs(&mut self, name: &str) {
        let request = v1::WatchJobRequest { name: name.into(), from_sequence: 0 };
        let mut stream = self.proofs.watch_job(request).await.unwrap().into_inner();
        while let Some(event) = stream.message().await.unwrap() {
            let has_begun = event.progress.is_some_and(|p| p.phase == "layer");
            if has_begun {
                return;
            }
        }
        panic!("{name} ended");
    }

    pub(crate) async fn cancel(&mut self, name: &str) -> v1::Job {
        let request = v1::CancelJobRequest { name: name.into(), reason: "no longer needed".into() };
        self.proofs.cancel_job(request).await.unwrap().into_inner()
    }
}

pub(crate) fn job_request(model: &str, script: &str) -> v1::CreateJobRequest {
    v1::CreateJobRequest {
        job: Some(v1::Job {
            model: model.into(),
            input: Some(v1::Input { source: Some(v1::input::Source::Inline(script.into())), encoding: v1::input::Encoding::Uint8 as i32 }),
            privacy: v1::Privacy::InputPublic as i32,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A request with a key or a token.
pub(crate) fn with_bearer<T>(message: T, credentials: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {credentials}").parse().unwrap());
    request
}

/// The chunks of `bytes` from `offset` on.
pub(crate) fn chunks(upload: &str, bytes: &[u8], offset: usize, chunk_bytes: usize) -> Vec<v1::WriteChunksRequest> {
    let mut messages = Vec::new();
    for (i, data) in bytes[offset..].chunks(chunk_bytes).enumerate() {
        messages.push(v1::WriteChunksRequest {
            upload: if i == 0 { upload.into() } else { String::new() },
            write_offset: (offset + i * chunk_bytes) as i64,
            crc32c: crc32c::crc32c(data),
            data: data.to_vec().into(),
        });
    }
    messages
}

/// Asserts code and reason of an error, and that it is complete; answers its details.
pub(crate) fn expect_error(status: &Status, code: Code, reason: &str) -> ErrorDetails {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!((status.code(), info.reason.as_str()), (code, reason), "{status:?}");
    assert_eq!(info.domain, "zkinfer");
    assert!(details.request_info().is_some_and(|info| !info.request_id.is_empty()));
    details
}

/// The fields that an error names.
pub(crate) fn fields(details: &ErrorDetails) -> Vec<&str> {
    let request = details.bad_request().expect("names fields");
    request.field_violations.iter().map(|v| v.field.as_str()).collect()
}
