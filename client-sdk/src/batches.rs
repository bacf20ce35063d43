//! Batches: jobs that are admitted and watched together.

use zkinfer_proto::v1::{self, Batch, BatchEvent, JobTask};

use crate::client::Client;
use crate::jobs::JobRequest;
use crate::status::ClientError;

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

    /// Follows a batch until all its jobs have ended; `on_event` sees how far it is, and each job's end once. Broken streams are opened again.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn finish_batch(&self, name: &str, mut on_event: impl FnMut(&BatchEvent)) -> Result<Batch, ClientError> {
        let mut told = std::collections::HashSet::new();
        // Events are seen by the caller even if the stream breaks later: what was told is not told again.
        let mut follow = async || {
            let message = v1::WatchBatchRequest { name: name.to_owned() };
            let mut stream = self.proof_service().watch_batch(message).await?.into_inner();
            while let Some(mut event) = stream.message().await? {
                event.ended.retain(|job| told.insert(job.clone()));
                on_event(&event);
            }
            Ok(())
        };
        loop {
            self.repeat(&mut follow).await?;
            let batch = self.batch(name).await?;
            if batch.succeeded + batch.failed + batch.cancelled + batch.expired == batch.total {
                return Ok(batch);
            }
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
