//! A worker that is stopped for longer than its lease.

use anyhow::ensure;

use super::scene::{Blow, Caught, Scene, freeze, thaw};
use super::{Stage, Told};

pub(super) async fn stalled_worker(stage: &Stage) -> anyhow::Result<Told> {
    let mut scene = Scene::start(stage, &stage.layout()).await?;
    falls_silent(&mut scene, freeze, thaw).await?;
    scene.finish().await
}

/// A worker falls silent past its lease while it has a job, and comes back: another does the job, and what the worker then says changes nothing.
pub(super) async fn falls_silent(scene: &mut Scene, blow: Blow, mend: Blow) -> anyhow::Result<()> {
    let Caught { job, worker } = scene.catch(blow, mend).await?;
    scene.serve(3).await?;
    let done = scene.ended(&job).await?;
    let attempts = scene.attempts(&job).await?;
    let expected = [(worker, "LOST"), (1 - worker, "DONE")].map(|(worker, outcome)| (format!("worker-{worker}"), outcome.to_owned()));
    ensure!(attempts == expected, "the attempts at the job are {attempts:?}");
    mend(&scene.cluster, worker)?;
    scene.works_again(worker).await?;
    let (after, attempts) = (scene.client.job(&job).await?, scene.attempts(&job).await?);
    ensure!((after.result, after.last_sequence) == (done.result, done.last_sequence), "the job has changed after its end");
    ensure!(attempts == expected, "later the attempts at the job are {attempts:?}");
    Ok(())
}
