//! Sums of products with one reduction at the end: `Σ a_i·b_i` over the integers in 128 bits and a count of carries.

use plonky2::field::types::{Field, PrimeField64};
use rayon::prelude::*;
use zkinfer_circuits::field::{F, K, ext, limbs};

/// Rows that one task combines: accumulators and columns stay in the first-level cache.
const BLOCK_ROWS: usize = 1024;
/// Columns combined between two reductions.
const GROUP: usize = 8;

/// An integer sum of products, `low + 2^128·carries`; at most 2^31 products.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WideSum {
    low: u128,
    carries: u64,
}

impl WideSum {
    /// Adds `a·b`.
    #[inline(always)]
    pub(crate) fn add_product(&mut self, a: F, b: F) {
        let product = u128::from(a.to_noncanonical_u64()) * u128::from(b.to_noncanonical_u64());
        let (low, carry) = self.low.overflowing_add(product);
        self.low = low;
        self.carries += u64::from(carry);
    }

    /// The sum modulo p: 2^128 ≡ −2^32.
    #[inline(always)]
    pub(crate) fn reduce(self) -> F {
        F::from_noncanonical_u128(self.low) - F::from_noncanonical_u64(self.carries << 32)
    }
}

/// 1, x, …, x^(n−1), in parallel.
pub(crate) fn powers(base: K, n: usize) -> Vec<K> {
    const CHUNK: usize = 4096;
    let mut result = vec![K::ONE; n];
    result.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let mut power = base.exp_u64((chunk * CHUNK) as u64);
        for value in values {
            *value = power;
            power *= base;
        }
    });
    result
}

/// The two coordinates of each element.
pub(crate) fn split(values: &[K]) -> [Vec<F>; 2] {
    let (c0, c1) = values.iter().map(|&value| limbs(value)).map(|[a, b]| (a, b)).unzip();
    [c0, c1]
}

/// `Σ_i coefficients_i · weights_i`, the weights given by coordinate.
pub(crate) fn dot(coefficients: &[F], weights: &[Vec<F>; 2]) -> K {
    let (mut c0, mut c1) = (WideSum::default(), WideSum::default());
    for ((&value, &w0), &w1) in coefficients.iter().zip(&weights[0]).zip(&weights[1]) {
        c0.add_product(value, w0);
        c1.add_product(value, w1);
    }
    ext(c0.reduce(), c1.reduce())
}

/// `Σ_c weights_c · columns_c`, by coordinate; all columns have `n_rows` elements.
pub(crate) fn combine(columns: &[&[F]], weights: &[K], n_rows: usize) -> [Vec<F>; 2] {
    let mut sums = [vec![F::ZERO; n_rows], vec![F::ZERO; n_rows]];
    let [sums0, sums1] = &mut sums;
    let blocks = sums0.par_chunks_mut(BLOCK_ROWS).zip(sums1.par_chunks_mut(BLOCK_ROWS));
    blocks.enumerate().for_each(|(block, (block0, block1))| {
        let first = block * BLOCK_ROWS;
        for (columns, weights) in columns.chunks(GROUP).zip(weights.chunks(GROUP)) {
            if let (Ok(columns), Ok(weights)) = (<[&[F]; GROUP]>::try_from(columns), <[K; GROUP]>::try_from(weights)) {
                add_combination(block0, block1, columns.map(|column| &column[first..]), weights);
            } else {
                for (column, &weight) in columns.iter().zip(weights) {
                    add_combination(block0, block1, [&column[first..]], [weight]);
                }
            }
        }
    });
    sums
}

fn add_combination<const N: usize>(sums0: &mut [F], sums1: &mut [F], columns: [&[F]; N], weights: [K; N]) {
    let columns = columns.map(|column| &column[..sums0.len()]);
    let weights = weights.map(limbs);
    for (row, (sum0, sum1)) in sums0.iter_mut().zip(sums1).enumerate() {
        let (mut c0, mut c1) = (WideSum::default(), WideSum::default());
        for (column, [w0, w1]) in columns.iter().zip(&weights) {
            c0.add_product(column[row], *w0);
            c1.add_product(column[row], *w1);
        }
        *sum0 += c0.reduce();
        *sum1 += c1.reduce();
    }
}

#[cfg(test)]
mod tests {
    use plonky2::field::types::Sample;
    use zkinfer_circuits::field::scale;

    use super::*;

    #[test]
    fn reduces_sums_of_largest_products() {
        let largest = F::from_noncanonical_u64(u64::MAX);
        let mut sum = WideSum::default();
        let mut expected = F::ZERO;
        for _ in 0..1000 {
            sum.add_product(largest, largest);
            expected += largest * largest;
            assert_eq!(sum.reduce(), expected);
        }
    }

    #[test]
    fn combines_any_number_of_columns() {
        for n_columns in [1, 2, 7, 8, 9, 17] {
            let columns: Vec<Vec<F>> = (0..n_columns).map(|_| F::rand_vec(2048)).collect();
            let weights = K::rand_vec(n_columns);
            let slices: Vec<&[F]> = columns.iter().map(Vec::as_slice).collect();
            let [c0, c1] = combine(&slices, &weights, 2048);
            for row in [0, 1023, 1024, 2047] {
                let expected: K = weights.iter().zip(&columns).map(|(&w, column)| scale(w, column[row])).sum();
                assert_eq!(ext(c0[row], c1[row]), expected);
            }
        }
    }
}
