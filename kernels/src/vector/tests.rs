//! The arithmetic of every level against `F`, on awkward representatives and random ones.

use plonky2::field::types::{Field, PrimeField64};
use zkinfer_circuits::field::{F, ORDER};

use super::{Dispatch, Kernel, Level, MAX_PRODUCTS, Vector};

/// Representatives around every boundary of the arithmetic.
const AWKWARD: [u64; 16] = [
    0,
    1,
    2,
    (1 << 32) - 2,
    (1 << 32) - 1,
    1 << 32,
    (1 << 32) + 1,
    1 << 63,
    ORDER - (1 << 32),
    ORDER - 2,
    ORDER - 1,
    ORDER,
    ORDER + 1,
    u64::MAX - (1 << 31),
    u64::MAX - 1,
    u64::MAX,
];

/// All pairs of awkward representatives, then pseudo-random pairs; a multiple of every width.
fn operands() -> [Vec<F>; 2] {
    let awkward = AWKWARD.iter().flat_map(|&a| AWKWARD.map(|b| (a, b)));
    let mut state = 1u64;
    let mut word = move || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state ^ (state >> 29)
    };
    let random = std::iter::repeat_with(move || (word(), word())).take(1 << 14);
    let (a, b) = awkward.chain(random).map(|(a, b)| (F::from_noncanonical_u64(a), F::from_noncanonical_u64(b))).unzip();
    [a, b]
}

/// Every operation on the lanes of two lists, operation after operation.
struct Operations<'a>(&'a [Vec<F>; 2]);

const N_OPERATIONS: usize = 11;

impl Kernel for Operations<'_> {
    type Output = [Vec<F>; N_OPERATIONS];

    #[inline(always)]
    fn run<V: Vector>(self) -> Self::Output {
        let mut results: Self::Output = Default::default();
        for (a, b) in self.0[0].chunks_exact(V::WIDTH).zip(self.0[1].chunks_exact(V::WIDTH)) {
            let (scalar, a, b) = (b[0], V::load(a), V::load(b));
            let computed = [
                a + b,
                a - b,
                a * b,
                a.squared(),
                -a,
                a.doubles(),
                (V::from(scalar) - a) * (a + scalar),
                a.sum_and_difference(b).0,
                a.sum_and_difference(b).1,
                b.plus_and_minus_product(a, b).0,
                a.plus_and_minus_product(a, b).1,
            ];
            for (result, vector) in results.iter_mut().zip(computed) {
                result.extend_from_slice(vector.as_slice());
            }
        }
        results
    }
}

fn expected(a: F, b: F, scalar: F) -> [F; N_OPERATIONS] {
    [a + b, a - b, a * b, a * a, -a, a + a, (scalar - a) * (a + scalar), a + b, a - b, b + a * b, a - a * b]
}

#[test]
fn every_level_computes_as_the_field_does() {
    let operands = operands();
    for level in Level::available() {
        let dispatch = Dispatch::new(level).unwrap();
        let computed = dispatch.run(Operations(&operands));
        for (index, (&a, &b)) in operands[0].iter().zip(&operands[1]).enumerate() {
            let scalar = operands[1][index - index % dispatch.width()];
            for (operation, expected) in expected(a, b, scalar).into_iter().enumerate() {
                assert_eq!(computed[operation][index], expected, "{level:?}, operation {operation} of {:#x} and {:#x}", a.0, b.0);
            }
        }
    }
}

/// The sum of as many products of the same operands as are allowed, and the sum of all operands' products.
struct Sums<'a>(&'a [Vec<F>; 2]);

impl Kernel for Sums<'_> {
    type Output = [Vec<F>; 2];

    #[inline(always)]
    fn run<V: Vector>(self) -> Self::Output {
        let (mut repeated, mut all) = (Vec::new(), V::no_products());
        for (a, b) in self.0[0].chunks_exact(V::WIDTH).zip(self.0[1].chunks_exact(V::WIDTH)).take(MAX_PRODUCTS) {
            let (a, factor) = (V::load(a), V::load(b).factor());
            all = a.add_product(&factor, all);
            let mut sum = V::no_products();
            for _ in 0..MAX_PRODUCTS {
                sum = a.add_product(&factor, sum);
            }
            repeated.extend_from_slice(V::reduced(sum).as_slice());
        }
        [repeated, V::reduced(all).as_slice().to_vec()]
    }
}

#[test]
fn sums_of_products_are_reduced_without_loss() {
    let [mut a, mut b] = operands();
    let largest = F::from_noncanonical_u64(u64::MAX);
    for operand in [&mut a, &mut b] {
        operand.truncate(512);
        operand[..8].fill(largest);
    }
    let operands = [a, b];
    for level in Level::available() {
        let dispatch = Dispatch::new(level).unwrap();
        let [repeated, all] = dispatch.run(Sums(&operands));
        let products: Vec<F> = operands[0].iter().zip(&operands[1]).map(|(&a, &b)| a * b).collect();
        for (index, (sum, &product)) in repeated.into_iter().zip(&products).enumerate() {
            assert_eq!(sum, product * F::from_canonical_usize(MAX_PRODUCTS), "{level:?}, operands {index}");
        }
        for (lane, sum) in all.into_iter().enumerate() {
            assert_eq!(sum, products.iter().skip(lane).step_by(dispatch.width()).copied().sum(), "{level:?}, lane {lane}");
        }
    }
}

struct Canonical<'a>(&'a mut [F]);

impl Kernel for Canonical<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        for lanes in self.0.chunks_exact_mut(V::WIDTH) {
            V::load(lanes).canonical().store(lanes);
        }
    }
}

#[test]
fn every_level_finds_the_representative_below_p() {
    for level in Level::available() {
        let mut values = AWKWARD.map(F::from_noncanonical_u64);
        Dispatch::new(level).unwrap().run(Canonical(&mut values));
        let words = values.map(|value| value.to_noncanonical_u64());
        assert_eq!(words, AWKWARD.map(|word| word % ORDER), "{level:?}");
    }
}

/// Interleaves 0 … W − 1 with W … 2W − 1 at every block length.
struct Interleaved;

impl Kernel for Interleaved {
    type Output = Vec<(usize, Vec<F>)>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Self::Output {
        let numbers: Vec<F> = (0..2 * V::WIDTH).map(F::from_canonical_usize).collect();
        let (a, b) = (V::load(&numbers), V::load(&numbers[V::WIDTH..]));
        let block_lengths = (0..).map(|log| 1 << log).take_while(|&length| length <= V::WIDTH);
        block_lengths
            .map(|length| {
                let (even, odd) = a.interleave(b, length);
                (length, [even.as_slice(), odd.as_slice()].concat())
            })
            .collect()
    }
}

#[test]
fn interleaving_transposes_blocks_of_two_by_two() {
    for level in Level::available() {
        let dispatch = Dispatch::new(level).unwrap();
        let width = dispatch.width();
        for (length, lanes) in dispatch.run(Interleaved) {
            for (lane, value) in lanes.into_iter().enumerate() {
                let (vector, block, offset) = (lane / width, lane % width / length, lane % length);
                // Block k of result v is block 2⌊k/2⌋ + v of operand k mod 2.
                let source = if length == width { lane } else { (block % 2) * width + (block / 2 * 2 + vector) * length + offset };
                assert_eq!(value, F::from_canonical_usize(source), "{level:?}, blocks of {length}, lane {lane}");
            }
        }
    }
}

#[test]
fn levels_are_ordered_and_the_best_is_detected() {
    let available = Level::available();
    assert_eq!(available.first(), Some(&Level::Portable));
    assert!(available.is_sorted());
    assert_eq!(available.last(), Some(&Level::detect()));
    for level in Level::ALL {
        assert_eq!(Dispatch::new(level).is_ok(), available.contains(&level));
    }
}

#[test]
fn a_missing_level_is_an_error_that_names_the_levels_there_are() {
    let error = super::UnavailableLevel(Level::Avx512).to_string();
    assert!(error.starts_with("this processor has no avx512 instructions; available: portable"), "{error}");
}
