//! Steps on polynomials on the device (`kernels/cuda/polynomial.cu`). Elements of K lie by coordinate.

use plonky2::field::extension::quadratic::QuadraticExtension;
use plonky2::field::types::{Field, PrimeField64};
use zkinfer_circuits::backend::BackendError;
use zkinfer_circuits::field::{F, K, ext, limbs};

use super::lane::Lane;
use super::launch::{Argument, BLOCK_THREADS, Shape};
use super::memory::{Buffer, Words, WordsMut};

/// Powers that one thread computes.
const POWERS_PER_THREAD: u64 = 16;
/// Rows that one block evaluates at least.
const EVALUATED_ROWS: usize = 1 << 12;
/// Threads that keep a device busy.
const BUSY_THREADS: usize = 1 << 17;
/// Steps of a recurrence that one thread does.
const RECURRENCE_STEPS: usize = 16;

/// The two words of an element.
pub(crate) fn words(value: K) -> [u64; 2] {
    limbs(value).map(|limb| limb.to_canonical_u64())
}

/// Elements by coordinate.
pub(crate) fn split_words(values: &[K]) -> Vec<u64> {
    [0, 1].iter().flat_map(|&limb| values.iter().map(move |&value| words(value)[limb])).collect()
}

/// Elements from words by coordinate.
pub(crate) fn joined(words: &[u64]) -> Vec<K> {
    let (c0, c1) = words.split_at(words.len() / 2);
    c0.iter().zip(c1).map(|(&c0, &c1)| ext(F::from_canonical_u64(c0), F::from_canonical_u64(c1))).collect()
}

fn scalars<'a>(values: &[K]) -> Vec<Argument<'a>> {
    values.iter().flat_map(|&value| words(value)).map(Argument::Word).collect()
}

/// 1, x, …, x^(n−1).
pub(crate) fn powers(lane: Lane<'_>, base: K, n: usize) -> Result<Buffer, BackendError> {
    let squares: Vec<K> = std::iter::successors(Some(base), |&power| Some(power * power)).take(32).collect();
    let squares = lane.upload(&split_words(&squares))?;
    let mut result = lane.allocate(2 * n)?;
    let arguments = vec![Argument::In(squares.view()), Argument::Out(result.view_mut()), Argument::Count(n as u32)];
    lane.launch("ext_powers", Shape::of_items((n as u64).div_ceil(POWERS_PER_THREAD)), arguments)?;
    Ok(result)
}

/// The value of every column at a point; columns have 2^log_rows coefficients each.
pub(crate) fn evaluate(lane: Lane<'_>, columns: Words<'_>, log_rows: usize, point: K) -> Result<Vec<K>, BackendError> {
    let n_columns = columns.len() >> log_rows;
    if n_columns == 0 {
        return Ok(Vec::new());
    }
    let n_rows = 1usize << log_rows;
    let powers = powers(lane, point, n_rows)?;
    let n_chunks = (n_rows / EVALUATED_ROWS).clamp(1, 32);
    let n_parts = n_columns * n_chunks;
    let mut parts = lane.allocate(2 * n_parts)?;
    let arguments = vec![
        Argument::In(columns),
        Argument::In(powers.view()),
        Argument::Out(parts.view_mut()),
        Argument::Count(n_rows as u32),
        Argument::Count(n_chunks as u32),
    ];
    lane.launch("evaluate_columns", Shape { blocks: n_parts as u64, threads: BLOCK_THREADS, shared_words: 0 }, arguments)?;
    let parts = joined(&lane.download(&parts.part(0, 2 * n_parts))?);
    Ok(parts.chunks_exact(n_chunks).map(|chunks| chunks.iter().copied().sum()).collect())
}

/// `Σ_c weights_c · columns_c`, coefficient by coefficient; columns have 2^log_rows each.
pub(crate) fn combine(lane: Lane<'_>, columns: Words<'_>, weights: &[K], log_rows: usize) -> Result<Buffer, BackendError> {
    let n_rows = 1usize << log_rows;
    // Few rows and many columns: several threads share a row.
    let n_chunks = (BUSY_THREADS >> log_rows).clamp(1, weights.len().div_ceil(32).max(1));
    let device_weights = lane.upload(&split_words(weights))?;
    let mut sums = lane.allocate(2 * n_rows * n_chunks)?;
    let mut arguments = vec![Argument::In(columns), Argument::In(device_weights.view()), Argument::Out(sums.view_mut())];
    arguments.extend([n_rows, weights.len(), n_chunks].map(|count| Argument::Count(count as u32)));
    lane.launch("combine_columns", Shape::of_items((n_rows * n_chunks) as u64), arguments)?;
    if n_chunks == 1 {
        return Ok(sums);
    }
    let arguments = vec![Argument::Out(sums.view_mut()), Argument::Count(2 * n_rows as u32), Argument::Count(n_chunks as u32)];
    lane.launch("sum_chunks", Shape::of_items(2 * n_rows as u64), arguments)?;
    let mut result = lane.allocate(2 * n_rows)?;
    lane.copy(&sums.part(0, 2 * n_rows), result.view_mut())?;
    Ok(result)
}

/// `target ← target·a + values·b`.
pub(crate) fn scale_add(lane: Lane<'_>, target: WordsMut<'_>, values: &Buffer, a: K, b: K) -> Result<(), BackendError> {
    let n = target.len() / 2;
    let mut arguments = vec![Argument::Out(target), Argument::In(values.view())];
    arguments.extend(scalars(&[a, b]));
    arguments.push(Argument::Count(n as u32));
    lane.launch("ext_scale_add", Shape::of_items(n as u64), arguments)
}

/// Direction of a recurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// From the first element.
    Up,
    /// From the last.
    Down,
}

/// A linear recurrence: `carry ← carry·ratio + (value + offset)`, from 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recurrence {
    pub(crate) ratio: K,
    pub(crate) offset: K,
    pub(crate) walk: Walk,
}

impl Recurrence {
    /// Replaces every element by the carry before it.
    pub(crate) fn run(self, lane: Lane<'_>, mut values: WordsMut<'_>) -> Result<(), BackendError> {
        let n = values.len() / 2;
        let n_chunks = n.div_ceil(RECURRENCE_STEPS);
        let shape = Shape::of_items(n_chunks as u64);
        let mut carries = lane.allocate(2 * n_chunks)?;
        if n_chunks == 1 {
            lane.zero(carries.view_mut())?;
        } else {
            let mut arguments = vec![Argument::In(values.as_view()), Argument::Out(carries.view_mut())];
            arguments.extend(self.arguments(n));
            lane.launch("recurrence_totals", shape, arguments)?;
            let ratio = self.ratio.exp_u64(RECURRENCE_STEPS as u64);
            // Totals are in the order of steps.
            Self { ratio, offset: QuadraticExtension::ZERO, walk: Walk::Up }.run(lane, carries.view_mut())?;
        }
        let mut arguments = vec![Argument::Out(values.slice_mut(..)), Argument::Same, Argument::In(carries.view())];
        arguments.extend(self.arguments(n));
        lane.launch("recurrence_apply", shape, arguments)
    }

    fn arguments<'a>(self, n: usize) -> Vec<Argument<'a>> {
        let counts = [n, RECURRENCE_STEPS, usize::from(self.walk == Walk::Down)].map(|count| Argument::Count(count as u32));
        scalars(&[self.ratio, self.offset]).into_iter().chain(counts).collect()
    }
}

/// `Σ_j β^j c_(i·2^arity_bits + j)` for each i.
pub(crate) fn fold(lane: Lane<'_>, coefficients: Words<'_>, arity_bits: usize, beta: K) -> Result<Buffer, BackendError> {
    let n = (coefficients.len() / 2) >> arity_bits;
    let mut folded = lane.allocate(2 * n)?;
    let mut arguments = vec![Argument::In(coefficients), Argument::Out(folded.view_mut())];
    arguments.extend(scalars(&[beta]));
    arguments.extend([n, arity_bits].map(|count| Argument::Count(count as u32)));
    lane.launch("fold_coefficients", Shape::of_items(n as u64), arguments)?;
    Ok(folded)
}
