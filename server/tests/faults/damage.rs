//! A store that gives back other bytes than it was given.

use std::fs;
use std::path::{Path, PathBuf};

use zkinfer_proto::v1;

use crate::harness::{Service, config};

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
