//! One worker: claims a task, does it, settles the outcome.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;
use zkinfer_proto::name::ArtifactName;
use zkinfer_proto::v1;

use super::causes::{Verdict, decide};
use super::reporter::Reporter;
use super::{POLL, SchedulerParts, StopReason};
use crate::artifacts::{ArtifactBytes, BytesError, Class};
use crate::convert;
use crate::engine::{ArtifactFacts, Claimed, Digest, EngineError, EngineFuture, Task, Work, now_ms};
use crate::prover::{
    DigestBytes, InputEncoding, ModelMaterial, Privacy, ProgressSink as _, ProveRequest, ProvedJob, ProverError, RegisterRequest,
    RegisteredModel, StageEdge, StageEvent, StagePlan,
};

/// How long an outcome is tried to be written while the database or the disk does not take it.
const PERSIST_FOR: Duration = Duration::from_secs(600);

const VERIFY: StagePlan = StagePlan { name: "verify", total: 1, cost_ms: 20 };

pub(super) struct Worker {
    pub(super) parts: SchedulerParts,
    pub(super) draining: CancellationToken,
    pub(super) runtime: tokio::runtime::Handle,
}

/// What a successful attempt gives.
enum Output {
    Registered(Box<RegisteredModel>),
    Proved(Box<ProvedJob>),
}

impl Worker {
    /// Works until the service drains.
    pub(super) fn run(&self) {
        while let Some(claimed) = self.runtime.block_on(self.next()) {
            // More may be ready: let another worker look.
            self.parts.hub.task_ready();
            self.attempt(claimed);
        }
    }

    async fn next(&self) -> Option<Claimed> {
        while !self.draining.is_cancelled() {
            match self.parts.engine.claim().await {
                Ok(Some(claimed)) => return Some(claimed),
                Ok(None) => {}
                Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "cannot claim a task"),
            }
            tokio::select! {
                () = self.parts.hub.wait_for_task() => {}
                () = tokio::time::sleep(POLL) => {}
                () = self.draining.cancelled() => {}
            }
        }
        None
    }

    fn attempt(&self, claimed: Claimed) {
        let Claimed { task, work } = claimed;
        let subject = &task.subject;
        let span = crate::observe::work_span(subject, work.task_name(), task.attempt, work.trace_parent());
        let _entered = span.enter();
        tracing::info!("started");
        let flag = self.parts.running.enter(subject);
        self.parts.hub.changed(subject);
        let last_stage = matches!(work, Work::Prove { .. }).then_some(VERIFY);
        let reporter = Reporter::start(&self.runtime, self.parts.engine.clone(), self.parts.hub.clone(), task.clone(), flag, last_stage);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.work(&work, &reporter)))
            .unwrap_or_else(|panic| Err(ProverError::Internal(panic_message(&*panic))));
        let stop_reason = reporter.stop_reason();
        let times = reporter.finish(&self.runtime);
        let settled = self.settle(&task, &work, outcome, stop_reason, times);
        if let Err(error) = settled {
            // The task stays RUNNING; the next start of the service takes it up again.
            tracing::error!(error = &error as &dyn std::error::Error, "cannot write the outcome");
        }
        self.parts.running.leave(subject);
        self.parts.hub.changed(subject);
    }

    fn work(&self, work: &Work, reporter: &Reporter) -> Result<Output, ProverError> {
        match work {
            Work::Register { model, salt, seed } => self.register(model, salt, seed, reporter),
            Work::Prove { job, model, private_digest, input_salt, seed } => {
                let material = self.material(model, *private_digest)?;
                self.prove(job, &material, input_salt, seed, reporter)
            }
        }
    }

    fn register(&self, model: &v1::Model, salt: &[u8; 32], seed: &[u8; 32], reporter: &Reporter) -> Result<Output, ProverError> {
        let source = self.read_named(&model.source_artifact)?;
        let calibration = match model.calibration_artifact.as_str() {
            "" => None,
            name => Some(self.read_named(name)?),
        };
        let request = RegisterRequest {
            source: &source,
            calibration: calibration.as_deref(),
            quantization: convert::quantization(model.quantization.as_ref()),
            parameter_set: &model.parameter_set,
            salt,
            seed,
        };
        let registered = self.parts.prover.register(&request, reporter)?;
        Ok(Output::Registered(Box::new(registered)))
    }

    fn prove(
        &self,
        job: &v1::Job,
        material: &Material<'_>,
        input_salt: &[u8; 32],
        seed: &[u8; 32],
        reporter: &Reporter,
    ) -> Result<Output, ProverError> {
        let invalid = || ProverError::Internal("the stored job is incomplete".into());
        let input = job.input.as_ref().ok_or_else(invalid)?;
        let Some(v1::input::Source::Artifact(name)) = &input.source else { return Err(invalid()) };
        let bytes = self.read_named(name)?;
        let nonce = DigestBytes::try_from(job.context_nonce.as_slice()).map_err(|_| invalid())?;
        let request = ProveRequest {
            input: &bytes,
            encoding: match input.encoding() {
                v1::input::Encoding::Npy => InputEncoding::Npy,
                v1::input::Encoding::Uint8 | v1::input::Encoding::Unspecified => InputEncoding::Uint8,
            },
            privacy: match job.privacy() {
                v1::Privacy::InputPublic => Privacy::InputPublic,
                v1::Privacy::InputCommitted | v1::Privacy::Unspecified => Privacy::InputCommitted,
            },
            input_salt,
            nonce: &nonce,
            seed,
        };
        let proved = self.parts.prover.prove(material, &request, reporter)?;
        self.verify(material, &proved, reporter)?;
        Ok(Output::Proved(Box::new(proved)))
    }

    /// Nothing is published that a client would refuse.
    fn verify(&self, material: &Material<'_>, proved: &ProvedJob, reporter: &Reporter) -> Result<(), ProverError> {
        let event = |edge| StageEvent { name: VERIFY.name, index: 0, total: VERIFY.total, edge };
        reporter.report(event(StageEdge::Begin))?;
        let key = material.verifier_key()?;
        self.parts
            .prover
            .verify(&key, &proved.statement, &proved.proof)
            .map_err(|failure| ProverError::ProofInvalid(failure.to_string()))?;
        reporter.report(event(StageEdge::End))?;
        Ok(())
    }

    fn settle(
        &self,
        task: &Task,
        work: &Work,
        outcome: Result<Output, ProverError>,
        stop_reason: Option<StopReason>,
        times: Vec<v1::StageTime>,
    ) -> Result<(), EngineError> {
        let engine = &self.parts.engine;
        let error = match outcome {
            Ok(output) => match self.publish(task, work, &output, times) {
                Ok(settled) => return settled,
                Err(error) => ProverError::Storage(error.to_string()),
            },
            Err(error) => error,
        };
        if matches!(error, ProverError::Stopped(_)) {
            match stop_reason {
                Some(StopReason::Release) => {
                    tracing::info!("given back to the queue");
                    return self.persist(|| engine.release(task));
                }
                Some(StopReason::Fenced) => return Ok(()),
                // The engine ends it as its job was told to.
                Some(StopReason::Ended) => tracing::info!("stopped"),
                None => tracing::error!("the prover stopped unasked"),
            }
        }
        match decide(&error, task.attempt, self.parts.limits.attempts, self.parts.limits.retry_backoff) {
            Verdict::Retry { after } => {
                tracing::warn!(%error, ?after, "failed, to be tried again");
                let not_before = now_ms().saturating_add(after.as_millis() as i64);
                self.persist(|| engine.retry(task, not_before))
            }
            Verdict::Fail(failure) => {
                if stop_reason.is_none() {
                    tracing::warn!(%error, reason = failure.reason, "failed");
                }
                self.persist(|| engine.fail(task, failure.clone()))
            }
        }
    }

    /// Stores what came out, then tells the engine. The outer error is the store's, the inner one the engine's.
    fn publish(&self, task: &Task, work: &Work, output: &Output, times: Vec<v1::StageTime>) -> Result<Result<(), EngineError>, BytesError> {
        let engine = &self.parts.engine;
        match output {
            Output::Registered(model) => {
                let key = self.store(task, Class::Public, "application/x-zkinfer-key", &model.verifier_key)?;
                let report = self.store(task, Class::Public, "application/json", &model.report_json)?;
                let private = self.store(task, Class::Internal, "application/octet-stream", &model.private)?;
                let mut registered = convert::registered_model(&model.facts);
                registered.verifier_key_artifact = artifact_name(&key);
                registered.quantization_report_artifact = artifact_name(&report);
                registered.stage_times = times;
                tracing::info!("registered");
                let digest = private.digest;
                let artifacts = vec![key, report, private];
                Ok(self.persist(|| engine.complete_model(task, registered.clone(), digest, artifacts.clone())))
            }
            Output::Proved(proved) => {
                let proof = self.store(task, Class::Public, "application/x-zkinfer-proof", &proved.proof)?;
                let statement = self.store(task, Class::Public, "application/x-zkinfer-statement", &proved.statement)?;
                let result = v1::JobResult {
                    proof_artifact: artifact_name(&proof),
                    statement_artifact: artifact_name(&statement),
                    statement: Some(convert::statement(&proved.fields)),
                    verifier_key_artifact: key_artifact(work),
                    proof_bytes: proved.proof.len() as i64,
                    stage_times: times,
                    peak_host_bytes: crate::process::peak_resident_bytes().unwrap_or(0),
                };
                tracing::info!(proof_bytes = proved.proof.len(), "proved");
                let artifacts = vec![proof, statement];
                Ok(self.persist(|| engine.complete_job(task, result.clone(), artifacts.clone())))
            }
        }
    }

    fn store(&self, task: &Task, class: Class, media_type: &str, bytes: &[u8]) -> Result<ArtifactFacts, BytesError> {
        let tenant = &task.subject.tenant;
        let content = bytes::Bytes::copy_from_slice(bytes);
        let digest = self.runtime.block_on(self.parts.bytes.put(class, tenant, content))?;
        Ok(ArtifactFacts {
            class,
            tenant: tenant.clone(),
            digest,
            size_bytes: bytes.len() as u64,
            media_type: media_type.to_owned(),
            created_ms: now_ms(),
        })
    }

    /// Writes an outcome, again and again while the database is busy or full.
    fn persist<'a>(&self, write: impl Fn() -> EngineFuture<'a, ()>) -> Result<(), EngineError> {
        let started = std::time::Instant::now();
        let mut wait = Duration::from_millis(100);
        loop {
            let error = match self.runtime.block_on(write()) {
                Ok(()) => return Ok(()),
                Err(EngineError::Fenced) => {
                    tracing::warn!("another worker has the task; the outcome is dropped");
                    return Ok(());
                }
                Err(error) => error,
            };
            let may_pass = matches!(error, EngineError::Busy(_) | EngineError::Full(_) | EngineError::Database(_));
            if !may_pass || started.elapsed() > PERSIST_FOR || self.draining.is_cancelled() {
                return Err(error);
            }
            tracing::warn!(%error, "the outcome cannot be written yet");
            std::thread::sleep(wait);
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    fn material(&self, model: &v1::Model, private_digest: Digest) -> Result<Material<'_>, ProverError> {
        let key = model
            .registered
            .as_ref()
            .and_then(|registered| ArtifactName::parse(&registered.verifier_key_artifact).ok())
            .ok_or_else(|| ProverError::Internal("the stored model is incomplete".into()))?;
        Ok(Material { runtime: &self.runtime, bytes: &self.parts.bytes, tenant: key.tenant, private_digest, key_digest: key.blake3 })
    }

    fn read_named(&self, name: &str) -> Result<bytes::Bytes, ProverError> {
        let name = ArtifactName::parse(name).map_err(|_| ProverError::Internal("a stored artifact name is invalid".into()))?;
        let bytes = self.parts.bytes.get(Class::Public, &name.tenant, name.blake3);
        self.runtime.block_on(bytes).map_err(|error| ProverError::Storage(error.to_string()))
    }
}

fn key_artifact(work: &Work) -> String {
    match work {
        Work::Prove { model, .. } => model.registered.as_ref().map(|r| r.verifier_key_artifact.clone()).unwrap_or_default(),
        Work::Register { .. } => String::new(),
    }
}

fn artifact_name(facts: &ArtifactFacts) -> String {
    ArtifactName { tenant: facts.tenant.clone(), blake3: facts.digest }.to_string()
}

/// Only a literal message is kept: a formatted one may hold values of the witness.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&'static str>().copied();
    format!("panicked: {}", text.unwrap_or("(message withheld)"))
}

/// A model's stored bytes, read when asked for.
struct Material<'a> {
    runtime: &'a tokio::runtime::Handle,
    bytes: &'a ArtifactBytes,
    tenant: String,
    private_digest: Digest,
    key_digest: Digest,
}

impl Material<'_> {
    fn read(&self, class: Class, digest: Digest) -> Result<bytes::Bytes, ProverError> {
        self.runtime.block_on(self.bytes.get(class, &self.tenant, digest)).map_err(|error| ProverError::Storage(error.to_string()))
    }
}

impl ModelMaterial for Material<'_> {
    fn id(&self) -> DigestBytes {
        self.private_digest
    }

    fn private(&self) -> Result<Zeroizing<Vec<u8>>, ProverError> {
        Ok(Zeroizing::new(self.read(Class::Internal, self.private_digest)?.to_vec()))
    }

    fn verifier_key(&self) -> Result<Vec<u8>, ProverError> {
        Ok(self.read(Class::Public, self.key_digest)?.to_vec())
    }
}
