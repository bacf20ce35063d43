//! Clients of the load: they create, watch and ask.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use zkinfer_client::proto::{
    BatchCreateJobsRequest, CreateJobRequest, GetJobRequest, Input, Job, ListJobsRequest, Privacy, WatchJobRequest, input, job,
};
use zkinfer_proto::v1::admin_service_client::AdminServiceClient;
use zkinfer_proto::v1::proof_service_client::ProofServiceClient;
use zkinfer_proto::v1::{Quota, SetQuotaRequest};

use super::instant_prover::InstantProver;

/// Jobs created in one call while the queue is filled.
const BATCH: usize = 256;
/// Names that are remembered, to be asked for and watched.
pub(super) const REMEMBERED: usize = 20_000;
/// Between two looks whether a job may be created.
const LOOK: Duration = Duration::from_millis(10);
/// Between an answer and the next question.
const PAUSE: Duration = Duration::from_millis(2);
/// Between the end of a job and a look at the next one.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// Decimal digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;
/// The largest page of a list.
const PAGE: i32 = 1000;

/// When the next job is due.
#[derive(Clone, Debug)]
pub(super) enum Pace {
    /// While fewer than `n_queued` wait: one more for each that ended.
    Queue { prover: Arc<InstantProver>, n_queued: usize },
    /// So many a second since `began`, when `n_before` were there.
    Rate { began: Instant, n_before: usize, jobs_per_second: u32 },
}

impl Pace {
    fn is_due(&self, traffic: &Traffic) -> bool {
        match self {
            Self::Queue { prover, n_queued } => traffic.n_waiting(prover) < *n_queued,
            Self::Rate { began, n_before, jobs_per_second } => {
                let n_due = began.elapsed().as_secs_f64() * f64::from(*jobs_per_second);
                ((traffic.n_created.load(Ordering::Relaxed) - n_before) as f64) < n_due
            }
        }
    }
}

/// What all clients share.
#[derive(Debug)]
pub(super) struct Traffic {
    channel: Channel,
    model: String,
    names: Mutex<VecDeque<String>>,
    next: AtomicUsize,
    pub(super) n_created: AtomicUsize,
    pub(super) n_events: AtomicUsize,
    /// Streams that are open now.
    pub(super) n_streams: AtomicUsize,
}

impl Traffic {
    pub(super) async fn connect(address: &str, model: String) -> anyhow::Result<Self> {
        let channel = connect(address).await?;
        Ok(Self {
            channel,
            model,
            names: Mutex::default(),
            next: AtomicUsize::new(0),
            n_created: AtomicUsize::new(0),
            n_events: AtomicUsize::new(0),
            n_streams: AtomicUsize::new(0),
        })
    }

    /// Another connection.
    pub(super) async fn another(&self, address: &str) -> anyhow::Result<Channel> {
        connect(address).await
    }

    /// Jobs that are not proved yet.
    pub(super) fn n_waiting(&self, prover: &InstantProver) -> usize {
        self.n_created.load(Ordering::Relaxed).saturating_sub(prover.n_proved.load(Ordering::Relaxed))
    }

    /// Whether nothing of what waits is to begin.
    pub(super) async fn pause(&self, paused: bool) -> anyhow::Result<()> {
        let quota = Quota { tenant: "tenants/default".into(), paused, ..Quota::default() };
        AdminServiceClient::new(self.channel.clone()).set_quota(SetQuotaRequest { quota: Some(quota) }).await?;
        Ok(())
    }

    /// Creates `n` jobs in batches.
    pub(super) async fn fill(&self, n: usize) -> anyhow::Result<()> {
        let mut proofs = ProofServiceClient::new(self.channel.clone()).max_decoding_message_size(16 << 20);
        while self.n_created.load(Ordering::Relaxed) < n {
            let wanted = BATCH.min(n - self.n_created.load(Ordering::Relaxed));
            let requests = (0..wanted).map(|_| CreateJobRequest { request_id: String::new(), ..self.request() }).collect();
            let request_id = uuid::Uuid::new_v4().to_string();
            let request = BatchCreateJobsRequest { requests, request_id, ..BatchCreateJobsRequest::default() };
            proofs.batch_create_jobs(request).await?.into_inner().jobs.into_iter().for_each(|job| self.remember(job.name));
        }
        Ok(())
    }

    /// Creates jobs until `over`, each when it is due.
    pub(super) async fn create(self: Arc<Self>, pace: Pace, over: CancellationToken) -> anyhow::Result<()> {
        let mut proofs = ProofServiceClient::new(self.channel.clone());
        while !over.is_cancelled() {
            if !pace.is_due(&self) {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let job = proofs.create_job(self.request()).await?.into_inner();
            self.remember(job.name);
        }
        Ok(())
    }

    /// Watches one job after another to its end.
    pub(super) async fn watch(self: Arc<Self>, channel: Channel, over: CancellationToken) -> anyhow::Result<()> {
        let mut proofs = ProofServiceClient::new(channel);
        while !over.is_cancelled() {
            let request = WatchJobRequest { name: self.some()?, from_sequence: 0 };
            let mut stream = proofs.watch_job(request).await?.into_inner();
            self.n_streams.fetch_add(1, Ordering::Relaxed);
            while let Some(event) = over.run_until_cancelled(stream.message()).await {
                if event?.is_none() {
                    break;
                }
                self.n_events.fetch_add(1, Ordering::Relaxed);
            }
            self.n_streams.fetch_sub(1, Ordering::Relaxed);
            // Those of jobs that are over end at once: without a pause they would be most of the load.
            over.run_until_cancelled(tokio::time::sleep(WATCH_PAUSE)).await;
        }
        Ok(())
    }

    /// Asks for one job after another; answers how long the calls took, in microseconds. However many they are, that takes the same memory.
    pub(super) async fn ask(self: Arc<Self>, channel: Channel, over: CancellationToken) -> anyhow::Result<Histogram<u64>> {
        let mut proofs = ProofServiceClient::new(channel);
        let mut latencies = Histogram::new(LATENCY_DIGITS)?;
        while !over.is_cancelled() {
            let request = GetJobRequest { name: self.some()? };
            let began = Instant::now();
            proofs.get_job(request).await?;
            latencies.record(u64::try_from(began.elapsed().as_micros())?)?;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(latencies)
    }

    /// How many jobs are in one of these states, or in any if there are none, counted over all pages.
    pub(super) async fn count(&self, states: &[job::State]) -> anyhow::Result<usize> {
        let mut proofs = ProofServiceClient::new(self.channel.clone()).max_decoding_message_size(16 << 20);
        let (mut count, mut page_token) = (0, String::new());
        loop {
            let states = states.iter().map(|&state| state.into()).collect();
            let request = ListJobsRequest { page_size: PAGE, page_token, states, ..ListJobsRequest::default() };
            let page = proofs.list_jobs(request).await?.into_inner();
            count += page.jobs.len();
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(count);
            }
        }
    }

    fn request(&self) -> CreateJobRequest {
        let input = Input { source: Some(input::Source::Inline(vec![7; 4])), encoding: input::Encoding::Uint8.into() };
        let job = Job { model: self.model.clone(), input: Some(input), privacy: Privacy::InputCommitted.into(), ..Job::default() };
        CreateJobRequest { job: Some(job), request_id: uuid::Uuid::new_v4().to_string(), ..CreateJobRequest::default() }
    }

    fn remember(&self, name: String) {
        self.n_created.fetch_add(1, Ordering::Relaxed);
        let mut names = self.names();
        names.push_back(name);
        if names.len() > REMEMBERED {
            names.pop_front();
        }
    }

    /// One of the jobs, each time another: some are queued, some at their end.
    fn some(&self) -> anyhow::Result<String> {
        let names = self.names();
        let index = self.next.fetch_add(7919, Ordering::Relaxed) % names.len().max(1);
        names.get(index).cloned().context("there is no job yet")
    }

    fn names(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(address: &str) -> anyhow::Result<Channel> {
    Endpoint::from_shared(address.to_owned())?.connect().await.with_context(|| format!("no service at {address}"))
}
