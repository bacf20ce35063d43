//! The bytes of a saved oracle: everything that a loaded one needs, so that loading neither hashes nor transforms.
//!
//! Little-endian words of 64 bits: magic, version, log₂ rows, rate bits, cap height, columns; coefficients; extension; digests level by
//! level from the leaves to the cap; a checksum of all that. Field elements are canonical. The layout is private to this crate and this version.
//!
//! The checksum finds what a disk or a copy damaged, so that nobody proves with it: BLAKE3 over the BLAKE3 hashes of the chunks of
//! [`CHUNK_BYTES`], which threads hash side by side. It is no proof of origin: whoever writes the file can write the checksum.

use plonky2::field::types::{Field, PrimeField64};
use rayon::prelude::*;
use zkinfer_circuits::backend::{BackendError, CommitShape};
use zkinfer_circuits::field::{Digest, F};

use super::buffer::zeros;
use super::oracle::{Oracle, is_canonical};
use super::transform::MAX_LOG_SIZE;
use super::tree::Tree;

/// "zkorcl" and the layout's version.
const MAGIC: u64 = u64::from_le_bytes(*b"zkorcl\0\x02");
const HEADER_WORDS: usize = 5;
const WORD: usize = 8;
const DIGEST_WORDS: usize = 4;
/// Words converted by one task.
const CHUNK_WORDS: usize = 1 << 14;
/// Bytes hashed by one task.
const CHUNK_BYTES: usize = CHUNK_WORDS * WORD;
const CHECKSUM_BYTES: usize = blake3::OUT_LEN;

/// Sizes stated by a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    log_rows: usize,
    shape: CommitShape,
    n_columns: usize,
}

impl Sizes {
    fn n_leaves(self) -> usize {
        1 << (self.log_rows + self.shape.rate_bits)
    }

    /// Digests of all levels.
    fn n_digests(self) -> usize {
        2 * self.n_leaves() - (1 << self.shape.cap_height)
    }

    /// Length of the whole file in bytes, unless it overflows.
    fn length(self) -> Option<usize> {
        let per_column = (1usize << self.log_rows).checked_add(self.n_leaves())?;
        let elements = per_column.checked_mul(self.n_columns)?;
        let digests = self.n_digests().checked_mul(DIGEST_WORDS)?;
        elements.checked_add(digests)?.checked_add(HEADER_WORDS)?.checked_mul(WORD)?.checked_add(CHECKSUM_BYTES)
    }

    fn read(header: &[u8]) -> Result<Self, BackendError> {
        let mut words = header.chunks_exact(WORD).map(word);
        let [Some(magic), Some(log_rows), Some(rate_bits), Some(cap_height), Some(n_columns)] = [(); 5].map(|()| words.next()) else {
            return Err(damaged("the header is missing"));
        };
        if magic != MAGIC {
            return Err(damaged("it was written by another version or is no oracle; delete it, it will be computed again"));
        }
        let log_leaves = log_rows.saturating_add(rate_bits);
        if log_leaves >= MAX_LOG_SIZE as u64 || cap_height > log_leaves || n_columns == 0 || n_columns > u64::from(u32::MAX) {
            return Err(damaged("its sizes are impossible"));
        }
        let shape = CommitShape { rate_bits: rate_bits as usize, cap_height: cap_height as usize };
        Ok(Self { log_rows: log_rows as usize, shape, n_columns: n_columns as usize })
    }
}

fn damaged(message: &str) -> BackendError {
    BackendError::Damaged(message.to_owned())
}

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD];
    word.copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// The checksum of header and values.
fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hashes: Vec<_> = content.par_chunks(CHUNK_BYTES).map(blake3::hash).collect();
    let mut hasher = blake3::Hasher::new();
    for hash in hashes {
        hasher.update(hash.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// An oracle's bytes.
pub(crate) fn save(oracle: &Oracle) -> Vec<u8> {
    let sizes = Sizes { log_rows: oracle.log_rows, shape: oracle.shape, n_columns: oracle.n_columns() };
    let mut bytes = vec![0; sizes.length().expect("the oracle is in memory")];
    let (header, mut rest) = bytes.split_at_mut(HEADER_WORDS * WORD);
    let words = [MAGIC, sizes.log_rows as u64, sizes.shape.rate_bits as u64, sizes.shape.cap_height as u64, sizes.n_columns as u64];
    for (target, word) in header.chunks_exact_mut(WORD).zip(words) {
        target.copy_from_slice(&word.to_le_bytes());
    }
    for elements in [&oracle.coefficients, &oracle.extension] {
        let (target, remaining) = rest.split_at_mut(elements.len() * WORD);
        write_elements(target, elements);
        rest = remaining;
    }
    for level in oracle.tree.levels() {
        let elements: Vec<F> = level.iter().flat_map(|digest| digest.elements).collect();
        let (target, remaining) = rest.split_at_mut(elements.len() * WORD);
        write_elements(target, &elements);
        rest = remaining;
    }
    let (content, trailer) = bytes.split_at_mut(sizes.length().expect("the oracle is in memory") - CHECKSUM_BYTES);
    trailer.copy_from_slice(&checksum(content));
    bytes
}

fn write_elements(target: &mut [u8], elements: &[F]) {
    target.par_chunks_mut(CHUNK_WORDS * WORD).zip(elements.par_chunks(CHUNK_WORDS)).for_each(|(target, elements)| {
        for (bytes, element) in target.chunks_exact_mut(WORD).zip(elements) {
            bytes.copy_from_slice(&element.to_canonical_u64().to_le_bytes());
        }
    });
}

/// Restores an oracle; nothing is allocated before the length is known to be right.
pub(crate) fn load(bytes: &[u8]) -> Result<Oracle, BackendError> {
    let (header, body) = bytes.split_at_checked(HEADER_WORDS * WORD).ok_or_else(|| damaged("the header is missing"))?;
    let sizes = Sizes::read(header)?;
    if sizes.length() != Some(bytes.len()) {
        return Err(damaged("its length is not the one that its header states"));
    }
    let (content, trailer) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
    if checksum(content) != *trailer {
        return Err(damaged("its checksum is not that of its content; it will be computed again"));
    }
    let (coefficients, body) = body.split_at((sizes.n_columns << sizes.log_rows) * WORD);
    let (extension, mut body) = body.split_at(sizes.n_columns * sizes.n_leaves() * WORD);
    let mut levels = Vec::new();
    for log_length in (sizes.shape.cap_height..=sizes.log_rows + sizes.shape.rate_bits).rev() {
        let (level, rest) = body.split_at((DIGEST_WORDS << log_length) * WORD);
        levels.push(read_digests(level)?);
        body = rest;
    }
    let (coefficients, extension) = (read_elements(coefficients)?, read_elements(extension)?);
    Ok(Oracle::from_parts(sizes.log_rows, sizes.shape, coefficients, extension, Tree::from_levels(levels)))
}

fn read_elements(bytes: &[u8]) -> Result<Vec<F>, BackendError> {
    let mut elements = zeros(bytes.len() / WORD);
    let chunks = elements.par_chunks_mut(CHUNK_WORDS).zip(bytes.par_chunks(CHUNK_WORDS * WORD));
    let canonical = chunks.map(|(elements, bytes)| {
        let mut canonical = true;
        for (element, bytes) in elements.iter_mut().zip(bytes.chunks_exact(WORD)) {
            let word = word(bytes);
            canonical &= is_canonical(word);
            *element = F::from_noncanonical_u64(word);
        }
        canonical
    });
    if canonical.reduce(|| true, |a, b| a && b) { Ok(elements) } else { Err(damaged("a field element is not below p")) }
}

fn read_digests(bytes: &[u8]) -> Result<Vec<Digest>, BackendError> {
    let elements = read_elements(bytes)?;
    Ok(elements.chunks_exact(DIGEST_WORDS).map(Digest::from_partial).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuBackend;
    use zkinfer_circuits::backend::Backend;
    use zkinfer_circuits::columns::Columns;
    use zkinfer_circuits::field::from_signed;

    /// Several chunks, the last one not whole.
    fn saved() -> Vec<u8> {
        let columns = Columns::from_flat(1 << 10, (0..7 << 10).map(from_signed).collect());
        let cpu = CpuBackend::new();
        cpu.save(&cpu.commit(&columns, CommitShape { rate_bits: 1, cap_height: 2 }).unwrap()).unwrap()
    }

    #[test]
    fn every_damaged_byte_is_found() {
        let mut bytes = saved();
        assert!(bytes.len() > 2 * CHUNK_BYTES && !bytes.len().is_multiple_of(CHUNK_BYTES));
        assert!(load(&bytes).is_ok());
        let ends = [
            0,
            7,
            8,
            39,
            40,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            bytes.len() - CHECKSUM_BYTES - 1,
            bytes.len() - CHECKSUM_BYTES,
            bytes.len() - 1,
        ];
        for at in ends.into_iter().chain((0..bytes.len()).step_by(997)) {
            for bit in [0, 7] {
                bytes[at] ^= 1 << bit;
                assert!(matches!(load(&bytes), Err(BackendError::Damaged(_))), "byte {at}, bit {bit}");
                bytes[at] ^= 1 << bit;
            }
        }
        assert!(load(&bytes).is_ok());
    }

    #[test]
    fn exchanged_chunks_and_other_lengths_are_found() {
        let bytes = saved();
        let mut exchanged = bytes.clone();
        exchanged[CHUNK_BYTES..2 * CHUNK_BYTES].rotate_left(WORD);
        assert!(matches!(load(&exchanged), Err(BackendError::Damaged(_))));
        for length in [0, 39, 40, bytes.len() - CHECKSUM_BYTES, bytes.len() - 1] {
            assert!(matches!(load(&bytes[..length]), Err(BackendError::Damaged(_))), "{length} bytes");
        }
        assert!(matches!(load(&[&bytes[..], &[0]].concat()), Err(BackendError::Damaged(_))));
    }

    #[test]
    fn values_that_are_not_canonical_are_found_whatever_the_checksum_says() {
        let mut bytes = saved();
        bytes[HEADER_WORDS * WORD..][..WORD].fill(0xff);
        let end = bytes.len() - CHECKSUM_BYTES;
        let (content, trailer) = bytes.split_at_mut(end);
        trailer.copy_from_slice(&checksum(content));
        assert!(matches!(load(&bytes), Err(BackendError::Damaged(message)) if message.contains("below p")));
    }
}
