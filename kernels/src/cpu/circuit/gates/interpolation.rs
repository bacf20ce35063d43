//! Interpolation over a coset: the value at z of the polynomial with given values on shift·⟨g⟩.
//!
//! With `z' = z / shift`, points x_i of ⟨g⟩, values v_i and barycentric weights w_i: `p_0 = 1`, `p_(i+1) = p_i·(z' − x_i)`; `e_0 = 0`,
//! `e_(i+1) = e_i·(z' − x_i) + w_i·v_i·p_i`; the last e is the value. Wires hold e and p after every degree − 1 points, to bound the degree.

use plonky2::field::types::Field;
use plonky2::gates::coset_interpolation::CosetInterpolationGate;
use zkinfer_circuits::field::{D, F};

use super::extension::Pair;
use super::{Output, Row};
use crate::vector::Vector;

/// Wires: shift; values; z; the value at z; the intermediate e; the intermediate p; z'.
const VALUES: usize = 1;

/// A gate with its points.
pub(in super::super) struct Interpolation {
    degree: usize,
    /// Points and their weights.
    points: Vec<(F, F)>,
}

impl Interpolation {
    pub(super) fn new(gate: &CosetInterpolationGate<F, D>) -> Self {
        let points = F::two_adic_subgroup(gate.subgroup_bits).into_iter().zip(gate.barycentric_weights.iter().copied()).collect();
        Self { degree: gate.degree, points }
    }

    #[inline(always)]
    pub(super) fn evaluate<V: Vector>(&self, row: &Row<'_>, output: &mut Output<'_, V>) {
        let n_intermediates = (self.points.len() - 2) / (self.degree - 1);
        let evaluation_point = VALUES + 2 * self.points.len();
        let value = evaluation_point + 2;
        let evaluations = value + 2;
        let products = evaluations + 2 * n_intermediates;
        let shifted_point: Pair<V> = Pair::wires(row, products + 2 * n_intermediates);
        Pair::wires(row, evaluation_point).sub(shifted_point.scale(row.wire(0))).push_to(output);
        let (mut evaluation, mut product) = (Pair::zero(), Pair::one());
        let (mut intermediate, mut until) = (0, self.degree);
        for (index, &(x, weight)) in self.points.iter().enumerate() {
            if index == until && intermediate < n_intermediates {
                let held = (Pair::wires(row, evaluations + 2 * intermediate), Pair::wires(row, products + 2 * intermediate));
                held.0.sub(evaluation).push_to(output);
                held.1.sub(product).push_to(output);
                (evaluation, product) = held;
                intermediate += 1;
                until += self.degree - 1;
            }
            let term = Pair { c0: shifted_point.c0 - V::from(x), c1: shifted_point.c1 };
            let weighted = Pair::wires(row, VALUES + 2 * index).scale_by(weight);
            evaluation = evaluation.mul(term).add(weighted.mul(product));
            product = product.mul(term);
        }
        Pair::wires(row, value).sub(evaluation).push_to(output);
    }
}
