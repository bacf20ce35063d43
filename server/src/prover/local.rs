//! The prover of this process: `zkinfer-circuits` over the compute backends of this machine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;
use zkinfer_circuits::backend::{Backend, BackendError};
use zkinfer_circuits::compile::{Compiled, compile};
use zkinfer_circuits::encoding::{Canonical, digest_bytes, parse_digest};
use zkinfer_circuits::key::VerifierKey;
use zkinfer_circuits::model::{
    Granularity, ImportError, ImportLimits, InputCoding, Model, QuantError, QuantGraph, QuantOptions, QuantReport, import_onnx, quantize,
    quantize_qdq,
};
use zkinfer_circuits::npy::{NpyLimits, read_npy};
use zkinfer_circuits::pipeline::registration::registration_stages;
use zkinfer_circuits::pipeline::tasks::{InferenceTasks, NotATask, TaskId, TaskOutput};
use zkinfer_circuits::pipeline::{
    Cancelled, CommittedModel, InferenceRequest, LayerAggregator, ModelSecret, Observer, PipelineError, ProvedInference,
    prove_inference_unverified, register,
};
use zkinfer_circuits::recursion::digest::input_commitment;
use zkinfer_circuits::recursion::kinds::leaf_kinds;
use zkinfer_circuits::recursion::parameters::Parameters;
use zkinfer_circuits::recursion::prover::ProveError;
use zkinfer_circuits::recursion::salt::Salt;
use zkinfer_circuits::security::{ProfileName, SecurityFloor};
use zkinfer_circuits::statement::{ContextNonce, Statement};
use zkinfer_circuits::verify::{AcceptableParams, verify_bytes};

use super::kept::job_key;
use super::observer::Reporter;
use super::places::{Place, Places};
use super::steps::{Named, steps};
use super::store::FileStore;
use super::{
    BackendInfo, Cost, DigestBytes, InputEncoding, ModelFacts, ModelMaterial, ProgressSink, ProveRequest, ProvedJob, Prover, ProverError,
    Quantization, RegisterRequest, RegisteredModel, Rejection, StatementFields, StepOutput, StepResults, TensorFacts, VerifyFailure,
};
use crate::observe::DeviceReport;
use crate::prover::input::read_input;

/// Full names of the parameter sets, the default first.
pub const PARAMETER_SETS: [(&str, ProfileName); 2] =
    [("goldilocks-poseidon-v1/default", ProfileName::Default), ("goldilocks-poseidon-v1/strict", ProfileName::Strict)];
/// A parameter set with the circuits that were built for it.
struct ParameterSet {
    profile: ProfileName,
    parameters: Arc<Parameters>,
    aggregator: LayerAggregator,
}

impl ParameterSet {
    fn new(profile: ProfileName, store: &FileStore) -> Result<Self, SetupError> {
        let failed = |error: &dyn std::error::Error| SetupError(describe(error));
        let parameters = Arc::new(Parameters::embedded(profile).map_err(|error| failed(&error))?);
        let circuits = Box::new(store.clone());
        let aggregator = LayerAggregator::new(Arc::clone(&parameters), leaf_kinds(), circuits).map_err(|error| failed(&error))?;
        Ok(Self { profile, parameters, aggregator })
    }
}

/// Backends that share the jobs, all parameter sets, a few committed models in memory and everything rebuildable on disk.
pub struct LocalProver<B: Backend> {
    pub(super) places: Places<B>,
    reason: String,
    fallbacks: fn(&B) -> Vec<String>,
    sets: Vec<ParameterSet>,
    pub(super) store: FileStore,
}

/// The prover could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the prover: {0}")]
pub struct SetupError(String);

impl<B: Backend> LocalProver<B> {
    /// A prover on one backend, whose cache lies in `cache`; `reason` says why this backend was chosen.
    ///
    /// # Errors
    /// Unreadable parameters, or a cache folder that cannot be made.
    pub fn new(backend: B, reason: String, cache: &Path) -> Result<Self, SetupError> {
        Self::over(vec![backend], reason, cache)
    }

    /// A prover on several backends: as many jobs as there are run without sharing one.
    ///
    /// # Errors
    /// No backend, unreadable parameters, or a cache folder that cannot be made.
    pub fn over(backends: Vec<B>, reason: String, cache: &Path) -> Result<Self, SetupError> {
        let places = Places::new(backends).ok_or_else(|| SetupError("there is no backend to compute on".to_owned()))?;
        let store = FileStore::open(cache.to_owned()).map_err(|error| SetupError(describe(&error)))?;
        let sets = PARAMETER_SETS.iter().map(|&(_, profile)| ParameterSet::new(profile, &store)).collect::<Result<_, _>>()?;
        Ok(Self { places, reason, fallbacks: |_| Vec::new(), sets, store })
    }

    /// Asks backends why they computed elsewhere than they should have, in order, such as [`FallbackBackend::reasons`]. Reasons of each attempt are told
    /// to its sink.
    ///
    /// [`FallbackBackend::reasons`]: zkinfer_kernels::FallbackBackend::reasons
    #[must_use]
    pub fn with_fallbacks(self, fallbacks: fn(&B) -> Vec<String>) -> Self {
        Self { fallbacks, ..self }
    }

    /// Keeps the cache's entries to so many bytes: those that were used longest ago make room. Without it the cache has no bound.
    #[must_use]
    pub fn with_cache_limit(self, max_bytes: Option<u64>) -> Self {
        self.store.limit(max_bytes);
        self
    }

    /// Backends that share the jobs.
    pub fn n_backends(&self) -> usize {
        self.places.len()
    }

    fn commit(&self, place: &Place<B>, secret: ModelSecret, observer: &dyn Observer) -> Result<CommittedModel<B>, ProverError> {
        CommittedModel::commit(&place.backend, secret, &self.store, observer).map_err(|error| failed(place, error))
    }

    /// Does something on a place, and tells the sink where that was, and why not elsewhere.
    fn at<T>(&self, place: &Place<B>, sink: &dyn ProgressSink, work: impl FnOnce() -> Result<T, ProverError>) -> Result<T, ProverError> {
        let known = (self.fallbacks)(&place.backend).len();
        place.mark_memory();
        let done = work();
        let reasons = (self.fallbacks)(&place.backend);
        // A backend keeps only so many reasons; a retired device is the last of them.
        let mut new = reasons.get(known..).unwrap_or_default().to_vec();
        if new.is_empty() && place.backend.is_degraded() {
            new.extend(reasons.last().cloned());
        }
        sink.ran_on(&place.backend.name(), &new.join("; "), place.backend.peak_since_mark());
        done
    }

    /// Does something with what is proved.
    fn inference<T>(
        &self,
        material: &dyn ModelMaterial,
        request: &ProveRequest<'_>,
        then: impl FnOnce(InferenceRequest<'_>) -> Result<T, ProverError>,
    ) -> Result<T, ProverError> {
        let read_key = || VerifierKey::from_bytes(&material.verifier_key()?).map_err(|error| ProverError::Storage(describe(&error)));
        let input = read_input(request.input, request.encoding, read_key)?;
        let nonce = ContextNonce::from_bytes(request.nonce).map_err(|error| ProverError::Internal(describe(&error)))?;
        then(InferenceRequest { input: &input, input_salt: salt(request.input_salt)?, nonce })
    }

    fn run_step(
        &self,
        place: &Place<B>,
        material: &dyn ModelMaterial,
        request: &ProveRequest<'_>,
        step: Step<'_>,
        reporter: &Reporter<'_>,
    ) -> Result<StepOutput, ProverError> {
        let model = self.model(place, material)?;
        let set = self.set(model.profile)?;
        let kept = place.kept.of(step.job);
        let (stage, _) = step.task.stage();
        reporter.plan(&[(stage, 1)]);
        let stopped = |Cancelled| ProverError::Stopped(super::Stopped);
        reporter.begin(stage, 0).map_err(stopped)?;
        let output = self.inference(material, request, |inference| {
            let tasks =
                InferenceTasks::new(&place.backend, &set.aggregator, &model, inference, &kept).map_err(|error| failed(place, error))?;
            match tasks.run(step.task, &Named(step.results)).map_err(|error| failed(place, error))? {
                TaskOutput::Internal(bytes) => Ok(StepOutput::Internal(Zeroizing::new(bytes))),
                TaskOutput::Published(proved) => proved_job(*proved).map(|proved| StepOutput::Proved(Box::new(proved))),
            }
        })?;
        match step.task {
            TaskId::Commit(layer) => place.kept.committed(step.job, layer),
            TaskId::Layer(layer) => place.kept.proved(step.job, layer),
            TaskId::Outer => place.kept.forget(Some(step.job)),
            TaskId::Witness | TaskId::Bind | TaskId::Leaf(_) | TaskId::Join { .. } => {}
        }
        reporter.end(stage, 0);
        Ok(output)
    }

    fn set(&self, profile: ProfileName) -> Result<&ParameterSet, ProverError> {
        let set = self.sets.iter().find(|set| set.profile == profile);
        set.ok_or_else(|| ProverError::Internal(format!("profile {profile:?} is not set up")))
    }

    /// Models are of the parameters that they were registered with.
    pub(super) fn check_parameters(&self, key: &VerifierKey) -> Result<(), ProverError> {
        if self.set(key.profile)?.parameters.id() == key.parameters_id {
            return Ok(());
        }
        let message = "the model was registered with parameters that this version does not have; register it again";
        Err(rejected(Rejection::ModelInvalid, message.to_owned()))
    }

    fn parse_parameter_set(name: &str) -> Result<ProfileName, ProverError> {
        let profile = PARAMETER_SETS.iter().find(|(known, _)| *known == name).map(|(_, profile)| *profile);
        profile.ok_or_else(|| {
            let offered = PARAMETER_SETS.map(|(known, _)| known).join(", ");
            rejected(Rejection::ModelInvalid, format!("parameter_set is {name:?}: this service offers {offered}"))
        })
    }
}

/// One step of a job.
#[derive(Clone, Copy)]
struct Step<'a> {
    job: DigestBytes,
    task: TaskId,
    results: &'a dyn StepResults,
}

fn proved_job(proved: ProvedInference) -> Result<ProvedJob, ProverError> {
    let ProvedInference { statement, proof } = proved;
    let fields = fields(&statement).map_err(|error| ProverError::Internal(error.to_string()))?;
    Ok(ProvedJob { proof, statement: statement.to_bytes(), fields })
}

/// The service's error. After a device failed, models in memory may lie on it: the next attempt commits them again, where the backend then
/// computes.
pub(super) fn failed<B: Backend>(place: &Place<B>, error: PipelineError) -> ProverError {
    let error = failure(error);
    if matches!(error, ProverError::DeviceLost(_) | ProverError::DeviceMemory(_)) {
        place.forget();
    }
    error
}

/// An error with its sources, which `Display` leaves out.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text += &format!(": {inner}");
        source = inner.source();
    }
    text
}

fn rejected(rejection: Rejection, message: String) -> ProverError {
    ProverError::Rejected { rejection, message }
}

pub(super) fn failure(error: PipelineError) -> ProverError {
    let text = describe(&error);
    match error {
        PipelineError::Cancelled(_) => ProverError::Stopped(super::Stopped),
        PipelineError::Backend(backend) | PipelineError::Aggregate(ProveError::Backend(backend)) => backend_failure(&backend, text),
        PipelineError::InputLength { .. } => rejected(Rejection::ShapeMismatch, text),
        PipelineError::Trace { .. } => rejected(Rejection::RangeOverflow, text),
        PipelineError::Program(_) | PipelineError::Size(_) | PipelineError::Plan(_) => rejected(Rejection::ModelInvalid, text),
        // A device that computed a layer wrongly shows as a circuit that cannot be satisfied.
        PipelineError::SelfCheck(_) | PipelineError::Aggregate(ProveError::Unsatisfied { .. }) => ProverError::ProofInvalid(text),
        PipelineError::Result(error) => match error.to_do_again() {
            tasks if tasks.is_empty() => ProverError::Storage(text),
            tasks => ProverError::ResultsDamaged(tasks.iter().map(TaskId::to_string).collect()),
        },
        PipelineError::Secret(_) => ProverError::Storage(text),
        PipelineError::Aggregate(_) => ProverError::Internal(text),
    }
}

fn backend_failure(error: &BackendError, text: String) -> ProverError {
    match error {
        // Only devices report it: the host's allocator ends the process.
        BackendError::OutOfMemory { .. } => ProverError::DeviceMemory(text),
        BackendError::Device { .. } => ProverError::DeviceLost(text),
        BackendError::Damaged(_) => ProverError::Storage(text),
        BackendError::Unsupported(_) | BackendError::Disagreement { .. } | BackendError::Witness(_) => ProverError::Internal(text),
    }
}

fn import(source: &[u8]) -> Result<Model, ProverError> {
    import_onnx(source, &ImportLimits::default()).map_err(|error| {
        let rejection = match error {
            ImportError::Unsupported { .. } => Rejection::UnsupportedOp,
            _ => Rejection::ModelInvalid,
        };
        rejected(rejection, describe(&error))
    })
}

fn calibration_samples(model: &Model, calibration: Option<&[u8]>) -> Result<Vec<Vec<f32>>, ProverError> {
    let Some(bytes) = calibration else { return Ok(Vec::new()) };
    let invalid = |message: String| rejected(Rejection::ModelInvalid, format!("calibration: {message}"));
    let array = read_npy(bytes, &NpyLimits::default()).map_err(|error| invalid(describe(&error)))?;
    let n_inputs = model.n_inputs();
    array
        .to_samples(n_inputs)
        .ok_or_else(|| invalid(format!("its shape {:?} does not hold samples of the model's {n_inputs} inputs", array.shape)))
}

/// Imports a network and makes it an integer program, as a registration does.
///
/// # Errors
/// [`ProverError::Rejected`].
pub fn quantized(source: &[u8], calibration: Option<&[u8]>, options: Quantization) -> Result<(QuantGraph, QuantReport), ProverError> {
    if options.percentile.is_some() {
        let message = "quantization.percentile is set: this version calibrates from the largest values seen; leave it unset".to_owned();
        return Err(rejected(Rejection::ModelInvalid, message));
    }
    let model = import(source)?;
    let samples = calibration_samples(&model, calibration)?;
    let result = if model.is_qdq() {
        quantize_qdq(&model, &samples)
    } else {
        let granularity = if options.per_channel { Granularity::PerChannel } else { Granularity::PerTensor };
        let is_negative = samples.iter().flatten().any(|&value| value < 0.0);
        let input_coding = if is_negative { InputCoding::Signed } else { InputCoding::Unsigned };
        quantize(&model, &samples, &QuantOptions { granularity, input_coding, ..QuantOptions::default() })
    };
    result.map_err(|error: QuantError| rejected(Rejection::ModelInvalid, describe(&error)))
}

fn compiled(graph: &QuantGraph) -> Result<Compiled, ProverError> {
    compile(graph).map_err(|error| rejected(Rejection::ModelInvalid, describe(&error)))
}

fn salt(bytes: &DigestBytes) -> Result<Salt, ProverError> {
    parse_digest(bytes).map(Salt::from_stored).map_err(|error| ProverError::Internal(format!("a salt is not canonical: {error}")))
}

fn cost(graph: &QuantGraph) -> Cost {
    let (n_layers, weights) = (graph.layers.len() as u32, graph.n_parameters());
    Cost {
        wall_time: Duration::from_millis(5_000 + 80 * u64::from(n_layers) + weights / 20_000),
        peak_host_bytes: (600 << 20) + 80 * weights,
        peak_device_bytes: 0,
        proof_bytes: 150_000,
        task_count: n_layers + 5,
        layer_count: n_layers,
        multiply_accumulates: graph.n_macs(),
    }
}

fn tensor_facts(name: &str, dtype: &'static str, shape: &[usize], scale: f64, zero_point: i64) -> TensorFacts {
    let shape = shape.iter().skip(1).map(|&axis| axis as u64).collect();
    TensorFacts { name: name.to_owned(), dtype, shape, scales: vec![scale], zero_point }
}

impl<B: Backend> Prover for LocalProver<B> {
    fn backend(&self) -> BackendInfo {
        BackendInfo { name: self.places.names(), reason: self.reason.clone() }
    }

    fn devices(&self) -> Vec<DeviceReport> {
        self.places.reports()
    }

    fn parameter_sets(&self) -> Vec<String> {
        PARAMETER_SETS.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    fn register(&self, request: &RegisterRequest<'_>, progress: &dyn ProgressSink) -> Result<RegisteredModel, ProverError> {
        let set = self.set(Self::parse_parameter_set(request.parameter_set)?)?;
        let reporter = Reporter::new(progress);
        let (graph, report) = quantized(request.source, request.calibration, request.quantization)?;
        let Compiled { program, constants, input, output } = compiled(&graph)?;
        let facts_inputs = vec![tensor_facts(&input.name, "uint8", &input.shape, input.scale, input.zero_point)];
        let facts_outputs = vec![tensor_facts(&output.name, "int64", &output.shape, output.scale, output.zero_point)];
        reporter.plan(&registration_stages(&program.kinds()).map_err(failure)?);
        let secret = ModelSecret { profile: set.profile, program, constants, salt: salt(request.salt)? };
        let private = secret.to_secret_bytes();
        let place = self.places.take(None);
        let (model, registration_proof) = self.at(&place, progress, || {
            let model = Arc::new(self.commit(&place, secret, &reporter)?);
            let proof = register(&place.backend, &set.aggregator, &model, &reporter).map_err(|error| failed(&place, error));
            if matches!(proof, Err(ProverError::ProofInvalid(_))) {
                self.distrust(&place, &model);
            }
            Ok((model, proof?))
        })?;
        let key = VerifierKey {
            profile: set.profile,
            parameters_id: set.parameters.id(),
            program: model.program.clone(),
            model_commitment: model.commitment,
            registration_proof,
            input,
            output,
        };
        place.remember(*blake3::hash(&private).as_bytes(), &model);
        let report_json = serde_json::to_vec(&report).map_err(|error| ProverError::Internal(error.to_string()))?;
        let facts = ModelFacts {
            model_commitment: digest_bytes(model.commitment),
            program_digest: digest_bytes(model.program_digest),
            parameters_id: digest_bytes(set.parameters.id()),
            inputs: facts_inputs,
            outputs: facts_outputs,
            layer_count: graph.layers.len() as u32,
            parameter_count: graph.n_parameters(),
            unit_cost: cost(&graph),
        };
        let steps = steps(&model.program).map_err(failure)?;
        Ok(RegisteredModel { private, verifier_key: key.to_bytes(), report_json, facts, steps })
    }

    fn prove(
        &self,
        material: &dyn ModelMaterial,
        request: &ProveRequest<'_>,
        progress: &dyn ProgressSink,
    ) -> Result<ProvedJob, ProverError> {
        let reporter = Reporter::new(progress);
        let place = self.places.take(Some(material.id()));
        self.at(&place, progress, || {
            let model = self.model(&place, material)?;
            let set = self.set(model.profile)?;
            self.inference(material, request, |inference| {
                let proved = prove_inference_unverified(&place.backend, &set.aggregator, &model, &inference, &reporter);
                proved.map_err(|error| failed(&place, error)).and_then(proved_job)
            })
        })
    }

    fn prove_step(
        &self,
        material: &dyn ModelMaterial,
        request: &ProveRequest<'_>,
        step: &str,
        results: &dyn StepResults,
        progress: &dyn ProgressSink,
    ) -> Result<StepOutput, ProverError> {
        let task: TaskId = step.parse().map_err(|error: NotATask| ProverError::Internal(error.to_string()))?;
        let job = job_key(material.id(), request);
        let layer = if let TaskId::Layer(layer) = task { Some(layer) } else { None };
        let place = self.places.take_for_step(material.id(), job, layer);
        let step = Step { job, task, results };
        self.at(&place, progress, || self.run_step(&place, material, request, step, &Reporter::new(progress)))
    }

    fn cached_models(&self) -> Vec<DigestBytes> {
        self.places.cached()
    }

    fn doubt(&self, model: DigestBytes) {
        for (place, committed) in self.places.with_model(model) {
            self.distrust(place, &committed);
        }
    }

    fn is_degraded(&self) -> bool {
        self.places.is_degraded()
    }

    fn verify(&self, key: &[u8], statement: &[u8], proof: &[u8]) -> Result<(), VerifyFailure> {
        let unreadable = |error: &dyn std::error::Error| VerifyFailure { reason: "STATEMENT_ENCODING", message: describe(error) };
        let nonce = Statement::from_bytes(statement).map_err(|error| unreadable(&error))?.context_nonce;
        let acceptable = AcceptableParams {
            parameter_sets: self.sets.iter().map(|set| set.parameters.as_ref().clone()).collect(),
            min_security: SecurityFloor::default(),
            context_nonce: nonce,
        };
        verify_bytes(key, statement, &acceptable, proof)
            .map(|_| ())
            .map_err(|error| VerifyFailure { reason: error.reason(), message: describe(&error) })
    }

    fn decode_statement(&self, statement: &[u8]) -> Result<StatementFields, VerifyFailure> {
        let refused = |error: &dyn std::error::Error| VerifyFailure { reason: "STATEMENT_ENCODING", message: describe(error) };
        let statement = Statement::from_bytes(statement).map_err(|error| refused(&error))?;
        fields(&statement).map_err(|error| refused(&error))
    }

    fn input_commitment(&self, key: &[u8], input: &[u8], encoding: InputEncoding, salt: &DigestBytes) -> Result<DigestBytes, ProverError> {
        let read_key = || VerifierKey::from_bytes(key).map_err(|error| ProverError::Storage(describe(&error)));
        let bytes = read_input(input, encoding, read_key)?;
        let commitment = input_commitment(&bytes, self::salt(salt)?.digest());
        commitment.map(digest_bytes).map_err(|error| rejected(Rejection::ShapeMismatch, describe(&error)))
    }

    fn estimate(&self, source: &[u8], parameter_set: &str) -> Result<Cost, ProverError> {
        Self::parse_parameter_set(parameter_set)?;
        let model = import(source)?;
        // Any input gives the right shapes; scales do not change the cost.
        let graph = if model.is_qdq() {
            quantize_qdq(&model, &[])
        } else {
            quantize(&model, &[vec![1.0; model.n_inputs()]], &QuantOptions::default())
        };
        let (graph, _) = graph.map_err(|error| rejected(Rejection::ModelInvalid, describe(&error)))?;
        compiled(&graph)?;
        Ok(cost(&graph))
    }
}

fn fields(statement: &Statement) -> Result<StatementFields, zkinfer_circuits::recursion::digest::SizeError> {
    Ok(StatementFields {
        version: zkinfer_circuits::recursion::digest::PROTOCOL_VERSION as u32,
        parameters_id: digest_bytes(statement.parameters_id),
        program_digest: digest_bytes(statement.program_digest),
        model_commitment: digest_bytes(statement.model_commitment),
        input_commitment: digest_bytes(statement.input_commitment()?),
        output_values: statement.outputs.clone(),
        predicate: [0; 32],
        context_nonce: statement.context_nonce.to_bytes(),
    })
}
