//! A prover that takes no time, for measuring the service alone: its proofs are hashes. It lives in the benchmarks and is no part of the daemon.

use std::sync::atomic::{AtomicUsize, Ordering};

use zeroize::Zeroizing;
use zkinfer_server::prover::{
    BackendInfo, Cost, DigestBytes, InputEncoding, LAST_STEP, ModelFacts, ModelMaterial, ProgressSink, ProveRequest, ProvedJob, Prover,
    ProverError, RegisterRequest, RegisteredModel, StatementFields, StepOutput, StepResults, TensorFacts, VerifyFailure,
};

/// Bytes of one part of a statement.
const PART: usize = 32;

/// Gives hashes at once, and counts them.
#[derive(Debug, Default)]
pub struct InstantProver {
    /// Jobs proved.
    pub n_proved: AtomicUsize,
}

/// A hash whose words are field elements.
fn digest(label: &str, parts: &[&[u8]]) -> [u8; PART] {
    let mut hasher = blake3::Hasher::new_derive_key(label);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut digest = *hasher.finalize().as_bytes();
    digest.chunks_exact_mut(8).for_each(|word| word[7] &= 0x7f);
    digest
}

impl Prover for InstantProver {
    fn backend(&self) -> BackendInfo {
        BackendInfo { name: "instant".into(), reason: "the service alone is measured".into() }
    }

    fn parameter_sets(&self) -> Vec<String> {
        vec!["instant-v1/default".into()]
    }

    fn register(&self, request: &RegisterRequest<'_>, _progress: &dyn ProgressSink) -> Result<RegisteredModel, ProverError> {
        let commitment = digest("model", &[request.source, request.salt]);
        let tensor = TensorFacts { name: "input".into(), dtype: "uint8", shape: vec![4], scales: vec![1.0], zero_point: 0 };
        let facts = ModelFacts {
            model_commitment: commitment,
            program_digest: digest("program", &[request.source]),
            parameters_id: digest("parameters", &[]),
            inputs: vec![tensor.clone()],
            outputs: vec![tensor],
            layer_count: 1,
            parameter_count: 1,
            unit_cost: Cost::default(),
        };
        let private = Zeroizing::new(request.source.to_vec());
        Ok(RegisteredModel { private, verifier_key: commitment.to_vec(), report_json: b"{}".to_vec(), facts, steps: Vec::new() })
    }

    fn prove(&self, model: &dyn ModelMaterial, request: &ProveRequest<'_>, _progress: &dyn ProgressSink) -> Result<ProvedJob, ProverError> {
        let key = model.verifier_key()?;
        let input = self.input_commitment(&key, request.input, request.encoding, request.input_salt)?;
        let statement = [&key[..], &input, request.nonce].concat();
        let proof = digest("proof", &[&key, &statement]).to_vec();
        let fields = self.decode_statement(&statement).map_err(|failure| ProverError::Internal(failure.message))?;
        self.n_proved.fetch_add(1, Ordering::Relaxed);
        Ok(ProvedJob { proof, statement, fields })
    }

    fn prove_step(
        &self,
        _model: &dyn ModelMaterial,
        _request: &ProveRequest<'_>,
        step: &str,
        _results: &dyn StepResults,
        _progress: &dyn ProgressSink,
    ) -> Result<StepOutput, ProverError> {
        Err(ProverError::Internal(format!("its models have no steps, {step} and {LAST_STEP} neither")))
    }

    fn verify(&self, key: &[u8], statement: &[u8], proof: &[u8]) -> Result<(), VerifyFailure> {
        self.decode_statement(statement)?;
        let is_right = statement.starts_with(key) && proof == digest("proof", &[key, statement]);
        let refused = || VerifyFailure { reason: "PROOF_INVALID", message: "the hash does not fit the statement".into() };
        if is_right { Ok(()) } else { Err(refused()) }
    }

    fn decode_statement(&self, statement: &[u8]) -> Result<StatementFields, VerifyFailure> {
        let malformed = || VerifyFailure { reason: "STATEMENT_MALFORMED", message: format!("not {} bytes", 3 * PART) };
        let parts: Vec<[u8; PART]> = statement.chunks(PART).filter_map(|part| part.try_into().ok()).collect();
        let [model_commitment, input_commitment, context_nonce] = parts[..] else { return Err(malformed()) };
        Ok(StatementFields {
            version: 1,
            parameters_id: [0; PART],
            program_digest: [0; PART],
            model_commitment,
            input_commitment,
            output_values: vec![1],
            predicate: [0; PART],
            context_nonce,
        })
    }

    fn input_commitment(&self, _: &[u8], input: &[u8], _: InputEncoding, salt: &DigestBytes) -> Result<DigestBytes, ProverError> {
        Ok(digest("input", &[input, salt]))
    }

    fn estimate(&self, _source: &[u8], _parameter_set: &str) -> Result<Cost, ProverError> {
        Ok(Cost::default())
    }
}
