//! `ProofService`: jobs. Verification and estimates are in `verify.rs`.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};
use zkinfer_proto::name::{ArtifactName, JobName, ModelName};
use zkinfer_proto::v1;
use zkinfer_proto::v1::proof_service_server::ProofService;

use super::caller::{App, Caller, caller};
use super::error::ApiError;
use super::fields::Fields;
use super::idempotency::{create_error, request_key};
use super::watch::{JobWatch, WatchStream, is_final_job, watch};
use super::{models, page, verify};
use crate::engine::{JobFilter, NewJob, Subject, SubjectKind, now_ms, timestamp};
use crate::scheduler::StopReason;

const MAX_WAIT: Duration = Duration::from_secs(60);
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// Seconds of the year 9999's end, the largest time of the wire format.
const MAX_SECONDS: i64 = 253_402_300_799;

/// The service.
pub(crate) struct Proofs(pub(crate) Arc<App>);

#[tonic::async_trait]
impl ProofService for Proofs {
    async fn create_job(&self, request: Request<v1::CreateJobRequest>) -> Result<Response<v1::Job>, Status> {
        self.0.unary(request, |caller, message| create(&self.0, caller, message)).await
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        let app = &self.0;
        app.unary(request, async |caller: Caller, message: v1::GetJobRequest| {
            let name = parse_name(&caller, &message.name)?;
            find(app, &name).await
        })
        .await
    }

    async fn list_jobs(&self, request: Request<v1::ListJobsRequest>) -> Result<Response<v1::ListJobsResponse>, Status> {
        self.0.unary(request, |caller, message| list(&self.0, caller, message)).await
    }

    async fn cancel_job(&self, request: Request<v1::CancelJobRequest>) -> Result<Response<v1::Job>, Status> {
        self.0.unary(request, |caller, message| cancel(&self.0, caller, message)).await
    }

    async fn wait_job(&self, request: Request<v1::WaitJobRequest>) -> Result<Response<v1::Job>, Status> {
        let caller = caller(request.extensions())?;
        Ok(Response::new(wait(&self.0, caller, request.into_inner()).await?))
    }

    type WatchJobStream = WatchStream<v1::JobEvent>;

    async fn watch_job(&self, request: Request<v1::WatchJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        let caller = caller(request.extensions())?;
        let message = request.into_inner();
        let name = parse_name(&caller, &message.name)?;
        let stream = watch::<JobWatch>(&self.0, name.tenant, name.job_id, message.from_sequence).await?;
        Ok(Response::new(stream))
    }

    async fn estimate_job(&self, request: Request<v1::EstimateJobRequest>) -> Result<Response<v1::CostEstimate>, Status> {
        self.0.unary(request, |caller, message| verify::estimate(&self.0, caller, message)).await
    }

    async fn verify_proof(&self, request: Request<v1::VerifyProofRequest>) -> Result<Response<v1::VerifyProofResponse>, Status> {
        self.0.unary(request, |caller, message| verify::verify(&self.0, caller, message)).await
    }
}

fn parse_name(caller: &Caller, name: &str) -> Result<JobName, ApiError> {
    let mut fields = Fields::default();
    let parsed = fields.parse("name", JobName::parse(name));
    fields.finish()?;
    parsed.filter(|parsed| caller.owns(&parsed.tenant)).ok_or_else(|| ApiError::NotFound { kind: "job", name: name.into() })
}

async fn find(app: &App, name: &JobName) -> Result<v1::Job, ApiError> {
    let job = app.engine.job(&name.tenant, &name.job_id).await?;
    job.ok_or_else(|| ApiError::NotFound { kind: "job", name: name.to_string() })
}

/// Random field words: 63 bits each.
pub(crate) fn random_words() -> Result<[u8; 32], ApiError> {
    let mut words = [0; 32];
    getrandom::fill(&mut words).map_err(|error| ApiError::Internal { context: "no random bytes", source: error.to_string().into() })?;
    for word in words.chunks_exact_mut(8) {
        word[7] &= 0x7f;
    }
    Ok(words)
}

async fn create(app: &App, caller: Caller, mut request: v1::CreateJobRequest) -> Result<v1::Job, ApiError> {
    app.check_admission()?;
    caller.check_parent(&request.parent)?;
    request.parent = format!("tenants/{}", caller.tenant);
    let request_id = std::mem::take(&mut request.request_id);
    let given_salt = check(app, &request, &request_id)?;
    let key = request_key(&request_id, &request);
    let Some(asked) = request.job else {
        return Err(ApiError::invalid("job", "is required"));
    };
    models::parse_name(&caller, "job.model", &asked.model)?;
    let input_salt = match (asked.privacy(), given_salt) {
        (v1::Privacy::InputPublic, _) => [0; 32],
        (_, Some(salt)) => salt,
        (_, None) => random_words()?,
    };
    let model_name = asked.model.clone();
    let job = new_job(app, &caller, asked).await?;
    let new = NewJob { job, input_salt, seed: random_words()?, key };
    let created = app.engine.create_job(new).await.map_err(|error| create_error(error, &request_id, "job", &model_name))?;
    app.hub.task_ready();
    Ok(created)
}

/// Checks all that can be checked without looking anything up; answers the salt if the client gave one.
fn check(app: &App, request: &v1::CreateJobRequest, request_id: &str) -> Result<Option<[u8; 32]>, ApiError> {
    let mut fields = Fields::default();
    let asked = request.job.clone().unwrap_or_default();
    fields.request_id(request_id);
    fields.parse("job.model", ModelName::parse(&asked.model));
    fields.labels("job.labels", &asked.labels, app.limits.labels);
    fields.require("job.priority", (-100..=100).contains(&asked.priority), "must be from -100 to 100");
    if !asked.context_nonce.is_empty() {
        fields.field_words("job.context_nonce", &asked.context_nonce);
    }
    let has_privacy = matches!(asked.privacy(), v1::Privacy::InputPublic | v1::Privacy::InputCommitted);
    fields.require("job.privacy", has_privacy, "must be PRIVACY_INPUT_PUBLIC or PRIVACY_INPUT_COMMITTED");
    if let Some(deadline) = &asked.deadline {
        let is_time = (0..=MAX_SECONDS).contains(&deadline.seconds) && (0..1_000_000_000).contains(&deadline.nanos);
        fields.require("job.deadline", is_time, "must be a time from 1970 to 9999");
    }
    check_input(app, &mut fields, asked.input.as_ref());
    let salt = check_salt(&mut fields, &request.input_salt, asked.privacy());
    fields.finish()?;
    Ok(salt)
}

fn check_input(app: &App, fields: &mut Fields, input: Option<&v1::Input>) {
    use v1::input::{Encoding, Source};
    let encoding = input.map_or(Encoding::Unspecified, v1::Input::encoding);
    fields.require("job.input.encoding", encoding != Encoding::Unspecified, "must be ENCODING_NPY or ENCODING_UINT8");
    match input.and_then(|input| input.source.as_ref()) {
        None => fields.wrong("job.input", "must name an artifact or hold the bytes"),
        Some(Source::Artifact(name)) => {
            fields.parse("job.input.artifact", ArtifactName::parse(name));
        }
        Some(Source::Inline(bytes)) => {
            let max_bytes = app.limits.inline_input_bytes;
            if bytes.is_empty() || bytes.len() > max_bytes {
                let length = bytes.len();
                fields.wrong("job.input.inline", format!("has {length} bytes; 1 to {max_bytes} are taken, larger inputs are uploaded"));
            }
        }
    }
}

fn check_salt(fields: &mut Fields, salt: &[u8], privacy: v1::Privacy) -> Option<[u8; 32]> {
    if salt.is_empty() {
        return None;
    }
    fields.require("input_salt", privacy == v1::Privacy::InputCommitted, "is taken only with PRIVACY_INPUT_COMMITTED");
    let salt = fields.field_words("input_salt", salt)?;
    fields.require("input_salt", salt != [0; 32], "must not be all zero");
    Some(salt)
}

async fn new_job(app: &App, caller: &Caller, asked: v1::Job) -> Result<v1::Job, ApiError> {
    let input = asked.input.unwrap_or_default();
    let encoding = input.encoding;
    let artifact = store_input(app, caller, input).await?;
    let job_id = uuid::Uuid::now_v7().to_string();
    let nonce = match asked.context_nonce.is_empty() {
        true => vec![0; 32],
        false => asked.context_nonce,
    };
    Ok(v1::Job {
        name: JobName { tenant: caller.tenant.clone(), job_id }.to_string(),
        model: asked.model,
        input: Some(v1::Input { source: Some(v1::input::Source::Artifact(artifact)), encoding }),
        privacy: asked.privacy,
        context_nonce: nonce,
        labels: asked.labels,
        priority: asked.priority,
        deadline: asked.deadline,
        state: v1::job::State::Queued as i32,
        create_time: Some(timestamp(now_ms())),
        ..Default::default()
    })
}

/// The artifact that holds the input; an inline one is stored first.
async fn store_input(app: &App, caller: &Caller, input: v1::Input) -> Result<String, ApiError> {
    let media_type = match input.encoding() {
        v1::input::Encoding::Npy => "application/x-npy",
        v1::input::Encoding::Uint8 | v1::input::Encoding::Unspecified => "application/octet-stream",
    };
    match input.source {
        Some(v1::input::Source::Artifact(name)) => {
            let mut fields = Fields::default();
            let parsed = fields.parse("job.input.artifact", ArtifactName::parse(&name));
            fields.finish()?;
            if let Some(parsed) = parsed {
                let max_bytes = app.limits.input_bytes;
                app.artifact(caller, "job.input.artifact", &parsed, max_bytes).await?;
            }
            Ok(name)
        }
        Some(v1::input::Source::Inline(bytes)) => {
            let facts = app.artifacts.put(&caller.tenant, media_type, bytes.into()).await?;
            let name = ArtifactName { tenant: facts.tenant, blake3: facts.digest };
            Ok(name.to_string())
        }
        None => Err(ApiError::invalid("job.input", "is required")),
    }
}

async fn list(app: &App, caller: Caller, request: v1::ListJobsRequest) -> Result<v1::ListJobsResponse, ApiError> {
    caller.check_parent(&request.parent)?;
    let mut fields = Fields::default();
    fields.labels("labels", &request.labels, app.limits.labels);
    for state in &request.states {
        fields.known::<v1::job::State>("states", *state);
    }
    fields.finish()?;
    let model_id = match request.model.as_str() {
        "" => None,
        name => Some(models::parse_name(&caller, "model", name)?.model_id),
    };
    let page = page::parse(request.page_size, &request.page_token, &app.limits)?;
    let states = request.states().collect();
    let filter = JobFilter { model_id, states, labels: request.labels.into_iter().collect() };
    let found = app.engine.list_jobs(&caller.tenant, filter, page).await?;
    let next_page_token = page::token(found.next);
    Ok(v1::ListJobsResponse { jobs: found.items, next_page_token })
}

async fn cancel(app: &App, caller: Caller, request: v1::CancelJobRequest) -> Result<v1::Job, ApiError> {
    let name = parse_name(&caller, &request.name)?;
    let mut fields = Fields::default();
    fields.text("reason", &request.reason);
    fields.finish()?;
    let note = match request.reason.as_str() {
        "" => "cancelled",
        reason => reason,
    };
    let job = app.engine.cancel_job(&name.tenant, &name.job_id, note).await?;
    let job = job.ok_or_else(|| ApiError::NotFound { kind: "job", name: name.to_string() })?;
    let subject = subject(&name);
    app.running.stop(&subject, StopReason::Ended);
    app.hub.changed(&subject);
    Ok(job)
}

fn subject(name: &JobName) -> Subject {
    Subject { kind: SubjectKind::Job, tenant: name.tenant.clone(), id: name.job_id.clone() }
}

async fn wait(app: &App, caller: Caller, request: v1::WaitJobRequest) -> Result<v1::Job, ApiError> {
    let name = parse_name(&caller, &request.name)?;
    let timeout = match request.timeout {
        None => DEFAULT_WAIT,
        Some(given) => Duration::try_from(given).map_err(|_| ApiError::invalid("timeout", "must not be negative"))?.min(MAX_WAIT),
    };
    let end = tokio::time::Instant::now() + timeout;
    let mut subscription = app.hub.subscribe(subject(&name));
    let mut is_over = false;
    loop {
        let job = find(app, &name).await?;
        if is_over || is_final_job(&job) {
            return Ok(job);
        }
        // The job is read once more at the end of the wait: it may have ended in the same moment.
        is_over = tokio::select! {
            () = subscription.changed() => false,
            () = tokio::time::sleep_until(end) => true,
            () = app.closing.cancelled() => true,
        };
    }
}
