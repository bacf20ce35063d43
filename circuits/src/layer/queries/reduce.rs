//! `Σ_k α^k·t_k`: full rows of plonky2's reducing gates, and arithmetic for a few terms that are left.

use plonky2::gates::reducing::ReducingGate;
use plonky2::gates::reducing_extension::ReducingExtensionGate;
use plonky2::iop::target::Target;
use plonky2::util::reducing::ReducingFactorTarget;

use super::Ext;
use crate::field::{Builder, D};

/// Terms beyond full rows that cost less than a row: one operation each, ten of which fill a row.
const MAX_REST: usize = 9;

/// Terms in full rows; the rest is at most [`MAX_REST`], or none.
fn full_rows(n_terms: usize, row: usize) -> usize {
    let rest = n_terms % row;
    if rest <= MAX_REST { n_terms - rest } else { n_terms }
}

/// The combination of elements of F.
pub(super) fn reduce_base(builder: &mut Builder, alpha: Ext, terms: &[Target]) -> Ext {
    let row = ReducingGate::<D>::max_coeffs_len(builder.config.num_wires, builder.config.num_routed_wires);
    let (head, rest) = terms.split_at(full_rows(terms.len(), row));
    let mut reduce = |terms: &[Target]| ReducingFactorTarget::new(alpha).reduce_base(terms, builder);
    let (head_sum, rest_sum) = (reduce(head), reduce(rest));
    join(builder, alpha, head.len(), head_sum, rest_sum)
}

/// The combination of elements of K.
pub(super) fn reduce(builder: &mut Builder, alpha: Ext, terms: &[Ext]) -> Ext {
    let row = ReducingExtensionGate::<D>::max_coeffs_len(builder.config.num_wires, builder.config.num_routed_wires);
    let (head, rest) = terms.split_at(full_rows(terms.len(), row));
    let mut reduce = |terms: &[Ext]| ReducingFactorTarget::new(alpha).reduce(terms, builder);
    let (head_sum, rest_sum) = (reduce(head), reduce(rest));
    join(builder, alpha, head.len(), head_sum, rest_sum)
}

/// `head + α^(terms of head)·rest`; plonky2 folds a sum of nothing, which is the constant 0.
fn join(builder: &mut Builder, alpha: Ext, n_head: usize, head: Ext, rest: Ext) -> Ext {
    if rest == builder.zero_extension() {
        return head;
    }
    let power = builder.exp_u64_extension(alpha, n_head as u64);
    builder.mul_add_extension(power, rest, head)
}
