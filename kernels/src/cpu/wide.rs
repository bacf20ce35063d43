//! Combinations of columns and values of polynomials: sums of products, over the integers, with one reduction at the end.

use plonky2::field::types::Field;
use rayon::prelude::*;
use zkinfer_circuits::field::{F, K, ext, limbs};

use super::buffer::zeros;
use crate::vector::{Dispatch, Kernel, MAX_PRODUCTS, Vector};

/// Rows that one task combines: their unreduced sums stay in the first-level cache.
const BLOCK_ROWS: usize = 512;
/// Columns combined while a row's sums are in registers.
const GROUP: usize = 8;
/// Powers of a point by which coefficients are multiplied before a block's sum is reduced: two lanes or more share them, and the sum of the
/// portable level, which has one lane, has no bound.
const BLOCK_POWERS: usize = 2 * MAX_PRODUCTS;
/// Polynomials evaluated together: their sums stay in registers.
const TOGETHER: usize = 4;
/// Polynomials that one task evaluates; the powers are prepared for each task.
const MAX_TASK_POLYNOMIALS: usize = 32;

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

/// `Σ_c weights_c · columns_c`, by coordinate; all columns have `n_rows` elements.
pub(crate) fn combine(dispatch: Dispatch, columns: &[&[F]], weights: &[K], n_rows: usize) -> [Vec<F>; 2] {
    let mut sums = [zeros(n_rows), zeros(n_rows)];
    let [sums0, sums1] = &mut sums;
    let blocks = sums0.par_chunks_mut(BLOCK_ROWS).zip(sums1.par_chunks_mut(BLOCK_ROWS));
    blocks.enumerate().for_each(|(block, (block0, block1))| {
        dispatch.run(Combine { columns, weights, first: block * BLOCK_ROWS, sums: [block0, block1] });
    });
    sums
}

/// Adds combinations of columns, from row `first` on, to sums.
struct Combine<'a> {
    columns: &'a [&'a [F]],
    weights: &'a [K],
    first: usize,
    sums: [&'a mut [F]; 2],
}

impl Kernel for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        if self.sums[0].len().is_multiple_of(V::WIDTH) { combine_block::<V>(self) } else { combine_block::<F>(self) }
    }
}

#[inline(always)]
fn combine_block<V: Vector>(Combine { columns, weights, first, sums: [sums0, sums1] }: Combine<'_>) {
    let (sums0, sums1) = (V::pack_slice_mut(sums0), V::pack_slice_mut(sums1));
    let mut wide = vec![[V::no_products(); 2]; sums0.len()];
    for (columns, weights) in columns.chunks(MAX_PRODUCTS).zip(weights.chunks(MAX_PRODUCTS)) {
        wide.fill([V::no_products(); 2]);
        let (groups, rest) = columns.as_chunks::<GROUP>();
        for (columns, weights) in groups.iter().zip(weights.chunks_exact(GROUP)) {
            add_products::<V, GROUP>(columns, weights, first, &mut wide);
        }
        for (&column, weight) in rest.iter().zip(&weights[groups.len() * GROUP..]) {
            add_products::<V, 1>(&[column], std::slice::from_ref(weight), first, &mut wide);
        }
        for ((sum0, sum1), [wide0, wide1]) in sums0.iter_mut().zip(sums1.iter_mut()).zip(&wide) {
            *sum0 += V::reduced(*wide0);
            *sum1 += V::reduced(*wide1);
        }
    }
}

#[inline(always)]
fn add_products<V: Vector, const N: usize>(columns: &[&[F]; N], weights: &[K], first: usize, wide: &mut [[V::WideSum; 2]]) {
    let mut factors = [[V::ZEROS.factor(); 2]; N];
    for (factors, &weight) in factors.iter_mut().zip(weights) {
        let [w0, w1] = limbs(weight);
        *factors = [V::from(w0).factor(), V::from(w1).factor()];
    }
    for (row, sums) in wide.iter_mut().enumerate() {
        let [mut sum0, mut sum1] = *sums;
        for (column, [factor0, factor1]) in columns.iter().zip(&factors) {
            let value = V::load(&column[first + row * V::WIDTH..]);
            sum0 = value.add_product(factor0, sum0);
            sum1 = value.add_product(factor1, sum1);
        }
        *sums = [sum0, sum1];
    }
}

/// `Σ_t weight_t · term_t` of vectors over K, all by coordinate.
pub(crate) fn weighted_sum(dispatch: Dispatch, terms: &[(&[Vec<F>; 2], K)], n_rows: usize) -> [Vec<F>; 2] {
    let mut sums = [zeros(n_rows), zeros(n_rows)];
    let [sums0, sums1] = &mut sums;
    let blocks = sums0.par_chunks_mut(BLOCK_ROWS).zip(sums1.par_chunks_mut(BLOCK_ROWS));
    blocks.enumerate().for_each(|(block, (block0, block1))| {
        dispatch.run(WeightedSum { terms, first: block * BLOCK_ROWS, sums: [block0, block1] });
    });
    sums
}

/// Adds the rows from `first` on of a weighted sum.
struct WeightedSum<'a> {
    terms: &'a [(&'a [Vec<F>; 2], K)],
    first: usize,
    sums: [&'a mut [F]; 2],
}

impl Kernel for WeightedSum<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        if self.sums[0].len().is_multiple_of(V::WIDTH) { weighted_sum_block::<V>(self) } else { weighted_sum_block::<F>(self) }
    }
}

/// `(w0·t0 + 7·w1·t1, w0·t1 + w1·t0)` of every term.
#[inline(always)]
fn weighted_sum_block<V: Vector>(WeightedSum { terms, first, sums: [sums0, sums1] }: WeightedSum<'_>) {
    let (sums0, sums1) = (V::pack_slice_mut(sums0), V::pack_slice_mut(sums1));
    for terms in terms.chunks(MAX_PRODUCTS / 2) {
        let mut factors = Vec::with_capacity(terms.len());
        for (_, weight) in terms {
            let [w0, w1] = limbs(*weight);
            factors.push([V::from(w0).factor(), V::from(w1).factor(), V::from(F::from_canonical_u64(7) * w1).factor()]);
        }
        for (row, (sum0, sum1)) in sums0.iter_mut().zip(sums1.iter_mut()).enumerate() {
            let [mut wide0, mut wide1] = [V::no_products(); 2];
            for (([t0, t1], _), [w0, w1, w1_times_seven]) in terms.iter().zip(&factors) {
                let [t0, t1] = [V::load(&t0[first + row * V::WIDTH..]), V::load(&t1[first + row * V::WIDTH..])];
                wide0 = t1.add_product(w1_times_seven, t0.add_product(w0, wide0));
                wide1 = t1.add_product(w0, t0.add_product(w1, wide1));
            }
            *sum0 += V::reduced(wide0);
            *sum1 += V::reduced(wide1);
        }
    }
}

/// The values of polynomials, given by coefficients of one length, a power of two, at a point.
pub(crate) fn evaluate(dispatch: Dispatch, polynomials: &[&[F]], point: K) -> Vec<K> {
    let Some(first) = polynomials.first() else { return Vec::new() };
    let powers = split(&powers(point, first.len().min(BLOCK_POWERS)));
    let giant = point.exp_u64(powers[0].len() as u64);
    let n_tasks = rayon::current_num_threads();
    let task = polynomials.len().div_ceil(n_tasks).next_multiple_of(TOGETHER).min(MAX_TASK_POLYNOMIALS);
    let tasks = polynomials.par_chunks(task);
    tasks.flat_map_iter(|polynomials| dispatch.run(Evaluate { polynomials, powers: &powers, giant })).collect()
}

/// Evaluates polynomials, given the first powers of the point and the next one.
struct Evaluate<'a> {
    polynomials: &'a [&'a [F]],
    powers: &'a [Vec<F>; 2],
    giant: K,
}

impl Kernel for Evaluate<'_> {
    type Output = Vec<K>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Vec<K> {
        if self.powers[0].len().is_multiple_of(V::WIDTH) { evaluate_all::<V>(&self) } else { evaluate_all::<F>(&self) }
    }
}

#[inline(always)]
fn evaluate_all<V: Vector>(Evaluate { polynomials, powers: [powers0, powers1], giant }: &Evaluate<'_>) -> Vec<K> {
    let mut factors = Vec::with_capacity(powers0.len() / V::WIDTH);
    for (power0, power1) in V::pack_slice(powers0).iter().zip(V::pack_slice(powers1)) {
        factors.push([power0.factor(), power1.factor()]);
    }
    let mut values = Vec::with_capacity(polynomials.len());
    let (groups, rest) = polynomials.as_chunks::<TOGETHER>();
    for polynomials in groups {
        values.extend(evaluate_together::<V, TOGETHER>(polynomials, &factors, *giant));
    }
    for &polynomial in rest {
        values.extend(evaluate_together::<V, 1>(&[polynomial], &factors, *giant));
    }
    values
}

/// `Σ_b giant^b · Σ_i factors_i · coefficients_(b·B + i)` over blocks b of B coefficients, the last first.
#[inline(always)]
fn evaluate_together<V: Vector, const N: usize>(polynomials: &[&[F]; N], factors: &[[V::Factor; 2]], giant: K) -> [K; N] {
    let block = factors.len() * V::WIDTH;
    let mut values = [K::ZERO; N];
    for first in (0..polynomials[0].len()).step_by(block).rev() {
        let mut sums = [[V::no_products(); 2]; N];
        for (index, [factor0, factor1]) in factors.iter().enumerate() {
            for (polynomial, [sum0, sum1]) in polynomials.iter().zip(&mut sums) {
                let coefficients = V::load(&polynomial[first + index * V::WIDTH..]);
                *sum0 = coefficients.add_product(factor0, *sum0);
                *sum1 = coefficients.add_product(factor1, *sum1);
            }
        }
        for (value, [sum0, sum1]) in values.iter_mut().zip(sums) {
            *value = *value * giant + ext(sum_of_lanes(V::reduced(sum0)), sum_of_lanes(V::reduced(sum1)));
        }
    }
    values
}

#[inline(always)]
fn sum_of_lanes<V: Vector>(vector: V) -> F {
    let mut sum = F::ZERO;
    for &lane in vector.as_slice() {
        sum += lane;
    }
    sum
}

#[cfg(test)]
mod tests {
    use plonky2::field::types::Sample;
    use zkinfer_circuits::field::{lift, scale};

    use super::*;
    use crate::vector::Level;

    fn dispatches() -> impl Iterator<Item = Dispatch> {
        Level::available().into_iter().map(|level| Dispatch::new(level).expect("the level is available"))
    }

    #[test]
    fn combines_any_number_of_columns() {
        let columns: Vec<Vec<F>> = (0..MAX_PRODUCTS + 2).map(|_| F::rand_vec(1)).collect();
        for (n_columns, n_rows) in [(1, 2), (2, 1024), (7, 2048), (8, 1), (9, 4), (17, 2048), (columns.len(), 1), (columns.len(), 32)] {
            let columns: Vec<Vec<F>> = columns[..n_columns].iter().map(|column| [&column[..], &F::rand_vec(n_rows - 1)].concat()).collect();
            let weights = K::rand_vec(n_columns);
            let slices: Vec<&[F]> = columns.iter().map(Vec::as_slice).collect();
            for dispatch in dispatches() {
                let [c0, c1] = combine(dispatch, &slices, &weights, n_rows);
                for row in [0, n_rows / 3, n_rows - 1] {
                    let expected: K = weights.iter().zip(&columns).map(|(&w, column)| scale(w, column[row])).sum();
                    assert_eq!(ext(c0[row], c1[row]), expected);
                }
            }
        }
    }

    #[test]
    fn weighted_sums_are_those_of_the_extension_field() {
        for (n_terms, n_rows) in [(0, 8), (1, 2), (5, 1024)] {
            let terms: Vec<Vec<K>> = (0..n_terms).map(|_| K::rand_vec(n_rows)).collect();
            let (limbs, weights): (Vec<[Vec<F>; 2]>, Vec<K>) = (terms.iter().map(|term| split(term)).collect(), K::rand_vec(n_terms));
            let weighted: Vec<(&[Vec<F>; 2], K)> = limbs.iter().zip(weights.iter().copied()).collect();
            for dispatch in dispatches() {
                let [c0, c1] = weighted_sum(dispatch, &weighted, n_rows);
                for row in 0..n_rows {
                    let expected: K = terms.iter().zip(&weights).map(|(term, &weight)| term[row] * weight).sum();
                    assert_eq!(ext(c0[row], c1[row]), expected);
                }
            }
        }
    }

    #[test]
    fn evaluates_any_number_of_polynomials_of_any_length() {
        for (n_polynomials, length) in [(0, 1), (1, 1), (2, 2), (3, 8), (5, 16), (9, 2048), (70, 32), (4, 8192)] {
            let polynomials: Vec<Vec<F>> = (0..n_polynomials).map(|_| F::rand_vec(length)).collect();
            let slices: Vec<&[F]> = polynomials.iter().map(Vec::as_slice).collect();
            let point = K::rand();
            let value =
                |coefficients: &Vec<F>| coefficients.iter().rev().fold(K::ZERO, |value, &coefficient| value * point + lift(coefficient));
            let expected: Vec<K> = polynomials.iter().map(value).collect();
            for dispatch in dispatches() {
                assert_eq!(evaluate(dispatch, &slices, point), expected);
            }
        }
    }
}
