//! The permutation argument's columns: `Z(g^i)`, the product over earlier rows of `Π_j (w_j + β·k_j·x + γ) / (w_j + β·σ_j + γ)`, and the
//! partial products within a row, cut into chunks of the quotient's degree.

use plonky2::field::types::Field;
use rayon::prelude::*;
use zkinfer_circuits::backend::{BackendError, Circuit};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::F;

use super::PermutationChallenges;
use crate::cpu::project::invert;
use crate::vector::{Dispatch, Kernel, Vector};

/// Rows of one task; their columns stay in the first-level cache.
const BLOCK_ROWS: usize = 64;

/// All Z, then all partial products, challenge by challenge.
pub(super) fn columns(
    dispatch: Dispatch,
    circuit: &Circuit,
    wires: &Columns,
    challenges: &PermutationChallenges,
) -> Result<Columns, BackendError> {
    let n_rows = wires.rows();
    let n_chunks = circuit.common.config.num_routed_wires.div_ceil(circuit.common.quotient_degree_factor);
    let block_rows = BLOCK_ROWS.min(n_rows);
    let (mut zs, mut partial_products) = (Vec::new(), Vec::new());
    for (&beta, &gamma) in challenges.betas.iter().zip(&challenges.gammas) {
        let blocks = (0..n_rows).into_par_iter().step_by(block_rows);
        let blocks = blocks.map(|first| dispatch.run(ChunkQuotients { circuit, wires, beta, gamma, first, block_rows }));
        let blocks: Option<Vec<Vec<F>>> = blocks.collect();
        let blocks = blocks.ok_or_else(|| BackendError::Witness("a denominator of the permutation argument is zero".to_owned()))?;
        let mut z = F::ONE;
        let mut columns = vec![Vec::with_capacity(n_rows); n_chunks];
        for (block, row) in blocks.iter().flat_map(|block| (0..block_rows).map(move |row| (block, row))) {
            for (column, quotients) in columns.iter_mut().zip(block.chunks_exact(block_rows)) {
                column.push(z);
                z *= quotients[row];
            }
        }
        // The running product before the first chunk is Z, before chunk k + 1 the partial product k.
        let mut columns = columns.into_iter();
        zs.extend(columns.next());
        partial_products.extend(columns);
    }
    zs.append(&mut partial_products);
    Ok(Columns::from_columns(n_rows, &zs))
}

/// The quotient of each chunk of wires on the rows of a block: the first chunk on all rows, then the next. None if a denominator is zero.
struct ChunkQuotients<'a> {
    circuit: &'a Circuit,
    wires: &'a Columns,
    beta: F,
    gamma: F,
    first: usize,
    block_rows: usize,
}

impl Kernel for ChunkQuotients<'_> {
    type Output = Option<Vec<F>>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Option<Vec<F>> {
        if self.block_rows.is_multiple_of(V::WIDTH) { self.compute::<V>() } else { self.compute::<F>() }
    }
}

impl ChunkQuotients<'_> {
    #[inline(always)]
    fn compute<V: Vector>(self) -> Option<Vec<F>> {
        let common = &self.circuit.common;
        let n_routed = common.config.num_routed_wires;
        let n_vectors = self.block_rows / V::WIDTH;
        let n_chunks = n_routed.div_ceil(common.quotient_degree_factor);
        let sigmas = self.sigmas(n_routed);
        let points = &self.circuit.prover_only.subgroup[self.first..];
        let (mut numerators, mut denominators) = (vec![V::ONES; n_chunks * n_vectors], vec![V::ONES; n_chunks * n_vectors]);
        let (beta, gamma) = (V::from(self.beta), V::from(self.gamma));
        for wire in 0..n_routed {
            let chunk = wire / common.quotient_degree_factor * n_vectors;
            let scale = V::from(self.beta * common.k_is[wire]);
            let (values, sigmas) = (&self.wires.column(wire)[self.first..], &sigmas[wire * self.block_rows..]);
            for vector in 0..n_vectors {
                let at = vector * V::WIDTH;
                let shifted = V::load(&values[at..]) + gamma;
                numerators[chunk + vector] *= shifted + scale * V::load(&points[at..]);
                denominators[chunk + vector] *= shifted + beta * V::load(&sigmas[at..]);
            }
        }
        invert(&mut denominators)?;
        let mut quotients = vec![F::ZERO; n_chunks * self.block_rows];
        for index in 0..numerators.len() {
            (numerators[index] * denominators[index]).store(&mut quotients[index * V::WIDTH..]);
        }
        Some(quotients)
    }

    /// σ on the rows of the block, wire by wire.
    fn sigmas(&self, n_routed: usize) -> Vec<F> {
        let mut block = vec![F::ZERO; n_routed * self.block_rows];
        for (row, sigmas) in self.circuit.prover_only.sigmas[self.first..self.first + self.block_rows].iter().enumerate() {
            for (column, &sigma) in block.chunks_exact_mut(self.block_rows).zip(sigmas) {
                column[row] = sigma;
            }
        }
        block
    }
}
