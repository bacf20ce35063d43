//! Where a fault happens: a cluster with a model, and clients that ask for proofs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tonic::transport::Channel;
use zkinfer_client::proto::{Job, JobTask};
use zkinfer_client::{Client, ClientOptions, RetryPolicy};

use super::{PATIENCE, Stage, Told};
use crate::chaos::clients::{Accepted, Clients, Seen, is_final};
use crate::chaos::invariants::{self, End};
use crate::chaos::network::Registered;
use crate::cluster::process::signal;
use crate::cluster::{Cluster, Layout};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);
/// Jobs that may end before they are caught.
const TRIES: usize = 30;

/// A cluster in which all jobs are known.
pub(super) struct Scene {
    pub(super) cluster: Cluster,
    pub(super) client: Client,
    registered: Registered,
    accepted: Vec<Accepted>,
    channels: Vec<Channel>,
    seen: Arc<Seen>,
    n_rounds: u64,
    figures: BTreeMap<&'static str, f64>,
}

/// What is done to a worker.
pub(super) type Blow = fn(&Cluster, usize) -> anyhow::Result<()>;

/// A job, and the worker that has it.
#[derive(Clone, Debug)]
pub(super) struct Caught {
    pub(super) job: String,
    pub(super) worker: usize,
}

impl Scene {
    pub(super) async fn start(stage: &Stage, layout: &Layout) -> anyhow::Result<Self> {
        let cluster = tokio::task::block_in_place(|| Cluster::start(layout))?;
        Self::of(cluster, &stage.models).await
    }

    async fn of(cluster: Cluster, models: &Path) -> anyhow::Result<Self> {
        let (first_wait, longest_wait) = (Duration::from_millis(100), Duration::from_secs(1));
        let retry = RetryPolicy { attempts: 100, first_wait, longest_wait, budget: PATIENCE };
        let client = Client::connect_with(&cluster.addresses()[0], ClientOptions { retry, ..ClientOptions::default() }).await?;
        let registered = Registered::register(&client, models).await?;
        has_provers(&cluster).await?;
        let channels = cluster.channels()?;
        let (accepted, seen, figures) = (Vec::new(), Arc::default(), BTreeMap::new());
        Ok(Self { cluster, client, registered, accepted, channels, seen, n_rounds: 0, figures })
    }

    /// A connection to the first server.
    pub(super) fn channel(&self) -> Channel {
        self.channels[0].clone()
    }

    /// Clients whose jobs no others have.
    pub(super) fn clients(&mut self) -> Clients {
        self.n_rounds += 1;
        Clients {
            channels: self.channels.clone(),
            model: self.registered.model.clone(),
            // Far from the next, since numbers of jobs are mixed into it.
            seed: self.n_rounds << 32,
            n_at_once: 8,
            end: End::Proven,
            seen: self.seen.clone(),
        }
    }

    /// Jobs are asked for and done.
    pub(super) async fn serve(&mut self, n_jobs: usize) -> anyhow::Result<()> {
        let served = tokio::time::timeout(PATIENCE, self.clients().run(n_jobs)).await;
        self.accepted.extend(served.context("jobs are not done")??);
        Ok(())
    }

    /// Names of all jobs.
    pub(super) fn known(&self) -> Vec<String> {
        self.accepted.iter().map(|job| job.name.clone()).collect()
    }

    /// One more job that will be looked at in the end.
    pub(super) fn know(&mut self, job: Accepted) {
        self.accepted.push(job);
    }

    /// One more job; it has not ended.
    pub(super) async fn begin(&mut self) -> anyhow::Result<String> {
        let job = self.clients().begin(0).await?;
        self.know(job.clone());
        Ok(job.name)
    }

    /// That job is to end otherwise than with a proof.
    pub(super) fn expect(&mut self, job: &str, end: End) {
        self.accepted.iter_mut().filter(|accepted| accepted.name == job).for_each(|accepted| accepted.end = end);
    }

    /// A job at its end.
    pub(super) async fn ended(&mut self, job: &str) -> anyhow::Result<Job> {
        let clients = self.clients();
        tokio::time::timeout(PATIENCE, clients.wait(0, job)).await.with_context(|| format!("{job} does not end"))??;
        Ok(self.client.job(job).await?)
    }

    pub(super) async fn tasks(&self, job: &str) -> anyhow::Result<Vec<JobTask>> {
        Ok(self.client.job_tasks(job).await?)
    }

    /// Worker and outcome of each attempt at the tasks of a job; the outcome is empty while it runs.
    pub(super) async fn attempts(&self, job: &str) -> anyhow::Result<Vec<(String, String)>> {
        let tasks = self.tasks(job).await?;
        Ok(tasks.into_iter().flat_map(|task| task.attempts).map(|attempt| (attempt.worker, attempt.outcome)).collect())
    }

    /// The worker that a job runs on now.
    async fn holder(&self, job: &str) -> anyhow::Result<Option<usize>> {
        let attempts = self.attempts(job).await?;
        let running = attempts.into_iter().find(|(_, outcome)| outcome.is_empty());
        Ok(running.and_then(|(worker, _)| worker.strip_prefix("worker-")?.parse().ok()))
    }

    /// Waits until a job runs on a worker; `None`: it ended first.
    pub(super) async fn runs_on(&self, job: &str) -> anyhow::Result<Option<usize>> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(worker) = self.holder(job).await? {
                return Ok(Some(worker));
            }
            if is_final(self.client.job(job).await?.state()) {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("{job} does not begin")
    }

    /// Whether a job runs on that worker, which does not get on with it.
    pub(super) async fn stays_on(&self, job: &str, worker: usize) -> anyhow::Result<bool> {
        // What the worker had sent before may be on its way.
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(self.holder(job).await? == Some(worker))
    }

    /// Waits until so many attempts at a job are known to be lost, or it has ended.
    pub(super) async fn loses(&self, job: &str, n_lost: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.attempts(job).await?.iter().filter(|(_, outcome)| outcome == "LOST").count() < n_lost {
            ensure!(began.elapsed() < PATIENCE, "that its worker died is not noticed of {job}");
            if is_final(self.client.job(job).await?.state()) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Gives a worker `blow` while it has a job; where the job ended first, `mend` and another job.
    pub(super) async fn catch(&mut self, blow: Blow, mend: Blow) -> anyhow::Result<Caught> {
        for _ in 0..TRIES {
            let job = self.begin().await?;
            let Some(worker) = self.runs_on(&job).await? else { continue };
            blow(&self.cluster, worker)?;
            if self.stays_on(&job, worker).await? {
                return Ok(Caught { job, worker });
            }
            mend(&self.cluster, worker)?;
        }
        bail!("{TRIES} jobs ended before they were caught")
    }

    /// Jobs are done, several at a time, until `worker` has done one.
    pub(super) async fn works_again(&mut self, worker: usize) -> anyhow::Result<()> {
        let name = format!("worker-{worker}");
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let n_before = self.accepted.len();
            self.serve(4).await?;
            for job in &self.accepted[n_before..] {
                if self.attempts(&job.name).await?.contains(&(name.clone(), "DONE".to_owned())) {
                    return Ok(());
                }
            }
        }
        bail!("{name} does no task any more")
    }

    /// The process of the server, and its resident memory, in bytes: from now on its peak counts, and not that of its start.
    pub(super) fn server_from_now(&self) -> anyhow::Result<(u32, u64)> {
        let pid = self.cluster.server_process(0).context("no server")?;
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the peak of the server's memory cannot be reset")?;
        self.server()
    }

    /// The process of the server, and the largest resident memory that it has had, in bytes.
    pub(super) fn server(&self) -> anyhow::Result<(u32, u64)> {
        let pid = self.cluster.server_process(0).context("no server")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the server is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no memory of the server")?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok((pid, kibibytes * 1024))
    }

    /// The server is the process that it was, and its memory has not grown by more than `room` since then.
    pub(super) fn check_memory(&mut self, before: (u32, u64), room: u64) -> anyhow::Result<()> {
        let (pid, peak) = self.server()?;
        ensure!(pid == before.0, "the server was started again");
        let growth = peak.saturating_sub(before.1);
        self.note("growth_bytes", growth as f64);
        ensure!(growth < room, "the memory of the server grew by {growth} bytes");
        Ok(())
    }

    /// Notes a figure.
    pub(super) fn note(&mut self, name: &'static str, value: f64) {
        self.figures.insert(name, value);
    }

    /// Looks at every job.
    pub(super) async fn finish(mut self) -> anyhow::Result<Told> {
        let findings = invariants::check(&self.channels[0], &self.client, &self.registered, &self.accepted).await?;
        let mut violations = findings.violations;
        violations.extend(self.seen.wrong.lock().map(|wrong| wrong.clone()).unwrap_or_default());
        let n_lost = findings.attempts.get("LOST").copied().unwrap_or(0);
        Ok(Told { n_jobs: self.accepted.len(), n_lost, figures: std::mem::take(&mut self.figures), violations })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A stopped prover does not notice that its supervisor is gone.
        (0..2).for_each(|worker| thaw(&self.cluster, worker).unwrap_or_default());
    }
}

/// Waits until both workers have a process that proves.
async fn has_provers(cluster: &Cluster) -> anyhow::Result<()> {
    let began = Instant::now();
    while (0..2).any(|worker| cluster.worker_processes(worker).len() < 2) {
        ensure!(began.elapsed() < PATIENCE, "a worker starts no prover");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Stops all processes of a worker.
pub(super) fn freeze(cluster: &Cluster, worker: usize) -> anyhow::Result<()> {
    let processes = cluster.worker_processes(worker);
    ensure!(processes.len() > 1, "worker-{worker} has no prover");
    processes.into_iter().for_each(|pid| signal("-STOP", pid));
    Ok(())
}

/// Lets them go on.
pub(super) fn thaw(cluster: &Cluster, worker: usize) -> anyhow::Result<()> {
    cluster.worker_processes(worker).into_iter().for_each(|pid| signal("-CONT", pid));
    Ok(())
}
