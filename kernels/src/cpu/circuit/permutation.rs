//! The permutation argument's columns: `Z(g^i)`, the product over earlier rows of `Π_j (w_j + β·k_j·x + γ) / (w_j + β·σ_j + γ)`, and the
//! partial products within a row, cut into chunks of the quotient's degree.

use plonky2::field::types::Field;
use rayon::prelude::*;
use zkinfer_circuits::backend::{BackendError, Circuit};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::F;

use super::PermutationChallenges;

/// Rows of one task; they share an inversion.
const BLOCK_ROWS: usize = 64;

/// All Z, then all partial products, challenge by challenge.
pub(super) fn columns(circuit: &Circuit, wires: &Columns, challenges: &PermutationChallenges) -> Result<Columns, BackendError> {
    let n_rows = wires.rows();
    let (mut zs, mut partial_products) = (Vec::new(), Vec::new());
    for (&beta, &gamma) in challenges.betas.iter().zip(&challenges.gammas) {
        let factors = chunk_quotients(circuit, wires, beta, gamma)?;
        let n_chunks = factors.len() / n_rows;
        let mut z = F::ONE;
        let mut columns = vec![Vec::with_capacity(n_rows); n_chunks];
        for row in factors.chunks_exact(n_chunks) {
            for (column, &factor) in columns.iter_mut().zip(row) {
                column.push(z);
                z *= factor;
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

/// Row after row, the quotient of each chunk of wires.
fn chunk_quotients(circuit: &Circuit, wires: &Columns, beta: F, gamma: F) -> Result<Vec<F>, BackendError> {
    let n_chunks = circuit.common.config.num_routed_wires.div_ceil(circuit.common.quotient_degree_factor);
    let mut quotients = vec![F::ZERO; wires.rows() * n_chunks];
    quotients
        .par_chunks_mut(BLOCK_ROWS * n_chunks)
        .enumerate()
        .map(|(block, quotients)| {
            let first = block * BLOCK_ROWS;
            let mut denominators = vec![F::ONE; quotients.len()];
            quotients.fill(F::ONE);
            for wire in 0..circuit.common.config.num_routed_wires {
                let chunk = wire / circuit.common.quotient_degree_factor;
                let scale = beta * circuit.common.k_is[wire];
                let cells = quotients.chunks_exact_mut(n_chunks).zip(denominators.chunks_exact_mut(n_chunks));
                for ((row, &value), (numerators, denominators)) in (first..).zip(&wires.column(wire)[first..]).zip(cells) {
                    let shifted = value + gamma;
                    numerators[chunk] *= shifted + scale * circuit.prover_only.subgroup[row];
                    denominators[chunk] *= shifted + beta * circuit.prover_only.sigmas[row][wire];
                }
            }
            if denominators.iter().any(Field::is_zero) {
                return Err(BackendError::Witness("a denominator of the permutation argument is zero".to_owned()));
            }
            let inverses = F::batch_multiplicative_inverse(&denominators);
            quotients.iter_mut().zip(inverses).for_each(|(quotient, inverse)| *quotient *= inverse);
            Ok(())
        })
        .collect::<Result<(), _>>()?;
    Ok(quotients)
}
