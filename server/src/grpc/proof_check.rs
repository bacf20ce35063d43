//! The check of a proof that a worker hands in. A worker verifies what it publishes; the service cannot know whether it did, nor whether that was a proof of
//! this job. So it takes the verifier key and the nonce from the job, its input too, and compares.

use bytes::Bytes;
use zkinfer_proto::name::ArtifactName;
use zkinfer_proto::v1;

use super::error::ApiError;
use super::workers::Workers;
use crate::artifacts::{ArtifactReader, Class};
use crate::convert;
use crate::engine::{ArtifactFacts, AskedProof, FailedAttempt, FailureCause, Outcome};
use crate::prover::Prover;
use crate::secret::Growing;
use crate::worker::{Holding, SourceError};

/// What is known of what a task gave.
pub(super) enum Checked {
    /// It may be taken.
    Good,
    /// It may not, and that is why.
    Wrong(FailedAttempt),
    /// It cannot be told: the session does not hold the task any more. Nothing may be published that was not checked.
    Lost,
}

/// A proof with all that it is compared with, in memory.
struct HandedIn {
    asked: AskedProof,
    result: v1::JobResult,
    key: Bytes,
    statement: Bytes,
    input: Bytes,
    proof: Bytes,
}

impl Workers {
    /// Checks the proof that a task gave, if it gave one.
    pub(super) async fn check_proof(&self, holding: Holding<'_>, outcome: &Outcome) -> Result<Checked, ApiError> {
        let Outcome::Proved { result, artifacts } = outcome else { return Ok(Checked::Good) };
        let asked = match self.source.asked_proof(holding).await {
            Ok(asked) => asked,
            Err(SourceError::Fenced) => return Ok(Checked::Lost),
            Err(error) => return Err(error.into()),
        };
        let checked = match check_names(&asked, result, artifacts) {
            Ok(input) => self.check_bytes(holding, asked, result, &input).await?,
            Err(problem) => Err(problem),
        };
        Ok(checked.err().map_or(Checked::Good, |problem| {
            Checked::Wrong(FailedAttempt {
                cause: FailureCause::VerifyFailed,
                reason: String::new(),
                message: format!("the proof of a worker is not a proof of the job: {problem}"),
                damaged: Vec::new(),
            })
        }))
    }

    /// Reads what is handed in and what it is compared with, and compares.
    async fn check_bytes(
        &self,
        holding: Holding<'_>,
        asked: AskedProof,
        result: &v1::JobResult,
        input: &str,
    ) -> Result<Result<(), String>, ApiError> {
        let proof_bytes = self.app.limits.proof_bytes;
        let key = self.stored(holding, &result.verifier_key_artifact, proof_bytes).await?;
        let statement = self.stored(holding, &result.statement_artifact, proof_bytes).await?;
        // The job was admitted with it, whatever the limit is now.
        let input = self.stored(holding, input, u64::MAX).await?;
        let proof = self.stored(holding, &result.proof_artifact, proof_bytes).await?;
        let n_bytes = [&key, &statement, &input, &proof].into_iter().fold(0, |sum: u64, stored| sum.saturating_add(stored.size_bytes()));
        let memory = self.app.checking.take(n_bytes).await?;
        let (key, statement) = (whole(key).await?, whole(statement).await?);
        let (input, proof) = (whole(input).await?, whole(proof).await?);
        let handed_in = HandedIn { asked, result: result.clone(), key, statement, input, proof };
        let prover = self.app.prover.clone();
        let checked = self.app.checks.run(move || {
            let checked = handed_in.check(&*prover);
            // Not before the bytes: who waited too long and went away may have left it running.
            drop(handed_in);
            drop(memory);
            checked
        });
        Ok(checked.await?)
    }

    /// Finds what is stored, and reads nothing of it yet.
    async fn stored(&self, holding: Holding<'_>, name: &str, limit: u64) -> Result<ArtifactReader, ApiError> {
        let name = ArtifactName::parse(name).map_err(|error| ApiError::invalid("result", error.to_string()))?;
        if name.tenant != holding.lease.task.subject.tenant {
            return Err(ApiError::invalid("result", "names an artifact of another tenant"));
        }
        let reader = self.source.reader(holding, Class::Public, name.blake3).await?;
        let size_bytes = reader.size_bytes();
        if size_bytes > limit {
            return Err(ApiError::invalid("result", format!("names an artifact of {size_bytes} bytes; at most {limit} are taken")));
        }
        Ok(reader)
    }
}

/// All bytes of something that is stored: it may be the input, which is private.
async fn whole(mut reader: ArtifactReader) -> Result<Bytes, ApiError> {
    let mut bytes = Growing::with_capacity(usize::try_from(reader.size_bytes()).unwrap_or(usize::MAX));
    while let Some(part) = reader.next().await.map_err(SourceError::from)? {
        bytes.push(&part);
    }
    Ok(bytes.freeze())
}

/// Compares what needs no bytes; answers the name of the job's input.
fn check_names(asked: &AskedProof, result: &v1::JobResult, artifacts: &[ArtifactFacts]) -> Result<String, String> {
    let key = asked.model.registered.as_ref().map(|registered| registered.verifier_key_artifact.as_str());
    if key != Some(result.verifier_key_artifact.as_str()) {
        return Err("its verifier key is not that of the job's model".to_owned());
    }
    // Only what is handed in is kept for the job.
    let is_handed_in = |name: &str| {
        let digest = ArtifactName::parse(name).ok().map(|name| name.blake3);
        artifacts.iter().any(|facts| facts.class == Class::Public && Some(facts.digest) == digest)
    };
    if ![&result.proof_artifact, &result.statement_artifact].into_iter().all(|name| is_handed_in(name)) {
        return Err("its proof or statement is not among the artifacts that are handed in".to_owned());
    }
    match asked.job.input.as_ref().and_then(|input| input.source.as_ref()) {
        Some(v1::input::Source::Artifact(name)) => Ok(name.clone()),
        Some(v1::input::Source::Inline(_)) | None => Err("the stored job has no input".to_owned()),
    }
}

impl HandedIn {
    fn check(&self, prover: &dyn Prover) -> Result<(), String> {
        let Self { asked, result, key, statement, input, proof } = self;
        let stated = prover.decode_statement(statement).map_err(|failure| failure.to_string())?;
        if result.statement.as_ref() != Some(&convert::statement(&stated)) {
            return Err("the statement that is told is not the one that is handed in".to_owned());
        }
        if usize::try_from(result.proof_bytes) != Ok(proof.len()) {
            return Err("its size is not the one that is told".to_owned());
        }
        if stated.context_nonce != asked.job.context_nonce.as_slice() {
            return Err("its context nonce is not the job's".to_owned());
        }
        let encoding = convert::input_encoding(asked.job.input.as_ref());
        let commitment = prover.input_commitment(key, input, encoding, asked.input_salt.expose()).map_err(|error| error.to_string())?;
        if stated.input_commitment != commitment {
            return Err("its input is not the job's".to_owned());
        }
        prover.verify(key, statement, proof).map_err(|failure| failure.to_string())
    }
}
