//! The combination of all openings that FRI is about, at one point of its domain.
//!
//! ```text
//! Σ_j α^(l_{j+1} + … + l_4) · (Σ_k α^k·f_{j,k}(x) − Σ_k α^k·y_{j,k}) / (x − z_j)
//! ```
//! over the batches j of l_j openings `f_{j,k}(z_j) = y_{j,k}` ([`LayerShape::batches`]). Batch 0 is all of weights, main, projected and
//! sums, batch 3 all of weights, batch 4 all of main: with `w = Σ_k α^k·W_k(x)`, `m` the same of main and `r` of projected and sums, they are
//! `w + α^|W|·m + α^(|W| + |M|)·r`, `w` and `m`. The powers before w, m, r and before the few columns of batches 1 and 2 are computed once a
//! layer, and so are the sums of y.

use plonky2::field::types::Field;
use plonky2::iop::ext_target::ExtensionTarget;
use plonky2::iop::target::Target;

use super::Ext;
use super::reduce::{reduce, reduce_base};
use crate::air::OracleId;
use crate::field::{Builder, F};
use crate::layer::shape::LayerShape;

/// A value at x that a batch adds to its sum.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// w.
    Weights,
    /// m.
    Main,
    /// r.
    Later,
    /// One column of an oracle.
    Column(usize, usize),
}

/// One batch: `(Σ factor·source − opened) / (x − point)`.
struct Batch {
    terms: Vec<(Source, Ext)>,
    minus_opened: Ext,
    minus_point: Ext,
}

/// What does not depend on x.
pub(super) struct Combination {
    alpha: Ext,
    batches: Vec<Batch>,
}

impl Combination {
    /// Adds the powers of α and the sums of the opened values.
    pub(super) fn new(builder: &mut Builder, shape: &LayerShape, alpha: Ext, points: &[Ext; 5], openings: &[Vec<Ext>; 5]) -> Self {
        let mut batches = Vec::new();
        // α to the number of openings in later batches.
        let mut factor = builder.one_extension();
        for (number, opened) in openings.iter().enumerate().rev().filter(|(_, opened)| !opened.is_empty()) {
            let (terms, next) = terms(builder, shape, number, alpha, factor);
            let reduced = reduce(builder, alpha, opened);
            let minus_opened = builder.mul_extension_with_const(-F::ONE, factor, reduced);
            let minus_point = ExtensionTarget(points[number].0.map(|coordinate| builder.neg(coordinate)));
            batches.push(Batch { terms, minus_opened, minus_point });
            factor = next;
        }
        Self { alpha, batches }
    }

    /// The combination at x, of the columns of the four oracles there. A point z_j = x has no witness, as in plonky2's circuit.
    pub(super) fn evaluate(&self, builder: &mut Builder, columns: [&[Target]; 4], x: Target) -> Ext {
        let [weights, main, projected, sums] = columns;
        let later = [projected, sums].concat();
        let [w, m, r] = [weights, main, &later].map(|columns| reduce_base(builder, self.alpha, columns));
        let mut total = builder.zero_extension();
        for batch in &self.batches {
            let numerator = batch.terms.iter().fold(batch.minus_opened, |sum, &(source, factor)| {
                let value = match source {
                    Source::Weights => w,
                    Source::Main => m,
                    Source::Later => r,
                    Source::Column(oracle, column) => builder.convert_to_ext(columns[oracle][column]),
                };
                builder.mul_add_extension(factor, value, sum)
            });
            // x − z_j: x is in F.
            let [minus_c0, minus_c1] = batch.minus_point.0;
            let denominator = ExtensionTarget([builder.add(x, minus_c0), minus_c1]);
            total = builder.div_add_extension(numerator, denominator, total);
        }
        total
    }
}

/// The terms of a batch of which `factor` precedes the first, and the factor that precedes the batch before it.
fn terms(builder: &mut Builder, shape: &LayerShape, number: usize, alpha: Ext, factor: Ext) -> (Vec<(Source, Ext)>, Ext) {
    let widths = shape.oracle_widths();
    let mut times_power = |base: Ext, exponent: usize| {
        let power = builder.exp_u64_extension(alpha, exponent as u64);
        builder.mul_extension(base, power)
    };
    match number {
        0 => {
            let main = times_power(factor, widths[OracleId::Weights as usize]);
            let later = times_power(main, widths[OracleId::Main as usize]);
            // Nothing precedes the first batch.
            (vec![(Source::Weights, factor), (Source::Main, main), (Source::Later, later)], factor)
        }
        3 => (vec![(Source::Weights, factor)], times_power(factor, widths[OracleId::Weights as usize])),
        4 => (vec![(Source::Main, factor)], times_power(factor, widths[OracleId::Main as usize])),
        _ => {
            let mut power = factor;
            let cells = &shape.batches()[number];
            let terms = cells.iter().map(|cell| {
                let term = (Source::Column(cell.oracle as usize, cell.column), power);
                power = builder.mul_extension(power, alpha);
                term
            });
            (terms.collect(), power)
        }
    }
}
