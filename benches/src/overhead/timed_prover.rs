//! A prover that does what another does, and remembers how long that took, and the model that was registered last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use zeroize::Zeroizing;
use zkinfer_server::prover::{
    BackendInfo, Cost, DigestBytes, InputEncoding, ModelMaterial, ProgressSink, ProveRequest, ProvedJob, Prover, ProverError,
    RegisterRequest, RegisteredModel, StatementFields, StepOutput, StepResults, VerifyFailure,
};

/// What was seen.
#[derive(Default)]
struct Seen {
    prove: Option<Duration>,
    verify: Option<Duration>,
    model: Option<KeptModel>,
}

/// A registered model, held in memory.
#[derive(Clone)]
pub(super) struct KeptModel {
    private: Zeroizing<Vec<u8>>,
    verifier_key: Vec<u8>,
}

impl ModelMaterial for KeptModel {
    fn id(&self) -> DigestBytes {
        *blake3::hash(&self.private).as_bytes()
    }

    fn private(&self) -> Result<Zeroizing<Vec<u8>>, ProverError> {
        Ok(self.private.clone())
    }

    fn verifier_key(&self) -> Result<Vec<u8>, ProverError> {
        Ok(self.verifier_key.clone())
    }
}

/// Measures another prover.
pub(super) struct TimedProver {
    inner: Arc<dyn Prover>,
    seen: Mutex<Seen>,
}

impl TimedProver {
    /// Measures `inner`.
    pub(super) fn new(inner: Arc<dyn Prover>) -> Self {
        Self { inner, seen: Mutex::default() }
    }

    /// The model that was registered last.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn model(&self) -> anyhow::Result<KeptModel> {
        self.seen().model.clone().context("no model was registered")
    }

    /// How long the last proof took, and the last verification; forgets both.
    ///
    /// # Errors
    /// There was none since.
    pub(super) fn take_times(&self) -> anyhow::Result<(Duration, Duration)> {
        let mut seen = self.seen();
        seen.prove.take().zip(seen.verify.take()).context("nothing was proved")
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prover for TimedProver {
    fn backend(&self) -> BackendInfo {
        self.inner.backend()
    }

    fn parameter_sets(&self) -> Vec<String> {
        self.inner.parameter_sets()
    }

    fn register(&self, request: &RegisterRequest<'_>, progress: &dyn ProgressSink) -> Result<RegisteredModel, ProverError> {
        let model = self.inner.register(request, progress)?;
        self.seen().model = Some(KeptModel { private: model.private.clone(), verifier_key: model.verifier_key.clone() });
        Ok(model)
    }

    fn prove(&self, model: &dyn ModelMaterial, request: &ProveRequest<'_>, progress: &dyn ProgressSink) -> Result<ProvedJob, ProverError> {
        let began = Instant::now();
        let proved = self.inner.prove(model, request, progress)?;
        self.seen().prove = Some(began.elapsed());
        Ok(proved)
    }

    fn prove_step(
        &self,
        model: &dyn ModelMaterial,
        request: &ProveRequest<'_>,
        step: &str,
        results: &dyn StepResults,
        progress: &dyn ProgressSink,
    ) -> Result<StepOutput, ProverError> {
        self.inner.prove_step(model, request, step, results, progress)
    }

    fn cached_models(&self) -> Vec<DigestBytes> {
        self.inner.cached_models()
    }

    fn is_degraded(&self) -> bool {
        self.inner.is_degraded()
    }

    fn verify(&self, key: &[u8], statement: &[u8], proof: &[u8]) -> Result<(), VerifyFailure> {
        let began = Instant::now();
        self.inner.verify(key, statement, proof)?;
        self.seen().verify = Some(began.elapsed());
        Ok(())
    }

    fn decode_statement(&self, statement: &[u8]) -> Result<StatementFields, VerifyFailure> {
        self.inner.decode_statement(statement)
    }

    fn input_commitment(&self, key: &[u8], input: &[u8], encoding: InputEncoding, salt: &DigestBytes) -> Result<DigestBytes, ProverError> {
        self.inner.input_commitment(key, input, encoding, salt)
    }

    fn estimate(&self, source: &[u8], parameter_set: &str) -> Result<Cost, ProverError> {
        self.inner.estimate(source, parameter_set)
    }
}
