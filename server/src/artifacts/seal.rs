//! Artifacts as they lie encrypted.
//!
//! `header ‖ segment 0 ‖ … ‖ segment n−1`, where the header is 8 bytes of magic and 8 of the key's id, and segment i is AES-256-GCM-SIV of the
//! plaintext's i-th 64 KiB (the last may be shorter, and only an empty plaintext has an empty one), with its tag of 16 bytes. The nonce is
//! `i ‖ 0 ‖ (1 if last)`, and the header is associated data. The key of an object is BLAKE3, keyed, of its class, digest and tenant: what was sealed
//! as one object opens as no other, under no other tenant and in no other place; a segment opens at no other index; and a shorter object has no last one.
//!
//! Nothing is random: who seals the same artifact twice writes the same bytes, so that two writers cannot destroy each other's work. What is sealed
//! under one object key is one plaintext, that of the digest, and should it ever be two, then this mode tells no more than which segments are equal.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::{Bytes, BytesMut};
use zeroize::{Zeroize as _, Zeroizing};

use super::Class;
use super::keys::ArtifactKey;
use crate::engine::Digest;

const MAGIC: &[u8; 8] = b"ZKSEAL1\0";
/// Bytes before the first segment.
pub(super) const HEADER_BYTES: u64 = 16;
/// Plaintext of a segment.
pub(super) const SEGMENT_BYTES: u64 = 64 << 10;
const TAG_BYTES: u64 = 16;
const SEALED_SEGMENT_BYTES: u64 = SEGMENT_BYTES + TAG_BYTES;

/// The bytes are not what this key sealed as this object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unopened;

/// Length of a sealed object, if its plaintext is `plain` bytes long. Sizes of artifacts are far below 2^63.
pub(super) fn sealed_bytes(plain: u64) -> u64 {
    HEADER_BYTES + plain + n_segments(plain) * TAG_BYTES
}

/// Segments of a plaintext.
pub(super) fn n_segments(plain: u64) -> u64 {
    plain.div_ceil(SEGMENT_BYTES).max(1)
}

/// Length of the plaintext of a sealed object of `sealed` bytes, if any has that length.
pub(super) fn plain_bytes(sealed: u64) -> Result<u64, Unopened> {
    let body = sealed.checked_sub(HEADER_BYTES).ok_or(Unopened)?;
    let plain = body.checked_sub(body.div_ceil(SEALED_SEGMENT_BYTES) * TAG_BYTES).ok_or(Unopened)?;
    if sealed_bytes(plain) == sealed { Ok(plain) } else { Err(Unopened) }
}

/// Where segments `first` to `last` of a sealed object lie.
pub(super) fn segments_range(first: u64, last: u64) -> std::ops::Range<u64> {
    HEADER_BYTES + first * SEALED_SEGMENT_BYTES..HEADER_BYTES + (last + 1) * SEALED_SEGMENT_BYTES
}

/// What names an object, as the derivation of its key and of its name takes it.
fn identity(class: Class, tenant: &str, digest: Digest) -> Vec<u8> {
    // The first two have fixed lengths, so that no two objects have the same. The number of a class is part of what lies in stores: it stays.
    [&[class as u8][..], &digest, tenant.as_bytes()].concat()
}

/// The name of an encrypted object: without the key it does not tell the plaintext's hash.
pub(super) fn sealed_name(key: &ArtifactKey, class: Class, tenant: &str, digest: Digest) -> String {
    blake3::keyed_hash(&key.of_names, &identity(class, tenant, digest)).to_hex().to_string()
}

/// Seals and opens one object.
pub(super) struct ObjectSeal {
    key: LessSafeKey,
    header: [u8; HEADER_BYTES as usize],
}

impl ObjectSeal {
    pub(super) fn new(key: &ArtifactKey, class: Class, tenant: &str, digest: Digest) -> Self {
        let mut object_key = *blake3::keyed_hash(&key.of_contents, &identity(class, tenant, digest)).as_bytes();
        let unbound = UnboundKey::new(&AES_256_GCM_SIV, &object_key).expect("the key has the length that the cipher takes");
        object_key.zeroize();
        let mut header = [0; HEADER_BYTES as usize];
        header[..8].copy_from_slice(MAGIC);
        header[8..].copy_from_slice(&key.id);
        Self { key: LessSafeKey::new(unbound), header }
    }

    pub(super) fn header(&self) -> &[u8] {
        &self.header
    }

    fn nonce(index: u64, n_segments: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&index.to_be_bytes());
        nonce[11] = u8::from(index + 1 == n_segments);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Appends segment `index` of `n_segments`, whose plaintext is `plain`, to `sealed`.
    pub(super) fn seal_segment(&self, index: u64, n_segments: u64, plain: &[u8], sealed: &mut Vec<u8>) {
        let start = sealed.len();
        sealed.extend_from_slice(plain);
        let (_, segment) = sealed.split_at_mut(start);
        let tag = self
            .key
            .seal_in_place_separate_tag(Self::nonce(index, n_segments), Aad::from(&self.header), segment)
            .expect("a segment is far shorter than what the cipher takes");
        sealed.extend_from_slice(tag.as_ref());
    }

    /// Opens segment `index` of `n_segments` in place; answers its plaintext.
    pub(super) fn open_segment<'a>(&self, index: u64, n_segments: u64, sealed: &'a mut [u8]) -> Result<&'a [u8], Unopened> {
        let nonce = Self::nonce(index, n_segments);
        self.key.open_in_place(nonce, Aad::from(&self.header), sealed).map(|plain| &*plain).map_err(|_| Unopened)
    }

    /// The whole object.
    pub(super) fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let length = plain.len() as u64;
        let mut sealed = Vec::with_capacity(usize::try_from(sealed_bytes(length)).unwrap_or(0));
        sealed.extend_from_slice(&self.header);
        let n_segments = n_segments(length);
        for index in 0..n_segments {
            // Within usize, since `plain` is in memory.
            let start = (index * SEGMENT_BYTES) as usize;
            let end = plain.len().min(start + SEGMENT_BYTES as usize);
            self.seal_segment(index, n_segments, &plain[start..end], &mut sealed);
        }
        sealed
    }

    /// Opens an object that is `sealed_bytes` long, as it comes.
    pub(super) fn opener(self, sealed_bytes: u64) -> Result<Opener, Unopened> {
        let n_segments = n_segments(plain_bytes(sealed_bytes)?);
        Ok(Opener { seal: self, n_segments, next: None, pending: BytesMut::new() })
    }
}

/// Opens an object part by part.
pub(super) struct Opener {
    seal: ObjectSeal,
    n_segments: u64,
    // None while the header is not there.
    next: Option<u64>,
    pending: BytesMut,
}

impl Opener {
    /// Takes the next part, of any length; answers the plaintext that is now known to be right.
    pub(super) fn push(&mut self, part: &[u8]) -> Result<Vec<u8>, Unopened> {
        self.pending.extend_from_slice(part);
        let mut plain = Vec::with_capacity(part.len());
        if self.next.is_none() {
            if self.pending.len() < HEADER_BYTES as usize {
                return Ok(plain);
            }
            if *self.pending.split_to(HEADER_BYTES as usize) != self.seal.header {
                return Err(Unopened);
            }
            self.next = Some(0);
        }
        while self.pending.len() >= SEALED_SEGMENT_BYTES as usize {
            let mut segment = self.pending.split_to(SEALED_SEGMENT_BYTES as usize);
            self.open_next(&mut segment, &mut plain)?;
        }
        Ok(plain)
    }

    /// Ends the object; answers the rest of the plaintext.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, Unopened> {
        let mut plain = Vec::new();
        if self.next != Some(self.n_segments) {
            let mut segment = std::mem::take(&mut self.pending);
            self.open_next(&mut segment, &mut plain)?;
        }
        if self.next == Some(self.n_segments) && self.pending.is_empty() { Ok(plain) } else { Err(Unopened) }
    }

    fn open_next(&mut self, segment: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Unopened> {
        let index = self.next.filter(|index| *index < self.n_segments).ok_or(Unopened)?;
        plain.extend_from_slice(self.seal.open_segment(index, self.n_segments, segment)?);
        // It was opened where it lay.
        segment.zeroize();
        self.next = Some(index + 1);
        Ok(())
    }
}

/// Opens a whole object.
pub(super) fn open(seal: ObjectSeal, sealed: &[u8]) -> Result<Bytes, Unopened> {
    let mut opener = seal.opener(sealed.len() as u64)?;
    let mut plain = Vec::with_capacity(sealed.len());
    // In pieces, so that no third copy of the whole is made.
    for piece in sealed.chunks(1 << 20) {
        plain.extend_from_slice(&Zeroizing::new(opener.push(piece)?));
    }
    plain.extend_from_slice(&Zeroizing::new(opener.finish()?));
    Ok(crate::secret::erased(plain))
}

#[cfg(test)]
mod tests {
    use super::super::keys::tests::keys;
    use super::*;

    const SEGMENT: usize = SEGMENT_BYTES as usize;
    const DIGEST: Digest = [7; 32];

    fn seal_with(number: u8, class: Class, tenant: &str, digest: Digest) -> ObjectSeal {
        ObjectSeal::new(keys(&[number]).iter().next().unwrap(), class, tenant, digest)
    }

    fn seal() -> ObjectSeal {
        seal_with(1, Class::Internal, "acme", DIGEST)
    }

    fn plaintext(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * i % 251) as u8).collect()
    }

    #[test]
    fn every_length_comes_back_in_parts_of_every_length() {
        for length in [0, 1, 2, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 3 * SEGMENT + 17] {
            let plain = plaintext(length);
            let sealed = seal().seal(&plain);
            assert_eq!(sealed.len() as u64, sealed_bytes(length as u64));
            assert_eq!(plain_bytes(sealed.len() as u64), Ok(length as u64));
            assert_eq!(open(seal(), &sealed).unwrap(), plain);
            for part_bytes in [1000, SEGMENT + 16, SEGMENT + 17] {
                let mut opener = seal().opener(sealed.len() as u64).unwrap();
                let mut opened = Vec::new();
                for part in sealed.chunks(part_bytes) {
                    opened.extend(opener.push(part).unwrap());
                }
                opened.extend(opener.finish().unwrap());
                assert!(opened == plain, "{length} bytes in parts of {part_bytes}");
            }
        }
        assert_eq!(seal().seal(b"same"), seal().seal(b"same"));
    }

    #[test]
    fn opens_nothing_that_was_changed_in_one_byte() {
        let sealed = seal().seal(&plaintext(SEGMENT + 5));
        for at in (0..sealed.len()).filter(|at| *at < 40 || at % 997 == 0 || *at > SEGMENT) {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(seal(), &changed), Err(Unopened), "byte {at}");
        }
    }

    #[test]
    fn opens_nothing_that_was_cut_extended_or_put_in_another_order() {
        let sealed = seal().seal(&plaintext(3 * SEGMENT));
        let segment = SEGMENT + 16;
        for length in [0, 7, 16, 17, 32, 16 + segment, 16 + 2 * segment, sealed.len() - 1] {
            assert_eq!(open(seal(), &sealed[..length]), Err(Unopened), "{length} bytes");
        }
        assert_eq!(open(seal(), &[sealed.as_slice(), &[0]].concat()), Err(Unopened));
        assert_eq!(open(seal(), &[&sealed, &sealed[16 + segment..]].concat()), Err(Unopened));
        let mut swapped = sealed[..16].to_vec();
        for index in [1, 0, 2] {
            swapped.extend_from_slice(&sealed[16 + index * segment..16 + (index + 1) * segment]);
        }
        assert_eq!(open(seal(), &swapped), Err(Unopened));
    }

    #[test]
    fn opens_nothing_as_another_object_or_with_another_key() {
        let sealed = seal().seal(b"seven");
        let others = [
            seal_with(2, Class::Internal, "acme", DIGEST),
            seal_with(1, Class::Public, "acme", DIGEST),
            seal_with(1, Class::Internal, "acne", DIGEST),
            seal_with(1, Class::Internal, "acme", [8; 32]),
        ];
        for other in others {
            // Also where the id in the header is made to fit.
            let mut fitted = sealed.clone();
            fitted[..16].copy_from_slice(other.header());
            assert_eq!(open(other, &fitted), Err(Unopened));
        }
        assert_eq!(open(seal_with(2, Class::Internal, "acme", DIGEST), &sealed), Err(Unopened));
    }

    #[test]
    fn names_tell_neither_digest_nor_which_of_two_are_equal() {
        let keys = keys(&[1, 2]);
        let [first, second] = [0, 1].map(|i| keys.iter().nth(i).unwrap().clone());
        let names = [
            sealed_name(&first, Class::Public, "a", DIGEST),
            sealed_name(&first, Class::Internal, "a", DIGEST),
            sealed_name(&first, Class::Public, "b", DIGEST),
            sealed_name(&second, Class::Public, "a", DIGEST),
            hex::encode(DIGEST),
        ];
        let different: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(different.len(), names.len());
    }
}
