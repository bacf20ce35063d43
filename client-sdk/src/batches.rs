//! Batches: jobs that are admitted and watched together.

use std::collections::HashSet;

use zkinfer_proto::v1::{self, Batch, BatchEvent, JobTask};

use crate::client::Client;
use crate::jobs::JobRequest;
use crate::retry::Repetition;
use crate::status::ClientError;
use crate::watch::PAUSE_AFTER_END;

impl Client {
    /// Admits all jobs or none, at most `Limits.max_batch_jobs` of them; answers them in order, with the name of the batch.
    ///
    /// # Errors
    /// See [`ClientError`]. What is wrong with a job is named by its place, such as `requests[3].job.model`.
    pub async fn create_batch(&self, requests: &[JobRequest]) -> Result<v1::BatchCreateJobsResponse, ClientError> {
        let message = self.batch_message(requests).await?;
        self.repeat(async || Ok(self.proof_service().batch_create_jobs(self.request(message.clone())).await?.into_inner())).await
    }

    /// How far a batch is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn batch(&self, name: &str) -> Result<Batch, ClientError> {
        let message = v1::GetBatchRequest { name: name.to_owned() };
        self.repeat(async || Ok(self.proof_service().get_batch(self.request(message.clone())).await?.into_inner())).await
    }

    /// Follows a batch until all its jobs have ended; `on_event` sees how far it is whenever that has changed, and each job's end once. Broken streams are
    /// opened again.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn finish_batch(&self, name: &str, mut on_event: impl FnMut(&BatchEvent)) -> Result<Batch, ClientError> {
        let repetition = Repetition::new(self.options.retry);
        let mut watch = BatchWatch { client: self, name, told: HashSet::new(), last: None, repetition };
        loop {
            if let Err(error) = watch.follow(&mut on_event).await {
                watch.repetition.pause(error).await?;
                continue;
            }
            let batch = self.batch(name).await?;
            if watch.is_over(&batch) {
                return Ok(batch);
            }
            if !watch.repetition.fail() {
                return Err(ClientError::Answer(format!("the stream of {name} ends again and again before its subject does")));
            }
            tokio::time::sleep(PAUSE_AFTER_END).await;
        }
    }

    /// The tasks of a job with their attempts, in the order of its graph.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn job_tasks(&self, name: &str) -> Result<Vec<JobTask>, ClientError> {
        let message = v1::ListJobTasksRequest { name: name.to_owned() };
        let call = async || Ok(self.proof_service().list_job_tasks(self.request(message.clone())).await?.into_inner());
        Ok(self.repeat(call).await?.tasks)
    }
}

/// Follows a batch through several streams.
struct BatchWatch<'a> {
    client: &'a Client,
    name: &'a str,
    /// Names of the jobs whose end the caller was told. Each stream begins with all that have ended.
    told: HashSet<String>,
    /// How far the batch was in the last event.
    last: Option<Batch>,
    repetition: Repetition,
}

impl BatchWatch<'_> {
    /// To the end of one stream.
    async fn follow(&mut self, on_event: &mut impl FnMut(&BatchEvent)) -> Result<(), ClientError> {
        let message = v1::WatchBatchRequest { name: self.name.to_owned() };
        // The service ends streams now and then; silence means that the connection is dead.
        let silence = self.client.options.silence;
        let mut service = self.client.proof_service();
        let Ok(opened) = tokio::time::timeout(silence, service.watch_batch(message)).await else { return Ok(()) };
        let mut stream = opened?.into_inner();
        loop {
            let Ok(next) = tokio::time::timeout(silence, stream.message()).await else { return Ok(()) };
            let Some(mut event) = next? else { return Ok(()) };
            self.repetition.reset();
            event.ended.retain(|job| self.told.insert(job.clone()));
            // A new stream, and a sign of life, repeat what is known.
            if event.batch != self.last || !event.ended.is_empty() {
                self.last.clone_from(&event.batch);
                on_event(&event);
            }
        }
    }

    /// Whether the end of each job was told. Those that were deleted were told, and do not count any more.
    fn is_over(&self, batch: &Batch) -> bool {
        let n_ended = batch.succeeded + batch.failed + batch.cancelled + batch.expired;
        n_ended == batch.total && usize::try_from(batch.total).is_ok_and(|total| total <= self.told.len())
    }
}
