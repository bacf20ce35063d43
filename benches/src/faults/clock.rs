//! Clocks that disagree by more than a day.

use std::time::Duration;

use anyhow::{bail, ensure};

use super::scene::Scene;
use super::{Stage, Told, Unmet};
use crate::cluster::{Clocks, Layout, Victim};

/// Jobs that may end before their prover is killed.
const TRIES: usize = 20;

pub(super) async fn skewed_clocks(stage: &Stage) -> anyhow::Result<Told> {
    Clocks::Skewed.check().map_err(|error| Unmet(format!("{error:#}")))?;
    let mut scene = Scene::start(stage, &Layout { clocks: Clocks::Skewed, ..stage.layout() }).await?;
    ensure!(scene.cluster.has_other_clocks(), "a process has the clock of the machine");
    scene.serve(3).await?;
    prover_dies(&mut scene).await?;
    let job = scene.begin().await?;
    ensure!(scene.runs_on(&job).await?.is_some(), "the job has ended before the server is killed");
    tokio::task::block_in_place(|| scene.cluster.strike(Victim::Server(0), Duration::from_millis(100)))?;
    scene.ended(&job).await?;
    scene.serve(2).await?;
    scene.finish().await
}

/// A prover is killed while it has a job, which another attempt does.
async fn prover_dies(scene: &mut Scene) -> anyhow::Result<()> {
    for _ in 0..TRIES {
        let job = scene.begin().await?;
        let Some(worker) = scene.runs_on(&job).await? else { continue };
        tokio::task::block_in_place(|| scene.cluster.strike(Victim::Prover(worker), Duration::ZERO))?;
        scene.ended(&job).await?;
        if scene.attempts(&job).await?.iter().any(|(_, outcome)| outcome == "LOST") {
            return Ok(());
        }
    }
    bail!("{TRIES} jobs ended before their prover was killed")
}
