//! Disks without space: small file systems in memory, which only root can mount.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;
use zkinfer_client::proto::job::State;
use zkinfer_client::proto::{BeginUploadRequest, CreateJobRequest, WriteChunksRequest};
use zkinfer_client::{Refusal, RefusalKind};
use zkinfer_proto::v1::artifact_service_client::ArtifactServiceClient;
use zkinfer_proto::v1::proof_service_client::ProofServiceClient;

use super::scene::Scene;
use super::{Stage, Told, Unmet, need_root};
use crate::chaos::clients::Clients;
use crate::cluster::{Disks, Layout, Victim};

/// Room for artifacts and SQLite, and little more.
const DATA: &str = "size=12m";
/// Room for PostgreSQL, and little more.
const DATABASE: &str = "size=112m";
/// Bytes of an upload for which there is no room.
const UPLOAD_BYTES: usize = 256 << 10;

/// Unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(size: &str) -> anyhow::Result<Self> {
        need_root()?;
        let folder = tempfile::Builder::new().prefix("zkinfer-disk-").tempdir().context("no temporary folder")?;
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(folder.path()).output();
        let output = output.map_err(|error| Unmet(format!("no mount: {error}")))?;
        if !output.status.success() {
            return Err(Unmet(format!("no small disk can be mounted: {}", String::from_utf8_lossy(&output.stderr).trim())).into());
        }
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Takes all space that is left.
    fn fill(&self) -> anyhow::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.ballast())?;
        for block in [vec![1; 64 << 10], vec![1; 1 << 10], vec![1; 1]] {
            while file.write_all(&block).is_ok() {}
        }
        Ok(())
    }

    /// Gives it back.
    fn relieve(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.ballast()).context("no ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

pub(super) async fn full_disk(stage: &Stage) -> anyhow::Result<Told> {
    let disk = SmallDisk::mount(DATA)?;
    let disks = Disks { data: Some(disk.path().to_owned()), database: None };
    let mut scene = Scene::start(stage, &Layout { disks, ..stage.layout() }).await?;
    let (before, running) = (done_job(&mut scene).await?, scene.begin().await?);
    disk.fill()?;
    let clients = scene.clients();
    let requests: Vec<CreateJobRequest> = (0..40).map(|index| clients.request(index)).collect();
    let mut refused = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        if !is_taken(&mut scene, &clients, index, request).await? {
            refused.push((index, request));
        }
    }
    scene.note("refusals", refused.len() as f64);
    ensure!(refused.len() > 20, "only {} of 40 creations are refused", refused.len());
    upload_is_refused(&scene).await?;
    reads_go_on(&scene, &before).await?;

    disk.relieve()?;
    for (index, request) in refused.into_iter().take(3) {
        ensure!(is_taken(&mut scene, &clients, index, request).await?, "a creation is refused though there is space");
    }
    scene.ended(&running).await?;
    scene.serve(2).await?;
    // Nothing is damaged: it opens, which checks the database, and has what it had.
    tokio::task::block_in_place(|| scene.cluster.strike(Victim::Server(0), Duration::ZERO))?;
    reads_go_on(&scene, &before).await?;
    all_end(&mut scene, &clients).await?;
    scene.finish().await
}

pub(super) async fn full_database_disk(stage: &Stage) -> anyhow::Result<Told> {
    let disk = SmallDisk::mount(DATABASE)?;
    let disks = Disks { data: None, database: Some(disk.path().to_owned()) };
    let mut scene = Scene::start(stage, &Layout { disks, ..stage.layout() }).await?;
    let (before, running) = (done_job(&mut scene).await?, scene.begin().await?);
    disk.fill()?;
    let clients = scene.clients();
    let (mut n_refusals, mut n_asked) = (0, 0);
    // Its tables have a little room.
    while n_refusals < 5 && n_asked < 200 {
        let is_taken = is_taken(&mut scene, &clients, n_asked, &clients.request(n_asked)).await?;
        (n_refusals, n_asked) = (n_refusals + usize::from(!is_taken), n_asked + 1);
    }
    scene.note("refusals", n_refusals as f64);
    scene.note("creations", n_asked as f64);
    ensure!(n_refusals == 5, "{n_refusals} of {n_asked} creations are refused");
    // It may have ended, and then not start before there is space.
    let mended = tokio::task::block_in_place(|| scene.cluster.mend_database());
    let has_ended = !matches!(mended, Ok(false));
    if mended.is_ok() {
        reads_go_on(&scene, &before).await?;
    }

    disk.relieve()?;
    let has_ended = tokio::task::block_in_place(|| scene.cluster.mend_database())? || has_ended;
    scene.note("database_ended", f64::from(u8::from(has_ended)));
    scene.ended(&running).await?;
    scene.serve(2).await?;
    reads_go_on(&scene, &before).await?;
    all_end(&mut scene, &clients).await?;
    scene.finish().await
}

/// A job that has ended.
async fn done_job(scene: &mut Scene) -> anyhow::Result<String> {
    let job = scene.begin().await?;
    scene.ended(&job).await?;
    Ok(job)
}

/// Asks for job number `index`; answers whether there is space for it.
async fn is_taken(scene: &mut Scene, clients: &Clients, index: usize, request: &CreateJobRequest) -> anyhow::Result<bool> {
    match ProofServiceClient::new(scene.channel()).create_job(request.clone()).await.map_err(Refusal::from) {
        Ok(job) => {
            scene.know(clients.accepted(index, job.into_inner().name));
            Ok(true)
        }
        Err(refusal) => is_full(&refusal).map(|()| false),
    }
}

fn is_full(refusal: &Refusal) -> anyhow::Result<()> {
    ensure!((refusal.kind, refusal.reason.as_str()) == (RefusalKind::Exhausted, "STORAGE_FULL"), "not STORAGE_FULL: {refusal}");
    Ok(())
}

async fn upload_is_refused(scene: &Scene) -> anyhow::Result<()> {
    let bytes = vec![7; UPLOAD_BYTES];
    let mut artifacts = ArtifactServiceClient::new(scene.channel());
    let request = BeginUploadRequest {
        size_bytes: i64::try_from(bytes.len())?,
        blake3: blake3::hash(&bytes).as_bytes().to_vec(),
        ..BeginUploadRequest::default()
    };
    let begun = artifacts.begin_upload(request).await.map_err(Refusal::from);
    let refused = match begun {
        Ok(session) => {
            let upload = session.into_inner().upload;
            let chunk = WriteChunksRequest { upload, write_offset: 0, crc32c: crc32c::crc32c(&bytes), data: bytes.into() };
            artifacts.write_chunks(futures::stream::iter([chunk])).await.map(drop).map_err(Refusal::from)
        }
        Err(refusal) => Err(refusal),
    };
    let refusal = refused.err().context("an upload is taken for which there is no space")?;
    is_full(&refusal)
}

/// A job that is done can be read, and its documents.
async fn reads_go_on(scene: &Scene, job: &str) -> anyhow::Result<()> {
    let job = scene.client.job(job).await?;
    ensure!(job.state() == State::Succeeded, "{} is {}", job.name, job.state().as_str_name());
    scene.client.documents(&job).await?;
    Ok(())
}

async fn all_end(scene: &mut Scene, clients: &Clients) -> anyhow::Result<()> {
    for job in scene.known() {
        tokio::time::timeout(super::PATIENCE, clients.wait(0, &job)).await.with_context(|| format!("{job} does not end"))??;
    }
    Ok(())
}
