//! The check of a proof that a worker hands in. A worker verifies what it publishes; the service cannot know whether it did, nor whether that was a proof of
//! this job. So it takes the verifier key and the nonce from the job, its input too, and compares.

use bytes::Bytes;
use zkinfer_proto::name::ArtifactName;
use zkinfer_proto::v1;

use super::error::ApiError;
use super::workers::Workers;
use crate::artifacts::Class;
use crate::convert;
use crate::engine::{ArtifactFacts, AskedProof, Digest, FailedAttempt, FailureCause, Outcome};
use crate::prover::Prover;
use crate::scheduler::CpuPoolError;
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

/// Something that is stored, and not read yet.
struct Stored {
    digest: Digest,
    size_bytes: u64,
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
        let place = self.app.check_places.clone().try_acquire_owned().map_err(|_| ApiError::from(CpuPoolError::Full))?;
        let proof_bytes = self.app.limits.proof_bytes;
        let (key, statement, input, proof) = tokio::try_join!(
            self.stored(holding, &result.verifier_key_artifact, proof_bytes),
            self.stored(holding, &result.statement_artifact, proof_bytes),
            // The job was admitted with it, whatever the limit is now.
            self.stored(holding, input, u64::MAX),
            self.stored(holding, &result.proof_artifact, proof_bytes),
        )?;
        let sizes = [&key, &statement, &input, &proof].map(|stored| stored.size_bytes);
        let memory = self.app.checking.take(sizes.into_iter().fold(0, u64::saturating_add)).await?;
        let (key, statement) = (self.whole(holding, key).await?, self.whole(holding, statement).await?);
        let (input, proof) = (self.whole(holding, input).await?, self.whole(holding, proof).await?);
        let handed_in = HandedIn { asked, result: result.clone(), key, statement, input, proof };
        let prover = self.app.prover.clone();
        let checked = self.app.checks.run(move || {
            let checked = handed_in.check(&*prover);
            // Not before the bytes: who waited too long and went away may have left it running.
            drop(handed_in);
            drop((memory, place));
            checked
        });
        Ok(checked.await?)
    }

    /// Finds what is stored, and reads nothing of it yet.
    async fn stored(&self, holding: Holding<'_>, name: &str, limit: u64) -> Result<Stored, ApiError> {
        let name = ArtifactName::parse(name).map_err(|error| ApiError::invalid("result", error.to_string()))?;
        if name.tenant != holding.lease.task.subject.tenant {
            return Err(ApiError::invalid("result", "names an artifact of another tenant"));
        }
        let size_bytes = self.source.size(holding, Class::Public, name.blake3).await?;
        if size_bytes > limit {
            return Err(ApiError::invalid("result", format!("names an artifact of {size_bytes} bytes; at most {limit} are taken")));
        }
        Ok(Stored { digest: name.blake3, size_bytes })
    }

    async fn whole(&self, holding: Holding<'_>, stored: Stored) -> Result<Bytes, ApiError> {
        let mut reader = self.source.reader(holding, Class::Public, stored.digest).await?;
        // One of them is the input, which is private: nothing of it stays where a smaller buffer was.
        let mut bytes = Growing::with_capacity(usize::try_from(stored.size_bytes).unwrap_or(usize::MAX));
        while let Some(part) = reader.next().await.map_err(SourceError::from)? {
            bytes.push(&part);
        }
        Ok(bytes.freeze())
    }
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
