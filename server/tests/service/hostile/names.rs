//! Names that try to leave their place.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tonic::{Code, Status};
use zkinfer_proto::v1;

use crate::harness::{Service, chunks, config};

const PARTS: [&str; 12] = [
    "..",
    "../..",
    "../../../../etc/passwd",
    "%2e%2e%2fetc",
    "..\\..\\x",
    ".",
    "",
    "a/b",
    "/etc/passwd",
    "x\0y",
    "\u{202e}x",
    "0000000000000000000000000000000000000000000000000000000000000000/../../internal",
];

/// Everything below a folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.insert(path);
    }
    found
}

fn is_refused<T: std::fmt::Debug>(answer: Result<T, Status>, name: &str) {
    let code = answer.expect_err(name).code();
    assert!(matches!(code, Code::InvalidArgument | Code::NotFound), "{name}: {code:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_leave_their_place_are_refused_everywhere_and_touch_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(&folder.path().join("data"))).await;
    let mut client = service.client().await;
    client.upload(b"something").await;
    let without_log = |files: BTreeSet<PathBuf>| files.into_iter().filter(|path| !path.to_string_lossy().contains("zkinfer.db")).collect();
    let before: BTreeSet<PathBuf> = without_log(files(folder.path()));
    for part in PARTS {
        let artifact = format!("tenants/default/artifacts/{part}");
        is_refused(client.artifacts.get_artifact(v1::GetArtifactRequest { name: artifact.clone() }).await, &artifact);
        is_refused(client.read(&artifact).await, &artifact);
        let other = format!("tenants/{part}/artifacts/{}", "0".repeat(64));
        is_refused(client.read(&other).await, &other);
        let upload = format!("tenants/default/uploads/{part}");
        is_refused(client.artifacts.get_upload(v1::GetUploadRequest { upload: upload.clone() }).await, &upload);
        is_refused(client.artifacts.write_chunks(tokio_stream::iter(chunks(&upload, b"x", 0, 1))).await, &upload);
        let job = format!("tenants/default/jobs/{part}");
        is_refused(client.proofs.get_job(v1::GetJobRequest { name: job.clone() }).await, &job);
        let model = format!("tenants/default/models/{part}");
        is_refused(client.models.get_model(v1::GetModelRequest { name: model.clone() }).await, &model);
        let source_artifact = format!("tenants/default/artifacts/{}", "0".repeat(64));
        let message = v1::CreateModelRequest {
            model_id: part.into(),
            model: Some(v1::Model { source_artifact, ..Default::default() }),
            ..Default::default()
        };
        is_refused(client.models.create_model(message).await, part);
        let parent = format!("tenants/{part}");
        let message = v1::BeginUploadRequest { parent: parent.clone(), size_bytes: 1, blake3: vec![0; 32], ..Default::default() };
        is_refused(client.artifacts.begin_upload(message).await, &parent);
    }
    assert_eq!(without_log(files(folder.path())), before);
    service.stop().await;
}
