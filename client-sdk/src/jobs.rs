//! Asking for proofs.

use std::collections::HashMap;
use std::time::SystemTime;

use zkinfer_circuits::statement::ContextNonce;
use zkinfer_proto::v1::{self, CostEstimate, Input, Job, JobEvent, Privacy, estimate_job_request, input};

use crate::artifacts::{MAX_DOCUMENT_BYTES, MediaType, UploadSource};
use crate::client::{Client, request_id};
use crate::salt::InputSalt;
use crate::status::ClientError;

/// Inputs up to this size travel inside the request.
const INLINE_BYTES: usize = 256 << 10;
/// The same for each job of a batch, so that the largest batch fits a message.
const BATCH_INLINE_BYTES: usize = 8 << 10;

/// The network's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobInput {
    /// A .npy file: float32 in real units, or uint8.
    Npy(Vec<u8>),
    /// One byte for each element.
    Uint8(Vec<u8>),
}

/// A proof to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRequest {
    /// `tenants/{tenant}/models/{model id}`.
    pub model: String,
    /// The input.
    pub input: JobInput,
    /// Whether the statement shows the input.
    pub privacy: Privacy,
    /// Binds the proof to one use; [`ContextNonce::ZERO`] to none, so that whoever has the proof can show it again.
    pub context_nonce: ContextNonce,
    /// Salt of the commitment to a private input, for who wants to open it later; none: the service draws one. The service refuses one for a public input.
    pub input_salt: Option<InputSalt>,
    /// For the caller's own use.
    pub labels: HashMap<String, String>,
    /// -100 to 100; higher goes first among the tenant's jobs. A step is worth 20 seconds of waiting; above 9 counts as 9, below -9 as -9.
    pub priority: i32,
    /// The job expires if it has not succeeded by then, by the service's clock. None: never.
    pub deadline: Option<SystemTime>,
}

impl JobRequest {
    /// A proof that shows the input, without context: see [`Self::with_nonce`].
    pub fn new(model: impl Into<String>, input: JobInput) -> Self {
        Self {
            model: model.into(),
            input,
            privacy: Privacy::InputPublic,
            context_nonce: ContextNonce::ZERO,
            input_salt: None,
            labels: HashMap::new(),
            priority: 0,
            deadline: None,
        }
    }

    /// As [`Self::new`], of a .npy file.
    pub fn npy(model: impl Into<String>, file: Vec<u8>) -> Self {
        Self::new(model, JobInput::Npy(file))
    }

    /// Binds the proof to one use.
    pub fn with_nonce(self, context_nonce: ContextNonce) -> Self {
        Self { context_nonce, ..self }
    }

    /// Hides the input behind a salted commitment.
    pub fn with_private_input(self) -> Self {
        Self { privacy: Privacy::InputCommitted, ..self }
    }

    /// As [`Self::with_private_input`], with a salt of the caller's own, which opens the commitment later.
    pub fn with_input_salt(self, input_salt: InputSalt) -> Self {
        Self { input_salt: Some(input_salt), ..self.with_private_input() }
    }

    /// Adds a label, or replaces the one of this key.
    pub fn with_label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Goes before jobs of lower priority: -100 to 100.
    pub fn with_priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }

    /// Expires if it has not succeeded by then.
    pub fn with_deadline(self, deadline: SystemTime) -> Self {
        Self { deadline: Some(deadline), ..self }
    }
}

/// What a verifier needs, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The outer proof.
    pub proof: Vec<u8>,
    /// The statement.
    pub statement: Vec<u8>,
    /// The model's verifier key.
    pub key: Vec<u8>,
}

impl Client {
    /// Admits a job; uploads its input if that is large.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_job(&self, request: &JobRequest) -> Result<Job, ClientError> {
        let message = v1::CreateJobRequest { request_id: request_id(), ..self.job_message(request, INLINE_BYTES).await? };
        self.repeat(async || Ok(self.proof_service().create_job(self.request(message.clone())).await?.into_inner())).await
    }

    /// Admits all jobs or none, at most `Limits.max_batch_jobs` of them; answers them in order. Uploads inputs that are not small.
    ///
    /// # Errors
    /// See [`ClientError`]. What is wrong with a job is named by its place, such as `requests[3].job.model`.
    pub async fn create_jobs(&self, requests: &[JobRequest]) -> Result<Vec<Job>, ClientError> {
        Ok(self.create_batch(requests).await?.jobs)
    }

    /// A batch on the wire, with a fresh request id.
    pub(crate) async fn batch_message(&self, requests: &[JobRequest]) -> Result<v1::BatchCreateJobsRequest, ClientError> {
        let mut message = v1::BatchCreateJobsRequest { request_id: request_id(), ..Default::default() };
        for request in requests {
            message.requests.push(self.job_message(request, BATCH_INLINE_BYTES).await?);
        }
        Ok(message)
    }

    /// The request on the wire, without a request id; an input of more than `inline_bytes` is uploaded.
    async fn job_message(&self, request: &JobRequest, inline_bytes: usize) -> Result<v1::CreateJobRequest, ClientError> {
        let (bytes, encoding, media_type) = match &request.input {
            JobInput::Npy(bytes) => (bytes, input::Encoding::Npy, MediaType::Npy),
            JobInput::Uint8(bytes) => (bytes, input::Encoding::Uint8, MediaType::OctetStream),
        };
        let source = if bytes.len() <= inline_bytes {
            input::Source::Inline(bytes.clone())
        } else {
            input::Source::Artifact(self.upload(&UploadSource::from(bytes.clone()), media_type).await?.name)
        };
        let job = Job {
            model: request.model.clone(),
            input: Some(Input { source: Some(source), encoding: encoding.into() }),
            privacy: request.privacy.into(),
            context_nonce: request.context_nonce.to_bytes().to_vec(),
            labels: request.labels.clone().into_iter().collect(),
            priority: request.priority,
            deadline: request.deadline.map(Into::into),
            ..Job::default()
        };
        let input_salt = request.input_salt.as_ref().map(|salt| salt.expose().to_vec()).unwrap_or_default();
        Ok(v1::CreateJobRequest { job: Some(job), input_salt, ..Default::default() })
    }

    /// A job.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn job(&self, name: &str) -> Result<Job, ClientError> {
        let message = v1::GetJobRequest { name: name.to_owned() };
        self.repeat(async || Ok(self.proof_service().get_job(self.request(message.clone())).await?.into_inner())).await
    }

    /// Tells the service that a job is not wanted any more.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cancel_job(&self, name: &str, reason: &str) -> Result<Job, ClientError> {
        let message = v1::CancelJobRequest { name: name.to_owned(), reason: reason.to_owned() };
        self.repeat(async || Ok(self.proof_service().cancel_job(self.request(message.clone())).await?.into_inner())).await
    }

    /// Deletes a job that has ended, with its proof. No error if there is no such job.
    ///
    /// # Errors
    /// See [`ClientError`]; FAILED_PRECONDITION for a job that has not ended, and while a webhook has still to hear of its end.
    pub async fn delete_job(&self, name: &str) -> Result<(), ClientError> {
        let message = v1::DeleteJobRequest { name: name.to_owned(), allow_missing: true };
        self.repeat(async || Ok(self.proof_service().delete_job(self.request(message.clone())).await?.into_inner())).await?;
        Ok(())
    }

    /// Follows a job to its end; `on_event` sees every event.
    ///
    /// # Errors
    /// [`ClientError::Ended`] if it did not succeed.
    pub async fn finish_job(&self, name: &str, mut on_event: impl FnMut(&JobEvent)) -> Result<Job, ClientError> {
        let mut watch = self.watch_job(name);
        while let Some(event) = watch.next().await? {
            on_event(&event);
        }
        let job = self.job(name).await?;
        if job.result.is_none() {
            return Err(ClientError::Ended { name: name.to_owned(), state: job.state().as_str_name(), failure: job.failure });
        }
        Ok(job)
    }

    /// Downloads proof, statement and key of a job that succeeded.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn documents(&self, job: &Job) -> Result<Documents, ClientError> {
        let result = job.result.as_ref();
        let result = result.ok_or_else(|| ClientError::Answer(format!("{} has no result", job.name)))?;
        Ok(Documents {
            proof: self.download(&result.proof_artifact, MAX_DOCUMENT_BYTES).await?,
            statement: self.download(&result.statement_artifact, MAX_DOCUMENT_BYTES).await?,
            key: self.download(&result.verifier_key_artifact, MAX_DOCUMENT_BYTES).await?,
        })
    }

    /// What a proof of a registered model would cost.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn estimate_model(&self, model: &str) -> Result<CostEstimate, ClientError> {
        self.estimate(estimate_job_request::Target::Model(model.to_owned())).await
    }

    /// What a proof of an uploaded network would cost.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn estimate_source(&self, source_artifact: &str) -> Result<CostEstimate, ClientError> {
        self.estimate(estimate_job_request::Target::SourceArtifact(source_artifact.to_owned())).await
    }

    async fn estimate(&self, target: estimate_job_request::Target) -> Result<CostEstimate, ClientError> {
        let message = v1::EstimateJobRequest { target: Some(target), parameter_set: String::new() };
        self.repeat(async || Ok(self.proof_service().estimate_job(self.request(message.clone())).await?.into_inner())).await
    }
}
