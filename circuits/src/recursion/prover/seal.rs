//! A checksum behind stored bytes, so that damage is noticed before anything is decoded.

const CHECKSUM_BYTES: usize = 32;

/// The bytes with their checksum.
pub(super) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = blake3::hash(&bytes);
    bytes.extend(checksum.as_bytes());
    bytes
}

/// The bytes without their checksum, if it is right.
pub(super) fn unseal(sealed: &[u8]) -> Option<&[u8]> {
    let (bytes, checksum) = sealed.split_last_chunk::<CHECKSUM_BYTES>()?;
    (blake3::hash(bytes) == *checksum).then_some(bytes)
}
