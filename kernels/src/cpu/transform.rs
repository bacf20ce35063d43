//! Discrete Fourier transforms between coefficients and values on a coset s·⟨w⟩ of order n = 2^k, values in bit-reversed order.
//!
//! The forward transform walks the remainder tree: block t of stage ℓ holds the polynomial modulo `X^(2h) − c²`, h = n / 2^(ℓ+1),
//! `c = s^h · w_(2^(ℓ+1))^rev_ℓ(t)`; it splits into the remainders modulo `X^h − c` and `X^h + c`: `(a + c·b, a − c·b)`. The coset costs nothing,
//! no bit reversal takes place, and position p of the result holds the value at `s·w^rev(p)`: the leaf order of plonky2's trees.
//! Cost: n/2·log₂ n multiplications.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use plonky2::field::types::Field;
use rayon::prelude::*;
use zkinfer_circuits::field::F;

use super::buffer::zeros;
use super::butterflies::{Direction, Forward, Inverse};
use super::passes::{BitReversed, PassPiece, Transform, Twiddles};
use crate::vector::Dispatch;

/// Largest log₂ of a transform.
pub(crate) const MAX_LOG_SIZE: usize = 32;
/// log₂ of the largest transform that one thread computes alone.
const LOG_SHARED: usize = 16;
/// Positions of one pass that a thread takes at a time when it shares a transform.
const PIECE: usize = 1 << 12;
/// Twiddle factors kept for cosets used before: 32 MiB, and their inverses as much again.
const MAX_KEPT_TWIDDLES: usize = 1 << 22;

/// `bits` low bits of `index`, reversed.
#[inline(always)]
pub(crate) fn reverse_bits(index: usize, bits: usize) -> usize {
    if bits == 0 { 0 } else { index.reverse_bits() >> (usize::BITS as usize - bits) }
}

/// Roots of unity and twiddle factors, computed on first use; and the vectors to transform with.
#[derive(Debug)]
pub(crate) struct RootTables {
    dispatch: Dispatch,
    /// In bit-reversed order, by size.
    roots: [OnceLock<Vec<F>>; MAX_LOG_SIZE + 1],
    /// The latest used last.
    cosets: Mutex<Vec<Arc<Coset>>>,
}

impl RootTables {
    pub(crate) fn new(dispatch: Dispatch) -> Self {
        Self { dispatch, roots: std::array::from_fn(|_| OnceLock::new()), cosets: Mutex::default() }
    }

    /// What the kernels of all steps run on.
    pub(crate) fn dispatch(&self) -> Dispatch {
        self.dispatch
    }

    /// `w_(2·size)^rev(t)` for t < size = 2^log_size; its prefixes serve all smaller sizes.
    fn roots(&self, log_size: usize) -> &[F] {
        self.roots[log_size].get_or_init(|| {
            let powers: Vec<F> = F::primitive_root_of_unity(log_size + 1).powers().take(1 << log_size).collect();
            (0..powers.len()).map(|t| powers[reverse_bits(t, log_size)]).collect()
        })
    }

    /// The transform on shift·⟨w⟩ of order 2^log_size; `log_size < 32`.
    pub(crate) fn coset(&self, log_size: usize, shift: F) -> Arc<Coset> {
        let same = |coset: &Arc<Coset>| coset.log_size == log_size && coset.shift == shift;
        let mut kept = self.cosets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = kept.iter().position(same) {
            let coset = kept.remove(position);
            kept.push(coset.clone());
            return coset;
        }
        drop(kept);
        let coset = Arc::new(self.build_coset(log_size, shift));
        let mut kept = self.cosets.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(coset.clone());
        let mut n_twiddles: usize = kept.iter().map(|coset| 1usize << coset.log_size).sum();
        while n_twiddles > MAX_KEPT_TWIDDLES {
            n_twiddles -= 1 << kept.remove(0).log_size;
        }
        coset
    }

    fn build_coset(&self, log_size: usize, shift: F) -> Coset {
        let roots = self.roots(log_size.saturating_sub(1));
        let mut twiddles = Vec::with_capacity(1 << log_size);
        for stage in 0..log_size {
            let scale = shift.exp_power_of_2(log_size - stage - 1);
            twiddles.extend(roots[..1 << stage].iter().map(|&root| root * scale));
        }
        let twiddles = Twiddles::new(twiddles, log_size, self.dispatch.width());
        Coset { dispatch: self.dispatch, log_size, shift, twiddles, inverse: OnceLock::new() }
    }

    /// The cosets whose union, in order, is the bit-reversed coset shift·⟨w'⟩ of order 2^(log_size + rate_bits).
    pub(crate) fn cosets(&self, log_size: usize, rate_bits: usize, shift: F) -> Vec<Arc<Coset>> {
        let root = F::primitive_root_of_unity(log_size + rate_bits);
        (0..1usize << rate_bits)
            .into_par_iter()
            .map(|t| self.coset(log_size, shift * root.exp_u64(reverse_bits(t, rate_bits) as u64)))
            .collect()
    }
}

/// A coset with the twiddle factors of its transforms.
#[derive(Debug)]
pub(crate) struct Coset {
    dispatch: Dispatch,
    log_size: usize,
    shift: F,
    twiddles: Twiddles,
    inverse: OnceLock<Twiddles>,
}

impl Coset {
    /// Coefficients to values in bit-reversed order, in place.
    pub(crate) fn forward(&self, values: &mut [F]) {
        assert_eq!(values.len(), 1 << self.log_size, "a transform has one size");
        forward_block(self.dispatch, &self.twiddles, values, [0, 0]);
    }

    /// A copy of coefficients, zero-padded, to values in bit-reversed order.
    pub(crate) fn forward_from(&self, coefficients: &[F], values: &mut [F]) {
        let (copied, padding) = values.split_at_mut(coefficients.len());
        copied.copy_from_slice(coefficients);
        padding.fill(F::ZERO);
        self.forward(values);
    }

    /// The transform back, from values in bit-reversed order.
    pub(crate) fn inverse(&self) -> InverseCoset<'_> {
        let twiddles = self.inverse.get_or_init(|| self.twiddles.inverted());
        InverseCoset { coset: self, twiddles }
    }

    /// The points in bit-reversed order.
    pub(crate) fn points(&self) -> Vec<F> {
        let root = F::primitive_root_of_unity(self.log_size);
        let powers: Vec<F> = root.powers().take(1 << self.log_size).collect();
        (0..powers.len()).map(|p| self.shift * powers[reverse_bits(p, self.log_size)]).collect()
    }
}

/// The inverse transform of a [`Coset`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct InverseCoset<'a> {
    coset: &'a Coset,
    twiddles: &'a Twiddles,
}

impl InverseCoset<'_> {
    /// Values in bit-reversed order to coefficients, in place.
    pub(crate) fn apply(&self, values: &mut [F]) {
        let Coset { dispatch, log_size, .. } = *self.coset;
        assert_eq!(values.len(), 1 << log_size, "a transform has one size");
        inverse_block(dispatch, self.twiddles, values, [0, 0], F::inverse_2exp(log_size));
    }

    /// Values in natural order to coefficients.
    pub(crate) fn apply_from(&self, values: &[F], coefficients: &mut [F]) {
        assert_eq!(values.len(), coefficients.len(), "a transform has one size");
        self.coset.dispatch.run(BitReversed { from: values, to: coefficients });
        self.apply(coefficients);
    }
}

/// A large block is shared among threads: one pass in pieces, then its eight children.
fn forward_block(dispatch: Dispatch, twiddles: &Twiddles, values: &mut [F], [stage, index]: [usize; 2]) {
    if values.len() <= 1 << LOG_SHARED {
        return dispatch.run(Transform::<Forward>::of_block(twiddles, values, [stage, index], None));
    }
    shared_pass::<Forward>(dispatch, twiddles, values, [stage, index]);
    values.par_chunks_exact_mut(values.len() / 8).enumerate().for_each(|(child, values)| {
        forward_block(dispatch, twiddles, values, [stage + 3, 8 * index + child]);
    });
}

fn inverse_block(dispatch: Dispatch, twiddles: &Twiddles, values: &mut [F], [stage, index]: [usize; 2], scale: F) {
    if values.len() <= 1 << LOG_SHARED {
        return dispatch.run(Transform::<Inverse>::of_block(twiddles, values, [stage, index], Some(scale)));
    }
    values.par_chunks_exact_mut(values.len() / 8).enumerate().for_each(|(child, values)| {
        inverse_block(dispatch, twiddles, values, [stage + 3, 8 * index + child], scale);
    });
    shared_pass::<Inverse>(dispatch, twiddles, values, [stage, index]);
}

fn shared_pass<D: Direction + Send>(dispatch: Dispatch, twiddles: &Twiddles, values: &mut [F], [stage, index]: [usize; 2]) {
    let mut pieces: Vec<_> = values.chunks_exact_mut(values.len() / 8).map(|part| part.chunks_exact_mut(PIECE)).collect();
    let n_pieces = pieces[0].len();
    let pieces: Vec<[&mut [F]; 8]> =
        (0..n_pieces).map(|_| std::array::from_fn(|part| pieces[part].next().expect("parts are of one length"))).collect();
    pieces.into_par_iter().for_each(|parts| dispatch.run(PassPiece::<D> { twiddles, parts, stage, index, direction: PhantomData }));
}

/// A copy in bit-reversed order.
pub(crate) fn reversed(dispatch: Dispatch, values: &[F]) -> Vec<F> {
    let mut copy = zeros(values.len());
    dispatch.run(BitReversed { from: values, to: &mut copy });
    copy
}

#[cfg(test)]
mod tests {
    use plonky2::field::polynomial::PolynomialCoeffs;
    use plonky2::field::types::Sample;

    use super::*;
    use crate::vector::Level;

    fn tables_of_every_level() -> impl Iterator<Item = RootTables> {
        Level::available().into_iter().map(|level| RootTables::new(Dispatch::new(level).expect("the level is available")))
    }

    #[test]
    fn forward_agrees_with_plonky2_and_inverse_undoes_it() {
        for tables in tables_of_every_level() {
            let reversed = |values: &[F]| reversed(tables.dispatch(), values);
            for log_size in (0..15).chain([17, 20]) {
                let coefficients = F::rand_vec(1 << log_size);
                let coset = tables.coset(log_size, F::coset_shift());
                let mut values = vec![F::ONE; 1 << log_size];
                coset.forward_from(&coefficients, &mut values);
                let expected = PolynomialCoeffs::new(coefficients.clone()).coset_fft(F::coset_shift()).values;
                assert!(values == reversed(&expected), "size 2^{log_size}");
                let mut back = vec![F::ONE; 1 << log_size];
                coset.inverse().apply_from(&expected, &mut back);
                coset.inverse().apply(&mut values);
                assert!(values == coefficients && back == coefficients, "size 2^{log_size}");
            }
        }
    }

    #[test]
    fn coefficients_are_padded_with_zeros() {
        for tables in tables_of_every_level() {
            let coset = tables.coset(8, F::TWO);
            let [mut short, mut whole] = [vec![F::ONE; 256], vec![F::ZERO; 256]];
            whole[..64].fill(F::TWO);
            coset.forward_from(&whole[..64], &mut short);
            coset.forward(&mut whole);
            assert_eq!(short, whole);
        }
    }

    #[test]
    fn cosets_in_order_make_the_extended_domain() {
        for tables in tables_of_every_level() {
            let coefficients = F::rand_vec(16);
            let mut extended = Vec::new();
            for coset in tables.cosets(4, 3, F::coset_shift()) {
                let mut values = coefficients.clone();
                coset.forward(&mut values);
                extended.extend(values);
            }
            let expected = PolynomialCoeffs::new(coefficients).lde(3).coset_fft(F::coset_shift()).values;
            assert_eq!(extended, reversed(tables.dispatch(), &expected));
        }
    }

    #[test]
    fn cosets_used_before_are_kept_within_a_bound() {
        let tables = RootTables::new(Dispatch::detect());
        let first = tables.coset(10, F::TWO);
        assert!(Arc::ptr_eq(&first, &tables.coset(10, F::TWO)));
        for exponent in 0..9 {
            tables.coset(19, F::TWO.exp_u64(exponent));
        }
        assert!(!Arc::ptr_eq(&first, &tables.coset(10, F::TWO)));
        let kept = tables.cosets.lock().unwrap();
        assert!(kept.iter().map(|coset| 1usize << coset.log_size).sum::<usize>() <= MAX_KEPT_TWIDDLES);
    }
}
