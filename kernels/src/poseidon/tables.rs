//! Constants of the vector permutations, computed from plonky2's round constants and matrix.
//!
//! The linear layer is `M = C + 8·E₀₀`, C circulant: `(C·x)_r = Σ_j g_{r−j} x_j`. C is a cyclic convolution of 12 points; with indices
//! `3a + b` it splits into a transform of four points over a and products of three points over b, `z³ = 1`, `z³ = −1` and `z³ = −i`
//! (the "frequencies"), whose coefficients are small integers.

use plonky2::hash::poseidon::{ALL_ROUND_CONSTANTS, HALF_N_FULL_ROUNDS, N_PARTIAL_ROUNDS, Poseidon, SPONGE_WIDTH};
use zkinfer_circuits::field::{F, ORDER};

/// Elements of a state.
pub(crate) const WIDTH: usize = SPONGE_WIDTH;
/// Pairs of consecutive partial rounds.
pub(crate) const N_PAIRS: usize = N_PARTIAL_ROUNDS / 2;
/// Full rounds before the partial ones, and as many after.
pub(crate) const HALF_FULL: usize = HALF_N_FULL_ROUNDS;
/// All rounds.
pub(crate) const N_ROUNDS: usize = 2 * HALF_FULL + N_PARTIAL_ROUNDS;

/// First row of C.
pub(crate) const CIRCULANT: [u64; WIDTH] = <F as Poseidon>::MDS_MATRIX_CIRC;
/// What M has more than C in its first entry, the only one that differs.
pub(crate) const DIAGONAL: u64 = <F as Poseidon>::MDS_MATRIX_DIAG[0];

/// log₂ of it.
pub(crate) const LOG_DIAGONAL: u32 = DIAGONAL.ilog2();
const _: () = assert!(matches!(<F as Poseidon>::MDS_MATRIX_DIAG, [8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));

/// `C[row][column]`.
pub(crate) const fn circulant(row: usize, column: usize) -> u64 {
    CIRCULANT[(column + WIDTH - row) % WIDTH]
}

/// The constant added to `element` before the S-boxes of `round`; zero after the last round.
pub(crate) const fn round_constant(round: usize, element: usize) -> u64 {
    if round == N_ROUNDS { 0 } else { ALL_ROUND_CONSTANTS[WIDTH * round + element] % ORDER }
}

/// The base of limbs.
pub(crate) const X: u64 = 1 << 32;

/// A constant as limbs `[low, high]`, which may exceed 32 bits.
pub(crate) type Constant = [u64; 2];

/// Limbs of a constant, of which the low one is at least `borrowed·X`, and the high one at least `multiples·(X − 1) − borrowed`.
pub(crate) const fn with_headroom(constant: u64, borrowed: u64, multiples: u64) -> Constant {
    // p = 1 + X·(X − 1), and X·borrowed moves from the high limb to the low one.
    [constant % X + borrowed * X + multiples, constant / X + multiples * (X - 1) - borrowed]
}

const fn add(a: u64, b: u64) -> u64 {
    ((a as u128 + b as u128) % ORDER as u128) as u64
}

pub(crate) const fn sub(a: u64, b: u64) -> u64 {
    add(a, ORDER - b)
}

pub(crate) const fn mul(a: u64, b: u64) -> u64 {
    ((a as u128 * b as u128) % ORDER as u128) as u64
}

const HALF: u64 = ORDER.div_ceil(2);
const QUARTER: u64 = mul(HALF, HALF);

/// Something on frequencies: a vector, or a circulant matrix, scaled such that going there and back needs no division by 4:
/// `x_b, x_{b+3}, x_{b+6}, x_{b+9}` becomes `plus_b = Σ x`, `minus_b = x_b − x_{b+3} + x_{b+6} − x_{b+9}`, and the complex
/// `(x_b − x_{b+6}) + i·(x_{b+9} − x_{b+3})`; back goes `plus ± minus ± re` and `plus − minus ∓ im`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frequencies<T> {
    /// Where z³ = 1.
    pub(crate) plus: [T; 3],
    /// Where z³ = −1.
    pub(crate) minus: [T; 3],
    /// Where z³ = −i, real part.
    pub(crate) re: [T; 3],
    /// Where z³ = −i, imaginary part.
    pub(crate) im: [T; 3],
}

impl Frequencies<i64> {
    /// Of the matrix whose first column is `kernel`.
    const fn of_circulant(kernel: [i64; WIDTH]) -> Self {
        let mut of = Self { plus: [0; 3], minus: [0; 3], re: [0; 3], im: [0; 3] };
        let mut b = 0;
        while b < 3 {
            let [x0, x1, x2, x3] = [kernel[b], kernel[b + 3], kernel[b + 6], kernel[b + 9]];
            let (plus, minus, re, im) = (x0 + x1 + x2 + x3, x0 - x1 + x2 - x3, x0 - x2, x3 - x1);
            assert!(plus % 4 == 0 && minus % 4 == 0 && re % 2 == 0 && im % 2 == 0);
            of.plus[b] = plus / 4;
            of.minus[b] = minus / 4;
            of.re[b] = re / 2;
            of.im[b] = im / 2;
            b += 1;
        }
        of
    }

    /// Of C.
    pub(crate) const fn of_matrix() -> Self {
        Self::of_circulant(KERNEL)
    }

    /// Of C².
    pub(crate) const fn of_square() -> Self {
        let mut square = [0; WIDTH];
        let mut index = 0;
        while index < WIDTH * WIDTH {
            let (i, j) = (index / WIDTH, index % WIDTH);
            square[(i + j) % WIDTH] += KERNEL[i] * KERNEL[j];
            index += 1;
        }
        Self::of_circulant(square)
    }
}

/// First column of C.
const KERNEL: [i64; WIDTH] = {
    let mut kernel = [0; WIDTH];
    let mut row = 0;
    while row < WIDTH {
        kernel[row] = circulant(row, 0) as i64;
        row += 1;
    }
    kernel
};

impl Frequencies<u64> {
    /// The field elements that come back as `constants`.
    pub(crate) const fn of_constants(constants: [u64; WIDTH]) -> Self {
        let mut of = Self { plus: [0; 3], minus: [0; 3], re: [0; 3], im: [0; 3] };
        let mut b = 0;
        while b < 3 {
            let (even, odd) = (add(constants[b], constants[b + 6]), add(constants[b + 3], constants[b + 9]));
            of.plus[b] = mul(QUARTER, add(even, odd));
            of.minus[b] = mul(QUARTER, sub(even, odd));
            of.re[b] = mul(HALF, sub(constants[b], constants[b + 6]));
            of.im[b] = mul(HALF, sub(constants[b + 9], constants[b + 3]));
            b += 1;
        }
        of
    }
}

/// What two partial rounds add that begin after the constants of `round` were added: `C·c_{round+1} + c_{round+2} − lift`.
pub(crate) const fn constants_after_pair(round: usize, lift: u64) -> [u64; WIDTH] {
    let mut constants = [0; WIDTH];
    let mut row = 0;
    while row < WIDTH {
        let mut sum = sub(round_constant(round + 2, row), lift);
        let mut column = 0;
        while column < WIDTH {
            sum = add(sum, mul(circulant(row, column), round_constant(round + 1, column)));
            column += 1;
        }
        constants[row] = sum;
        row += 1;
    }
    constants
}

/// What the first of them adds to element 0: `c_{round+1,0} − lift`.
pub(crate) const fn first_after_one(round: usize, lift: u64) -> u64 {
    sub(round_constant(round + 1, 0), lift)
}
