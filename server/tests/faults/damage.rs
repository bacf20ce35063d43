//! A store that gives back other bytes than it was given, or none.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zkinfer_proto::v1;
use zkinfer_server::Ended;

use crate::harness::{Client, Service, config};
use crate::scripted_prover::PRIVATE_MARK;
use crate::workers::{config_for_workers, worker};

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn flip_last_byte(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_proved_from_damaged_material_and_what_is_whole_is_proved() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let damaged = client.ready_model("damaged").await.name;
    let internal = folder.path().join("artifacts/internal");
    let material = files(&internal);
    assert_eq!(material.len(), 1, "a registration leaves one internal artifact");
    flip_last_byte(&material[0]);
    let name = client.create_model("whole", "steps=2").await.name;
    let whole = client.model_end(&name).await.name;

    let job = client.create_job(&damaged, "steps=1").await.name;
    let ended = client.job_end(&job).await;
    assert_eq!(ended.state(), v1::job::State::Failed);
    let failure = ended.failure.unwrap();
    assert_eq!((failure.reason.as_str(), failure.retryable), ("STORAGE", true));
    assert!(ended.result.is_none());
    let job = client.create_job(&whole, "steps=1").await.name;
    assert_eq!(client.job_end(&job).await.state(), v1::job::State::Succeeded);

    // The disk is mended: what failed can be asked for again.
    flip_last_byte(&material[0]);
    let job = client.create_job(&damaged, "steps=1").await.name;
    assert_eq!(client.job_end(&job).await.state(), v1::job::State::Succeeded);
    service.stop().await;
}

/// What tasks gave, by the files in which it lies.
fn results(internal: &Path) -> Vec<PathBuf> {
    files(internal).into_iter().filter(|file| !fs::read(file).unwrap().starts_with(PRIVATE_MARK)).collect()
}

fn is_intact(file: &Path) -> bool {
    blake3::hash(&fs::read(file).unwrap()).to_hex().as_str() == file.file_name().unwrap()
}

/// How the attempts at each task of a job ended.
async fn outcomes(client: &mut Client, job: &str) -> BTreeMap<String, Vec<String>> {
    let tasks = client.proofs.list_job_tasks(v1::ListJobTasksRequest { name: job.to_owned() }).await.unwrap().into_inner().tasks;
    tasks.into_iter().map(|task| (task.name, task.attempts.into_iter().map(|attempt| attempt.outcome).collect())).collect()
}

/// Loses what tasks gave, in each way; answers the files.
fn lose_results(folder: &Path) -> Vec<PathBuf> {
    let lost = results(&folder.join("artifacts/internal"));
    assert!((10..18).contains(&lost.len()), "between two tasks: {lost:?}");
    for (number, file) in lost.iter().enumerate() {
        match number % 3 {
            0 => flip_last_byte(file),
            1 => fs::write(file, b"").unwrap(),
            _ => fs::remove_file(file).unwrap(),
        }
    }
    lost
}

/// A job whose layers have begun: all before them is done.
async fn job_at_its_layers(client: &mut Client) -> String {
    let model = client.create_model("split", "steps=1 layers=8").await.name;
    client.model_end(&model).await;
    let job = client.create_job(&model, "steps=1 ms=250").await.name;
    client.job_runs(&job).await;
    job
}

async fn is_made_again(client: &mut Client, job: &str, lost: &[PathBuf]) {
    let ended = client.job_end(job).await;
    assert_eq!(ended.state(), v1::job::State::Succeeded, "{:?}", ended.failure);
    let of = outcomes(client, job).await;
    for name in ["witness", "commit-0000", "commit-0007", "bind"] {
        let outcomes = &of[name];
        assert_eq!((outcomes[0].as_str(), outcomes.last().unwrap().as_str()), ("DAMAGED", "DONE"), "{name}: {of:?}");
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "DONE").count(), 1, "{name}: {of:?}");
    }
    assert!(lost.iter().all(|file| is_intact(file)), "the same bytes were stored again");
    assert!(ended.notes.iter().any(|note| note.outcome == "DAMAGED"), "{:?}", ended.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tasks_gave_and_the_disk_has_lost_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let job = job_at_its_layers(&mut client).await;
    service.begin_stop();
    drop(client);
    assert_eq!(service.ended().await, Ended::Drained);
    let lost = lose_results(folder.path());
    let service = Service::start(config(folder.path())).await;
    is_made_again(&mut service.client().await, &job, &lost).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_elsewhere_tell_what_is_lost_and_it_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path());
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let first = worker(address, "first");
    let job = job_at_its_layers(&mut client).await;
    assert!(first.drain(Duration::from_secs(10), Duration::from_secs(5)).await);
    let lost = lose_results(folder.path());
    let second = worker(address, "second");
    is_made_again(&mut client, &job, &lost).await;
    assert!(second.drain(Duration::from_secs(10), Duration::from_secs(5)).await);
    drop(client);
    service.stop().await;
}
