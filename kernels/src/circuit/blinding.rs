//! What is random in a proof with zero knowledge, and where it comes from.
//!
//! plonky2 hides a witness by three things, and this prover does the same three:
//! - rows that no constraint looks at hold uniform elements, in the cells for which the circuit has generators of random values;
//! - further rows hide the permutation's products alike, with copies of such elements;
//! - every leaf of the wires, the products and the quotient ends in [`SALT_SIZE`] uniform elements, so that an unopened digest tells nothing.
//!
//! The wires, products, quotient, openings and FRI layers are then the same functions of circuit, witness and transcript as in plonky2's prover,
//! and cells and salts have the same distribution: independent, uniform in F. The nonce is the smallest that satisfies the proof of work, where
//! plonky2 takes any: both are chosen from the transcript alone, which the verifier sees. So a proof is distributed as plonky2's are, up to
//! the choice of nonce, and hides what they hide.
//!
//! The elements come from the operating system, in blocks rather than one by one. Nothing here takes a seed.

use plonky2::field::types::Field;
use plonky2::fri::oracle::SALT_SIZE;
use rayon::prelude::*;
use zkinfer_circuits::backend::BackendError;
use zkinfer_circuits::field::{F, ORDER};

/// Whether a proof is blinded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blinding {
    /// Random cells are zero and leaves have no salt: equal witnesses have equal proofs.
    Absent,
    /// Random cells and salts are fresh.
    Fresh,
}

impl Blinding {
    /// Values of random cells.
    pub(super) fn elements(self, count: usize) -> Result<Vec<F>, BackendError> {
        match self {
            Self::Absent => Ok(vec![F::ZERO; count]),
            Self::Fresh => fresh_elements(count),
        }
    }

    /// Columns to append to `n_leaves` leaves: none, or [`SALT_SIZE`] columns.
    pub(super) fn salt(self, n_leaves: usize) -> Result<Vec<F>, BackendError> {
        match self {
            Self::Absent => Ok(Vec::new()),
            Self::Fresh => fresh_elements(SALT_SIZE * n_leaves),
        }
    }
}

/// Elements asked of the operating system at once.
const BLOCK: usize = 4096;

/// Independent uniform elements from the operating system.
fn fresh_elements(count: usize) -> Result<Vec<F>, BackendError> {
    let mut elements = vec![F::ZERO; count];
    elements.par_chunks_mut(BLOCK).try_for_each(fill)?;
    Ok(elements)
}

fn fill(elements: &mut [F]) -> Result<(), BackendError> {
    let mut bytes = [0u8; 8 * BLOCK];
    let mut filled = 0;
    while filled < elements.len() {
        let bytes = &mut bytes[..8 * (elements.len() - filled)];
        getrandom::fill(bytes)
            .map_err(|error| BackendError::Device { device: "the operating system's entropy".to_owned(), message: error.to_string() })?;
        for word in bytes.chunks_exact(8).filter_map(|word| word.try_into().ok()).map(u64::from_le_bytes) {
            // Words from p on are passed over, which keeps the rest uniform.
            if word < ORDER {
                elements[filled] = F::from_canonical_u64(word);
                filled += 1;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salts_are_fresh_and_only_where_asked_for() {
        assert!(Blinding::Absent.salt(64).unwrap().is_empty());
        let n_leaves = BLOCK + 3;
        let mut words: Vec<u64> = Vec::new();
        for _ in 0..2 {
            let salt = Blinding::Fresh.salt(n_leaves).unwrap();
            assert_eq!(salt.len(), SALT_SIZE * n_leaves);
            words.extend(salt.iter().map(|element| element.0));
        }
        let count = words.len();
        assert!(words.iter().all(|&word| word < ORDER));
        words.sort_unstable();
        words.dedup();
        // Two equal ones among 2^15 are expected once in 2^35 runs.
        assert_eq!(words.len(), count);
    }
}
