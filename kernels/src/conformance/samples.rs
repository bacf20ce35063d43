//! Reproducible field elements, with the awkward ones among them.

use plonky2::field::types::Field;
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, K, ORDER, ext};

/// A deterministic generator (SplitMix64).
#[derive(Clone, Debug)]
pub(super) struct Samples {
    state: u64,
}

impl Samples {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Any encoding of an element; one in eight is 0, 1, p − 1, p, p + 1, 2^64 − 1 or near 2^32.
    pub(super) fn element(&mut self) -> F {
        const AWKWARD: [u64; 8] = [0, 1, ORDER - 1, ORDER, ORDER + 1, u64::MAX, u32::MAX as u64, 1 << 32];
        let word = self.word();
        let encoding = if word.is_multiple_of(8) { AWKWARD[(word >> 8) as usize % AWKWARD.len()] } else { self.word() };
        F::from_noncanonical_u64(encoding)
    }

    pub(super) fn elements(&mut self, count: usize) -> Vec<F> {
        (0..count).map(|_| self.element()).collect()
    }

    /// An element of K outside every table's rows, with overwhelming probability.
    pub(super) fn extension(&mut self) -> K {
        ext(F::from_noncanonical_u64(self.word()), F::from_noncanonical_u64(self.word()))
    }

    pub(super) fn extensions(&mut self, count: usize) -> Vec<K> {
        (0..count).map(|_| self.extension()).collect()
    }

    pub(super) fn columns(&mut self, rows: usize, n_columns: usize) -> Columns {
        Columns::from_flat(rows, self.elements(rows * n_columns))
    }
}
