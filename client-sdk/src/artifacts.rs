//! Bytes in and out, resumed where they broke off.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use zkinfer_proto::name::ArtifactName;
use zkinfer_proto::v1::{self, Artifact, UploadSession};

use crate::client::{Client, request_id};
use crate::retry::Repetition;
use crate::status::{ClientError, Refusal, RefusalKind};

/// Bytes of a chunk: well below the service's limit.
const CHUNK_BYTES: usize = 512 << 10;
/// Chunks on their way.
const CHUNKS_IN_FLIGHT: usize = 4;
/// Largest proof, statement or key that is downloaded.
pub const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// A network.
    Onnx,
    /// An array.
    Npy,
    /// Anything.
    OctetStream,
}

impl MediaType {
    fn name(self) -> &'static str {
        match self {
            Self::Onnx => "application/onnx",
            Self::Npy => "application/x-npy",
            Self::OctetStream => "application/octet-stream",
        }
    }
}

/// Where the bytes of an upload come from.
#[derive(Debug, Clone)]
pub enum UploadSource {
    /// Memory.
    Bytes(Bytes),
    /// A file, read twice: once for its hash, once to be sent.
    File(PathBuf),
}

impl UploadSource {
    /// Size and hash.
    async fn measure(&self) -> Result<(u64, blake3::Hash), ClientError> {
        match self {
            Self::Bytes(bytes) => Ok((bytes.len() as u64, blake3::hash(bytes))),
            Self::File(path) => {
                let failed = |source| ClientError::File { path: path.clone(), source };
                let mut file = File::open(path).await.map_err(failed)?;
                let mut hasher = blake3::Hasher::new();
                let (mut size, mut buffer) = (0u64, vec![0; CHUNK_BYTES]);
                loop {
                    let n_read = file.read(&mut buffer).await.map_err(failed)?;
                    if n_read == 0 {
                        return Ok((size, hasher.finalize()));
                    }
                    size += n_read as u64;
                    hasher.update(buffer.get(..n_read).unwrap_or_default());
                }
            }
        }
    }

    async fn open(&self, offset: u64) -> Result<ChunkReader, ClientError> {
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(ChunkReader::Bytes(bytes.slice(start..)))
            }
            Self::File(path) => {
                let failed = |source| ClientError::File { path: path.clone(), source };
                let mut file = File::open(path).await.map_err(failed)?;
                file.seek(std::io::SeekFrom::Start(offset)).await.map_err(failed)?;
                Ok(ChunkReader::File(file, path.clone()))
            }
        }
    }
}

impl From<Vec<u8>> for UploadSource {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<&Path> for UploadSource {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

enum ChunkReader {
    Bytes(Bytes),
    File(File, PathBuf),
}

impl ChunkReader {
    /// The next chunk; empty at the end.
    async fn next(&mut self) -> Result<Bytes, ClientError> {
        match self {
            Self::Bytes(rest) => Ok(rest.split_to(rest.len().min(CHUNK_BYTES))),
            Self::File(file, path) => {
                let mut chunk = Vec::new();
                let mut limited = file.take(CHUNK_BYTES as u64);
                let read = limited.read_to_end(&mut chunk).await;
                read.map_err(|source| ClientError::File { path: path.clone(), source })?;
                Ok(chunk.into())
            }
        }
    }
}

fn committed(session: &UploadSession) -> Result<u64, ClientError> {
    u64::try_from(session.committed_bytes).map_err(|_| ClientError::Answer("committed_bytes is negative".to_owned()))
}

/// The service has lost bytes that it had acknowledged: the upload, begun `n_begun` times, begins once more.
///
/// That it gets on in between does not count. A service whose processes each know only their own bytes would lose them again and again.
///
/// # Errors
/// It was begun `attempts` times: what failed last.
fn begin_again(n_begun: &mut u32, attempts: u32, cause: Option<ClientError>) -> Result<(), ClientError> {
    if *n_begun >= attempts {
        let lost = || ClientError::Answer("the service loses bytes of the upload again and again".to_owned());
        return Err(cause.unwrap_or_else(lost));
    }
    *n_begun += 1;
    Ok(())
}

impl Client {
    /// Uploads bytes; resumes where a connection broke. Bytes that the service has are not sent.
    ///
    /// If the service has lost what it had (docs/STORAGE.md, "Uploads"), the upload begins again, at most [`RetryPolicy::attempts`] times in all.
    ///
    /// [`RetryPolicy::attempts`]: crate::RetryPolicy::attempts
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upload(&self, source: &UploadSource, media_type: MediaType) -> Result<Artifact, ClientError> {
        let (size, hash) = source.measure().await?;
        let message = v1::BeginUploadRequest {
            parent: String::new(),
            size_bytes: i64::try_from(size).unwrap_or(i64::MAX),
            blake3: hash.as_bytes().to_vec(),
            media_type: media_type.name().to_owned(),
            request_id: request_id(),
        };
        let begin = async || Ok(self.artifact_service().begin_upload(self.request(message.clone())).await?.into_inner());
        let mut session = self.repeat(begin).await?;
        let retry = self.options.retry;
        let (mut repetition, mut n_begun) = (Repetition::new(retry), 1);
        while !session.complete {
            let before = committed(&session)?;
            let (next, cause) = match self.send(source, &session.upload, before).await {
                Ok(next) => (next, None),
                Err(error) => self.resume(&session.upload, before, error, &mut repetition).await?,
            };
            session = next;
            let after = committed(&session)?;
            if after > before {
                repetition.reset();
            } else if after < before {
                begin_again(&mut n_begun, retry.attempts, cause)?;
            } else if !session.complete && cause.is_none() {
                return Err(ClientError::Answer("the service takes no more bytes of the upload, but does not call it complete".to_owned()));
            }
        }
        session.artifact.ok_or_else(|| ClientError::Answer("a complete upload names no artifact".to_owned()))
    }

    /// After a call that failed: waits, unless nothing is left to send, and answers where the upload goes on, with the error that this may heal.
    ///
    /// # Errors
    /// The same error, where another attempt has no sense; an error that repeating does not heal.
    async fn resume(
        &self,
        upload: &str,
        before: u64,
        error: ClientError,
        repetition: &mut Repetition,
    ) -> Result<(UploadSession, Option<ClientError>), ClientError> {
        if error.transient().is_none() {
            return Err(error);
        }
        // First how far it got: an attempt that took long or was the last, and got on, was not in vain.
        let session = self.upload_session(upload).await?;
        if committed(&session)? > before {
            repetition.reset();
        }
        if session.complete {
            return Ok((session, Some(error)));
        }
        let healed = repetition.pause(error).await?;
        // What was on its way has arrived since, and where the upload goes on must be right.
        Ok((self.upload_session(upload).await?, Some(healed)))
    }

    async fn upload_session(&self, upload: &str) -> Result<UploadSession, ClientError> {
        let message = v1::GetUploadRequest { upload: upload.to_owned() };
        self.repeat(async || Ok(self.artifact_service().get_upload(self.request(message.clone())).await?.into_inner())).await
    }

    /// Sends everything from `offset` on. Where nothing is left, one empty chunk finishes the upload.
    async fn send(&self, source: &UploadSource, upload: &str, offset: u64) -> Result<UploadSession, ClientError> {
        let mut reader = source.open(offset).await?;
        let (sender, receiver) = tokio::sync::mpsc::channel(CHUNKS_IN_FLIGHT);
        let mut name = upload.to_owned();
        let read = async move {
            let mut offset = offset;
            loop {
                let data = reader.next().await?;
                let is_first = !name.is_empty();
                if data.is_empty() && !is_first {
                    return Ok::<(), ClientError>(());
                }
                let length = data.len() as u64;
                let message = v1::WriteChunksRequest {
                    upload: std::mem::take(&mut name),
                    write_offset: i64::try_from(offset).unwrap_or(i64::MAX),
                    crc32c: crc32c::crc32c(&data),
                    data,
                };
                if sender.send(message).await.is_err() {
                    // The call has ended; its own answer says why.
                    return Ok(());
                }
                offset = offset.saturating_add(length);
            }
        };
        let mut service = self.artifact_service();
        let chunks = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let (is_read, answer) = tokio::join!(read, service.write_chunks(chunks));
        is_read?;
        Ok(answer?.into_inner())
    }

    /// The facts of an artifact: its size, its kind, since when it is there.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn artifact(&self, name: &str) -> Result<Artifact, ClientError> {
        let message = v1::GetArtifactRequest { name: name.to_owned() };
        self.repeat(async || Ok(self.artifact_service().get_artifact(self.request(message.clone())).await?.into_inner())).await
    }

    /// Downloads an artifact of at most `limit` bytes; resumes where a connection broke, and compares its hash with its name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn download(&self, name: &str, limit: u64) -> Result<Vec<u8>, ClientError> {
        let parsed = ArtifactName::parse(name).map_err(|error| ClientError::Answer(format!("{name:?} is {error}")))?;
        let mut bytes = Vec::new();
        let mut repetition = Repetition::new(self.options.retry);
        loop {
            let before = bytes.len();
            let error = match self.receive(name, limit, &mut bytes).await {
                Ok(()) => break,
                Err(error) => error,
            };
            if bytes.len() > before {
                repetition.reset();
            }
            repetition.pause(error).await?;
        }
        if *blake3::hash(&bytes).as_bytes() != parsed.blake3 {
            return Err(ClientError::Damaged { name: name.to_owned(), problem: "its hash is not the one in its name" });
        }
        Ok(bytes)
    }

    /// Appends what is missing.
    async fn receive(&self, name: &str, limit: u64, bytes: &mut Vec<u8>) -> Result<(), ClientError> {
        let read_offset = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let message = v1::ReadArtifactRequest { name: name.to_owned(), read_offset, read_limit: 0 };
        let mut service = self.artifact_service();
        let opened = tokio::time::timeout(self.options.silence, service.read_artifact(message)).await;
        let mut stream = opened.map_err(|_| silent())??.into_inner();
        loop {
            let next = tokio::time::timeout(self.options.silence, stream.next()).await.map_err(|_| silent())?;
            let Some(chunk) = next.transpose()? else { return Ok(()) };
            let damaged = |problem| ClientError::Damaged { name: name.to_owned(), problem };
            if usize::try_from(chunk.offset) != Ok(bytes.len()) {
                return Err(damaged("a chunk is out of place"));
            }
            if crc32c::crc32c(&chunk.data) != chunk.crc32c {
                return Err(damaged("the checksum of a chunk is wrong"));
            }
            if (bytes.len() as u64).saturating_add(chunk.data.len() as u64) > limit {
                return Err(ClientError::TooLarge { name: name.to_owned(), limit });
            }
            bytes.extend_from_slice(&chunk.data);
        }
    }
}

fn silent() -> Refusal {
    Refusal {
        kind: RefusalKind::Unavailable,
        reason: "SILENT".to_owned(),
        message: "a download fell silent".to_owned(),
        fields: Vec::new(),
        request_id: String::new(),
        retry_after: None,
    }
}
