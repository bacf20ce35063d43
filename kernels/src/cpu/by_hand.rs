//! The constraints and summands of a dense layer written by hand, on the same vectors as the interpreter of constraints: what that is measured
//! against. No proof is made with it.
//!
//! Everything that a point needs is loaded once and stays in registers; weighted sums are reduced once.

use plonky2::field::ops::Square;
use plonky2::field::types::Field;
use rayon::prelude::*;
use zkinfer_circuits::air::Rotation;
use zkinfer_circuits::backend::BackendError;
use zkinfer_circuits::field::{F, K, limbs};
use zkinfer_circuits::layer::theta;

use super::interpreter::{BLOCK_POINTS, BlockOutput, Geometry, Order};
use super::sums::{Inputs, missing_combination, on_quotient_coset};
use super::transform::RootTables;
use crate::vector::{Kernel, Vector, extension_product};

/// Constraints in the order in which this file numbers their weights.
const IDS: [&str; 15] = [
    "TABLE-FIRST",
    "TABLE-STEP",
    "TABLE-LAST",
    "POWERS-FIRST",
    "POWERS-STEP",
    "FOLD",
    "MASK-OUT",
    "CLAMP",
    "REQUANT",
    "LOOKUP-0",
    "LOOKUP-1",
    "LOOKUP-2",
    "LOOKUP-3",
    "LOOKUP-4",
    "LOOKUP-5",
];
const N_MAIN: usize = 13;
const N_PROJECTED: usize = 16;

/// As `sums::interpret`: the outputs of every block, of a dense layer's inference.
pub(crate) fn evaluate(tables: &RootTables, inputs: &Inputs<'_>) -> Result<Vec<Vec<BlockOutput>>, BackendError> {
    let [weights, main, projected] = inputs.oracles;
    let log_rows = weights.log_rows;
    let combined = on_quotient_coset(tables, log_rows, inputs.combination.ok_or_else(missing_combination)?);
    let first_constant = inputs.system.combined_columns;
    let points = Points {
        weights: [0, 1, 2].map(|column| weights.extension(first_constant + column)),
        main: std::array::from_fn(|column| main.extension(column)),
        projected: std::array::from_fn(|column| projected.extension(column)),
        combined: combined.each_ref().map(|limb| &limb[..]),
        geometry: Geometry { log_rows, order: Order::BitReversed, period: inputs.scalars.period },
    };
    let weights = weights_of_constraints(inputs)?;
    let n_points = 2usize << log_rows;
    let length = BLOCK_POINTS.min(n_points);
    let blocks = (0..n_points / length).into_par_iter().map(|index| {
        let block = Block { inputs, weights: &weights, points: &points, first: index * length, length };
        tables.dispatch().run(block)
    });
    Ok(blocks.collect())
}

/// `γ^(N−1−k)` of the constraints of [`IDS`].
fn weights_of_constraints(inputs: &Inputs<'_>) -> Result<[K; 15], BackendError> {
    let constraints = &inputs.system.constraints;
    let mut weights = [K::ZERO; 15];
    for (weight, id) in weights.iter_mut().zip(IDS) {
        let position = constraints.iter().rev().position(|constraint| constraint.id == id);
        let missing = || BackendError::Unsupported(format!("no dense layer: there is no constraint {id}"));
        *weight = inputs.challenges.gamma.exp_u64(position.ok_or_else(missing)? as u64);
    }
    Ok(weights)
}

/// Columns on the coset of 2n points.
struct Points<'a> {
    /// bias, mult, active.
    weights: [&'a [F]; 3],
    main: [&'a [F]; N_MAIN],
    projected: [&'a [F]; N_PROJECTED],
    combined: [&'a [F]; 2],
    geometry: Geometry,
}

struct Block<'a> {
    inputs: &'a Inputs<'a>,
    weights: &'a [K; 15],
    points: &'a Points<'a>,
    first: usize,
    length: usize,
}

impl Kernel for Block<'_> {
    type Output = Vec<BlockOutput>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Self::Output {
        if self.length.is_multiple_of(V::WIDTH) { block::<V>(&self) } else { block::<F>(&self) }
    }
}

#[inline(always)]
fn block<V: Vector>(block: &Block<'_>) -> Vec<BlockOutput> {
    let gather = |column: &[F], rotation| {
        let mut rotated = [F::ZERO; BLOCK_POINTS];
        block.points.geometry.gather(column, block.first, rotation, &mut rotated[..block.length]);
        rotated
    };
    let Points { main, projected, .. } = block.points;
    let next = [main[11], projected[0], projected[1]].map(|column| gather(column, Rotation::Next));
    let there = [main[0], projected[2], projected[3]].map(|column| gather(column, Rotation::Period));
    let constants = Constants::<V>::new(block);
    let mut outputs = vec![[vec![F::ZERO; block.length], vec![F::ZERO; block.length]]; 5];
    for lane in (0..block.length).step_by(V::WIDTH) {
        let cells = Cells::load(block.points, block.first + lane, &next, &there, lane);
        let [first, last, step] = constants.boundaries(&cells);
        let values = [constants.summands(&cells), constants.every(&cells), first, last, step];
        for (output, value) in outputs.iter_mut().zip(values) {
            value[0].store(&mut output[0][lane..]);
            value[1].store(&mut output[1][lane..]);
        }
    }
    outputs
}

/// The cells of a vector of points, and those of the rotated rows.
struct Cells<V> {
    weights: [V; 3],
    main: [V; N_MAIN],
    projected: [V; N_PROJECTED],
    combined: [V; 2],
    /// table, Γ.
    next: [V; 3],
    /// x, X̂.
    there: [V; 3],
}

impl<V: Vector> Cells<V> {
    #[inline(always)]
    fn load(points: &Points<'_>, point: usize, next: &[[F; BLOCK_POINTS]; 3], there: &[[F; BLOCK_POINTS]; 3], lane: usize) -> Self {
        Self {
            weights: points.weights.map(|column| V::load(&column[point..])),
            main: points.main.map(|column| V::load(&column[point..])),
            projected: points.projected.map(|column| V::load(&column[point..])),
            combined: points.combined.map(|column| V::load(&column[point..])),
            next: next.each_ref().map(|column| V::load(&column[lane..])),
            there: there.each_ref().map(|column| V::load(&column[lane..])),
        }
    }

    /// A K column of the projected oracle.
    #[inline(always)]
    fn pair(&self, column: usize) -> [V; 2] {
        [self.projected[column], self.projected[column + 1]]
    }
}

/// A factor in K, ready for products.
#[derive(Clone, Copy)]
struct Weight<V: Vector> {
    c0: V::Factor,
    c1: V::Factor,
    seven_c1: V::Factor,
}

impl<V: Vector> Weight<V> {
    #[inline(always)]
    fn new(value: K) -> Self {
        let [c0, c1] = limbs(value);
        let [c0, c1, seven_c1] = [c0, c1, c1 * F::from_canonical_u64(7)].map(|limb| V::from(limb).factor());
        Self { c0, c1, seven_c1 }
    }
}

/// `Σ weight·value` in K, reduced once.
struct Sum<V: Vector>([V::WideSum; 2]);

impl<V: Vector> Sum<V> {
    #[inline(always)]
    fn new() -> Self {
        Self([V::no_products(), V::no_products()])
    }

    #[inline(always)]
    fn add(self, weight: &Weight<V>, [v0, v1]: [V; 2]) -> Self {
        let Self([s0, s1]) = self;
        let s0 = v1.add_product(&weight.seven_c1, v0.add_product(&weight.c0, s0));
        Self([s0, v1.add_product(&weight.c0, v0.add_product(&weight.c1, s1))])
    }

    /// The same with a value in F.
    #[inline(always)]
    fn add_base(self, weight: &Weight<V>, value: V) -> Self {
        let Self([s0, s1]) = self;
        Self([value.add_product(&weight.c0, s0), value.add_product(&weight.c1, s1)])
    }

    #[inline(always)]
    fn reduced(self) -> [V; 2] {
        self.0.map(V::reduced)
    }
}

#[inline(always)]
fn plus<V: Vector>([a0, a1]: [V; 2], [b0, b1]: [V; 2]) -> [V; 2] {
    [a0 + b0, a1 + b1]
}

#[inline(always)]
fn minus<V: Vector>([a0, a1]: [V; 2], [b0, b1]: [V; 2]) -> [V; 2] {
    [a0 - b0, a1 - b1]
}

/// The scalars that all points share.
struct Constants<V: Vector> {
    weights: [Weight<V>; 15],
    remainder: [V::Factor; 5],
    top: [V::Factor; 5],
    raw: V,
    lo: V,
    range: V,
    twice_inverse_range: V,
    scale: V,
    half: V,
    gamma_prime: Weight<V>,
    minus_fold_ratio: Weight<V>,
    minus_fold_wrap: Weight<V>,
    d_out: Weight<V>,
    minus_d_in: Weight<V>,
    /// α, α², 2α.
    alpha: [[V; 2]; 3],
    xi: Weight<V>,
    xi_squared: Weight<V>,
}

impl<V: Vector> Constants<V> {
    #[inline(always)]
    fn new(block: &Block<'_>) -> Self {
        let (theta, challenges) = (block.inputs.scalars.theta, block.inputs.scalars.challenges);
        let (alpha, xi) = (challenges[theta::ALPHA], block.inputs.challenges.xi);
        let public = |index: usize| V::from(theta[index]);
        let factors = |first: usize| std::array::from_fn(|k| public(first + k).factor());
        Self {
            weights: block.weights.map(Weight::new),
            remainder: factors(theta::REMAINDER),
            top: factors(theta::REMAINDER_TOP),
            raw: public(theta::RAW),
            lo: public(theta::LO),
            range: public(theta::RANGE),
            twice_inverse_range: V::from(theta[theta::INVERSE_RANGE].double()),
            scale: public(theta::SCALE),
            half: public(theta::HALF),
            gamma_prime: Weight::new(challenges[theta::GAMMA_PRIME]),
            minus_fold_ratio: Weight::new(-challenges[theta::FOLD_RATIO]),
            minus_fold_wrap: Weight::new(-challenges[theta::FOLD_WRAP]),
            d_out: Weight::new(challenges[theta::D_OUT]),
            minus_d_in: Weight::new(-challenges[theta::D_IN_1]),
            alpha: [alpha, alpha.square(), alpha.double()].map(|value| limbs(value).map(V::from)),
            xi: Weight::new(xi),
            xi_squared: Weight::new(xi.square()),
        }
    }

    /// `Σ_k ξ^k s_k`: lookups, dense, ledger.
    #[inline(always)]
    fn summands(&self, cells: &Cells<V>) -> [V; 2] {
        let [bias, _, active] = cells.weights;
        let (x, u, accumulator) = (cells.main[0], cells.main[1], cells.main[10]);
        let (powers, folded) = (cells.pair(0), cells.pair(2));
        let lookups = [6, 8, 10, 12, 14].into_iter().fold(cells.pair(4), |sum, column| plus(sum, cells.pair(column)));
        let output = u + self.lo * active;
        let chosen = output + self.raw * (accumulator - output);
        let ledger = Sum::new().add_base(&self.d_out, chosen).add_base(&self.minus_d_in, x).reduced();
        let unbiased = accumulator - bias;
        let dense = minus(extension_product(cells.combined, folded), powers.map(|limb| limb * unbiased));
        let weighted = Sum::new().add(&self.xi, dense).add(&self.xi_squared, extension_product(powers, ledger));
        plus(lookups, weighted.reduced())
    }

    /// `Σ_k γ^(N−1−k) c_k` over the constraints on every row.
    #[inline(always)]
    fn every(&self, cells: &Cells<V>) -> [V; 2] {
        let [_, multiplier, active] = cells.weights;
        let (u, accumulator, table, count) = (cells.main[1], cells.main[10], cells.main[11], cells.main[12]);
        let [r0, r1, r2, r3, r4, e0, e1, e2] = std::array::from_fn(|index| cells.main[2 + index]);
        let dot = |factors: &[V::Factor; 5]| {
            V::reduced([r0, r1, r2, r3, r4].iter().zip(factors).fold(V::no_products(), |sum, (r, factor)| r.add_product(factor, sum)))
        };
        let (remainder, top, headroom) = (dot(&self.remainder), dot(&self.top), self.range - u);
        let overshoot = e0 + e1 * F::from_canonical_u64(1 << 8) + e2 * F::from_canonical_u64(1 << 16);
        let fold = Sum::new().add(&self.minus_fold_ratio, cells.pair(2)).add_base(&self.minus_fold_wrap, cells.there[0]);
        let fold = plus([cells.there[1], cells.there[2]], fold.reduced());
        let sign = self.twice_inverse_range * u - V::ONES;
        let right = (u + self.lo + sign * overshoot) * self.scale + remainder - self.half;
        let mut sum = Sum::new().add(&self.weights[5], fold);
        sum = sum.add_base(&self.weights[6], (V::ONES - active) * u).add_base(&self.weights[7], overshoot * u * headroom);
        sum = sum.add_base(&self.weights[8], active * (accumulator * multiplier - right));
        for (k, (a, b)) in [(u, headroom), (r0, r1), (r2, r3), (r4, top), (e0, e1)].into_iter().enumerate() {
            sum = sum.add(&self.weights[9 + k], self.lookup(cells.pair(4 + 2 * k), a, b));
        }
        sum.add(&self.weights[14], self.table_lookup(cells.pair(14), e2, table, count)).reduced()
    }

    /// `(α − a)(α − b) = α² − (a + b)·α + a·b`
    #[inline(always)]
    fn denominator(&self, a: V, b: V) -> [V; 2] {
        let [alpha, squared, _] = self.alpha;
        let sum = a + b;
        [squared[0] - alpha[0] * sum + a * b, squared[1] - alpha[1] * sum]
    }

    /// `h·(α − a)(α − b) − (α − a) − (α − b)`
    #[inline(always)]
    fn lookup(&self, h: [V; 2], a: V, b: V) -> [V; 2] {
        let [_, _, [twice0, twice1]] = self.alpha;
        minus(extension_product(h, self.denominator(a, b)), [twice0 - (a + b), twice1])
    }

    /// `h·(α − e)(α − table) − (α − table) + count·(α − e)`
    #[inline(always)]
    fn table_lookup(&self, h: [V; 2], e: V, table: V, count: V) -> [V; 2] {
        let [[alpha0, alpha1], _, _] = self.alpha;
        let counted = [alpha0 - table - count * (alpha0 - e), alpha1 - count * alpha1];
        minus(extension_product(h, self.denominator(e, table)), counted)
    }

    /// The same over the constraints on the first row, on the last, on all but the last.
    #[inline(always)]
    fn boundaries(&self, cells: &Cells<V>) -> [[V; 2]; 3] {
        let (table, powers) = (cells.main[11], cells.pair(0));
        let [next_table, next_powers @ ..] = cells.next;
        let first = Sum::new().add_base(&self.weights[0], table).add(&self.weights[3], [powers[0] - V::ONES, powers[1]]);
        let last = Sum::new().add_base(&self.weights[2], table - F::from_canonical_u64(255));
        let rise = next_table - table;
        let raised = minus(next_powers, Sum::new().add(&self.gamma_prime, powers).reduced());
        let step = Sum::new().add_base(&self.weights[1], rise * (rise - V::ONES)).add(&self.weights[4], raised);
        [first.reduced(), last.reduced(), step.reduced()]
    }
}
