//! Reads an artifact part by part: as much of it as a part is in memory, however large it is.

use bytes::Bytes;

use super::bytes_store::compute;
use super::{ArtifactBytes, ArtifactId, BytesError};

/// Largest part: whole segments of an encrypted object.
pub(super) const PART_BYTES: u64 = 4 << 20;

/// A place in an artifact. Its last part is handed out only after the whole was compared with the hash.
pub struct ArtifactReader {
    bytes: ArtifactBytes,
    artifact: ArtifactId,
    size_bytes: u64,
    read_bytes: u64,
    hasher: Box<blake3::Hasher>,
    /// All of a small artifact, checked already.
    small: Option<Bytes>,
}

impl ArtifactReader {
    /// At the begin of an artifact of `size_bytes`. `small` is all of it, checked, if it is not larger than a part.
    pub(super) fn new(bytes: ArtifactBytes, artifact: ArtifactId, size_bytes: u64, small: Option<Bytes>) -> Self {
        let read_bytes = if small.is_some() { size_bytes } else { 0 };
        Self { bytes, artifact, size_bytes, read_bytes, hasher: Box::default(), small: small.filter(|bytes| !bytes.is_empty()) }
    }

    /// Bytes of the artifact.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The next part, at most 4 MiB; `None` at the end.
    ///
    /// # Errors
    /// Missing or damaged bytes, or a failing store. Then the parts so far are worth nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BytesError> {
        if let Some(whole) = self.small.take() {
            return Ok(Some(whole));
        }
        if self.read_bytes == self.size_bytes {
            return Ok(None);
        }
        let ArtifactId { class, tenant, digest } = &self.artifact;
        let end = self.size_bytes.min(self.read_bytes + PART_BYTES);
        let part = self.bytes.range(*class, tenant, *digest, self.read_bytes..end).await?;
        let (mut hasher, hashed) = (std::mem::take(&mut self.hasher), part.clone());
        self.hasher = compute(hashed.len(), move || {
            hasher.update(&hashed);
            hasher
        })
        .await;
        if end == self.size_bytes && *self.hasher.finalize().as_bytes() != *digest {
            return Err(BytesError::Damaged);
        }
        self.read_bytes = end;
        Ok(Some(part))
    }
}
