//! One worker: leases a task, does it, settles the outcome.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use zkinfer_proto::name::ArtifactName;
use zkinfer_proto::v1;

use super::AfterDeviceLoss;
use super::again::again;
use super::cause::failed_attempt;
use super::material::{Desk, Material};
use super::reporter::{Reported, Reporter};
use super::running::{Running, StopFlag, StopReason};
use super::session::Session;
use super::source::{Holding, SourceError, SourceFuture, TaskSource, Terms};
use super::suspicion::Suspicion;
use crate::artifacts::Class;
use crate::convert;
use crate::engine::{ArtifactFacts, Leased, Offer, Outcome, ProofWork, TaskKey, Usage, Work};
use crate::prover::{
    DigestBytes, LAST_STEP, ModelMaterial as _, Privacy, ProgressSink as _, ProveRequest, ProvedJob, Prover, ProverError, RegisterRequest,
    RegisteredModel, StageEdge, StageEvent, StagePlan, StepOutput,
};
use crate::secret::erased;

/// How long an outcome is tried to be written while the service or the disk does not take it.
const PERSIST_FOR: Duration = Duration::from_secs(600);
/// Between attempts to get tasks.
const RETRY: Duration = Duration::from_secs(1);

const VERIFY: StagePlan = StagePlan { name: "verify", total: 1, cost_ms: 20 };

pub(super) struct Worker {
    pub(super) source: Arc<dyn TaskSource>,
    pub(super) prover: Arc<dyn Prover>,
    pub(super) running: Arc<Running>,
    pub(super) session: Arc<Session>,
    /// How many there are.
    pub(super) n_slots: u32,
    pub(super) device_bytes: Option<u64>,
    pub(super) host_bytes: Option<u64>,
    pub(super) after_device_loss: AfterDeviceLoss,
    pub(super) has_lost_device: Arc<AtomicBool>,
    pub(super) suspicion: Arc<Suspicion>,
    pub(super) draining: CancellationToken,
    /// Nobody waits for this worker any more.
    pub(super) over: CancellationToken,
    pub(super) runtime: tokio::runtime::Handle,
}

/// What a successful attempt gives.
enum Output {
    Registered(Box<RegisteredModel>),
    Result(zeroize::Zeroizing<Vec<u8>>),
    Proved(Box<ProvedJob>),
}

impl Worker {
    /// Works until the pool drains.
    pub(super) fn run(&self) {
        while let Some((terms, leased)) = self.runtime.block_on(self.next()) {
            for leased in leased {
                self.attempt(&terms, leased);
            }
        }
    }

    async fn next(&self) -> Option<(Terms, Vec<Leased>)> {
        loop {
            // What is on its way when the pool drains is given back when the session is closed.
            let asked = tokio::select! {
                biased;
                () = self.draining.cancelled() => return None,
                asked = self.ask() => asked,
            };
            match asked {
                Ok((_, leased)) if leased.is_empty() => {}
                Ok(asked) => return Some(asked),
                Err(error) => {
                    tracing::warn!(%error, "cannot ask for tasks");
                    let _ = tokio::time::timeout(RETRY, self.draining.cancelled()).await;
                }
            }
        }
    }

    async fn ask(&self) -> Result<(Terms, Vec<Leased>), SourceError> {
        let terms = self.session.open(&self.source).await?;
        let offer = Offer {
            max_tasks: 1,
            n_slots: self.n_slots,
            device_bytes: self.device_bytes.unwrap_or(u64::MAX),
            host_bytes: self.host_bytes.unwrap_or(u64::MAX),
            cached_models: self.prover.cached_models(),
        };
        match self.source.lease(&terms.session, offer).await {
            Ok(leased) => Ok((terms, leased)),
            Err(error) => {
                if matches!(error, SourceError::NoSession) {
                    self.session.lose(&terms.session);
                }
                Err(error)
            }
        }
    }

    fn attempt(&self, terms: &Terms, leased: Leased) {
        let Leased { lease, attempt, work } = leased;
        let holding = Holding { session: &terms.session, lease: &lease };
        let span = crate::observe::work_span(&lease.task.subject, &lease.task.name, attempt, work.trace_parent());
        let _entered = span.enter();
        tracing::info!("started");
        let flag = self.running.enter(&lease, &terms.session);
        let reported = Reported {
            source: self.source.clone(),
            session: terms.session.clone(),
            lease: lease.clone(),
            attempt,
            last_stage: is_published(&work, &lease.task.name).then_some(VERIFY),
        };
        let reporter = Reporter::start(&self.runtime, reported, flag.clone());
        let desk = Desk { runtime: &self.runtime, source: &self.source, holding };
        let outcome = catch_unwind(AssertUnwindSafe(|| self.work(desk, &work, &reporter)))
            .unwrap_or_else(|panic| Err(ProverError::Internal(panic_message(&*panic))));
        let is_suspected = self.suspects_device(&lease.task, &outcome);
        let stop_reason = reporter.stop_reason();
        let (stage_times, place) = reporter.finish(&self.runtime, outcome.is_ok());
        let peak_host_bytes = crate::process::peak_resident_bytes().unwrap_or(0);
        let peak_device_bytes = i64::try_from(place.peak_device_bytes).unwrap_or(i64::MAX);
        let is_shared = self.running.is_shared(&lease);
        let usage = Usage { device: place.device, fallback: place.fallback, peak_host_bytes, peak_device_bytes, is_shared, stage_times };
        let settled = Settling { desk, terms, work: &work, usage, flag: &flag, over: &self.over }.settle(outcome, stop_reason);
        match settled {
            Ok(()) => {}
            Err(SourceError::Fenced | SourceError::NoSession) => tracing::warn!("another worker has the task; the outcome is dropped"),
            // The lease ends, and the task is given to another worker.
            Err(error) => tracing::error!(%error, "cannot write the outcome"),
        }
        self.running.leave(&lease);
        if self.after_device_loss == AfterDeviceLoss::End && (is_suspected || self.prover.is_degraded()) {
            tracing::warn!(is_suspected, "the device is lost, or computes wrongly; no more tasks are taken");
            self.has_lost_device.store(true, Ordering::Release);
            self.draining.cancel();
        }
    }

    /// Whether the device is to be tested again before it gets another task. Attempts that gave no output tell nothing of it, and neither do outputs that
    /// nobody has verified.
    fn suspects_device(&self, task: &TaskKey, outcome: &Result<Output, ProverError>) -> bool {
        match outcome {
            Ok(Output::Result(_)) if !is_verified(&task.name) => false,
            Ok(_) => self.suspicion.after(task, false),
            Err(ProverError::ProofInvalid(_)) => self.suspicion.after(task, true),
            Err(_) => false,
        }
    }

    fn work(&self, desk: Desk<'_>, work: &Work, reporter: &Reporter) -> Result<Output, ProverError> {
        match work {
            Work::Register { model, salt, seed } => self.register(desk, model, salt.expose(), seed.expose(), reporter),
            Work::Prove(proof) => self.prove(desk, proof, None, reporter),
            Work::Step { proof, results } => self.prove(desk, proof, Some(results), reporter),
        }
    }

    fn register(
        &self,
        desk: Desk<'_>,
        model: &v1::Model,
        salt: &[u8; 32],
        seed: &[u8; 32],
        reporter: &Reporter,
    ) -> Result<Output, ProverError> {
        let source = desk.read_named(&model.source_artifact)?;
        let calibration = match model.calibration_artifact.as_str() {
            "" => None,
            name => Some(desk.read_named(name)?),
        };
        let request = RegisterRequest {
            source: &source,
            calibration: calibration.as_deref(),
            quantization: convert::quantization(model.quantization.as_ref()),
            parameter_set: &model.parameter_set,
            salt,
            seed,
        };
        let registered = self.prover.register(&request, reporter)?;
        Ok(Output::Registered(Box::new(registered)))
    }

    /// A whole proof, or, given the results that it reads, one step of it.
    fn prove(
        &self,
        desk: Desk<'_>,
        work: &ProofWork,
        results: Option<&Vec<(String, DigestBytes)>>,
        reporter: &Reporter,
    ) -> Result<Output, ProverError> {
        let material = desk.material(&work.model, work.private_digest)?;
        let invalid = || ProverError::Internal("the stored job is incomplete".into());
        let input = work.job.input.as_ref().ok_or_else(invalid)?;
        let Some(v1::input::Source::Artifact(name)) = &input.source else { return Err(invalid()) };
        let bytes = desk.read_named(name)?;
        let nonce = DigestBytes::try_from(work.job.context_nonce.as_slice()).map_err(|_| invalid())?;
        let request = ProveRequest {
            input: &bytes,
            encoding: convert::input_encoding(Some(input)),
            privacy: match work.job.privacy() {
                v1::Privacy::InputPublic => Privacy::InputPublic,
                v1::Privacy::InputCommitted | v1::Privacy::Unspecified => Privacy::InputCommitted,
            },
            input_salt: work.input_salt.expose(),
            nonce: &nonce,
            seed: work.seed.expose(),
        };
        let done = self.prove_verified((desk, results), &material, &request, reporter);
        if matches!(done, Err(ProverError::ProofInvalid(_))) {
            self.prover.doubt(material.id());
        }
        done
    }

    fn prove_verified(
        &self,
        (desk, results): (Desk<'_>, Option<&Vec<(String, DigestBytes)>>),
        material: &Material<'_>,
        request: &ProveRequest<'_>,
        reporter: &Reporter,
    ) -> Result<Output, ProverError> {
        let proved = match results {
            None => Box::new(self.prover.prove(material, request, reporter)?),
            Some(results) => {
                let results = desk.results(results)?;
                match self.prover.prove_step(material, request, &desk.holding.lease.task.name, &results, reporter)? {
                    StepOutput::Internal(bytes) => return Ok(Output::Result(bytes)),
                    StepOutput::Proved(proved) => proved,
                }
            }
        };
        self.verify(material, &proved, reporter)?;
        Ok(Output::Proved(proved))
    }

    /// Nothing is published that a client would refuse.
    fn verify(&self, material: &Material<'_>, proved: &ProvedJob, reporter: &Reporter) -> Result<(), ProverError> {
        // As the stages of the prover have theirs.
        let _span = tracing::info_span!("stage", otel.name = VERIFY.name, stage = VERIFY.name, step = 0).entered();
        let event = |edge| StageEvent { name: VERIFY.name, index: 0, total: VERIFY.total, edge };
        reporter.report(event(StageEdge::Begin))?;
        let key = material.verifier_key()?;
        self.prover.verify(&key, &proved.statement, &proved.proof).map_err(|failure| ProverError::ProofInvalid(failure.to_string()))?;
        reporter.report(event(StageEdge::End))?;
        Ok(())
    }
}

/// Whether the task gives the job's result.
fn is_published(work: &Work, task: &str) -> bool {
    match work {
        Work::Register { .. } => false,
        Work::Prove(_) => true,
        Work::Step { .. } => task == LAST_STEP,
    }
}

/// Whether what a step gives was verified before it is handed on. Tensors, commitments and challenges show only in what is proved of them.
fn is_verified(step: &str) -> bool {
    !matches!(step.split('-').next(), Some("witness" | "commit" | "bind"))
}

/// Only a literal message is kept: a formatted one may hold values of the witness.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&'static str>().copied();
    format!("panicked: {}", text.unwrap_or("(message withheld)"))
}

/// The end of an attempt.
struct Settling<'a> {
    desk: Desk<'a>,
    terms: &'a Terms,
    work: &'a Work,
    usage: Usage,
    flag: &'a StopFlag,
    over: &'a CancellationToken,
}

impl Settling<'_> {
    fn settle(self, outcome: Result<Output, ProverError>, stop_reason: Option<StopReason>) -> Result<(), SourceError> {
        let (source, holding) = (self.desk.source, self.desk.holding);
        if stop_reason == Some(StopReason::Fenced) {
            return Err(SourceError::Fenced);
        }
        let error = match outcome {
            Ok(output) => match self.hand_in(&output) {
                Ok(()) => return Ok(()),
                Err(error @ (SourceError::Fenced | SourceError::NoSession)) => return Err(error),
                // The process is to end: whoever takes the task next may have more luck with the service.
                Err(_) if self.flag.reason() == Some(StopReason::Release) => return self.release(),
                // Told, and not left to the end of the lease, which would count as this worker's death.
                Err(error) => ProverError::Storage(error.to_string()),
            },
            Err(error) => error,
        };
        if matches!(error, ProverError::Stopped(_)) {
            match stop_reason {
                Some(StopReason::Release) => {
                    tracing::info!("given back to the queue");
                    return self.release();
                }
                // The engine ends it as its job was told to.
                Some(StopReason::Ended) => tracing::info!("stopped"),
                Some(StopReason::Fenced) | None => {
                    // The session or the lease was found to be lost while something was read.
                    tracing::warn!("stopped without being told why");
                    return self.release();
                }
            }
        } else if stop_reason.is_none() {
            tracing::warn!(%error, "failed");
        }
        let failed = failed_attempt(&error);
        self.persist(|| source.fail(holding, failed.clone(), self.usage.clone()))
    }

    /// Gives the task back, with what the attempt took.
    fn release(&self) -> Result<(), SourceError> {
        self.persist(|| self.desk.source.release(self.desk.holding, self.usage.clone()))
    }

    /// Stores what came out, and ends the task with it.
    fn hand_in(&self, output: &Output) -> Result<(), SourceError> {
        let outcome = self.store(output)?;
        self.persist_output(|| self.desk.source.complete(self.desk.holding, outcome.clone(), self.usage.clone()))
    }

    /// Stores what came out.
    fn store(&self, output: &Output) -> Result<Outcome, SourceError> {
        match output {
            Output::Registered(model) => self.store_model(model),
            Output::Result(bytes) => Ok(Outcome::Result(self.write(Class::Internal, "application/octet-stream", bytes)?)),
            Output::Proved(proved) => self.store_proof(proved),
        }
    }

    fn store_model(&self, model: &RegisteredModel) -> Result<Outcome, SourceError> {
        let key = self.write(Class::Public, "application/x-zkinfer-key", &model.verifier_key)?;
        let report = self.write(Class::Public, "application/json", &model.report_json)?;
        let private = self.write(Class::Internal, "application/octet-stream", &model.private)?;
        let mut registered = convert::registered_model(&model.facts);
        registered.verifier_key_artifact = artifact_name(&key);
        registered.quantization_report_artifact = artifact_name(&report);
        registered.stage_times = self.usage.stage_times.clone();
        tracing::info!("registered");
        let (registered, private_digest) = (Box::new(registered), private.digest);
        let graph = convert::task_graph(&model.steps, self.terms.fuse_below);
        Ok(Outcome::Registered { registered, private_digest, graph, artifacts: vec![key, report, private] })
    }

    fn store_proof(&self, proved: &ProvedJob) -> Result<Outcome, SourceError> {
        let proof = self.write(Class::Public, "application/x-zkinfer-proof", &proved.proof)?;
        let statement = self.write(Class::Public, "application/x-zkinfer-statement", &proved.statement)?;
        let result = v1::JobResult {
            proof_artifact: artifact_name(&proof),
            statement_artifact: artifact_name(&statement),
            statement: Some(convert::statement(&proved.fields)),
            verifier_key_artifact: key_artifact(self.work),
            proof_bytes: proved.proof.len() as i64,
            stage_times: self.usage.stage_times.clone(),
            peak_host_bytes: self.usage.peak_host_bytes,
        };
        tracing::info!(proof_bytes = proved.proof.len(), "proved");
        Ok(Outcome::Proved { result: Box::new(result), artifacts: vec![proof, statement] })
    }

    fn write(&self, class: Class, media_type: &str, bytes: &[u8]) -> Result<ArtifactFacts, SourceError> {
        let content = erased(bytes.to_vec());
        self.persist_output(|| self.desk.source.write(self.desk.holding, class, media_type, content.clone()))
    }

    /// Writes an output. If the process is to end, it is tried no longer than until the task can be given back.
    fn persist_output<'a, T>(&self, write: impl Fn() -> SourceFuture<'a, T>) -> Result<T, SourceError> {
        self.persist_unless(write, |reason| matches!(reason, StopReason::Fenced | StopReason::Release))
    }

    /// Writes how an attempt ended: what is not told counts as this worker's death.
    fn persist<'a, T>(&self, write: impl Fn() -> SourceFuture<'a, T>) -> Result<T, SourceError> {
        self.persist_unless(write, |reason| reason == StopReason::Fenced)
    }

    /// Writes, again and again while the service is away, or its database busy, or its disk full, unless the flag was raised in the meantime for such a reason.
    fn persist_unless<'a, T>(
        &self,
        write: impl Fn() -> SourceFuture<'a, T>,
        is_given_up: fn(StopReason) -> bool,
    ) -> Result<T, SourceError> {
        let started = Instant::now();
        let is_over = || started.elapsed() > PERSIST_FOR || self.over.is_cancelled() || self.flag.reason().is_some_and(is_given_up);
        self.desk.runtime.block_on(again(write, is_over))
    }
}

fn key_artifact(work: &Work) -> String {
    match work {
        Work::Prove(proof) | Work::Step { proof, .. } => {
            proof.model.registered.as_ref().map(|registered| registered.verifier_key_artifact.clone()).unwrap_or_default()
        }
        Work::Register { .. } => String::new(),
    }
}

fn artifact_name(facts: &ArtifactFacts) -> String {
    ArtifactName { tenant: facts.tenant.clone(), blake3: facts.digest }.to_string()
}
