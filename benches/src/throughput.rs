//! Real proofs from a queue: a service in processes of its own, one for each device, and more jobs than it can prove at a time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use zkinfer_client::proto::Job;
use zkinfer_client::{Client, JobRequest, ProfileName, verify_locally};

use crate::cluster::process::{Environment, Process};
use crate::record::Record;
use crate::usage::cpu_seconds_of;
use crate::workload::{Workload, nonce, to_npy};

/// How long a service may take to listen: circuits may have to be built, devices to be tested.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a queue may take.
const LONGEST_QUEUE: Duration = Duration::from_secs(3600);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program `zkinferd`.
    pub program: PathBuf,
    /// What it proves on: `auto`, `cpu` or numbers of devices.
    pub device: String,
    /// Proofs at a time on each device, or on the CPU; each is measured.
    pub workers: Vec<u16>,
    /// Jobs that are queued at once.
    pub n_jobs: usize,
}

/// Measures `plan.n_jobs` proofs of a network that are queued at once, for each number of workers. Every proof is verified, after the time is taken.
///
/// # Errors
/// Whatever fails on the way, a proof that does not verify included.
pub async fn run(workload: &Workload, plan: &Plan, record: &mut Record) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    record.set("network", workload.description);
    record.set("device", &plan.device);
    record.set("jobs", plan.n_jobs);
    let cache_dir = folder.path().join("cache");
    for &workers in &plan.workers {
        let service = Daemon::start(plan, workers, &cache_dir).await?;
        let info = service.client.server_info().await?;
        record.set("backend", &info.backend);
        let model = workload.register(&service.client).await?;
        // What is kept from one proof to the next is made before the clock runs, on each device.
        let n_devices = service.process.children().len().max(1);
        let warm = queue(&service.client, &model, workload, usize::from(workers) * n_devices).await?;
        finish(&service.client, warm).await?;

        let (began, cpu_s) = (Instant::now(), service.cpu_seconds());
        let queued = queue(&service.client, &model, workload, plan.n_jobs).await?;
        let jobs = finish(&service.client, queued).await?;
        let (wall_s, cpu_s) = (began.elapsed().as_secs_f64(), service.cpu_seconds() - cpu_s);
        verify(&service.client, &jobs).await?;
        record.add_single(&format!("workers_{workers}_proofs_per_s"), plan.n_jobs as f64 / wall_s);
        record.add_single(&format!("workers_{workers}_cpu_s_per_proof"), cpu_s / plan.n_jobs as f64);
        ensure!(service.end()?, "the service did not end well");
    }
    Ok(())
}

/// A `zkinferd serve`, and a connection.
struct Daemon {
    // Before the folder that it writes to, as fields are dropped in order.
    process: Process,
    client: Client,
    _folder: TempDir,
}

impl Daemon {
    async fn start(plan: &Plan, workers: u16, cache_dir: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (address_file, log) = (folder.path().join("address"), folder.path().join("log"));
        let mut line: Vec<_> = ["serve", "--listen", "127.0.0.1:0", "--log", "info", "--device", &plan.device].map(Into::into).into();
        line.extend(["--workers".into(), workers.to_string().into()]);
        let data_dir = folder.path().join("data");
        for (option, path) in [("--data-dir", data_dir.as_path()), ("--cache-dir", cache_dir), ("--address-file", &address_file)] {
            line.extend([option.into(), path.into()]);
        }
        let mut process = Process::start(&plan.program, line, Environment::new(), log.clone())?;
        let began = Instant::now();
        while !address_file.exists() {
            let is_there = began.elapsed() < PATIENCE && !process.has_ended();
            ensure!(is_there, "zkinferd does not listen; its log:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let address = std::fs::read_to_string(&address_file)?;
        let client = Client::connect(&format!("http://{}", address.trim())).await?;
        Ok(Self { process, client, _folder: folder })
    }

    /// Processor time of the service and of the processes of its devices that run now.
    fn cpu_seconds(&self) -> f64 {
        let children = self.process.children();
        std::iter::once(self.process.id()).chain(children).map(cpu_seconds_of).sum()
    }

    fn end(mut self) -> anyhow::Result<bool> {
        self.process.end()
    }
}

async fn queue(client: &Client, model: &str, workload: &Workload, n_jobs: usize) -> anyhow::Result<Vec<Job>> {
    let inputs = workload.inputs.iter().cycle().take(n_jobs);
    let request = |input: &Vec<f32>| JobRequest::npy(model, to_npy(std::slice::from_ref(input))).with_nonce(nonce()).with_private_input();
    Ok(client.create_jobs(&inputs.map(request).collect::<Vec<_>>()).await?)
}

/// In the order of the queue: who has seen one end finds most others ended.
async fn finish(client: &Client, jobs: Vec<Job>) -> anyhow::Result<Vec<Job>> {
    let ended = async {
        let mut ended = Vec::with_capacity(jobs.len());
        for job in jobs {
            ended.push(client.finish_job(&job.name, |_| {}).await?);
        }
        anyhow::Ok(ended)
    };
    tokio::time::timeout(LONGEST_QUEUE, ended).await.context("the queue did not end within an hour")?
}

async fn verify(client: &Client, jobs: &[Job]) -> anyhow::Result<()> {
    for job in jobs {
        let documents = client.documents(job).await?;
        verify_locally(&documents.key, &documents.statement, &documents.proof, &[ProfileName::Default], nonce())
            .with_context(|| format!("the proof of {} is refused", job.name))?;
    }
    Ok(())
}
