//! `C²·x` on frequencies, modulo 2^52.

use super::limbs::{V, add, all, lo};
use super::{Constant, to_elements, to_frequencies};
use crate::poseidon::tables::{Frequencies, WIDTH};

/// C² modulo 2^52.
const SQUARE: Frequencies<i64> = Frequencies::of_square();

/// C² where z³ = −1, added to `start`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply_minus(start: [V; 3], x: [V; 3]) -> [V; 3] {
    let mut y = start;
    for (j, &x) in x.iter().enumerate() {
        for (k, y) in y.iter_mut().enumerate() {
            let factor = SQUARE.minus[(k + 3 - j) % 3];
            *y = lo(*y, x, all_52(if j > k { -factor } else { factor }));
        }
    }
    y
}

/// A constant modulo 2^52.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn all_52(constant: i64) -> V {
    all(constant.cast_unsigned() & ((1 << 52) - 1))
}

/// C² where z³ = 1, added to `start`; two of the three factors are equal.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply_plus(start: [V; 3], x: [V; 3]) -> [V; 3] {
    const { assert!(SQUARE.plus[0] == SQUARE.plus[1]) }
    let sum = add(add(x[0], x[1]), x[2]);
    let mut y = start;
    for (k, y) in y.iter_mut().enumerate() {
        *y = lo(lo(*y, sum, all_52(SQUARE.plus[0])), x[(k + 1) % 3], all_52(SQUARE.plus[2] - SQUARE.plus[0]));
    }
    y
}

/// C² where z³ = −i, added to the start of the real part and to the sum of both starts. With `K = Σ c·(re + im)` the product
/// `Σ (c + s·i)·(re + im·i)` is `K − Σ (c + s)·im + i·(K + Σ (s − c)·re)`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply_complex(start: [[V; 3]; 2], re: [V; 3], im: [V; 3]) -> ([V; 3], [V; 3]) {
    let [mut y_re, mut y_im] = start;
    for j in 0..3 {
        let sum = add(re[j], im[j]);
        for (k, y) in y_re.iter_mut().enumerate() {
            *y = lo(*y, sum, all_52(complex_factor(k, j)[0]));
        }
    }
    for (y_im, &common) in y_im.iter_mut().zip(&y_re) {
        *y_im = add(*y_im, common);
    }
    for j in 0..3 {
        for k in 0..3 {
            let [c, s] = complex_factor(k, j);
            y_re[k] = lo(y_re[k], im[j], all_52(-c - s));
            y_im[k] = lo(y_im[k], re[j], all_52(s - c));
        }
    }
    (y_re, y_im)
}

/// Real and imaginary part of what coefficient j of a factor contributes to coefficient k of the product.
const fn complex_factor(k: usize, j: usize) -> [i64; 2] {
    let index = (k + 3 - j) % 3;
    // Times −i if the product wraps.
    if j > k { [SQUARE.im[index], -SQUARE.re[index]] } else { [SQUARE.re[index], SQUARE.im[index]] }
}

/// C² on one limb modulo 2^52, plus constants on frequencies.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn multiply_by_square(x: &[V; WIDTH], limb: usize, constants: &Frequencies<Constant>) -> [V; WIDTH] {
    let y = to_frequencies(x);
    let start = |constants: &[Constant; 3]| [all(constants[0][limb]), all(constants[1][limb]), all(constants[2][limb])];
    let plus = multiply_plus(start(&constants.plus), y.plus);
    let minus = multiply_minus(start(&constants.minus), y.minus);
    let (re, im) = multiply_complex([start(&constants.re), start(&constants.im)], y.re, y.im);
    to_elements(&Frequencies { plus, minus, re, im })
}
