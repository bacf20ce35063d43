//! A network between worker and server that falls apart, in one direction or both, or carries little.

use anyhow::{Context, ensure};

use super::scene::{Blow, Caught, Scene};
use super::stalled::falls_silent;
use super::{Stage, Told, Unmet, need_root};
use crate::cluster::network::{Direction, Namespace};
use crate::cluster::{Cluster, Layout, Network};

/// Each worker in a network namespace of its own.
async fn scene(stage: &Stage) -> anyhow::Result<Scene> {
    need_root()?;
    // The last of those that there may be; no worker has it.
    let probe = Namespace::create(63, ([127, 0, 0, 1], 1).into());
    drop(probe.map_err(|error| Unmet(format!("no network namespace can be made: {error:#}")))?);
    Scene::start(stage, &Layout { network: Network::Namespaces, ..stage.layout() }).await
}

fn namespace(cluster: &Cluster, worker: usize) -> anyhow::Result<&Namespace> {
    cluster.namespace(worker).context("that worker has no cable")
}

pub(super) async fn partition(stage: &Stage) -> anyhow::Result<Told> {
    let mut scene = scene(stage).await?;
    falls_silent(&mut scene, |cluster, worker| namespace(cluster, worker)?.unplug(), |cluster, worker| namespace(cluster, worker)?.plug())
        .await?;
    scene.finish().await
}

pub(super) async fn one_way_loss(stage: &Stage) -> anyhow::Result<Told> {
    let mut scene = scene(stage).await?;
    // The server hears nothing of the worker: as if the cable were cut.
    falls_silent(
        &mut scene,
        |cluster, worker| namespace(cluster, worker)?.lose(Direction::ToServer),
        |cluster, worker| namespace(cluster, worker)?.find(Direction::ToServer),
    )
    .await?;
    // The worker hears nothing, and the server may hear of the job's end.
    let blow: Blow = |cluster, worker| namespace(cluster, worker)?.lose(Direction::ToWorker);
    let mend: Blow = |cluster, worker| namespace(cluster, worker)?.find(Direction::ToWorker);
    let Caught { job, worker } = scene.catch(blow, mend).await?;
    scene.serve(3).await?;
    scene.ended(&job).await?;
    mend(&scene.cluster, worker)?;
    scene.works_again(worker).await?;
    scene.finish().await
}

pub(super) async fn slow_link(stage: &Stage) -> anyhow::Result<Told> {
    let mut scene = scene(stage).await?;
    let slowed = namespace(&scene.cluster, 0)?.slow_down();
    slowed.map_err(|error| Unmet(format!("no cable can be slowed: {error:#}")))?;
    scene.works_again(0).await?;
    scene.works_again(0).await?;
    for job in scene.known() {
        let attempts = scene.attempts(&job).await?;
        ensure!(matches!(&attempts[..], [(_, outcome)] if outcome == "DONE"), "the attempts at {job} are {attempts:?}");
    }
    let n_delayed = namespace(&scene.cluster, 0)?.n_delayed()?;
    ensure!(n_delayed > 0, "the cable delayed nothing");
    scene.note("packets_delayed", n_delayed as f64);
    scene.finish().await
}
