//! Admission of jobs, one or a batch: everything that is wrong is named, and what is admitted is on disk before the answer.

use futures::StreamExt as _;
use prost::Message as _;
use zeroize::Zeroize as _;
use zkinfer_proto::name::{ArtifactName, JobName, ModelName};
use zkinfer_proto::v1;

use super::caller::{App, Caller};
use super::error::ApiError;
use super::fields::Fields;
use super::idempotency::{create_error, request_key};
use super::models;
use crate::engine::{ArtifactFacts, EngineError, NewBatch, NewJob};
use crate::observe;
use crate::secret::{Secret, erased};

/// Seconds of the year 9999's end, the largest time of the wire format.
const MAX_SECONDS: i64 = 253_402_300_799;
/// What admission adds to a job, and a list to each of its messages, at most.
const JOB_OVERHEAD_BYTES: usize = 256;
/// Inputs of a batch that are stored at a time.
const INPUTS_AT_ONCE: usize = 16;

/// Random field words: 63 bits each.
pub(crate) fn random_words() -> Result<Secret, ApiError> {
    let made = Secret::make::<getrandom::Error>(|words| {
        getrandom::fill(words)?;
        for word in words.chunks_exact_mut(8) {
            word[7] &= 0x7f;
        }
        Ok(())
    });
    made.map_err(|error| ApiError::Internal { context: "no random bytes", source: error.to_string().into() })
}

pub(super) async fn create(app: &App, caller: Caller, mut request: v1::CreateJobRequest) -> Result<v1::Job, ApiError> {
    app.check_creation(&caller)?;
    caller.check_parent(&request.parent)?;
    request.parent = format!("tenants/{}", caller.tenant);
    let request_id = std::mem::take(&mut request.request_id);
    let mut fields = Fields::default();
    fields.request_id(&request_id);
    let salt = check(app, &mut fields, &request);
    fields.finish()?;
    let key = request_key(&request_id, &request);
    request.input_salt.zeroize();
    let asked = request.job.unwrap_or_default();
    let model = asked.model.clone();
    let name = models::parse_name(&caller, "job.model", &model)?;
    if is_inline(&asked) {
        let foreseen = app.engine.foresee(&caller.tenant, vec![name], key.clone()).await;
        foreseen.map_err(|error| create_error(of_one(error), &request_id, "job", &model))?;
    }
    let new = NewJob { key, ..prepare(app, &caller, asked, salt).await? };
    let created = app.engine.create_job(new).await.map_err(|error| create_error(error, &request_id, "job", &model))?;
    app.hub.task_ready();
    Ok(created)
}

pub(super) async fn create_batch(
    app: &App,
    caller: Caller,
    mut request: v1::BatchCreateJobsRequest,
) -> Result<v1::BatchCreateJobsResponse, ApiError> {
    // One that is too large is refused for its size, below.
    app.check_creations(&caller, request.requests.len().min(app.limits.jobs_at_once()))?;
    caller.check_parent(&request.parent)?;
    request.parent = format!("tenants/{}", caller.tenant);
    let request_id = std::mem::take(&mut request.request_id);
    let salts = check_batch(app, &request, &request_id)?;
    let key = request_key(&request_id, &request);
    let asked = || request.requests.iter().filter_map(|single| single.job.as_ref());
    let named = asked().map(|job| job.model.clone()).collect::<Vec<_>>();
    let refused = |error| match error {
        EngineError::InBatch { index, source } => {
            let model = named.get(index).map_or("", String::as_str);
            create_error(*source, &request_id, "job", model).within(&place(index))
        }
        other => create_error(other, &request_id, "batch", &request.parent),
    };
    let parse =
        |(index, name): (usize, &String)| models::parse_name(&caller, "job.model", name).map_err(|error| error.within(&place(index)));
    let models = named.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
    if asked().any(is_inline) {
        app.engine.foresee(&caller.tenant, models, key.clone()).await.map_err(refused)?;
    }
    let mut batch = Vec::with_capacity(request.requests.len());
    let singles = request.requests.into_iter().zip(salts);
    let mut preparing = futures::stream::iter(singles)
        .map(|(mut single, salt)| {
            single.input_salt.zeroize();
            prepare(app, &caller, single.job.unwrap_or_default(), salt)
        })
        .buffered(INPUTS_AT_ONCE)
        .enumerate();
    while let Some((index, new)) = preparing.next().await {
        batch.push(new.map_err(|error| error.within(&place(index)))?);
    }
    drop(preparing);
    check_answer(app, &batch)?;
    let new = NewBatch { tenant: caller.tenant.clone(), id: uuid::Uuid::now_v7().to_string(), jobs: batch, key };
    let created = app.engine.create_jobs(new).await.map_err(refused)?;
    app.hub.task_ready();
    Ok(created)
}

/// Refuses a batch whose answer, all jobs of it, would be larger than a message: it would be admitted, and told as a failure.
fn check_answer(app: &App, batch: &[NewJob]) -> Result<(), ApiError> {
    let (answer_bytes, limit) =
        (batch.iter().map(|new| new.job.encoded_len() + JOB_OVERHEAD_BYTES).sum::<usize>(), app.limits.message_bytes);
    if answer_bytes <= limit {
        return Ok(());
    }
    let description = format!("the answer would have {answer_bytes} bytes, more than a message's {limit}; split the batch");
    Err(ApiError::invalid("requests", description))
}

/// What is wrong with a job that is alone.
fn of_one(error: EngineError) -> EngineError {
    match error {
        EngineError::InBatch { source, .. } => *source,
        other => other,
    }
}

/// Where a job stands in the request of a batch.
fn place(index: usize) -> String {
    format!("requests[{index}]")
}

/// Checks all jobs of a batch; answers the salts that the client gave.
fn check_batch(app: &App, request: &v1::BatchCreateJobsRequest, request_id: &str) -> Result<Vec<Option<Secret>>, ApiError> {
    let mut fields = Fields::default();
    fields.request_id(request_id);
    let (count, limit) = (request.requests.len(), app.limits.jobs_at_once());
    if count == 0 || count > limit {
        fields.wrong("requests", format!("has {count} jobs; 1 to {limit} are taken at once"));
        return fields.finish().map(|()| Vec::new());
    }
    let mut salts = Vec::with_capacity(count);
    for (index, single) in request.requests.iter().enumerate() {
        let mut of_job = Fields::default();
        of_job.require("parent", single.parent.is_empty(), "must be empty: the batch has the parent");
        of_job.require("request_id", single.request_id.is_empty(), "must be empty: the batch has the request id");
        salts.push(check(app, &mut of_job, single));
        fields.append(&place(index), of_job);
    }
    fields.finish().map(|()| salts)
}

/// Whether its input must be stored for it.
fn is_inline(job: &v1::Job) -> bool {
    matches!(job.input.as_ref().and_then(|input| input.source.as_ref()), Some(v1::input::Source::Inline(_)))
}

/// The job to be admitted, its input stored. Its model is the caller's.
async fn prepare(app: &App, caller: &Caller, asked: v1::Job, given_salt: Option<Secret>) -> Result<NewJob, ApiError> {
    let input_salt = match (asked.privacy(), given_salt) {
        (v1::Privacy::InputPublic, _) => Secret::zero(),
        (_, Some(salt)) => salt,
        (_, None) => random_words()?,
    };
    let (job, input) = new_job(app, caller, asked).await?;
    Ok(NewJob { job, input, input_salt, seed: random_words()?, key: None })
}

/// Checks all that can be checked without looking anything up; answers the salt if the client gave one.
fn check(app: &App, fields: &mut Fields, request: &v1::CreateJobRequest) -> Option<Secret> {
    // Not a copy of what was asked: it may hold the input.
    let nothing = v1::Job::default();
    let asked = request.job.as_ref().unwrap_or(&nothing);
    fields.require("job", request.job.is_some(), "is required");
    fields.parse("job.model", ModelName::parse(&asked.model));
    fields.labels("job.labels", &asked.labels, &app.limits);
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
    check_input(app, fields, asked.input.as_ref());
    check_salt(fields, &request.input_salt, asked.privacy())
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

fn check_salt(fields: &mut Fields, salt: &[u8], privacy: v1::Privacy) -> Option<Secret> {
    if salt.is_empty() {
        return None;
    }
    fields.require("input_salt", privacy == v1::Privacy::InputCommitted, "is taken only with PRIVACY_INPUT_COMMITTED");
    let salt = fields.field_words("input_salt", salt)?;
    fields.require("input_salt", salt != [0; 32], "must not be all zero");
    Some(salt.into())
}

/// A job, and its input if it was stored for it.
async fn new_job(app: &App, caller: &Caller, asked: v1::Job) -> Result<(v1::Job, Option<ArtifactFacts>), ApiError> {
    let input = asked.input.unwrap_or_default();
    let encoding = input.encoding;
    let (artifact, stored) = store_input(app, caller, input).await?;
    let job_id = uuid::Uuid::now_v7().to_string();
    let nonce = match asked.context_nonce.is_empty() {
        true => vec![0; 32],
        false => asked.context_nonce,
    };
    let job = v1::Job {
        name: JobName { tenant: caller.tenant.clone(), job_id }.to_string(),
        model: asked.model,
        input: Some(v1::Input { source: Some(v1::input::Source::Artifact(artifact)), encoding }),
        privacy: asked.privacy,
        context_nonce: nonce,
        labels: asked.labels,
        priority: asked.priority,
        deadline: asked.deadline,
        state: v1::job::State::Queued as i32,
        trace_parent: observe::current().map(|trace| trace.to_string()).unwrap_or_default(),
        ..Default::default()
    };
    Ok((job, stored))
}

/// The artifact that holds the input; an inline one is stored first, and recorded with the job.
async fn store_input(app: &App, caller: &Caller, input: v1::Input) -> Result<(String, Option<ArtifactFacts>), ApiError> {
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
            Ok((name, None))
        }
        Some(v1::input::Source::Inline(bytes)) => {
            let facts = app.artifacts.put_unrecorded(&caller.tenant, media_type, erased(bytes)).await?;
            let name = ArtifactName { tenant: facts.tenant.clone(), blake3: facts.digest };
            Ok((name.to_string(), Some(facts)))
        }
        None => Err(ApiError::invalid("job.input", "is required")),
    }
}
