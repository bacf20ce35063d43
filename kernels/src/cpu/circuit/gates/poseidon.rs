//! The gates of Poseidon's permutation and of its matrix.
//!
//! The permutation's rounds are taken as they are defined, every one with the whole matrix. plonky2 evaluates the partial rounds in an
//! equivalent form with sparse matrices of large constants; the input of each S-box, which is all that constraints see, is the same.
//!
//! The matrix M = circulant + diagonal has small entries. Its circulant part is a product of polynomials modulo X^12 − 1, which splits into
//! products modulo X^3 − u for u = 1, −1, i: there its entries are small numbers, mostly powers of two, and additions suffice.

use plonky2::field::types::Field;
use plonky2::hash::hash_types::NUM_HASH_OUT_ELTS;
use plonky2::hash::poseidon::{ALL_ROUND_CONSTANTS, HALF_N_FULL_ROUNDS, N_PARTIAL_ROUNDS, N_ROUNDS, SPONGE_WIDTH};
use zkinfer_circuits::field::F;

use super::{Output, Row};
use crate::vector::Vector;

/// The first of the wires that hold the permutation's output, the swap flag, the swapped differences, and the inputs of S-boxes.
const OUTPUT: usize = SPONGE_WIDTH;
const SWAP: usize = 2 * SPONGE_WIDTH;
const DELTA: usize = SWAP + 1;
const S_BOXES: usize = DELTA + NUM_HASH_OUT_ELTS;

/// `s·(s − 1)`; `s·(right − left) − δ`; the input of every S-box after the first round; the output.
#[inline(always)]
pub(super) fn permutation<V: Vector>(row: &Row<'_>, output: &mut Output<'_, V>) {
    let mut state = swapped_input(row, output);
    let mut s_box_wire = S_BOXES;
    for round in 0..N_ROUNDS {
        for (element, &constant) in state.iter_mut().zip(&ALL_ROUND_CONSTANTS[round * SPONGE_WIDTH..]) {
            *element += V::from(F::from_canonical_u64(constant));
        }
        let is_partial = (HALF_N_FULL_ROUNDS..HALF_N_FULL_ROUNDS + N_PARTIAL_ROUNDS).contains(&round);
        for element in &mut state[..if is_partial { 1 } else { SPONGE_WIDTH }] {
            // The inputs of the first round's S-boxes have no wires.
            if round > 0 {
                let held: V = row.wire(s_box_wire);
                output.push(*element - held);
                *element = held;
                s_box_wire += 1;
            }
            *element = seventh_power(*element);
        }
        state = mds(&state);
    }
    for (index, &element) in state.iter().enumerate() {
        output.push(element - row.wire::<V>(OUTPUT + index));
    }
}

/// The first four and the next four wires, swapped if the flag is one; the rest as it is.
#[inline(always)]
fn swapped_input<V: Vector>(row: &Row<'_>, output: &mut Output<'_, V>) -> [V; SPONGE_WIDTH] {
    let swap: V = row.wire(SWAP);
    output.push(swap.squared() - swap);
    let mut state = [V::from(F::ZERO); SPONGE_WIDTH];
    for (index, element) in state.iter_mut().enumerate() {
        *element = row.wire(index);
    }
    for left in 0..NUM_HASH_OUT_ELTS {
        let right = left + NUM_HASH_OUT_ELTS;
        let delta: V = row.wire(DELTA + left);
        output.push(swap * (state[right] - state[left]) - delta);
        state[left] += delta;
        state[right] -= delta;
    }
    state
}

#[inline(always)]
fn seventh_power<V: Vector>(x: V) -> V {
    let square = x.squared();
    square.squared() * (square * x)
}

/// `out − M·in` in K, coordinate by coordinate.
#[inline(always)]
pub(super) fn mds_gate<V: Vector>(row: &Row<'_>, output: &mut Output<'_, V>) {
    let mut images = [[V::from(F::ZERO); SPONGE_WIDTH]; 2];
    for (limb, image) in images.iter_mut().enumerate() {
        for (index, element) in image.iter_mut().enumerate() {
            *element = row.wire(2 * index + limb);
        }
        *image = mds(image);
    }
    for index in 0..SPONGE_WIDTH {
        for (limb, image) in images.iter().enumerate() {
            output.push(row.wire::<V>(2 * (SPONGE_WIDTH + index) + limb) - image[index]);
        }
    }
}

#[inline(always)]
fn doubled<V: Vector, const TIMES: usize>(mut x: V) -> V {
    for _ in 0..TIMES {
        x += x;
    }
    x
}

/// M·x: `y_r = Σ_i circ_i·x_(r+i) + diag_r·x_r`, diag = (8, 0, …).
///
/// With `X_j(u) = Σ_m x_(j+3m)·u^m` for j < 3, and A_j alike from the coefficients `a_k = circ_(−k)`, the polynomials `Y_l(u)` of y are the
/// coefficients of `(Σ_j X_j t^j)(Σ_k A_k t^k)` modulo `t³ − u`. A(1) = 4·(16, 32, 16), A(−1) = 4·(−1, −8, 2), A(i) = 2·(2 + i, −4 − i, 16 − i);
/// going back from u = 1, −1, i to coefficients divides by exactly these 4, 4 and 2.
#[inline(always)]
fn mds<V: Vector>(x: &[V; SPONGE_WIDTH]) -> [V; SPONGE_WIDTH] {
    let mut at_one = [V::from(F::ZERO); 3];
    let mut at_minus_one = at_one;
    let (mut real, mut imaginary) = (at_one, at_one);
    for j in 0..3 {
        let (even, odd) = (x[j] + x[j + 6], x[j + 3] + x[j + 9]);
        (at_one[j], at_minus_one[j]) = (even + odd, even - odd);
        (real[j], imaginary[j]) = (x[j] - x[j + 6], x[j + 3] - x[j + 9]);
    }
    let one = times_a_at_one(at_one);
    let minus_one = times_a_at_minus_one(at_minus_one);
    let (real, imaginary) = times_a_at_i(real, imaginary);
    let mut y = *x;
    for l in 0..3 {
        let (even, odd) = (one[l] + minus_one[l], one[l] - minus_one[l]);
        y[l] = even + real[l];
        y[l + 3] = odd + imaginary[l];
        y[l + 6] = even - real[l];
        y[l + 9] = odd - imaginary[l];
    }
    y[0] += doubled::<V, 3>(x[0]);
    y
}

/// Times 16 + 32t + 16t² modulo t³ − 1.
#[inline(always)]
fn times_a_at_one<V: Vector>([x0, x1, x2]: [V; 3]) -> [V; 3] {
    let sum = x0 + x1 + x2;
    [doubled::<V, 4>(sum + x2), doubled::<V, 4>(sum + x0), doubled::<V, 4>(sum + x1)]
}

/// Times −1 − 8t + 2t² modulo t³ + 1.
#[inline(always)]
fn times_a_at_minus_one<V: Vector>([x0, x1, x2]: [V; 3]) -> [V; 3] {
    let twice = [x0 + x0, x1 + x1, x2 + x2];
    let eight = [doubled::<V, 2>(twice[0]), doubled::<V, 2>(twice[1]), doubled::<V, 2>(twice[2])];
    [eight[2] - (x0 + twice[1]), -(eight[0] + x1 + twice[2]), twice[0] - (eight[1] + x2)]
}

/// Times (2 + i) − (4 + i)t + (16 − i)t² modulo t³ − i, by real and imaginary part.
#[inline(always)]
fn times_a_at_i<V: Vector>(real: [V; 3], imaginary: [V; 3]) -> ([V; 3], [V; 3]) {
    let zero = [V::from(F::ZERO); 3];
    // By coefficient of A: its products with x_0, x_1, x_2; that with 4 + i is to be subtracted.
    let (mut a0, mut a1, mut a2) = ((zero, zero), (zero, zero), (zero, zero));
    for j in 0..3 {
        let (re, im) = (real[j], imaginary[j]);
        let (twice_re, twice_im) = (re + re, im + im);
        let (four_re, four_im) = (twice_re + twice_re, twice_im + twice_im);
        (a0.0[j], a0.1[j]) = (twice_re - im, twice_im + re);
        (a1.0[j], a1.1[j]) = (four_re - im, four_im + re);
        (a2.0[j], a2.1[j]) = (doubled::<V, 2>(four_re) + im, doubled::<V, 2>(four_im) - re);
    }
    // t³ = i: i·(re + i·im) = −im + i·re.
    let (wrapped_re, wrapped_im) = (a2.0[1] - a1.0[2], a2.1[1] - a1.1[2]);
    let real = [a0.0[0] - wrapped_im, a0.0[1] - a1.0[0] - a2.1[2], a0.0[2] - a1.0[1] + a2.0[0]];
    let imaginary = [a0.1[0] + wrapped_re, a0.1[1] - a1.1[0] + a2.0[2], a0.1[2] - a1.1[1] + a2.1[0]];
    (real, imaginary)
}
