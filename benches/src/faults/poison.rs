//! A job that every process dies of.

use anyhow::{bail, ensure};
use zkinfer_client::proto::job::State;

use super::scene::Scene;
use super::{Stage, Told};
use crate::chaos::clients::is_final;
use crate::chaos::invariants::End;
use crate::cluster::Cluster;
use crate::cluster::process::signal;

/// Jobs that may get through before one is poisoned.
const TRIES: usize = 10;

pub(super) async fn poisoned_job(stage: &Stage) -> anyhow::Result<Told> {
    let mut scene = Scene::start(stage, &stage.layout()).await?;
    let others = tokio::spawn({
        let clients = scene.clients();
        async move { clients.run(6).await }
    });
    let mut n_kills = 0;
    let job = poison_one(&mut scene, &mut n_kills).await?;
    others.await??.into_iter().for_each(|job| scene.know(job));
    let n_lost = scene.attempts(&job).await?.iter().filter(|(_, outcome)| outcome == "LOST").count();
    ensure!(n_lost == 2, "{n_lost} attempts at the job were lost");
    scene.expect(&job, End::Failed("POISONED"));
    scene.note("kills", n_kills as f64);
    scene.serve(2).await?;
    scene.finish().await
}

/// Kills whoever proves a job, until it fails.
async fn poison_one(scene: &mut Scene, n_kills: &mut usize) -> anyhow::Result<String> {
    for _ in 0..TRIES {
        let job = scene.begin().await?;
        let mut n_lost = 0;
        while let Some(worker) = scene.runs_on(&job).await? {
            // Stopped before it is killed: so nobody is killed who has taken up another job.
            signal_provers(&scene.cluster, worker, "-STOP");
            let has_it = scene.stays_on(&job, worker).await?;
            signal_provers(&scene.cluster, worker, if has_it { "-KILL" } else { "-CONT" });
            if has_it {
                (n_lost, *n_kills) = (n_lost + 1, *n_kills + 1);
                // Until then it looks as if it ran there.
                scene.loses(&job, n_lost).await?;
            }
        }
        let ended = scene.client.job(&job).await?;
        ensure!(is_final(ended.state()), "{job} is {}", ended.state().as_str_name());
        if ended.state() == State::Failed {
            return Ok(job);
        }
    }
    bail!("{TRIES} jobs got through")
}

fn signal_provers(cluster: &Cluster, worker: usize, option: &str) {
    cluster.worker_processes(worker).into_iter().skip(1).for_each(|pid| signal(option, pid));
}
