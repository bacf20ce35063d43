//! The steps of a circuit proof on the CPU.

mod gates;
mod quotient;

use plonky2::fri::oracle::PolynomialBatch;
use zkinfer_circuits::backend::{BackendError, Circuit, CommitShape, OpeningBatch};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{C, D, F, K};

use super::fri::{self, Codeword, Polynomials};
use super::oracle::{self, Oracle};
use super::{CpuBackend, wide};
use crate::circuit::{CircuitBackend, Host, QuotientInputs};

impl Polynomials for PolynomialBatch<F, C, D> {
    fn log_rows(&self) -> usize {
        self.degree_log
    }

    fn coefficients(&self, column: usize) -> &[F] {
        &self.polynomials[column].coeffs
    }
}

impl CpuBackend {
    /// What a prover of circuits needs of the host.
    pub(crate) fn host(&self) -> Host<'_> {
        Host { dispatch: self.tables.dispatch(), plans: &self.plans }
    }
}

impl CircuitBackend for CpuBackend {
    type Fixed<'a> = &'a PolynomialBatch<F, C, D>;

    fn fixed<'a>(&self, circuit: &'a Circuit) -> Result<Self::Fixed<'a>, BackendError> {
        Ok(&circuit.prover_only.constants_sigmas_commitment)
    }

    fn commit_salted(&self, columns: &Columns, salt: &[F], shape: CommitShape) -> Result<Oracle, BackendError> {
        let log_rows = columns.rows().trailing_zeros() as usize;
        Oracle::commit_salted(&self.tables, log_rows, oracle::interpolate(&self.tables, columns, log_rows), salt, shape)
    }

    fn commit_quotients(
        &self,
        _: &Self::Fixed<'_>,
        inputs: &QuotientInputs<'_, Oracle>,
        salt: &[F],
        shape: CommitShape,
    ) -> Result<Oracle, BackendError> {
        let chunks = quotient::chunks(&self.tables, inputs)?;
        Oracle::commit_salted(&self.tables, inputs.wires.log_rows, chunks, salt, shape)
    }

    fn evaluate_fixed(&self, fixed: &Self::Fixed<'_>, point: K) -> Result<Vec<K>, BackendError> {
        let polynomials: Vec<&[F]> = fixed.polynomials.iter().map(|polynomial| &polynomial.coeffs[..]).collect();
        Ok(wide::evaluate(self.tables.dispatch(), &polynomials, point))
    }

    fn batch_with_fixed(
        &self,
        fixed: &Self::Fixed<'_>,
        [wires, products, quotients]: [&Oracle; 3],
        batches: &[OpeningBatch],
        alpha: K,
    ) -> Result<Codeword, BackendError> {
        Ok(fri::batch(&self.tables, &[*fixed, wires, products, quotients], batches, alpha, wires.shape.rate_bits))
    }
}
