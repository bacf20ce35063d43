//! The circulant matrix by additions and shifts, written once for the vectors of every level.

use super::tables::Frequencies;

/// The shifts are made for these frequencies.
const _: () = {
    let c = Frequencies::of_matrix();
    assert!(matches!(c.plus, [16, 32, 16]) && matches!(c.minus, [-1, -8, 2]));
    assert!(matches!(c.re, [2, -4, 16]) && matches!(c.im, [-1, 1, 1]));
};

/// Defines `to_frequencies`, `to_elements` and `multiply_by_matrix` for vectors `V` of 64-bit lanes with the functions `add`, `sub`,
/// `left` and `all`, as functions with the target features given.
macro_rules! matrix_by_shifts {
    ($features:literal) => {
        /// From elements to frequencies, both of one limb.
        #[inline]
        #[target_feature(enable = $features)]
        fn to_frequencies(x: &[V; WIDTH]) -> Frequencies<V> {
            let mut y = Frequencies { plus: [x[0]; 3], minus: [x[0]; 3], re: [x[0]; 3], im: [x[0]; 3] };
            for b in 0..3 {
                let (even, odd) = (add(x[b], x[b + 6]), add(x[b + 3], x[b + 9]));
                y.plus[b] = add(even, odd);
                y.minus[b] = sub(even, odd);
                y.re[b] = sub(x[b], x[b + 6]);
                y.im[b] = sub(x[b + 9], x[b + 3]);
            }
            y
        }

        /// Back to elements.
        #[inline]
        #[target_feature(enable = $features)]
        fn to_elements(y: &Frequencies<V>) -> [V; WIDTH] {
            let mut x = [y.plus[0]; WIDTH];
            for b in 0..3 {
                let (even, odd) = (add(y.plus[b], y.minus[b]), sub(y.plus[b], y.minus[b]));
                x[b] = add(even, y.re[b]);
                x[b + 3] = sub(odd, y.im[b]);
                x[b + 6] = sub(even, y.re[b]);
                x[b + 9] = add(odd, y.im[b]);
            }
            x
        }

        /// C on frequencies of one limb; the sum of the absolute values of a row of C is 256.
        #[inline]
        #[target_feature(enable = $features)]
        fn multiply_by_matrix(x: &[V; WIDTH]) -> [V; WIDTH] {
            let Frequencies { plus: u, minus: w, re: r, im: i } = to_frequencies(x);
            let twice = |x| add(x, x);
            // 16·[1, 2, 1]: the sum of all, and once more the one before.
            let sum = add(add(u[0], u[1]), u[2]);
            let plus = [left::<4>(add(sum, u[2])), left::<4>(add(sum, u[0])), left::<4>(add(sum, u[1]))];
            // [−1, −8, 2], z³ = −1: −w₀ − 2w₁ + 8w₂, −8w₀ − w₁ − 2w₂, 2w₀ − 8w₁ − w₂.
            let minus = [
                sub(sub(left::<3>(w[2]), w[0]), twice(w[1])),
                sub(all(0), add(add(left::<3>(w[0]), w[1]), twice(w[2]))),
                sub(sub(twice(w[0]), left::<3>(w[1])), w[2]),
            ];
            // [2 − i, −4 + i, 16 + i], z³ = −i; the second and third factors times −i are 1 + 4i and 1 − 16i.
            let re = [
                add(add(add(twice(r[0]), i[0]), add(r[1], left::<4>(i[1]))), sub(r[2], left::<2>(i[2]))),
                add(sub(add(twice(r[1]), i[1]), add(i[0], left::<2>(r[0]))), add(r[2], left::<4>(i[2]))),
                add(sub(sub(left::<4>(r[0]), i[0]), add(i[1], left::<2>(r[1]))), add(twice(r[2]), i[2])),
            ];
            let im = [
                add(add(sub(twice(i[0]), r[0]), sub(i[1], left::<4>(r[1]))), add(i[2], left::<2>(r[2]))),
                add(add(sub(twice(i[1]), r[1]), sub(r[0], left::<2>(i[0]))), sub(i[2], left::<4>(r[2]))),
                add(add(add(left::<4>(i[0]), r[0]), sub(r[1], left::<2>(i[1]))), sub(twice(i[2]), r[2])),
            ];
            to_elements(&Frequencies { plus, minus, re, im })
        }
    };
}

pub(super) use matrix_by_shifts;
