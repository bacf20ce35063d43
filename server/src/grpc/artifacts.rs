//! `ArtifactService`: bytes in and out.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use zkinfer_proto::name::{ArtifactName, UploadName};
use zkinfer_proto::v1;
use zkinfer_proto::v1::artifact_service_server::ArtifactService;

use super::caller::{App, Caller, caller};
use super::error::ApiError;
use super::fields::Fields;
use super::idempotency::{create_error, request_key};
use super::status;
use crate::artifacts::{UploadError, UploadWriter};
use crate::engine::{ArtifactFacts, UploadFacts, timestamp};

/// Messages of a download on their way.
const IN_FLIGHT: usize = 2;

/// The service.
pub(crate) struct Artifacts(pub(crate) Arc<App>);

#[tonic::async_trait]
impl ArtifactService for Artifacts {
    async fn begin_upload(&self, request: Request<v1::BeginUploadRequest>) -> Result<Response<v1::UploadSession>, Status> {
        self.0.unary(request, |caller, message| begin(&self.0, caller, message)).await
    }

    async fn write_chunks(&self, request: Request<Streaming<v1::WriteChunksRequest>>) -> Result<Response<v1::UploadSession>, Status> {
        let caller = caller(request.extensions())?;
        write(&self.0, caller, request.into_inner()).await.map(Response::new)
    }

    async fn get_upload(&self, request: Request<v1::GetUploadRequest>) -> Result<Response<v1::UploadSession>, Status> {
        let app = &self.0;
        app.unary(request, async |caller: Caller, message: v1::GetUploadRequest| {
            let facts = find_upload(app, &caller, &message.upload).await?;
            session(app, facts).await
        })
        .await
    }

    async fn get_artifact(&self, request: Request<v1::GetArtifactRequest>) -> Result<Response<v1::Artifact>, Status> {
        let app = &self.0;
        app.unary(request, async |caller: Caller, message: v1::GetArtifactRequest| {
            let name = parse_name(&message.name)?;
            Ok(artifact(&app.artifact(&caller, "name", &name, u64::MAX).await?))
        })
        .await
    }

    type ReadArtifactStream = ReceiverStream<Result<v1::ReadArtifactResponse, Status>>;

    async fn read_artifact(&self, request: Request<v1::ReadArtifactRequest>) -> Result<Response<Self::ReadArtifactStream>, Status> {
        let caller = caller(request.extensions())?;
        let stream = read(&self.0, caller, request.into_inner()).await?;
        Ok(Response::new(stream))
    }
}

fn parse_name(name: &str) -> Result<ArtifactName, ApiError> {
    ArtifactName::parse(name).map_err(|error| ApiError::invalid("name", error.to_string()))
}

fn artifact(facts: &ArtifactFacts) -> v1::Artifact {
    let name = ArtifactName { tenant: facts.tenant.clone(), blake3: facts.digest };
    v1::Artifact {
        name: name.to_string(),
        size_bytes: i64::try_from(facts.size_bytes).unwrap_or(i64::MAX),
        blake3: facts.digest.to_vec(),
        media_type: facts.media_type.clone(),
        create_time: Some(timestamp(facts.created_ms)),
    }
}

async fn session(app: &App, facts: UploadFacts) -> Result<v1::UploadSession, ApiError> {
    let stored = match facts.is_complete {
        true => app.artifacts.facts(&facts.tenant, facts.digest).await?,
        false => None,
    };
    let next_offset = app.uploads.next_offset(&facts).await;
    Ok(v1::UploadSession {
        upload: UploadName { tenant: facts.tenant, upload_id: facts.id }.to_string(),
        committed_bytes: i64::try_from(next_offset).unwrap_or(i64::MAX),
        complete: facts.is_complete,
        artifact: stored.as_ref().map(artifact),
    })
}

async fn begin(app: &App, caller: Caller, mut request: v1::BeginUploadRequest) -> Result<v1::UploadSession, ApiError> {
    app.check_creation(&caller)?;
    caller.check_parent(&request.parent)?;
    request.parent = format!("tenants/{}", caller.tenant);
    let request_id = std::mem::take(&mut request.request_id);
    let key = request_key(&request_id, &request);
    let mut fields = Fields::default();
    fields.request_id(&request_id);
    fields.text("media_type", &request.media_type, &app.limits);
    let digest = fields.hash("blake3", &request.blake3);
    let max_bytes = app.limits.largest_upload_bytes();
    let size_bytes = u64::try_from(request.size_bytes).unwrap_or(0);
    if size_bytes == 0 || size_bytes > max_bytes {
        fields.wrong("size_bytes", format!("must be from 1 to {max_bytes}"));
    }
    fields.finish()?;
    let Some(digest) = digest else { return Err(ApiError::invalid("blake3", "is required")) };
    let media_type = match request.media_type.is_empty() {
        true => "application/octet-stream".to_owned(),
        false => request.media_type,
    };
    let upload = app
        .uploads
        .begin(&caller.tenant, digest, size_bytes, media_type, key)
        .await
        .map_err(|error| create_error(error, &request_id, "upload", &request.parent))?;
    session(app, upload).await
}

async fn find_upload(app: &App, caller: &Caller, name: &str) -> Result<UploadFacts, ApiError> {
    let parsed = UploadName::parse(name).map_err(|error| ApiError::invalid("upload", error.to_string()))?;
    let found = match caller.owns(&parsed.tenant) {
        true => app.uploads.find(&parsed.tenant, &parsed.upload_id).await?,
        false => None,
    };
    found.ok_or_else(|| ApiError::NotFound { kind: "upload", name: name.into() })
}

async fn write(app: &App, caller: Caller, mut stream: Streaming<v1::WriteChunksRequest>) -> Result<v1::UploadSession, Status> {
    app.check_admission()?;
    let first = next(app, &mut stream).await?;
    let first = first.ok_or_else(|| ApiError::invalid("upload", "is required"))?;
    let facts = find_upload(app, &caller, &first.upload).await?;
    let name = first.upload.clone();
    let fail = |error| ApiError::upload(error, &facts);
    let mut writer = app.uploads.write(facts.clone()).await.map_err(fail)?;
    let mut taken = Ok(());
    let mut chunk = Some(first);
    while let Some(message) = chunk {
        taken = take(app, &mut writer, &name, &message).await.map_err(fail_chunk(&facts));
        if taken.is_err() {
            break;
        }
        match next(app, &mut stream).await {
            Ok(following) => chunk = following,
            Err(error) => {
                taken = Err(error);
                break;
            }
        }
    }
    // What came before a broken chunk counts all the same.
    let finished = writer.finish().await.map_err(fail);
    taken?;
    Ok(session(app, finished?).await?)
}

/// Why a chunk was not taken.
enum ChunkError {
    Api(ApiError),
    Upload(UploadError),
}

fn fail_chunk(facts: &UploadFacts) -> impl FnOnce(ChunkError) -> Status + '_ {
    move |error| match error {
        ChunkError::Api(error) => error.into(),
        ChunkError::Upload(error) => ApiError::upload(error, facts).into(),
    }
}

async fn take(app: &App, writer: &mut UploadWriter, upload: &str, message: &v1::WriteChunksRequest) -> Result<(), ChunkError> {
    if message.data.is_empty() && writer.is_elsewhere() {
        return Err(ChunkError::Upload(UploadError::Elsewhere));
    }
    let mut fields = Fields::default();
    fields.require("upload", message.upload.is_empty() || message.upload == upload, "must not change within a stream");
    let length = message.data.len();
    let max_bytes = app.limits.chunk_bytes;
    // An upload whose bytes are all there, but which was not published, is finished by an empty chunk.
    let is_finish = length == 0 && writer.has_all();
    if (length == 0 && !is_finish) || length > max_bytes {
        fields.wrong("data", format!("has {length} bytes; 1 to {max_bytes} are taken, and none when all bytes are there"));
    }
    let offset = u64::try_from(message.write_offset);
    let offset = fields.parse("write_offset", offset.map_err(|_| "must not be negative"));
    fields.finish().map_err(ChunkError::Api)?;
    if is_finish {
        return Ok(());
    }
    writer.append(offset.unwrap_or(0), &message.data, message.crc32c).await.map_err(ChunkError::Upload)
}

/// The next message of an upload, within the idle limit.
async fn next(app: &App, stream: &mut Streaming<v1::WriteChunksRequest>) -> Result<Option<v1::WriteChunksRequest>, Status> {
    tokio::select! {
        message = stream.message() => message.map_err(|error| status::complete(&error)),
        () = tokio::time::sleep(app.limits.upload_idle) => Err(ApiError::Deadline.into()),
        () = app.cutting.cancelled() => Err(ApiError::Unavailable {
            reason: "DRAINING",
            message: "the service is shutting down; resume the upload".into(),
            retry: std::time::Duration::from_secs(2),
        }.into()),
    }
}

async fn read(
    app: &Arc<App>,
    caller: Caller,
    request: v1::ReadArtifactRequest,
) -> Result<ReceiverStream<Result<v1::ReadArtifactResponse, Status>>, ApiError> {
    let mut fields = Fields::default();
    let name = fields.parse("name", ArtifactName::parse(&request.name));
    let negative = "must not be negative";
    let offset = fields.parse("read_offset", u64::try_from(request.read_offset).map_err(|_| negative));
    let limit = fields.parse("read_limit", u64::try_from(request.read_limit).map_err(|_| negative));
    fields.finish()?;
    let (Some(name), Some(offset), Some(limit)) = (name, offset, limit) else {
        return Err(ApiError::invalid("name", "is required"));
    };
    let facts = app.artifact(&caller, "name", &name, u64::MAX).await?;
    if offset > facts.size_bytes {
        let size_bytes = facts.size_bytes;
        return Err(ApiError::OutOfRange { reason: "OFFSET_PAST_END", message: format!("the artifact has {size_bytes} bytes") });
    }
    let place = app.downloads.take(&caller.tenant)?;
    // Not one byte leaves before the whole was checked.
    app.artifacts.check(&facts).await.map_err(|error| ApiError::bytes(error, &name))?;
    let end = match limit {
        0 => facts.size_bytes,
        limit => offset.saturating_add(limit).min(facts.size_bytes),
    };
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let app = app.clone();
    tokio::spawn(async move {
        send_range(app, name, facts, offset..end, sender).await;
        drop(place);
    });
    Ok(ReceiverStream::new(receiver))
}

async fn send_range(
    app: Arc<App>,
    name: ArtifactName,
    facts: ArtifactFacts,
    mut range: std::ops::Range<u64>,
    sender: mpsc::Sender<Result<v1::ReadArtifactResponse, Status>>,
) {
    let chunk_bytes = app.limits.chunk_bytes.max(1) as u64;
    while range.start < range.end {
        let end = range.start.saturating_add(chunk_bytes).min(range.end);
        let message = match app.artifacts.range(&facts, range.start..end).await {
            Ok(data) => {
                Ok(v1::ReadArtifactResponse { offset: i64::try_from(range.start).unwrap_or(i64::MAX), crc32c: crc32c::crc32c(&data), data })
            }
            Err(error) => Err(ApiError::bytes(error, &name).into()),
        };
        let is_error = message.is_err();
        let sent = tokio::select! {
            sent = sender.send(message) => sent.is_ok(),
            // A client that does not read holds nothing for longer than this.
            () = tokio::time::sleep(app.limits.unary) => false,
            () = app.cutting.cancelled() => false,
        };
        if is_error || !sent {
            return;
        }
        range.start = end;
    }
}
