//! Clocks that disagree by more than a day.

use std::time::Duration;

use super::scene::Scene;
use super::{Stage, Told, Unmet};
use crate::cluster::{Clocks, Layout, Victim};

pub(super) async fn skewed_clocks(stage: &Stage) -> anyhow::Result<Told> {
    Clocks::Skewed.check().map_err(|error| Unmet(error.to_string()))?;
    let mut scene = Scene::start(stage, &Layout { clocks: Clocks::Skewed, ..stage.layout() }).await?;
    let asking = tokio::spawn({
        let clients = scene.clients();
        async move { clients.run(6).await }
    });
    for victim in [Victim::Prover(0), Victim::Server(0)] {
        tokio::time::sleep(Duration::from_millis(500)).await;
        tokio::task::block_in_place(|| scene.cluster.strike(victim, Duration::from_millis(100)))?;
    }
    asking.await??.into_iter().for_each(|job| scene.know(job));
    scene.serve(2).await?;
    scene.finish().await
}
