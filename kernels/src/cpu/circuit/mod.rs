//! plonky2's prover, driven step by step through this backend's commitments and FRI.
//!
//! The transcript and the proof are those of `plonky2::plonk::prover::prove`, for circuits without lookup tables; only the nonce is chosen
//! otherwise: the smallest, so that, without zero knowledge, equal witnesses have equal proofs. What zero knowledge adds is in `blinding`.

mod blinding;
mod gates;
mod opening;
mod permutation;
mod quotient;
mod selectors;
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
pub(crate) use self::witness::Plans;
use self::witness::wire_columns;
use super::oracle::{self, Oracle};
use super::transform::RootTables;

/// What the rounds of one proof share.
struct Prover<'a> {
    tables: &'a RootTables,
    circuit: &'a Circuit,
    shape: CommitShape,
    blinding: Blinding,
    challenger: Challenger<F, H>,
}

/// The challenges of the permutation argument.
struct PermutationChallenges {
    betas: Vec<F>,
    gammas: Vec<F>,
}

/// Proves a circuit without zero knowledge.
pub(crate) fn prove(
    tables: &RootTables,
    plans: &Plans,
    circuit: &Circuit,
    inputs: &PartialWitness<F>,
) -> Result<CircuitProof, BackendError> {
    if circuit.common.config.zero_knowledge {
        return Err(BackendError::Unsupported("a deterministic proof of a circuit with zero knowledge".to_owned()));
    }
    prove_with(tables, plans, circuit, inputs, Blinding::Absent)
}

/// Proves a circuit with zero knowledge.
pub(crate) fn prove_blinded(
    tables: &RootTables,
    plans: &Plans,
    circuit: &Circuit,
    inputs: &PartialWitness<F>,
) -> Result<CircuitProof, BackendError> {
    if !circuit.common.config.zero_knowledge {
        return Err(BackendError::Unsupported("a blinded proof of a circuit without zero knowledge".to_owned()));
    }
    prove_with(tables, plans, circuit, inputs, Blinding::Fresh)
}

fn prove_with(
    tables: &RootTables,
    plans: &Plans,
    circuit: &Circuit,
    inputs: &PartialWitness<F>,
    blinding: Blinding,
) -> Result<CircuitProof, BackendError> {
    if !circuit.common.luts.is_empty() {
        return Err(BackendError::Unsupported("a circuit with lookup tables".to_owned()));
    }
    let witness = plans.witness(circuit, inputs, blinding)?;
    let public_inputs: Option<Vec<F>> = circuit.prover_only.public_inputs.iter().map(|&target| witness.try_get_target(target)).collect();
    let public_inputs = public_inputs.ok_or_else(|| BackendError::Witness("a public input has no value".to_owned()))?;
    let wires = wire_columns(&witness);
    drop(witness);
    let fri = &circuit.common.config.fri_config;
    let shape = CommitShape { rate_bits: fri.rate_bits, cap_height: fri.cap_height };
    let mut prover = Prover { tables, circuit, shape, blinding, challenger: Challenger::new() };
    let proof = prover.prove(&wires, H::hash_no_pad(&public_inputs))?;
    Ok(ProofWithPublicInputs { proof, public_inputs })
}

impl Prover<'_> {
    /// Commits columns of values on the rows.
    fn commit(&self, columns: &Columns) -> Result<Oracle, BackendError> {
        self.commit_coefficients(oracle::interpolate(self.tables, columns, self.circuit.common.degree_bits()))
    }

    /// Commits polynomials of the circuit's degree, column after column.
    fn commit_coefficients(&self, coefficients: Vec<F>) -> Result<Oracle, BackendError> {
        let log_rows = self.circuit.common.degree_bits();
        let salt = self.blinding.salt(1 << (log_rows + self.shape.rate_bits))?;
        Oracle::commit_salted(self.tables, log_rows, coefficients, &salt, self.shape)
    }

    fn prove(&mut self, wires: &Columns, public_inputs_hash: Digest) -> Result<Proof<F, C, D>, BackendError> {
        let wires_oracle = self.commit(wires)?;
        let permutation = self.begin(&wires_oracle, public_inputs_hash);
        let products = permutation::columns(self.tables, self.circuit, wires, &permutation)?;
        let products_oracle = self.commit(&products)?;
        self.challenger.observe_cap(&products_oracle.tree.cap());
        let alphas = self.challenger.get_n_challenges(self.circuit.common.config.num_challenges);
        let inputs = quotient::Inputs {
            circuit: self.circuit,
            wires: &wires_oracle,
            products: &products_oracle,
            permutation: &permutation,
            alphas: &alphas,
            public_inputs_hash,
        };
        let chunks = quotient::chunks(self.tables, &inputs)?;
        let quotient_oracle = self.commit_coefficients(chunks)?;
        self.challenger.observe_cap(&quotient_oracle.tree.cap());
        let zeta: K = self.challenger.get_extension_challenge::<D>();
        if zeta.exp_power_of_2(wires_oracle.log_rows) == K::ONE {
            return Err(BackendError::Witness("the opening point lies in the subgroup".to_owned()));
        }
        let oracles = opening::Oracles {
            constants_sigmas: &self.circuit.prover_only.constants_sigmas_commitment,
            wires: &wires_oracle,
            products: &products_oracle,
            quotient: &quotient_oracle,
        };
        let (openings, opening_proof) = self.open(&oracles, zeta)?;
        Ok(Proof {
            wires_cap: wires_oracle.tree.cap(),
            plonk_zs_partial_products_cap: products_oracle.tree.cap(),
            quotient_polys_cap: quotient_oracle.tree.cap(),
            openings,
            opening_proof,
        })
    }

    /// Observes the instance and the wires; β and γ.
    fn begin(&mut self, wires: &Oracle, public_inputs_hash: Digest) -> PermutationChallenges {
        let common = &self.circuit.common;
        common.fri_params.observe(&mut self.challenger);
        self.challenger.observe_hash::<H>(self.circuit.prover_only.circuit_digest);
        self.challenger.observe_hash::<H>(public_inputs_hash);
        self.challenger.observe_cap(&wires.tree.cap());
        let n_challenges = common.config.num_challenges;
        let betas = self.challenger.get_n_challenges(n_challenges);
        let gammas = self.challenger.get_n_challenges(n_challenges);
        PermutationChallenges { betas, gammas }
    }
}
