//! The steps of a circuit proof that depend on where a backend computes.

use zkinfer_circuits::backend::{Backend, BackendError, Circuit, CommitShape, OpeningBatch};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{Digest, F, K};

use super::PermutationChallenges;

/// What the quotients are computed from.
pub(crate) struct QuotientInputs<'a, O> {
    pub(crate) circuit: &'a Circuit,
    pub(crate) wires: &'a O,
    pub(crate) products: &'a O,
    pub(crate) permutation: &'a PermutationChallenges,
    pub(crate) alphas: &'a [F],
    pub(crate) public_inputs_hash: Digest,
}

impl<O> QuotientInputs<'_, O> {
    /// log₂ of the quotient's degree in multiples of the rows, after checking that the extension has as many points.
    pub(crate) fn factor_bits(&self) -> Result<usize, BackendError> {
        let common = &self.circuit.common;
        let factor_bits = common.quotient_degree_factor.next_power_of_two().trailing_zeros() as usize;
        if factor_bits > common.config.fri_config.rate_bits {
            return Err(BackendError::Unsupported("a circuit whose constraints' degree exceeds its rate".to_owned()));
        }
        Ok(factor_bits)
    }

    /// What a quotient with coefficients beyond its degree says.
    pub(crate) fn indivisible() -> BackendError {
        BackendError::Witness("the constraints are not divisible by Z".to_owned())
    }
}

/// A backend that proves circuits: its own oracles and FRI, and these steps besides.
///
/// `salt` is empty, or columns of as many elements as there are leaves, which end every leaf and are no values of polynomials.
pub(crate) trait CircuitBackend: Backend {
    /// Constants and σ of a circuit, where the backend computes.
    type Fixed<'a>;

    /// Finds or makes them.
    fn fixed<'a>(&self, circuit: &'a Circuit) -> Result<Self::Fixed<'a>, BackendError>;

    /// [`Backend::commit`] with salt.
    fn commit_salted(&self, columns: &Columns, salt: &[F], shape: CommitShape) -> Result<Self::Oracle, BackendError>;

    /// Commits the quotients of the constraints by Z, one for each α, each cut into polynomials of the circuit's degree.
    ///
    /// The dividend is `Σ_k α^k v_k`, v: `L_0·(Z − 1)` for each challenge; the partial products' checks, challenge by challenge; the gates'
    /// constraints, each gate's times its filter.
    fn commit_quotients(
        &self,
        fixed: &Self::Fixed<'_>,
        inputs: &QuotientInputs<'_, Self::Oracle>,
        salt: &[F],
        shape: CommitShape,
    ) -> Result<Self::Oracle, BackendError>;

    /// [`Backend::evaluate`] of all constants, then all σ.
    fn evaluate_fixed(&self, fixed: &Self::Fixed<'_>, point: K) -> Result<Vec<K>, BackendError>;

    /// [`Backend::batch`]; oracle 0 is the fixed one, the given ones follow.
    fn batch_with_fixed(
        &self,
        fixed: &Self::Fixed<'_>,
        oracles: [&Self::Oracle; 3],
        batches: &[OpeningBatch],
        alpha: K,
    ) -> Result<Self::Codeword, BackendError>;
}
