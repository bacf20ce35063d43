//! plonky2's prover, driven step by step through a backend's commitments and FRI.
//!
//! The transcript and the proof are those of `plonky2::plonk::prover::prove`, for circuits without lookup tables; only the nonce is chosen
//! otherwise: the smallest, so that, without zero knowledge, equal witnesses have equal proofs. What zero knowledge adds is in `blinding`.
//!
//! Transcript, witness and the permutation's products are the host's, whatever the backend; what a backend does is in `steps`.

mod blinding;
mod opening;
mod permutation;
mod selectors;
mod steps;
#[cfg(test)]
mod tests;
mod witness;

use plonky2::field::types::Field;
use plonky2::iop::challenger::Challenger;
use plonky2::iop::witness::{PartialWitness, Witness};
use plonky2::plonk::config::Hasher;
use plonky2::plonk::proof::{Proof, ProofWithPublicInputs};
use zkinfer_circuits::backend::{BackendError, Circuit, CircuitProof, CommitShape};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{C, D, Digest, F, H, K};

use self::blinding::Blinding;
pub(crate) use self::selectors::{FilteredGate, filtered_gates};
pub(crate) use self::steps::{CircuitBackend, QuotientInputs};
pub(crate) use self::witness::Plans;
use self::witness::wire_columns;
use crate::vector::Dispatch;

/// What the host computes with: its vectors, and the orders in which witnesses are generated.
#[derive(Clone, Copy)]
pub(crate) struct Host<'a> {
    pub(crate) dispatch: Dispatch,
    pub(crate) plans: &'a Plans,
}

/// What the rounds of one proof share.
struct Prover<'a, B> {
    backend: &'a B,
    dispatch: Dispatch,
    circuit: &'a Circuit,
    shape: CommitShape,
    blinding: Blinding,
    challenger: Challenger<F, H>,
}

/// The challenges of the permutation argument.
pub(crate) struct PermutationChallenges {
    pub(crate) betas: Vec<F>,
    pub(crate) gammas: Vec<F>,
}

/// Proves a circuit without zero knowledge.
pub(crate) fn prove<B: CircuitBackend>(
    backend: &B,
    host: Host<'_>,
    circuit: &Circuit,
    inputs: &PartialWitness<F>,
) -> Result<CircuitProof, BackendError> {
    if circuit.common.config.zero_knowledge {
        return Err(BackendError::Unsupported("a deterministic proof of a circuit with zero knowledge".to_owned()));
    }
    prove_with(backend, host, circuit, inputs, Blinding::Absent)
}

/// Proves a circuit with zero knowledge.
pub(crate) fn prove_blinded<B: CircuitBackend>(
    backend: &B,
    host: Host<'_>,
    circuit: &Circuit,
    inputs: &PartialWitness<F>,
) -> Result<CircuitProof, BackendError> {
    if !circuit.common.config.zero_knowledge {
        return Err(BackendError::Unsupported("a blinded proof of a circuit without zero knowledge".to_owned()));
    }
    prove_with(backend, host, circuit, inputs, Blinding::Fresh)
}

fn prove_with<B: CircuitBackend>(
    backend: &B,
    host: Host<'_>,
    circuit: &Circuit,
    inputs: &PartialWitness<F>,
    blinding: Blinding,
) -> Result<CircuitProof, BackendError> {
    if !circuit.common.luts.is_empty() {
        return Err(BackendError::Unsupported("a circuit with lookup tables".to_owned()));
    }
    let witness = host.plans.witness(circuit, inputs, blinding)?;
    let public_inputs: Option<Vec<F>> = circuit.prover_only.public_inputs.iter().map(|&target| witness.try_get_target(target)).collect();
    let public_inputs = public_inputs.ok_or_else(|| BackendError::Witness("a public input has no value".to_owned()))?;
    let wires = wire_columns(&witness);
    drop(witness);
    let fri = &circuit.common.config.fri_config;
    let shape = CommitShape { rate_bits: fri.rate_bits, cap_height: fri.cap_height };
    let mut prover = Prover { backend, dispatch: host.dispatch, circuit, shape, blinding, challenger: Challenger::new() };
    let proof = prover.prove(&wires, H::hash_no_pad(&public_inputs))?;
    Ok(ProofWithPublicInputs { proof, public_inputs })
}

impl<B: CircuitBackend> Prover<'_, B> {
    fn salt(&self) -> Result<Vec<F>, BackendError> {
        self.blinding.salt(1 << (self.circuit.common.degree_bits() + self.shape.rate_bits))
    }

    fn prove(&mut self, wires: &Columns, public_inputs_hash: Digest) -> Result<Proof<F, C, D>, BackendError> {
        let (backend, circuit) = (self.backend, self.circuit);
        let fixed = backend.fixed(circuit)?;
        let wires_oracle = backend.commit_salted(wires, &self.salt()?, self.shape)?;
        let permutation = self.begin(&wires_oracle, public_inputs_hash);
        let products = permutation::columns(self.dispatch, circuit, wires, &permutation)?;
        let products_oracle = backend.commit_salted(&products, &self.salt()?, self.shape)?;
        self.challenger.observe_cap(&backend.cap(&products_oracle));
        let alphas = self.challenger.get_n_challenges(circuit.common.config.num_challenges);
        let (wires, products, permutation, alphas) = (&wires_oracle, &products_oracle, &permutation, &alphas[..]);
        let inputs = QuotientInputs { circuit, wires, products, permutation, alphas, public_inputs_hash };
        let quotient_oracle = backend.commit_quotients(&fixed, &inputs, &self.salt()?, self.shape)?;
        self.challenger.observe_cap(&backend.cap(&quotient_oracle));
        let zeta: K = self.challenger.get_extension_challenge::<D>();
        if zeta.exp_power_of_2(circuit.common.degree_bits()) == K::ONE {
            return Err(BackendError::Witness("the opening point lies in the subgroup".to_owned()));
        }
        let oracles = opening::Oracles { fixed: &fixed, committed: [wires, products, &quotient_oracle] };
        let (openings, opening_proof) = self.open(&oracles, zeta)?;
        Ok(Proof {
            wires_cap: backend.cap(wires),
            plonk_zs_partial_products_cap: backend.cap(products),
            quotient_polys_cap: backend.cap(&quotient_oracle),
            openings,
            opening_proof,
        })
    }

    /// Observes the instance and the wires; β and γ.
    fn begin(&mut self, wires: &B::Oracle, public_inputs_hash: Digest) -> PermutationChallenges {
        let common = &self.circuit.common;
        common.fri_params.observe(&mut self.challenger);
        self.challenger.observe_hash::<H>(self.circuit.prover_only.circuit_digest);
        self.challenger.observe_hash::<H>(public_inputs_hash);
        self.challenger.observe_cap(&self.backend.cap(wires));
        let n_challenges = common.config.num_challenges;
        let betas = self.challenger.get_n_challenges(n_challenges);
        let gammas = self.challenger.get_n_challenges(n_challenges);
        PermutationChallenges { betas, gammas }
    }
}
