//! Real proofs from a queue: a service in processes of its own, one for each device, and more jobs than it can prove at a time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use zkinfer_client::proto::Job;
use zkinfer_client::{Client, ContextNonce, JobRequest, MediaType, ModelRequest, ProfileName, verify_locally};

use crate::cluster::process::{Environment, Process};
use crate::record::Record;
use crate::usage::cpu_seconds_of;
use crate::workload::{Workload, to_npy};

/// How long a service may take to listen: circuits may have to be built, devices to be tested.
const PATIENCE: Duration = Duration::from_secs(300);

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
    for &workers in &plan.workers {
        let service = Service::start(plan, workers, folder.path()).await?;
        record.set("backend", &service.client.server_info().await?.backend);
        let model = register(&service.client, workload).await?;
        // What is kept from one proof to the next is made before the clock runs.
        let warm = queue(&service.client, &model, workload, usize::from(workers)).await?;
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

/// A running service, and a connection.
struct Service {
    process: Process,
    client: Client,
}

impl Service {
    async fn start(plan: &Plan, workers: u16, folder: &Path) -> anyhow::Result<Self> {
        let (address_file, log) = (folder.join(format!("address-{workers}")), folder.join(format!("log-{workers}")));
        let mut line: Vec<_> = ["serve", "--listen", "127.0.0.1:0", "--log", "info", "--device", &plan.device].map(Into::into).into();
        for (option, path) in [("--data-dir", &folder.join(format!("data-{workers}"))), ("--cache-dir", &folder.join("cache"))] {
            line.extend([option.into(), path.into()]);
        }
        line.extend(["--workers".into(), workers.to_string().into(), "--address-file".into(), address_file.clone().into()]);
        let mut process = Process::start(&plan.program, line, Environment::new(), log.clone())?;
        let began = Instant::now();
        while !address_file.exists() {
            let is_there = began.elapsed() < PATIENCE && !process.has_ended();
            ensure!(is_there, "zkinferd does not listen; its log:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let address = std::fs::read_to_string(&address_file)?;
        let client = Client::connect(&format!("http://{}", address.trim())).await?;
        Ok(Self { process, client })
    }

    /// Processor time of the service and of the processes of its devices.
    fn cpu_seconds(&self) -> f64 {
        let children = self.process.children();
        std::iter::once(self.process.id()).chain(children).map(cpu_seconds_of).sum()
    }

    fn end(mut self) -> anyhow::Result<bool> {
        self.process.end()
    }
}

async fn register(client: &Client, workload: &Workload) -> anyhow::Result<String> {
    let network = client.upload(&workload.network, MediaType::Onnx).await?;
    let calibration = client.upload(&to_npy(&workload.calibration).into(), MediaType::Npy).await?;
    let request = ModelRequest { calibration_artifact: calibration.name, ..ModelRequest::new("network", network.name) };
    let model = client.create_model(&request).await?;
    client.finish_model(&model.name, |_| {}).await?;
    Ok(model.name)
}

fn nonce() -> ContextNonce {
    ContextNonce::of_context(b"benchmark")
}

async fn queue(client: &Client, model: &str, workload: &Workload, n_jobs: usize) -> anyhow::Result<Vec<Job>> {
    let inputs = workload.inputs.iter().cycle().take(n_jobs);
    let request = |input: &Vec<f32>| JobRequest::npy(model, to_npy(std::slice::from_ref(input))).with_nonce(nonce()).with_private_input();
    Ok(client.create_jobs(&inputs.map(request).collect::<Vec<_>>()).await?)
}

/// In the order of the queue: who has seen one end finds most others ended.
async fn finish(client: &Client, jobs: Vec<Job>) -> anyhow::Result<Vec<Job>> {
    let mut ended = Vec::with_capacity(jobs.len());
    for job in jobs {
        ended.push(client.finish_job(&job.name, |_| {}).await?);
    }
    Ok(ended)
}

async fn verify(client: &Client, jobs: &[Job]) -> anyhow::Result<()> {
    for job in jobs {
        let documents = client.documents(job).await?;
        verify_locally(&documents.key, &documents.statement, &documents.proof, &[ProfileName::Default], nonce())
            .with_context(|| format!("the proof of {} is refused", job.name))?;
    }
    Ok(())
}
