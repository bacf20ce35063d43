//! Discrete Fourier transforms between coefficients and values on a coset s·⟨w⟩ of order n = 2^k, values in bit-reversed order.
//!
//! The forward transform walks the remainder tree: block t of stage ℓ holds the polynomial modulo `X^(2h) − c²`, h = n / 2^(ℓ+1),
//! `c = s^h · w_(2^(ℓ+1))^rev_ℓ(t)`; it splits into the remainders modulo `X^h − c` and `X^h + c`: `(a + c·b, a − c·b)`. The coset costs nothing,
//! no bit reversal takes place, and position p of the result holds the value at `s·w^rev(p)`: the leaf order of plonky2's trees.
//! Cost: n/2·log₂ n multiplications.

use std::sync::OnceLock;

use plonky2::field::packable::Packable;
use plonky2::field::packed::PackedField;
use plonky2::field::types::Field;
use rayon::prelude::*;
use zkinfer_circuits::field::F;

use crate::vector::Dispatch;

/// The vector of field elements for which this build was compiled; one element without target features.
pub(crate) type Packing = <F as Packable>::Packing;

/// Largest log₂ of a transform.
pub(crate) const MAX_LOG_SIZE: usize = 32;

/// `bits` low bits of `index`, reversed.
pub(crate) fn reverse_bits(index: usize, bits: usize) -> usize {
    if bits == 0 { 0 } else { index.reverse_bits() >> (usize::BITS as usize - bits) }
}

/// Roots of unity in bit-reversed order, by size, computed on first use; and the vectors to transform with.
#[derive(Debug)]
pub(crate) struct RootTables {
    dispatch: Dispatch,
    tables: [OnceLock<Vec<F>>; MAX_LOG_SIZE + 1],
}

impl RootTables {
    pub(crate) fn new(dispatch: Dispatch) -> Self {
        Self { dispatch, tables: std::array::from_fn(|_| OnceLock::new()) }
    }

    /// What the kernels of all steps run on.
    pub(crate) fn dispatch(&self) -> Dispatch {
        self.dispatch
    }

    /// `w_(2·size)^rev(t)` for t < size = 2^log_size; its prefixes serve all smaller sizes.
    fn roots(&self, log_size: usize) -> &[F] {
        self.tables[log_size].get_or_init(|| {
            let powers: Vec<F> = F::primitive_root_of_unity(log_size + 1).powers().take(1 << log_size).collect();
            (0..powers.len()).map(|t| powers[reverse_bits(t, log_size)]).collect()
        })
    }

    /// The transform on shift·⟨w⟩ of order 2^log_size; `log_size < 32`.
    pub(crate) fn coset(&self, log_size: usize, shift: F) -> Coset {
        let roots = self.roots(log_size.saturating_sub(1));
        let mut twiddles = Vec::with_capacity(1 << log_size);
        for stage in 0..log_size {
            let scale = shift.exp_power_of_2(log_size - stage - 1);
            twiddles.extend(roots[..1 << stage].iter().map(|&root| root * scale));
        }
        Coset { log_size, shift, twiddles }
    }

    /// The cosets whose union, in order, is the bit-reversed coset shift·⟨w'⟩ of order 2^(log_size + rate_bits).
    pub(crate) fn cosets(&self, log_size: usize, rate_bits: usize, shift: F) -> Vec<Coset> {
        let root = F::primitive_root_of_unity(log_size + rate_bits);
        (0..1usize << rate_bits)
            .into_par_iter()
            .map(|t| self.coset(log_size, shift * root.exp_u64(reverse_bits(t, rate_bits) as u64)))
            .collect()
    }
}

/// A coset with the twiddle factors of its transform, stage by stage.
#[derive(Clone, Debug)]
pub(crate) struct Coset {
    log_size: usize,
    shift: F,
    twiddles: Vec<F>,
}

impl Coset {
    /// Coefficients to values in bit-reversed order, in place.
    pub(crate) fn forward(&self, values: &mut [F]) {
        assert_eq!(values.len(), 1 << self.log_size, "a transform has one size");
        for stage in 0..self.log_size {
            let half = values.len() >> (stage + 1);
            let twiddles = &self.twiddles[(1 << stage) - 1..];
            for (block, &twiddle) in values.chunks_exact_mut(2 * half).zip(twiddles) {
                let (low, high) = block.split_at_mut(half);
                split(low, high, twiddle);
            }
        }
    }

    /// A copy of coefficients, zero-padded, to values in bit-reversed order.
    pub(crate) fn forward_from(&self, coefficients: &[F], values: &mut [F]) {
        let (copied, padding) = values.split_at_mut(coefficients.len());
        copied.copy_from_slice(coefficients);
        padding.fill(F::ZERO);
        self.forward(values);
    }

    /// The transform back, from values in bit-reversed order.
    pub(crate) fn inverse(&self) -> InverseCoset {
        InverseCoset { log_size: self.log_size, twiddles: F::batch_multiplicative_inverse(&self.twiddles) }
    }

    /// The points in bit-reversed order.
    pub(crate) fn points(&self) -> Vec<F> {
        let root = F::primitive_root_of_unity(self.log_size);
        let powers: Vec<F> = root.powers().take(1 << self.log_size).collect();
        (0..powers.len()).map(|p| self.shift * powers[reverse_bits(p, self.log_size)]).collect()
    }
}

/// The inverse transform of a [`Coset`].
#[derive(Clone, Debug)]
pub(crate) struct InverseCoset {
    log_size: usize,
    twiddles: Vec<F>,
}

impl InverseCoset {
    /// Values in bit-reversed order to coefficients, in place.
    pub(crate) fn apply(&self, values: &mut [F]) {
        assert_eq!(values.len(), 1 << self.log_size, "a transform has one size");
        for stage in (0..self.log_size).rev() {
            let half = values.len() >> (stage + 1);
            let twiddles = &self.twiddles[(1 << stage) - 1..];
            for (block, &twiddle) in values.chunks_exact_mut(2 * half).zip(twiddles) {
                let (low, high) = block.split_at_mut(half);
                join(low, high, twiddle);
            }
        }
        let scale = F::inverse_2exp(self.log_size);
        values.iter_mut().for_each(|value| *value *= scale);
    }
}

/// `(a, b) → (a + c·b, a − c·b)`.
fn split(low: &mut [F], high: &mut [F], twiddle: F) {
    if low.len().is_multiple_of(Packing::WIDTH) {
        split_packed::<Packing>(low, high, twiddle);
    } else {
        split_packed::<F>(low, high, twiddle);
    }
}

fn split_packed<P: PackedField<Scalar = F>>(low: &mut [F], high: &mut [F], twiddle: F) {
    for (a, b) in P::pack_slice_mut(low).iter_mut().zip(P::pack_slice_mut(high)) {
        let product = *b * twiddle;
        (*a, *b) = (*a + product, *a - product);
    }
}

/// `(u, v) → (u + v, (u − v)·c)`, c the inverse twiddle.
fn join(low: &mut [F], high: &mut [F], twiddle: F) {
    if low.len().is_multiple_of(Packing::WIDTH) {
        join_packed::<Packing>(low, high, twiddle);
    } else {
        join_packed::<F>(low, high, twiddle);
    }
}

fn join_packed<P: PackedField<Scalar = F>>(low: &mut [F], high: &mut [F], twiddle: F) {
    for (u, v) in P::pack_slice_mut(low).iter_mut().zip(P::pack_slice_mut(high)) {
        (*u, *v) = (*u + *v, (*u - *v) * twiddle);
    }
}

/// A copy in bit-reversed order.
pub(crate) fn reversed(values: &[F]) -> Vec<F> {
    let bits = values.len().trailing_zeros() as usize;
    (0..values.len()).map(|index| values[reverse_bits(index, bits)]).collect()
}

#[cfg(test)]
mod tests {
    use plonky2::field::polynomial::PolynomialCoeffs;
    use plonky2::field::types::Sample;

    use super::*;

    #[test]
    fn forward_agrees_with_plonky2_and_inverse_undoes_it() {
        let tables = RootTables::new(Dispatch::detect());
        for log_size in 0..9 {
            let coefficients = F::rand_vec(1 << log_size);
            let coset = tables.coset(log_size, F::coset_shift());
            let mut values = coefficients.clone();
            coset.forward(&mut values);
            let expected = PolynomialCoeffs::new(coefficients.clone()).coset_fft(F::coset_shift()).values;
            assert_eq!(values, reversed(&expected), "size 2^{log_size}");
            coset.inverse().apply(&mut values);
            assert_eq!(values, coefficients, "size 2^{log_size}");
        }
    }

    #[test]
    fn cosets_in_order_make_the_extended_domain() {
        let tables = RootTables::new(Dispatch::detect());
        let coefficients = F::rand_vec(16);
        let mut extended = Vec::new();
        for coset in tables.cosets(4, 3, F::coset_shift()) {
            let mut values = coefficients.clone();
            coset.forward(&mut values);
            extended.extend(values);
        }
        let expected = PolynomialCoeffs::new(coefficients).lde(3).coset_fft(F::coset_shift()).values;
        assert_eq!(extended, reversed(&expected));
    }
}
