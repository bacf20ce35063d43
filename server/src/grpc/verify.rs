//! Verification and estimates: computations that the caller waits for.

use std::time::{Duration, Instant};

use zkinfer_proto::name::ArtifactName;
use zkinfer_proto::v1;

use super::caller::{App, Caller};
use super::error::ApiError;
use super::fields::Fields;
use super::models;
use crate::convert;
use crate::engine::ArtifactFacts;
use crate::prover::{Cost, ProverError};
use crate::scheduler::CpuPoolError;

pub(crate) async fn verify(app: &App, caller: Caller, request: v1::VerifyProofRequest) -> Result<v1::VerifyProofResponse, ApiError> {
    use v1::verify_proof_request::{Proof, Statement, VerifierKey};
    let proof = match request.proof {
        Some(Proof::ProofBytes(bytes)) => bytes.into(),
        Some(Proof::ProofArtifact(name)) => load(app, &caller, "proof_artifact", &name).await?,
        None => return Err(ApiError::invalid("proof", "is required")),
    };
    let statement = match request.statement {
        Some(Statement::StatementBytes(bytes)) => bytes.into(),
        Some(Statement::StatementArtifact(name)) => load(app, &caller, "statement_artifact", &name).await?,
        None => return Err(ApiError::invalid("statement", "is required")),
    };
    let key = match request.verifier_key {
        Some(VerifierKey::VerifierKeyBytes(bytes)) => bytes.into(),
        Some(VerifierKey::VerifierKeyArtifact(name)) => load(app, &caller, "verifier_key_artifact", &name).await?,
        Some(VerifierKey::Model(name)) => {
            let registered = ready(app, &caller, &name).await?;
            load(app, &caller, "model", &registered.verifier_key_artifact).await?
        }
        None => return Err(ApiError::invalid("verifier_key", "is required")),
    };
    let prover = app.prover.clone();
    app.cpu.run(move || answer(&*prover, &key, &statement, &proof)).await.map_err(ApiError::from)
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
            let facts = app.artifact(&caller, "source_artifact", &parsed, app.limits.estimate_bytes).await?;
            let cost = estimate_source(app, facts, &parsed, parameter_set).await?;
            let cost = cost.map_err(|error| ApiError::prover(error, "source_artifact"))?;
            Ok(convert::cost(&cost))
        }
    }
}

/// Reads a source and estimates it. One at a time, so that sources of those who wait are not in memory.
async fn estimate_source(
    app: &App,
    facts: ArtifactFacts,
    name: &ArtifactName,
    parameter_set: String,
) -> Result<Result<Cost, ProverError>, ApiError> {
    let Ok(_waiting) = app.estimates_waiting.try_acquire() else { return Err(CpuPoolError::Full.into()) };
    let Ok(turn) = app.estimating.clone().acquire_owned().await else { return Err(CpuPoolError::Full.into()) };
    let source = app.artifacts.get(&facts).await.map_err(|error| ApiError::bytes(error, name))?;
    let prover = app.prover.clone();
    let estimated = app.cpu.run(move || {
        let cost = prover.estimate(&source, &parameter_set);
        drop(source);
        // Not before: who waited too long and went away may have left it running.
        drop(turn);
        cost
    });
    Ok(estimated.await?)
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

async fn load(app: &App, caller: &Caller, field: &str, name: &str) -> Result<bytes::Bytes, ApiError> {
    let parsed = parse(name, field)?;
    app.artifact_bytes(caller, field, &parsed, app.limits.proof_bytes).await
}
