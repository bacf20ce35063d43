//! Batches: how far they are, and watching them.
//!
//! A watcher looks at the batch's counts at intervals: one short query, however many jobs there are and wherever they run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use zkinfer_proto::name::{BatchName, JobName};
use zkinfer_proto::v1;

use super::caller::{App, Caller};
use super::error::ApiError;
use super::fields::Fields;
use super::watch::{self, Over, WatchStream};

/// How often a watched batch is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Names of ended jobs in a message.
const MAX_ENDED: usize = 1000;

pub(super) fn parse_name(caller: &Caller, field: &str, name: &str) -> Result<BatchName, ApiError> {
    let mut fields = Fields::default();
    let parsed = fields.parse(field, BatchName::parse(name));
    fields.finish()?;
    parsed.filter(|parsed| caller.owns(&parsed.tenant)).ok_or_else(|| not_found(name))
}

fn not_found(name: &str) -> ApiError {
    ApiError::NotFound { kind: "batch", name: name.to_owned() }
}

pub(super) async fn get(app: &App, caller: Caller, message: v1::GetBatchRequest) -> Result<v1::Batch, ApiError> {
    let name = parse_name(&caller, "name", &message.name)?;
    app.engine.batch(&name.tenant, &name.batch_id).await?.ok_or_else(|| not_found(&message.name))
}

pub(super) async fn watch(app: &Arc<App>, caller: Caller, message: v1::WatchBatchRequest) -> Result<WatchStream<v1::BatchEvent>, ApiError> {
    let name = parse_name(&caller, "name", &message.name)?;
    let place = app.watchers.take(&name.tenant)?;
    app.engine.batch(&name.tenant, &name.batch_id).await?.ok_or_else(|| not_found(&message.name))?;
    let (sender, receiver) = mpsc::channel(4);
    let end = Instant::now() + app.limits.watch;
    let watcher = Watcher { app: app.clone(), name, told: BTreeSet::new(), last: None, sender, end };
    tokio::spawn(async move {
        watcher.run().await;
        drop(place);
    });
    Ok(ReceiverStream::new(receiver))
}

struct Watcher {
    app: Arc<App>,
    name: BatchName,
    /// Ids of the jobs whose end was told.
    told: BTreeSet<String>,
    last: Option<v1::Batch>,
    sender: mpsc::Sender<Result<v1::BatchEvent, Status>>,
    end: Instant,
}

impl Watcher {
    async fn run(mut self) {
        let mut told_at = Instant::now();
        loop {
            match self.look(told_at.elapsed() >= self.app.limits.heartbeat).await {
                Ok(Some(event)) => {
                    told_at = Instant::now();
                    let is_over = event.batch.as_ref().is_some_and(is_final) && event.ended.len() < MAX_ENDED;
                    if self.send(Ok(event)).await.is_err() || is_over {
                        return;
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    let _ = self.send(Err(error.into())).await;
                    return;
                }
            }
            let closing = self.app.closing.clone();
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.sender.closed() => return,
                () = tokio::time::sleep_until(self.end) => return,
                () = closing.cancelled() => {
                    let message = "the service is shutting down; watch again".to_owned();
                    let error = ApiError::Unavailable { reason: "DRAINING", message, retry: Duration::from_secs(2) };
                    let _ = self.send(Err(error.into())).await;
                    return;
                }
            }
        }
    }

    async fn send(&self, message: Result<v1::BatchEvent, Status>) -> Result<(), Over> {
        watch::send(&self.app, &self.sender, self.end, message).await
    }

    /// What is new; with `repeat`, what is known again if nothing is.
    async fn look(&mut self, repeat: bool) -> Result<Option<v1::BatchEvent>, ApiError> {
        let (tenant, id) = (&self.name.tenant, &self.name.batch_id);
        let batch = self.app.engine.batch(tenant, id).await?.ok_or_else(|| not_found(&self.name.to_string()))?;
        let n_ended = batch.succeeded + batch.failed + batch.cancelled + batch.expired;
        let mut ended = Vec::new();
        // Told ones may have been deleted: then their number says nothing, but the batch has changed.
        if self.last.as_ref() != Some(&batch) || usize::try_from(n_ended).unwrap_or(0) > self.told.len() {
            ended = self.app.engine.ended_of_batch(tenant, id).await?;
            ended.retain(|job| !self.told.contains(job));
            ended.truncate(MAX_ENDED);
            self.told.extend(ended.iter().cloned());
        }
        if self.last.as_ref() == Some(&batch) && ended.is_empty() && !repeat {
            return Ok(None);
        }
        self.last = Some(batch.clone());
        let name = |job_id: String| JobName { tenant: self.name.tenant.clone(), job_id }.to_string();
        Ok(Some(v1::BatchEvent { batch: Some(batch), ended: ended.into_iter().map(name).collect() }))
    }
}

fn is_final(batch: &v1::Batch) -> bool {
    batch.succeeded + batch.failed + batch.cancelled + batch.expired == batch.total
}
