//! The bytes of a saved oracle: everything that a loaded one needs, so that loading neither hashes nor transforms.
//!
//! Little-endian words of 64 bits: magic, version, log₂ rows, rate bits, cap height, columns; coefficients; extension; digests level by
//! level from the leaves to the cap. Field elements are canonical. The layout is private to this crate and this version.

use plonky2::field::types::{Field, PrimeField64};
use rayon::prelude::*;
use zkinfer_circuits::backend::{BackendError, CommitShape};
use zkinfer_circuits::field::{Digest, F};

use super::buffer::zeros;
use super::oracle::{Oracle, is_canonical};
use super::transform::MAX_LOG_SIZE;
use super::tree::Tree;

/// "zkorcl" and the layout's version.
const MAGIC: u64 = u64::from_le_bytes(*b"zkorcl\0\x01");
const HEADER_WORDS: usize = 5;
const WORD: usize = 8;
const DIGEST_WORDS: usize = 4;
/// Words converted by one task.
const CHUNK_WORDS: usize = 1 << 14;

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
        elements.checked_add(digests)?.checked_add(HEADER_WORDS)?.checked_mul(WORD)
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
