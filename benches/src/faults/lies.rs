//! Messages and uploads that are not what they say.

use std::convert::Infallible;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::StreamExt as _;
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::Status;
use tonic::codegen::http::{Request, Uri};
use tonic::transport::Channel;
use tower::{Service as _, ServiceExt as _};
use zkinfer_client::proto::{BeginUploadRequest, WriteChunksRequest};
use zkinfer_client::{Refusal, RefusalKind};
use zkinfer_proto::v1::artifact_service_client::ArtifactServiceClient;

use super::scene::Scene;
use super::{ROOM, Stage, Told};

const CREATE: &str = "/zkinfer.v1.ProofService/CreateJob";
/// What an upload claims to have.
const CLAIMED_BYTES: i64 = 2 << 30;

type Artifacts = ArtifactServiceClient<Channel>;

pub(super) async fn lying_messages(stage: &Stage) -> anyhow::Result<Told> {
    let mut scene = Scene::start(stage, &stage.layout()).await?;
    scene.serve(1).await?;
    let before = scene.server_from_now()?;
    let channel = scene.channel();
    let uploads = scene.cluster.folder().join("data-0/uploads");
    let (lied, served) = tokio::join!(
        async {
            lengths(&channel).await?;
            let mut artifacts = Artifacts::new(channel.clone());
            sizes(&mut artifacts, &uploads).await?;
            contents(&mut artifacts).await
        },
        scene.serve(4)
    );
    lied?;
    served?;
    scene.check_memory(before, ROOM)?;
    scene.finish().await
}

/// Lengths of messages, and their encoding.
async fn lengths(channel: &Channel) -> anyhow::Result<()> {
    for _ in 0..20 {
        let refused = refusal(channel, message(0, u32::MAX, b"short"), Rest::Never).await?;
        is_refused(&refused, RefusalKind::Exhausted, "MESSAGE_TOO_LARGE")?;
    }
    for lie in [message(0, 100, b"short"), message(0, 3, &[0xff; 3]), message(1, 5, b"short")] {
        is_refused(&refusal(channel, lie, Rest::End).await?, RefusalKind::Invalid, "UNDECODABLE_MESSAGE")?;
    }
    Ok(())
}

/// An upload that announces more than it sends.
async fn sizes(artifacts: &mut Artifacts, folder: &std::path::Path) -> anyhow::Result<()> {
    let bytes = vec![5; 3000];
    let upload = begin(artifacts, CLAIMED_BYTES, blake3::hash(&bytes)).await?;
    let session = artifacts.write_chunks(futures::stream::iter([chunk(&upload, 0, &bytes)])).await?.into_inner();
    ensure!((session.committed_bytes, session.complete) == (3000, false), "{session:?}");
    // The end cannot be claimed, nor written where it would be.
    for (offset, data) in [(CLAIMED_BYTES, vec![]), (CLAIMED_BYTES - 1, vec![1]), (i64::MAX, vec![1]), (-1, vec![1])] {
        let refused = write(artifacts, chunk(&upload, offset, &data)).await?;
        ensure!(refused.kind == RefusalKind::Invalid, "offset {offset}: {refused}");
    }
    let file = folder.join(upload.rsplit('/').next().unwrap_or_default());
    let n_bytes = std::fs::metadata(&file).context("no file of the upload")?.len();
    ensure!(n_bytes == 3000, "the file of the upload has {n_bytes} bytes");
    Ok(())
}

/// Uploads that send other bytes than they announce, or more.
async fn contents(artifacts: &mut Artifacts) -> anyhow::Result<()> {
    let bytes = vec![6; 3000];
    let upload = begin(artifacts, 3000, blake3::hash(b"something else")).await?;
    is_refused(&write(artifacts, chunk(&upload, 0, &bytes)).await?, RefusalKind::Precondition, "HASH_MISMATCH")?;
    let upload = begin(artifacts, 2000, blake3::hash(&bytes[..2000])).await?;
    is_refused(&write(artifacts, chunk(&upload, 0, &bytes)).await?, RefusalKind::Invalid, "UPLOAD_TOO_LONG")?;
    let upload = begin(artifacts, 3000, blake3::hash(&bytes)).await?;
    let wrong = WriteChunksRequest { crc32c: 1, ..chunk(&upload, 0, &bytes) };
    is_refused(&write(artifacts, wrong).await?, RefusalKind::Invalid, "CHECKSUM_MISMATCH")?;
    // A chunk that is larger than a message.
    let large = write(artifacts, chunk(&upload, 0, &vec![7; 5 << 20])).await?;
    is_refused(&large, RefusalKind::Exhausted, "MESSAGE_TOO_LARGE")
}

async fn begin(artifacts: &mut Artifacts, size_bytes: i64, hash: blake3::Hash) -> anyhow::Result<String> {
    let request = BeginUploadRequest { size_bytes, blake3: hash.as_bytes().to_vec(), ..BeginUploadRequest::default() };
    Ok(artifacts.begin_upload(request).await?.into_inner().upload)
}

fn chunk(upload: &str, write_offset: i64, data: &[u8]) -> WriteChunksRequest {
    WriteChunksRequest { upload: upload.to_owned(), write_offset, crc32c: crc32c::crc32c(data), data: data.to_vec().into() }
}

/// Why a chunk is refused.
async fn write(artifacts: &mut Artifacts, chunk: WriteChunksRequest) -> anyhow::Result<Refusal> {
    let written = artifacts.write_chunks(futures::stream::iter([chunk])).await;
    written.map_err(Refusal::from).err().context("a chunk that lies is taken")
}

/// What follows the bytes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    End,
    Never,
}

/// How a call is refused whose body is these bytes.
async fn refusal(channel: &Channel, body: Vec<u8>, rest: Rest) -> anyhow::Result<Refusal> {
    let first = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(body)))]);
    let body = match rest {
        Rest::End => tonic::body::Body::new(StreamBody::new(first)),
        Rest::Never => tonic::body::Body::new(StreamBody::new(first.chain(futures::stream::pending()))),
    };
    let request = Request::post(Uri::from_static(CREATE)).header("content-type", "application/grpc").header("te", "trailers");
    let mut channel = channel.clone();
    let response = channel.ready().await?.call(request.body(body)?).await?;
    Status::from_header_map(response.headers()).map(Refusal::from).context("a message that lies is not refused")
}

/// A message of gRPC with a flag and a length that need not be true.
fn message(flag: u8, length: u32, content: &[u8]) -> Vec<u8> {
    [&[flag], &length.to_be_bytes()[..], content].concat()
}

fn is_refused(refusal: &Refusal, kind: RefusalKind, reason: &str) -> anyhow::Result<()> {
    ensure!((refusal.kind, refusal.reason.as_str()) == (kind, reason), "{refusal}, not {reason}");
    Ok(())
}
