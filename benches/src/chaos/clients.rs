//! Clients that do not give up: each creates a job, again and again with one request id until it is acknowledged, then waits for its end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::Semaphore;
use tonic::Response;
use tonic::transport::Channel;
use zkinfer_client::proto::{CreateJobRequest, Input, Job, Privacy, WaitJobRequest, input, job};
use zkinfer_client::{ContextNonce, Refusal, RefusalKind, WireDuration};
use zkinfer_proto::v1::proof_service_client::ProofServiceClient;

use super::invariants::End;

type Proofs = ProofServiceClient<Channel>;

/// Elements of an input of the bundled mlp-breast-cancer.
const INPUT_BYTES: usize = 30;
/// An answer that takes longer is asked for again.
const ANSWER: Duration = Duration::from_secs(30);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// One wait for a job's end.
const WAIT_SECONDS: i64 = 20;
/// Every so many acknowledged creations are sent once more.
const REPLAY_EVERY: usize = 5;

/// What clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Jobs that clients know to be at their end.
    pub n_done: AtomicUsize,
    /// Calls that failed and were repeated.
    pub n_repeats: AtomicUsize,
    /// Acknowledged creations that were sent once more.
    pub n_replays: AtomicUsize,
    /// Answers that nobody should get, whatever is killed.
    pub wrong: Mutex<Vec<String>>,
}

impl Seen {
    /// Notes an answer that nobody should get.
    pub fn wrong(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

/// An acknowledged job.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Its name.
    pub name: String,
    /// What was to be proved of.
    pub input: Vec<u8>,
    /// What its proof is bound to.
    pub nonce: ContextNonce,
    /// How it may end.
    pub end: End,
}

/// Many clients.
#[derive(Clone, Debug)]
pub struct Clients {
    /// A connection to each server.
    pub channels: Vec<Channel>,
    /// Name of the model.
    pub model: String,
    /// Of inputs.
    pub seed: u64,
    /// Jobs that are under way at a time.
    pub n_at_once: usize,
    /// How their jobs may end.
    pub end: End,
    /// What they see.
    pub seen: Arc<Seen>,
}

impl Clients {
    /// Creates `n_jobs` jobs and waits for the end of all.
    ///
    /// # Errors
    /// A request that the service refuses for good.
    pub async fn run(&self, n_jobs: usize) -> anyhow::Result<Vec<Accepted>> {
        let places = Arc::new(Semaphore::new(self.n_at_once));
        let mut running = tokio::task::JoinSet::new();
        for index in 0..n_jobs {
            let (client, places) = (self.clone(), places.clone());
            running.spawn(async move {
                let _place = places.acquire_owned().await?;
                client.job(index).await
            });
        }
        let mut accepted = Vec::with_capacity(n_jobs);
        while let Some(ended) = running.join_next().await {
            accepted.push(ended??);
        }
        Ok(accepted)
    }

    /// Creates a job, again and again until it is acknowledged.
    ///
    /// # Errors
    /// The service refuses it for good.
    pub async fn begin(&self, index: usize) -> anyhow::Result<Accepted> {
        let job = self.create(index, &self.request(index)).await?;
        Ok(self.accepted(index, job.name))
    }

    async fn job(&self, index: usize) -> anyhow::Result<Accepted> {
        let request = self.request(index);
        let job = self.create(index, &request).await?;
        if index.is_multiple_of(REPLAY_EVERY) {
            self.seen.n_replays.fetch_add(1, Ordering::Relaxed);
            let again = self.create(index + 1, &request).await?;
            if again.name != job.name {
                self.seen.wrong(format!("request {} made {} and {}", request.request_id, job.name, again.name));
            }
        }
        // Where it was not created, if there is more than one server.
        self.wait(index + 1, &job.name).await?;
        self.seen.n_done.fetch_add(1, Ordering::Relaxed);
        Ok(self.accepted(index, job.name))
    }

    /// Job number `index`, which the service acknowledged under this name.
    pub fn accepted(&self, index: usize, name: String) -> Accepted {
        Accepted { name, input: self.input(index), nonce: self.nonce(index), end: self.end }
    }

    fn nonce(&self, index: usize) -> ContextNonce {
        ContextNonce::of_context(format!("chaos {} {index}", self.seed).as_bytes())
    }

    fn input(&self, index: usize) -> Vec<u8> {
        let mut random = StdRng::seed_from_u64(self.seed ^ index as u64);
        (0..INPUT_BYTES).map(|_| random.r#gen()).collect()
    }

    /// Asks for a job, under a request id of its own.
    pub fn request(&self, index: usize) -> CreateJobRequest {
        let input = Input { source: Some(input::Source::Inline(self.input(index))), encoding: input::Encoding::Uint8.into() };
        let job = Job {
            model: self.model.clone(),
            input: Some(input),
            privacy: Privacy::InputCommitted.into(),
            context_nonce: self.nonce(index).to_bytes().to_vec(),
            ..Job::default()
        };
        CreateJobRequest { job: Some(job), request_id: uuid::Uuid::new_v4().to_string(), ..CreateJobRequest::default() }
    }

    async fn create(&self, server: usize, request: &CreateJobRequest) -> anyhow::Result<Job> {
        let call = |mut proofs: Proofs| {
            let request = request.clone();
            async move { proofs.create_job(request).await.map(Response::into_inner).map_err(Refusal::from) }
        };
        self.until_answered(server, "CreateJob", call).await
    }

    /// Waits for the end of a job, at one server and then another.
    ///
    /// # Errors
    /// The service refuses for good.
    pub async fn wait(&self, server: usize, name: &str) -> anyhow::Result<()> {
        let timeout = Some(WireDuration { seconds: WAIT_SECONDS, nanos: 0 });
        let request = WaitJobRequest { name: name.to_owned(), timeout };
        let call = |mut proofs: Proofs| {
            let request = request.clone();
            async move { proofs.wait_job(request).await.map(Response::into_inner).map_err(Refusal::from) }
        };
        loop {
            let job = self.until_answered(server, "WaitJob", call).await?;
            if is_final(job.state()) {
                return Ok(());
            }
        }
    }

    /// Repeats a call while the service is away, at one server after another.
    async fn until_answered<F: Future<Output = Result<Job, Refusal>>>(
        &self,
        server: usize,
        method: &str,
        call: impl Fn(Proofs) -> F,
    ) -> anyhow::Result<Job> {
        for channel in self.channels.iter().cycle().skip(server % self.channels.len()) {
            let answer = tokio::time::timeout(ANSWER, call(Proofs::new(channel.clone()))).await;
            match answer {
                Ok(Ok(job)) => return Ok(job),
                Ok(Err(refusal)) if refusal.is_transient() => {}
                // A fault of the service is told in the end, and the job is not given up for it.
                Ok(Err(refusal)) if refusal.kind == RefusalKind::Internal => self.seen.wrong(format!("{method}: {refusal}")),
                Ok(Err(refusal)) => bail!("{method}: {refusal}"),
                Err(_) => {}
            }
            self.seen.n_repeats.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        bail!("there is no server")
    }
}

/// Whether nothing follows this state.
pub fn is_final(state: job::State) -> bool {
    use job::State;
    match state {
        State::Succeeded | State::Failed | State::Cancelled | State::Expired => true,
        State::Unspecified | State::Queued | State::Running | State::Cancelling => false,
    }
}
