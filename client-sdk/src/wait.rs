//! Waiting for the end of a job by long polls, where what happens in between is of no interest.

use std::time::Duration;

use tokio::time::Instant;
use zkinfer_proto::v1::{self, Job};

use crate::client::Client;
use crate::retry::Repetition;
use crate::status::{ClientError, RefusalKind};
use crate::watch::{PAUSE_AFTER_END, is_final_job};

/// A call waits for no longer. A service with a lower `Limits.max_wait` answers earlier, and is asked again.
const LONGEST_CALL: Duration = Duration::from_secs(60);

impl Client {
    /// Waits until a job has ended, well or not, or until so much time has passed, and answers the job as it is then: [`is_final_job`] tells which. The job
    /// goes on whatever is answered. [`Self::watch_job`] tells of progress too.
    ///
    /// # Errors
    /// See [`ClientError`]. A service that is away is asked again as [`RetryPolicy`](crate::RetryPolicy) says, while there is time; the last attempt may take
    /// [`ClientOptions::call_timeout`] longer.
    ///
    /// [`ClientOptions::call_timeout`]: crate::ClientOptions::call_timeout
    pub async fn wait_job(&self, name: &str, timeout: Duration) -> Result<Job, ClientError> {
        // None: after all times that there are.
        let end = Instant::now().checked_add(timeout);
        let left = || end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
        let mut repetition = Repetition::new(self.options.retry);
        loop {
            let job = match self.wait_once(name, left().min(LONGEST_CALL)).await {
                // What ended the call need not be the service, which may be well: a proxy ends calls that take long.
                Err(error) if is_out_of_time(&error) => self.job_once(name).await,
                answered => answered,
            };
            match job {
                Ok(job) if is_final_job(job.state()) || left().is_zero() => return Ok(job),
                Ok(_) => {
                    repetition.reset();
                    // A service that is about to end answers at once.
                    tokio::time::sleep(PAUSE_AFTER_END.min(left())).await;
                }
                Err(error) => drop(repetition.pause_within(error, left()).await?),
            }
        }
    }

    /// The job, when it has ended or so much time has passed.
    async fn wait_once(&self, name: &str, wait: Duration) -> Result<Job, ClientError> {
        // LONGEST_CALL is no longer than what the wire carries.
        let timeout = prost_types::Duration::try_from(wait).ok();
        let mut request = self.request(v1::WaitJobRequest { name: name.to_owned(), timeout });
        // What a call may take begins when the wait is over.
        request.set_timeout(self.options.call_timeout.saturating_add(wait));
        Ok(self.proof_service().wait_job(request).await?.into_inner())
    }

    async fn job_once(&self, name: &str) -> Result<Job, ClientError> {
        let request = self.request(v1::GetJobRequest { name: name.to_owned() });
        Ok(self.proof_service().get_job(request).await?.into_inner())
    }
}

fn is_out_of_time(error: &ClientError) -> bool {
    error.transient().is_some_and(|refusal| refusal.kind == RefusalKind::Deadline)
}
