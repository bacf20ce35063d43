//! Uploads that break off, and whose bytes the service loses: a relay stands between the client and the real service, whose answers it passes on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{StreamExt as _, iter};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};
use zkinfer_client::{Client, ClientOptions, MAX_DOCUMENT_BYTES, MediaType, RefusalKind, RetryPolicy, UploadSource};
use zkinfer_proto::v1;
use zkinfer_proto::v1::artifact_service_client::ArtifactServiceClient;
use zkinfer_proto::v1::artifact_service_server::{ArtifactService, ArtifactServiceServer};

use crate::service::Service;
use crate::{noise, refusal};

/// Chunks of an upload that are passed on before its bytes are lost.
const N_CHUNKS_BEFORE: usize = 2;

/// What the relay has seen.
#[derive(Debug, Default)]
struct Seen {
    /// Calls that sent of an upload.
    calls: AtomicUsize,
    /// Uploads that were sent from their first byte.
    beginnings: AtomicUsize,
    /// Uploads that were to go on behind it.
    resumptions: AtomicUsize,
}

/// What a relay does to an upload.
#[derive(Debug, Clone, Copy)]
enum Script {
    /// Passes on its first chunks, so that there is something to lose, and loses it before more comes, so many times.
    Lose(usize),
    /// Passes on so many chunks of each call, and breaks it; later calls are whole.
    Break(&'static [usize]),
}

/// A relay, and where its service has the bytes of uploads.
struct Relay {
    service: ArtifactServiceClient<Channel>,
    folder: PathBuf,
    script: Script,
    seen: Arc<Seen>,
}

impl Relay {
    /// The address of a relay to a service, and what it will have seen.
    async fn start(service: &Service, script: Script) -> (String, Arc<Seen>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Seen::default());
        let relay = Self {
            service: ArtifactServiceClient::connect(service.address.clone()).await.unwrap(),
            folder: service.folder().join("data/uploads"),
            script,
            seen: seen.clone(),
        };
        let server = Server::builder().add_service(ArtifactServiceServer::new(relay));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (address, seen)
    }

    fn lose(&self) {
        for entry in std::fs::read_dir(&self.folder).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
}

#[tonic::async_trait]
impl ArtifactService for Relay {
    type ReadArtifactStream = Streaming<v1::ReadArtifactResponse>;

    async fn begin_upload(&self, request: Request<v1::BeginUploadRequest>) -> Result<Response<v1::UploadSession>, Status> {
        self.service.clone().begin_upload(request.into_inner()).await
    }

    async fn get_upload(&self, request: Request<v1::GetUploadRequest>) -> Result<Response<v1::UploadSession>, Status> {
        self.service.clone().get_upload(request.into_inner()).await
    }

    async fn write_chunks(&self, request: Request<Streaming<v1::WriteChunksRequest>>) -> Result<Response<v1::UploadSession>, Status> {
        let mut chunks = Vec::new();
        let mut stream = request.into_inner();
        while let Some(chunk) = stream.next().await {
            chunks.push(chunk?);
        }
        let n_calls = self.seen.calls.fetch_add(1, Ordering::SeqCst);
        match self.script {
            Script::Break(calls) => {
                let Some(&n_chunks) = calls.get(n_calls) else { return self.service.clone().write_chunks(iter(chunks)).await };
                chunks.truncate(n_chunks);
                if !chunks.is_empty() {
                    self.service.clone().write_chunks(iter(chunks)).await?;
                }
                return Err(Status::unavailable("broken"));
            }
            Script::Lose(_) if chunks[0].write_offset > 0 => {
                self.seen.resumptions.fetch_add(1, Ordering::SeqCst);
                self.lose();
            }
            Script::Lose(n_losses) => {
                if self.seen.beginnings.fetch_add(1, Ordering::SeqCst) < n_losses {
                    chunks.truncate(N_CHUNKS_BEFORE);
                }
            }
        }
        self.service.clone().write_chunks(iter(chunks)).await
    }

    async fn get_artifact(&self, request: Request<v1::GetArtifactRequest>) -> Result<Response<v1::Artifact>, Status> {
        self.service.clone().get_artifact(request.into_inner()).await
    }

    async fn read_artifact(&self, request: Request<v1::ReadArtifactRequest>) -> Result<Response<Self::ReadArtifactStream>, Status> {
        self.service.clone().read_artifact(request.into_inner()).await
    }
}

fn options() -> ClientOptions {
    let retry = RetryPolicy { attempts: 3, first_wait: Duration::from_millis(1), ..RetryPolicy::default() };
    ClientOptions { retry, ..ClientOptions::default() }
}

#[tokio::test]
async fn an_upload_whose_bytes_were_lost_begins_again_by_itself() {
    let service = Service::start().await;
    let (address, seen) = Relay::start(&service, Script::Lose(1)).await;
    let client = Client::connect_with(&address, options()).await.unwrap();
    let bytes = noise(1_500_000);
    let path = service.folder().join("upload");
    std::fs::write(&path, &bytes).unwrap();
    let artifact = client.upload(&UploadSource::from(path.as_path()), MediaType::OctetStream).await.unwrap();
    assert_eq!(client.download(&artifact.name, MAX_DOCUMENT_BYTES).await.unwrap(), bytes);
    assert_eq!((seen.beginnings.load(Ordering::SeqCst), seen.resumptions.load(Ordering::SeqCst)), (2, 1));
    service.stop().await;
}

#[tokio::test]
async fn an_upload_whose_bytes_are_lost_again_and_again_is_given_up() {
    let service = Service::start().await;
    // Of more losses than a client takes that counts them.
    let (address, seen) = Relay::start(&service, Script::Lose(5)).await;
    let client = Client::connect_with(&address, options()).await.unwrap();
    let source = UploadSource::from(noise(1_500_000));
    let refused = refusal(client.upload(&source, MediaType::OctetStream).await.unwrap_err());
    assert_eq!(refused.reason, "UPLOAD_STARTS_AGAIN");
    assert_eq!((seen.beginnings.load(Ordering::SeqCst), seen.resumptions.load(Ordering::SeqCst)), (3, 3));
    service.stop().await;
}

#[tokio::test]
async fn an_upload_that_got_on_has_all_its_attempts_again() {
    let service = Service::start().await;
    // The third failure would be the last, had it not got on.
    let (address, seen) = Relay::start(&service, Script::Break(&[0, 0, 1, 0, 0, 1, 0])).await;
    let client = Client::connect_with(&address, options()).await.unwrap();
    let bytes = noise(1_500_000);
    let artifact = client.upload(&UploadSource::from(bytes.clone()), MediaType::OctetStream).await.unwrap();
    assert_eq!(client.download(&artifact.name, MAX_DOCUMENT_BYTES).await.unwrap(), bytes);
    assert_eq!(seen.calls.load(Ordering::SeqCst), 8);
    service.stop().await;
}

#[tokio::test]
async fn an_upload_that_does_not_get_on_is_given_up() {
    let service = Service::start().await;
    let (address, seen) = Relay::start(&service, Script::Break(&[1, 0, 0, 0])).await;
    let client = Client::connect_with(&address, options()).await.unwrap();
    let refused = refusal(client.upload(&UploadSource::from(noise(1_500_000)), MediaType::OctetStream).await.unwrap_err());
    assert_eq!((refused.kind, seen.calls.load(Ordering::SeqCst)), (RefusalKind::Unavailable, 4));
    service.stop().await;
}
