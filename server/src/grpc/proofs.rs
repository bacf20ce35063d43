//! `ProofService`: jobs. Their admission is in `admission.rs`, verification and estimates are in `verify.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};
use zkinfer_proto::name::JobName;
use zkinfer_proto::v1;
use zkinfer_proto::v1::proof_service_server::ProofService;

use super::caller::{App, Caller, caller};
use super::error::ApiError;
use super::fields::Fields;
use super::watch::{JobWatch, WatchStream, is_final_job, watch};
use super::{admission, batches, models, page, verify};
use crate::engine::{Deletion, JobFilter, Subject, SubjectKind, TaskFacts, timestamp};
use crate::worker::StopReason;

/// The service.
pub(crate) struct Proofs(pub(crate) Arc<App>);

#[tonic::async_trait]
impl ProofService for Proofs {
    async fn create_job(&self, request: Request<v1::CreateJobRequest>) -> Result<Response<v1::Job>, Status> {
        self.0.unary(request, |caller, message| admission::create(&self.0, caller, message)).await
    }

    async fn batch_create_jobs(
        &self,
        request: Request<v1::BatchCreateJobsRequest>,
    ) -> Result<Response<v1::BatchCreateJobsResponse>, Status> {
        self.0.unary(request, |caller, message| admission::create_batch(&self.0, caller, message)).await
    }

    async fn get_batch(&self, request: Request<v1::GetBatchRequest>) -> Result<Response<v1::Batch>, Status> {
        self.0.unary(request, |caller, message| batches::get(&self.0, caller, message)).await
    }

    type WatchBatchStream = WatchStream<v1::BatchEvent>;

    async fn watch_batch(&self, request: Request<v1::WatchBatchRequest>) -> Result<Response<Self::WatchBatchStream>, Status> {
        let caller = caller(request.extensions())?;
        Ok(Response::new(batches::watch(&self.0, caller, request.into_inner()).await?))
    }

    async fn list_job_tasks(&self, request: Request<v1::ListJobTasksRequest>) -> Result<Response<v1::ListJobTasksResponse>, Status> {
        let app = &self.0;
        app.unary(request, async |caller: Caller, message: v1::ListJobTasksRequest| {
            let name = parse_name(&caller, &message.name)?;
            find(app, &name).await?;
            let subject = Subject { kind: SubjectKind::Job, tenant: name.tenant, id: name.job_id };
            let tasks = app.engine.tasks(&subject).await?.into_iter().map(job_task).collect();
            Ok(v1::ListJobTasksResponse { tasks })
        })
        .await
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

    async fn delete_job(&self, request: Request<v1::DeleteJobRequest>) -> Result<Response<v1::DeleteJobResponse>, Status> {
        self.0.unary(request, |caller, message| delete(&self.0, caller, message)).await
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

async fn list(app: &App, caller: Caller, request: v1::ListJobsRequest) -> Result<v1::ListJobsResponse, ApiError> {
    caller.check_parent(&request.parent)?;
    let mut fields = Fields::default();
    fields.labels("labels", &request.labels, &app.limits);
    for state in &request.states {
        fields.known::<v1::job::State>("states", *state);
    }
    fields.finish()?;
    let model_id = match request.model.as_str() {
        "" => None,
        name => Some(models::parse_name(&caller, "model", name)?.model_id),
    };
    let batch_id = match request.batch.as_str() {
        "" => None,
        name => Some(batches::parse_name(&caller, "batch", name)?.batch_id),
    };
    let page = page::parse(request.page_size, &request.page_token, &app.limits)?;
    let states = states(&request);
    let filter = JobFilter { model_id, states, labels: request.labels.into_iter().collect(), batch_id };
    let found = app.engine.list_jobs(&caller.tenant, filter, page).await?;
    let next_page_token = page::token(found.next);
    Ok(v1::ListJobsResponse { jobs: found.items, next_page_token })
}

/// Each state once, however often the request names it: it would make the question to the database as long as a message may be.
fn states(request: &v1::ListJobsRequest) -> Vec<v1::job::State> {
    request.states().collect::<BTreeSet<_>>().into_iter().collect()
}

async fn cancel(app: &App, caller: Caller, request: v1::CancelJobRequest) -> Result<v1::Job, ApiError> {
    let name = parse_name(&caller, &request.name)?;
    let mut fields = Fields::default();
    fields.text("reason", &request.reason, &app.limits);
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

async fn delete(app: &App, caller: Caller, request: v1::DeleteJobRequest) -> Result<v1::DeleteJobResponse, ApiError> {
    let name = parse_name(&caller, &request.name)?;
    let refused = |reason, message| ApiError::Precondition { reason, subject: name.to_string(), message };
    match app.engine.delete_job(&name.tenant, &name.job_id).await? {
        Deletion::Deleted => app.hub.changed(&subject(&name)),
        Deletion::Absent if request.allow_missing => {}
        Deletion::Absent => return Err(ApiError::NotFound { kind: "job", name: name.to_string() }),
        Deletion::NotFinal(state) => {
            let message = format!("the job is {}: cancel it and wait for its end before it is deleted", state.as_str_name());
            return Err(refused("JOB_NOT_FINAL", message));
        }
        Deletion::Untold => {
            let message = "a webhook has still to hear of the job's end: try again later, or delete the webhook".to_owned();
            return Err(refused("WEBHOOK_NOT_TOLD", message));
        }
    }
    Ok(v1::DeleteJobResponse {})
}

fn subject(name: &JobName) -> Subject {
    Subject { kind: SubjectKind::Job, tenant: name.tenant.clone(), id: name.job_id.clone() }
}

async fn wait(app: &App, caller: Caller, request: v1::WaitJobRequest) -> Result<v1::Job, ApiError> {
    let name = parse_name(&caller, &request.name)?;
    let timeout = match request.timeout {
        None => app.limits.default_wait,
        Some(given) => Duration::try_from(given).map_err(|_| ApiError::invalid("timeout", "must not be negative"))?,
    };
    let timeout = timeout.min(app.limits.wait);
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

fn job_task(facts: TaskFacts) -> v1::JobTask {
    let attempt = |facts: crate::engine::AttemptFacts| v1::TaskAttempt {
        worker: facts.worker,
        device: facts.device,
        start_time: Some(timestamp(facts.started_ms)),
        end_time: facts.ended_ms.map(timestamp),
        outcome: facts.outcome,
    };
    v1::JobTask {
        name: facts.name,
        step: facts.step,
        state: facts.state,
        needs: facts.needs,
        attempts: facts.attempts.into_iter().map(attempt).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_a_filter_names_a_million_times_is_asked_for_once() {
        use v1::job::State;
        let named = [State::Running, State::Queued].map(|state| state as i32).repeat(1_000_000);
        let request = v1::ListJobsRequest { states: named, ..Default::default() };
        assert_eq!(states(&request), [State::Queued, State::Running]);
    }
}
