//! A store that gives back other bytes than it was given, or none.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use zkinfer_client::proto::{JobTask, ReadArtifactRequest, input};
use zkinfer_client::{Refusal, RefusalKind};
use zkinfer_proto::v1::artifact_service_client::ArtifactServiceClient;
use zkinfer_server::limits::Limits;

use super::scene::{Scene, freeze, thaw};
use super::{Stage, Told};
use crate::chaos::clients::is_final;
use crate::chaos::invariants::End;
use crate::cluster::{Layout, Victim};

/// Jobs that may end before their results are damaged.
const TRIES: usize = 10;
/// Tasks that are done before that, of ten.
const N_DONE: usize = 4;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

pub(super) async fn damaged_artifacts(stage: &Stage) -> anyhow::Result<Told> {
    let mut scene = Scene::start(stage, &stage.layout()).await?;
    damaged_input(&mut scene).await?;
    damaged_proof(&mut scene).await?;
    scene.finish().await
}

async fn damaged_input(scene: &mut Scene) -> anyhow::Result<()> {
    let clients = scene.clients();
    let source = clients.request(0).job.and_then(|job| job.input).and_then(|input| input.source);
    let Some(input::Source::Inline(input)) = source else { bail!("the input is not in the request") };
    // Nobody begins before the bytes are changed.
    (0..2).try_for_each(|worker| freeze(&scene.cluster, worker))?;
    let job = clients.begin(0).await?;
    let file = public(scene, &blake3::hash(&input).to_hex());
    flip_last_byte(&file)?;
    (0..2).try_for_each(|worker| thaw(&scene.cluster, worker))?;
    scene.know(job.clone());
    scene.expect(&job.name, End::Failed("STORAGE"));
    scene.serve(3).await?;
    scene.ended(&job.name).await?;
    // The disk is mended: what failed can be asked for again.
    flip_last_byte(&file)?;
    let job = clients.begin(0).await?;
    scene.know(job.clone());
    scene.ended(&job.name).await?;
    Ok(())
}

async fn damaged_proof(scene: &mut Scene) -> anyhow::Result<()> {
    let job = scene.begin().await?;
    let name = scene.ended(&job).await?.result.context("the job has no result")?.proof_artifact;
    let file = public(scene, name.rsplit('/').next().unwrap_or_default());
    flip_last_byte(&file)?;
    let mut artifacts = ArtifactServiceClient::new(scene.channel());
    let read = artifacts.read_artifact(ReadArtifactRequest { name, ..ReadArtifactRequest::default() }).await;
    let first = match read {
        Ok(stream) => stream.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    };
    let refusal = first.map_err(Refusal::from).err().context("a changed proof is sent")?;
    ensure!((refusal.kind, refusal.reason.as_str()) == (RefusalKind::Internal, "STORED_BYTES_DAMAGED"), "ReadArtifact: {refusal}");
    flip_last_byte(&file)
}

pub(super) async fn damaged_results(stage: &Stage) -> anyhow::Result<Told> {
    let limits = Limits { fuse_below: Duration::ZERO, ..stage.limits() };
    let mut scene = Scene::start(stage, &Layout { limits, ..stage.layout() }).await?;
    let (job, lost) = lose_results(&mut scene).await?;
    // What a worker remembers of a job goes with it.
    for worker in 0..2 {
        for victim in [Victim::Prover(worker), Victim::Supervisor(worker)] {
            tokio::task::block_in_place(|| scene.cluster.strike(victim, Duration::ZERO))?;
        }
    }
    scene.serve(2).await?;
    scene.ended(&job).await?;
    let is_again = |task: &&JobTask| task.attempts.iter().any(|attempt| attempt.outcome == "DAMAGED");
    let n_again = scene.tasks(&job).await?.iter().filter(is_again).count();
    let n_intact = lost.iter().filter(|file| is_intact(file)).count();
    scene.note("results_lost", lost.len() as f64);
    scene.note("tasks_done_again", n_again as f64);
    ensure!(n_again > 0, "no task was done again, though {} results were lost", lost.len());
    ensure!(n_intact >= n_again, "{n_again} tasks were done again, and {n_intact} results lie there as they were");
    scene.finish().await
}

/// A job in the middle of its steps, all whose results are lost; with their files.
async fn lose_results(scene: &mut Scene) -> anyhow::Result<(String, Vec<PathBuf>)> {
    for _ in 0..TRIES {
        let before = files(&internal(scene))?;
        let job = scene.begin().await?;
        while n_done(scene, &job).await? < N_DONE {
            tokio::time::sleep(LOOK).await;
        }
        (0..2).try_for_each(|worker| freeze(&scene.cluster, worker))?;
        if !is_final(scene.client.job(&job).await?.state()) {
            let lost: Vec<PathBuf> = files(&internal(scene))?.difference(&before).cloned().collect();
            for (number, file) in lost.iter().enumerate() {
                match number % 3 {
                    0 => flip_last_byte(file)?,
                    1 => fs::write(file, b"")?,
                    _ => fs::remove_file(file)?,
                }
            }
            return Ok((job, lost));
        }
        (0..2).try_for_each(|worker| thaw(&scene.cluster, worker))?;
    }
    bail!("{TRIES} jobs ended before their results were lost")
}

async fn n_done(scene: &Scene, job: &str) -> anyhow::Result<usize> {
    Ok(scene.tasks(job).await?.iter().filter(|task| task.state == "DONE").count())
}

fn public(scene: &Scene, hash: &str) -> PathBuf {
    scene.cluster.folder().join("artifacts/public/default").join(&hash[..2]).join(hash)
}

fn internal(scene: &Scene) -> PathBuf {
    scene.cluster.folder().join("artifacts/internal")
}

/// All files below a folder.
fn files(folder: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.insert(path);
        }
    }
    Ok(found)
}

fn flip_last_byte(file: &Path) -> anyhow::Result<()> {
    let mut bytes = fs::read(file).with_context(|| format!("no artifact {}", file.display()))?;
    *bytes.last_mut().context("an empty artifact")? ^= 1;
    Ok(fs::write(file, bytes)?)
}

fn is_intact(file: &Path) -> bool {
    let is_named = |bytes: Vec<u8>| file.file_name().is_some_and(|name| name == blake3::hash(&bytes).to_hex().as_str());
    fs::read(file).is_ok_and(is_named)
}
