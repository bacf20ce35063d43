//! Verification and estimates: computations that the caller waits for.

use std::time::{Duration, Instant};

use bytes::Bytes;
use zkinfer_proto::name::ArtifactName;
use zkinfer_proto::v1;

use super::caller::{App, Caller};
use super::error::ApiError;
use super::fields::Fields;
use super::models;
use crate::convert;
use crate::engine::ArtifactFacts;

/// Bytes of a request, or of an artifact that is not read yet.
enum Source {
    Given(Bytes),
    Stored(ArtifactName, ArtifactFacts),
}

impl Source {
    async fn find(app: &App, caller: &Caller, field: &str, name: &str) -> Result<Self, ApiError> {
        let parsed = parse(name, field)?;
        let facts = app.artifact(caller, field, &parsed, app.limits.proof_bytes).await?;
        Ok(Self::Stored(parsed, facts))
    }

    /// Bytes that reading it takes.
    fn stored_bytes(&self) -> u64 {
        match self {
            Self::Given(_) => 0,
            Self::Stored(_, facts) => facts.size_bytes,
        }
    }

    async fn read(self, app: &App) -> Result<Bytes, ApiError> {
        match self {
            Self::Given(bytes) => Ok(bytes),
            Self::Stored(name, facts) => app.artifacts.get(&facts).await.map_err(|error| ApiError::bytes(error, &name)),
        }
    }
}

pub(crate) async fn verify(app: &App, caller: Caller, request: v1::VerifyProofRequest) -> Result<v1::VerifyProofResponse, ApiError> {
    use v1::verify_proof_request::{Proof, Statement, VerifierKey};
    let proof = match request.proof {
        Some(Proof::ProofBytes(bytes)) => Source::Given(bytes.into()),
        Some(Proof::ProofArtifact(name)) => Source::find(app, &caller, "proof_artifact", &name).await?,
        None => return Err(ApiError::invalid("proof", "is required")),
    };
    let statement = match request.statement {
        Some(Statement::StatementBytes(bytes)) => Source::Given(bytes.into()),
        Some(Statement::StatementArtifact(name)) => Source::find(app, &caller, "statement_artifact", &name).await?,
        None => return Err(ApiError::invalid("statement", "is required")),
    };
    let key = match request.verifier_key {
        Some(VerifierKey::VerifierKeyBytes(bytes)) => Source::Given(bytes.into()),
        Some(VerifierKey::VerifierKeyArtifact(name)) => Source::find(app, &caller, "verifier_key_artifact", &name).await?,
        Some(VerifierKey::Model(name)) => {
            let registered = ready(app, &caller, &name).await?;
            Source::find(app, &caller, "model", &registered.verifier_key_artifact).await?
        }
        None => return Err(ApiError::invalid("verifier_key", "is required")),
    };
    let place = app.computations.take(&caller.tenant)?;
    let memory = app.computing.take(proof.stored_bytes() + statement.stored_bytes() + key.stored_bytes()).await?;
    let (proof, statement, key) = (proof.read(app).await?, statement.read(app).await?, key.read(app).await?);
    let prover = app.prover.clone();
    let verified = app.cpu.run(move || {
        let answer = answer(&*prover, &key, &statement, &proof);
        // Not before the bytes: who waited too long and went away may have left it running.
        drop((key, statement, proof));
        drop((memory, place));
        answer
    });
    Ok(verified.await?)
}

fn answer(prover: &dyn crate::prover::Prover, key: &[u8], statement: &[u8], proof: &[u8]) -> v1::VerifyProofResponse {
    let started = Instant::now();
    let outcome = prover.verify(key, statement, proof);
    let elapsed: Duration = started.elapsed();
    let fields = prover.decode_statement(statement).ok();
    let (valid, reason, message) = match outcome {
        Ok(()) => (true, String::new(), String::new()),
        Err(failure) => (false, failure.reason.to_owned(), failure.message),
    };
    v1::VerifyProofResponse {
        valid,
        reason,
        message,
        verify_time: Some(convert::duration(elapsed)),
        statement: fields.as_ref().map(convert::statement),
    }
}

pub(crate) async fn estimate(app: &App, caller: Caller, request: v1::EstimateJobRequest) -> Result<v1::CostEstimate, ApiError> {
    use v1::estimate_job_request::Target;
    match request.target {
        None => Err(ApiError::invalid("target", "must name a model or a source artifact")),
        Some(Target::Model(_)) if !request.parameter_set.is_empty() => {
            Err(ApiError::invalid("parameter_set", "is taken only with source_artifact"))
        }
        Some(Target::Model(name)) => Ok(ready(app, &caller, &name).await?.unit_cost.unwrap_or_default()),
        Some(Target::SourceArtifact(name)) => {
            let parameter_set = models::resolve_parameter_set(app, &request.parameter_set)
                .map_err(|problem| ApiError::invalid("parameter_set", problem))?;
            let parsed = parse(&name, "source_artifact")?;
            let facts = app.artifact(&caller, "source_artifact", &parsed, app.limits.computation_bytes).await?;
            let place = app.computations.take(&caller.tenant)?;
            let memory = app.computing.take(facts.size_bytes).await?;
            let source = Source::Stored(parsed, facts).read(app).await?;
            let prover = app.prover.clone();
            let estimated = app.cpu.run(move || {
                let cost = prover.estimate(&source, &parameter_set);
                drop(source);
                drop((memory, place));
                cost
            });
            let cost = estimated.await?;
            let cost = cost.map_err(|error| ApiError::prover(error, "source_artifact"))?;
            Ok(convert::cost(&cost))
        }
    }
}

async fn ready(app: &App, caller: &Caller, name: &str) -> Result<v1::RegisteredModel, ApiError> {
    let model = models::find(app, caller, "model", name).await?;
    let state = model.state();
    model.registered.ok_or_else(|| ApiError::Precondition {
        reason: "MODEL_NOT_READY",
        subject: name.to_owned(),
        message: format!("the model is {}, not READY", state.as_str_name()),
    })
}

fn parse(name: &str, field: &str) -> Result<ArtifactName, ApiError> {
    let mut fields = Fields::default();
    let parsed = fields.parse(field, ArtifactName::parse(name));
    fields.finish()?;
    parsed.ok_or_else(|| ApiError::invalid(field, "is required"))
}
