//! Uploads: bytes arrive in chunks, at known offsets, into a file of their own; when all are there and have the hash
//! that was announced, they become an artifact.
//!
//! What counts as written is recorded in the engine after the file was synced, so that a crash never leaves a hole. Processes that share the engine need not
//! share the disk: a process whose file is shorter than what is recorded has nothing of the upload, and begins it at 0.
//!
//! What lies on the disk is bounded, of all and of a tenant: a stream begins only if its whole upload has room beside what lies here and what others are
//! writing.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::bytes_store::blocking;
use super::{ArtifactBytes, ArtifactError, ArtifactId, BytesError, Class, HeldBytes};
use crate::engine::{ArtifactFacts, ArtifactRecords, Digest, EngineError, RequestKey, UploadFacts, now_ms};

/// How often files of uploads that were given up are looked for, at least.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Sync at least this often.
const SYNC_BYTES: u64 = 4 << 20;

/// Why a chunk was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Chunks must follow each other.
    #[error("the next chunk must be at offset {expected}, not {got}")]
    Offset {
        /// Bytes written so far.
        expected: u64,
        /// What was sent.
        got: u64,
    },
    /// More bytes than announced.
    #[error("the upload was announced with {size_bytes} bytes; this chunk ends at {end}")]
    TooLong {
        /// Announced.
        size_bytes: u64,
        /// Where the chunk would end.
        end: u64,
    },
    /// The chunk was damaged on its way.
    #[error("the checksum of the chunk at offset {offset} does not match")]
    Checksum {
        /// Where the chunk starts.
        offset: u64,
    },
    /// The whole does not have the announced hash. The upload starts again at 0.
    #[error("the bytes do not have the announced hash; the upload starts again at offset 0")]
    HashMismatch,
    /// The file is on the disk of another process, or was removed.
    #[error("the bytes that were sent before are not on this server; ask GetUpload, and send the upload from offset 0")]
    Elsewhere,
    /// Another stream is writing.
    #[error("another stream is writing this upload")]
    InUse,
    /// Too much lies on the disk.
    #[error(
        "this server holds at most {most_bytes} bytes of unfinished uploads (upload_disk_bytes), and the upload has no room beside the others; try again"
    )]
    NoRoom {
        /// All that may lie there.
        most_bytes: u64,
    },
    /// Too much of it is the tenant's.
    #[error(
        "the tenant may have {most_bytes} bytes of unfinished uploads on this server (upload_disk_per_tenant_bytes), and the upload has no room beside its \
         others; finish one of them, and try again"
    )]
    NoRoomOfTenant {
        /// All of its that may lie there.
        most_bytes: u64,
    },
    /// The engine's.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store's.
    #[error(transparent)]
    Bytes(#[from] BytesError),
}

impl From<ArtifactError> for UploadError {
    fn from(error: ArtifactError) -> Self {
        match error {
            ArtifactError::Engine(error) => Self::Engine(error),
            ArtifactError::Bytes(error) => Self::Bytes(error),
        }
    }
}

/// All uploads.
#[derive(Clone)]
pub struct Uploads {
    records: Arc<dyn ArtifactRecords>,
    held: HeldBytes,
    directory: Arc<Path>,
    room: UploadRoom,
    in_use: InUse,
}

/// How many bytes of unfinished uploads may lie on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadRoom {
    /// Of all.
    pub bytes: u64,
    /// Of a tenant.
    pub per_tenant_bytes: u64,
}

/// Files that somebody has to themselves, by name, with what is to become of them, if they are being written.
type InUse = Arc<Mutex<HashMap<String, Option<Written>>>>;

/// What is being written.
#[derive(Debug, Clone)]
struct Written {
    tenant: String,
    /// At its end.
    size_bytes: u64,
}

impl Uploads {
    /// Files below `directory`, which exists, with so much room all together. An artifact is kept for `grace`, until something refers to it.
    pub fn new(records: Arc<dyn ArtifactRecords>, bytes: ArtifactBytes, grace: Duration, directory: &Path, room: UploadRoom) -> Self {
        let held = HeldBytes::new(records.clone(), bytes, grace);
        Self { held, records, directory: directory.into(), room, in_use: Arc::default() }
    }

    /// Opens an upload. It is complete at once if the tenant has the artifact.
    ///
    /// # Errors
    /// The engine's.
    pub async fn begin(
        &self,
        tenant: &str,
        digest: Digest,
        size_bytes: u64,
        media_type: String,
        key: Option<RequestKey>,
    ) -> Result<UploadFacts, EngineError> {
        let artifact = ArtifactId { class: Class::Public, tenant: tenant.to_owned(), digest };
        // Looked for once more when it is held: only then it stays.
        let is_complete =
            self.has(&artifact, size_bytes).await? && self.held.hold(artifact.clone()).await? && self.has(&artifact, size_bytes).await?;
        let upload = UploadFacts {
            tenant: tenant.to_owned(),
            id: uuid::Uuid::now_v7().to_string(),
            digest,
            size_bytes,
            media_type,
            committed_bytes: if is_complete { size_bytes } else { 0 },
            is_complete,
        };
        self.records.create_upload(upload, key).await
    }

    async fn has(&self, artifact: &ArtifactId, size_bytes: u64) -> Result<bool, EngineError> {
        let stored = self.records.artifact(artifact.class, &artifact.tenant, artifact.digest).await?;
        Ok(stored.is_some_and(|facts| facts.size_bytes == size_bytes))
    }

    /// An upload, if the tenant has it.
    ///
    /// # Errors
    /// The engine's.
    pub async fn find(&self, tenant: &str, id: &str) -> Result<Option<UploadFacts>, EngineError> {
        self.records.upload(tenant, id).await
    }

    /// Opens an upload for writing at its end.
    ///
    /// # Errors
    /// Another stream has it, there is no room for it, or its file cannot be opened.
    pub async fn write(&self, facts: UploadFacts) -> Result<UploadWriter, UploadError> {
        let written = Written { tenant: facts.tenant.clone(), size_bytes: facts.size_bytes };
        let claim = Claim::take(&self.in_use, &facts.id, Some(written)).ok_or(UploadError::InUse)?;
        // Only now is what the record says final.
        let mut facts = self.records.upload(&facts.tenant, &facts.id).await?.unwrap_or(facts);
        let path = self.directory.join(&facts.id);
        let recorded_bytes = facts.committed_bytes;
        let file = if facts.is_complete {
            None
        } else {
            self.check_room(&facts.tenant).await?;
            Some(open(&path, &mut facts).await?)
        };
        let (written_bytes, is_elsewhere) = (facts.committed_bytes, facts.committed_bytes < recorded_bytes);
        Ok(UploadWriter { uploads: self.clone(), facts, file, path, written_bytes, is_elsewhere, _claim: claim })
    }

    /// Whether all that is being written has room beside what lies here, and what is of the tenant. Whoever asks is counted already, so that of two at once
    /// none takes the other's.
    async fn check_room(&self, tenant: &str) -> Result<(), UploadError> {
        let unfinished: HashSet<String> = self.records.unfinished_uploads(tenant).await?.into_iter().collect();
        let (directory, in_use, tenant) = (self.directory.clone(), self.in_use.clone(), tenant.to_owned());
        let taken = blocking(move || {
            let written = in_use.lock().unwrap_or_else(PoisonError::into_inner).clone();
            taken(&directory, &written, &tenant, &unfinished)
        });
        let taken = taken.await.map_err(BytesError::from)?;
        let UploadRoom { bytes, per_tenant_bytes } = self.room;
        match (taken.per_tenant_bytes <= per_tenant_bytes, taken.bytes <= bytes) {
            (false, _) => Err(UploadError::NoRoomOfTenant { most_bytes: per_tenant_bytes }),
            (true, false) => Err(UploadError::NoRoom { most_bytes: bytes }),
            (true, true) => Ok(()),
        }
    }

    /// Where an upload goes on at this process: at what is recorded, or at 0 if the bytes are not here.
    pub async fn next_offset(&self, facts: &UploadFacts) -> u64 {
        if facts.is_complete {
            return facts.committed_bytes;
        }
        let length = tokio::fs::metadata(self.directory.join(&facts.id)).await.map_or(0, |found| found.len());
        if length >= facts.committed_bytes { facts.committed_bytes } else { 0 }
    }

    /// Removes files of uploads that got no byte for `idle`, now and again and again until `draining`. Each process does so on its disk: the one that forgets
    /// an upload may have another.
    pub async fn keep_swept(self, idle: Duration, draining: CancellationToken) {
        loop {
            match self.sweep(idle).await {
                Ok(0) => {}
                Ok(n_removed) => tracing::info!(n_removed, "removed the bytes of uploads that were given up"),
                Err(error) => tracing::warn!(%error, "cannot look for the bytes of uploads that were given up"),
            }
            if tokio::time::timeout(SWEEP_EVERY.min(idle), draining.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    async fn sweep(&self, idle: Duration) -> std::io::Result<usize> {
        let mut n_removed = 0;
        let mut entries = tokio::fs::read_dir(&self.directory).await?;
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name();
            // Nothing that is not an upload's.
            let Some(id) = name.to_str().filter(|name| uuid::Uuid::try_parse(name).is_ok()) else { continue };
            // Nobody opens it while it is looked at.
            let Some(_claim) = Claim::take(&self.in_use, id, None) else { continue };
            let modified = entry.metadata().await.and_then(|found| found.modified());
            let is_old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= idle));
            if is_old && tokio::fs::remove_file(entry.path()).await.is_ok() {
                n_removed += 1;
            }
        }
        Ok(n_removed)
    }

    /// Removes the files of forgotten uploads.
    pub async fn remove_files(&self, ids: &[String]) {
        for id in ids {
            // A file that is already gone is what we want.
            let _ = tokio::fs::remove_file(self.directory.join(id)).await;
        }
    }
}

/// The room that is taken of all, and of what a tenant may have, of which these uploads are not finished. What is being written counts as it will be, what
/// only lies there as it is.
fn taken(
    directory: &Path,
    written: &HashMap<String, Option<Written>>,
    tenant: &str,
    unfinished: &HashSet<String>,
) -> std::io::Result<UploadRoom> {
    let mut taken = UploadRoom { bytes: 0, per_tenant_bytes: 0 };
    let mut count = |size_bytes: u64, is_of_tenant: bool| {
        taken.bytes += size_bytes;
        taken.per_tenant_bytes += if is_of_tenant { size_bytes } else { 0 };
    };
    for written in written.values().flatten() {
        count(written.size_bytes, written.tenant == tenant);
    }
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let id = name.to_str().unwrap_or_default();
        if !matches!(written.get(id), Some(Some(_))) {
            // One that ends meanwhile takes no room any more.
            count(entry.metadata().map_or(0, |found| found.len()), unfinished.contains(id));
        }
    }
    Ok(taken)
}

/// Opens the file where the upload goes on, and says in `facts` where that is.
async fn open(path: &Path, facts: &mut UploadFacts) -> Result<File, BytesError> {
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(path).await?;
    if file.metadata().await?.len() < facts.committed_bytes {
        facts.committed_bytes = 0;
        return Ok(file);
    }
    // Bytes that were never acknowledged may be torn.
    file.set_len(facts.committed_bytes).await?;
    file.seek(std::io::SeekFrom::Start(facts.committed_bytes)).await?;
    Ok(file)
}

/// The right to write an upload; given back on drop.
struct Claim {
    in_use: InUse,
    id: String,
}

impl Claim {
    fn take(in_use: &InUse, id: &str, written: Option<Written>) -> Option<Self> {
        match in_use.lock().unwrap_or_else(PoisonError::into_inner).entry(id.to_owned()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert(written);
                Some(Self { in_use: in_use.clone(), id: id.to_owned() })
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Writes one upload.
pub struct UploadWriter {
    uploads: Uploads,
    facts: UploadFacts,
    // None once the upload is complete.
    file: Option<File>,
    path: PathBuf,
    written_bytes: u64,
    /// More is recorded than is here.
    is_elsewhere: bool,
    _claim: Claim,
}

impl UploadWriter {
    /// Whether all bytes are there; only their publication may be missing.
    pub fn has_all(&self) -> bool {
        self.written_bytes == self.facts.size_bytes
    }

    /// Whether bytes that are recorded are not on this disk: then the upload goes on at 0.
    pub fn is_elsewhere(&self) -> bool {
        self.is_elsewhere
    }

    /// Appends a chunk.
    ///
    /// # Errors
    /// Wrong offset, length or checksum; bytes before it that are not here; a failing disk.
    pub async fn append(&mut self, offset: u64, data: &[u8], crc32c: u32) -> Result<(), UploadError> {
        if self.is_elsewhere && offset > 0 {
            return Err(UploadError::Elsewhere);
        }
        if offset != self.written_bytes {
            return Err(UploadError::Offset { expected: self.written_bytes, got: offset });
        }
        let end = offset.saturating_add(data.len() as u64);
        let size_bytes = self.facts.size_bytes;
        let Some(file) = self.file.as_mut().filter(|_| end <= size_bytes) else {
            return Err(UploadError::TooLong { size_bytes, end });
        };
        if crc32c::crc32c(data) != crc32c {
            return Err(UploadError::Checksum { offset });
        }
        if self.is_elsewhere {
            // From now on the upload is here. What was recorded is about another file.
            self.uploads.records.set_committed(&self.facts.tenant, &self.facts.id, 0).await?;
            file.set_len(0).await.map_err(BytesError::from)?;
            self.is_elsewhere = false;
        }
        file.write_all(data).await.map_err(BytesError::from)?;
        self.written_bytes = end;
        if self.written_bytes - self.facts.committed_bytes >= SYNC_BYTES {
            self.commit().await?;
        }
        Ok(())
    }

    /// Ends the stream: all that was appended is on disk, and the artifact is made if all is there.
    ///
    /// # Errors
    /// A wrong hash; a failing disk or database.
    pub async fn finish(mut self) -> Result<UploadFacts, UploadError> {
        self.commit().await?;
        if self.file.is_none() || self.written_bytes < self.facts.size_bytes {
            return Ok(self.facts);
        }
        let path = self.path.clone();
        let hash = blocking(move || {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(std::fs::File::open(path)?)?;
            std::io::Result::Ok(hasher.finalize())
        })
        .await
        .map_err(BytesError::from)?;
        let facts = &self.facts;
        if *hash.as_bytes() != facts.digest {
            self.uploads.records.set_committed(&facts.tenant, &facts.id, 0).await?;
            return Err(UploadError::HashMismatch);
        }
        self.publish().await
    }

    async fn publish(mut self) -> Result<UploadFacts, UploadError> {
        let facts = &mut self.facts;
        let held = &self.uploads.held;
        held.put_file(Class::Public, &facts.tenant, facts.digest, &self.path).await?;
        let artifact = ArtifactFacts {
            class: Class::Public,
            tenant: facts.tenant.clone(),
            digest: facts.digest,
            size_bytes: facts.size_bytes,
            media_type: facts.media_type.clone(),
            created_ms: now_ms(),
        };
        self.uploads.records.complete_upload(&facts.id, artifact).await?;
        facts.is_complete = true;
        self.uploads.remove_files(std::slice::from_ref(&facts.id)).await;
        Ok(self.facts)
    }

    async fn commit(&mut self) -> Result<(), UploadError> {
        let Some(file) = self.file.as_mut() else { return Ok(()) };
        if self.written_bytes == self.facts.committed_bytes {
            return Ok(());
        }
        file.flush().await.map_err(BytesError::from)?;
        file.sync_data().await.map_err(BytesError::from)?;
        let records = &self.uploads.records;
        records.set_committed(&self.facts.tenant, &self.facts.id, self.written_bytes).await?;
        self.facts.committed_bytes = self.written_bytes;
        Ok(())
    }
}
