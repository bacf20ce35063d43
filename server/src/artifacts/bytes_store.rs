//! The bytes of artifacts, in an object store.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, WriteMultipart};
use tokio::io::AsyncReadExt as _;

use super::Class;
use crate::engine::Digest;

/// Part of a multipart write, and of a check.
const PART_BYTES: usize = 8 << 20;

/// Why bytes cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BytesError {
    /// The record is there and the bytes are not.
    #[error("the stored bytes are missing")]
    Missing,
    /// The bytes do not have the hash that names them.
    #[error("the stored bytes are damaged")]
    Damaged,
    /// No space is left.
    #[error("no space is left for artifacts")]
    Full(#[source] object_store::Error),
    /// Anything else of the store.
    #[error("the artifact store failed")]
    Store(#[source] object_store::Error),
    /// A local file cannot be read.
    #[error("a file of the data directory cannot be read")]
    File(#[from] std::io::Error),
}

impl From<object_store::Error> for BytesError {
    fn from(error: object_store::Error) -> Self {
        if matches!(error, object_store::Error::NotFound { .. }) {
            return Self::Missing;
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            if let Some(io) = inner.downcast_ref::<std::io::Error>()
                && io.kind() == std::io::ErrorKind::StorageFull
            {
                return Self::Full(error);
            }
            cause = inner.source();
        }
        Self::Store(error)
    }
}

/// The bytes of all artifacts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ArtifactBytes {
    store: Arc<dyn ObjectStore>,
}

impl ArtifactBytes {
    /// Files below `directory`, which exists. Every write is on disk before it is answered.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn local(directory: &Path) -> Result<Self, BytesError> {
        let store = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true);
        Ok(Self { store: Arc::new(store) })
    }

    /// Stores bytes; answers their hash. Bytes that are there stay, unless they are damaged.
    ///
    /// # Errors
    /// No space, or a failing store.
    pub async fn put(&self, class: Class, tenant: &str, bytes: Bytes) -> Result<Digest, BytesError> {
        let digest = hash(bytes.clone()).await;
        let location = location(class, tenant, digest);
        let payload = PutPayload::from_bytes(bytes);
        let create = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&location, payload.clone(), create).await {
            Ok(_) => Ok(digest),
            Err(object_store::Error::AlreadyExists { .. }) => {
                if self.get(class, tenant, digest).await.is_err() {
                    self.store.put(&location, payload).await?;
                }
                Ok(digest)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Stores a file whose hash is known.
    ///
    /// # Errors
    /// No space, or a failing store.
    pub async fn put_file(&self, class: Class, tenant: &str, digest: Digest, file: &Path) -> Result<(), BytesError> {
        let mut reader = tokio::fs::File::open(file).await?;
        let upload = self.store.put_multipart(&location(class, tenant, digest)).await?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        loop {
            let mut part = bytes::BytesMut::with_capacity(1 << 20);
            if reader.read_buf(&mut part).await? == 0 {
                break;
            }
            writer.wait_for_capacity(2).await?;
            writer.put(part.freeze());
        }
        writer.finish().await?;
        Ok(())
    }

    /// All bytes, checked.
    ///
    /// # Errors
    /// Missing or damaged bytes, or a failing store.
    pub async fn get(&self, class: Class, tenant: &str, digest: Digest) -> Result<Bytes, BytesError> {
        let bytes = self.store.get(&location(class, tenant, digest)).await?.bytes().await?;
        if hash(bytes.clone()).await == digest { Ok(bytes) } else { Err(BytesError::Damaged) }
    }

    /// Checks hash and size, without holding the whole in memory.
    ///
    /// # Errors
    /// Missing or damaged bytes, or a failing store.
    pub async fn check(&self, class: Class, tenant: &str, digest: Digest, size_bytes: u64) -> Result<(), BytesError> {
        let found = self.store.get(&location(class, tenant, digest)).await?;
        if found.meta.size != size_bytes {
            return Err(BytesError::Damaged);
        }
        let mut hasher = Box::new(blake3::Hasher::new());
        let mut stream = found.into_stream();
        while let Some(part) = stream.next().await {
            let part = part?;
            hasher = blocking(move || {
                hasher.update(&part);
                hasher
            })
            .await;
        }
        if *hasher.finalize().as_bytes() == digest { Ok(()) } else { Err(BytesError::Damaged) }
    }

    /// Some bytes, unchecked.
    ///
    /// # Errors
    /// Missing bytes, or a failing store.
    pub async fn range(&self, class: Class, tenant: &str, digest: Digest, range: Range<u64>) -> Result<Bytes, BytesError> {
        Ok(self.store.get_range(&location(class, tenant, digest), range).await?)
    }
}

/// `tenant` is a checked resource id and the digest is hex, so no part can leave its folder.
fn location(class: Class, tenant: &str, digest: Digest) -> object_store::path::Path {
    let hex = hex::encode(digest);
    object_store::path::Path::from(format!("{}/{tenant}/{}/{hex}", class.folder(), &hex[..2]))
}

async fn hash(bytes: Bytes) -> Digest {
    blocking(move || *blake3::hash(&bytes).as_bytes()).await
}

/// Runs a computation off the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and will not poll us again.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn damaged_bytes_are_found_and_mended_by_storing_them_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactBytes::local(folder.path()).unwrap();
        let bytes = Bytes::from_static(b"seven");
        let digest = store.put(Class::Public, "a", bytes.clone()).await.unwrap();
        assert_eq!(store.get(Class::Public, "a", digest).await.unwrap(), bytes);
        let other = store.get(Class::Internal, "a", digest).await;
        assert!(matches!(other, Err(BytesError::Missing)));

        let hex = hex::encode(digest);
        let file = folder.path().join("public/a").join(&hex[..2]).join(&hex);
        std::fs::write(&file, b"sevem").unwrap();
        let damaged = store.get(Class::Public, "a", digest).await;
        assert!(matches!(damaged, Err(BytesError::Damaged)));
        let damaged = store.check(Class::Public, "a", digest, 5).await;
        assert!(matches!(damaged, Err(BytesError::Damaged)));

        store.put(Class::Public, "a", bytes.clone()).await.unwrap();
        store.check(Class::Public, "a", digest, 5).await.unwrap();
    }
}
