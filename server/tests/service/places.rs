//! Where artifacts are kept and how: encrypted folders, keys that rotate, and places that cannot be used.

use std::path::{Path, PathBuf};
use std::process::Command;

use tonic::Code;
use zkinfer_server::Config;
use zkinfer_server::artifacts::{ArtifactKeys, ArtifactPlace};

use crate::harness::{Service, config, expect_error};
use crate::scripted_prover::PRIVATE_MARK;

fn keys(folder: &Path, secrets: &[&str]) -> Option<ArtifactKeys> {
    let path = folder.join("keys");
    let lines: Vec<String> = secrets.iter().map(|secret| blake3::hash(secret.as_bytes()).to_hex().to_string()).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    Some(ArtifactKeys::read(&path).unwrap())
}

/// All files below a folder with their bytes.
fn stored(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(stored(&path)),
            false => found.push((path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_nothing_of_an_artifact_lies_readable_and_keys_rotate() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = folder.path().join("elsewhere");
    let place = ArtifactPlace::Url(format!("file://{}", artifacts.display()).parse().unwrap());
    let with = |artifact_keys| Config { artifacts: place.clone(), artifact_keys, ..config(folder.path()) };
    let service = Service::start(with(keys(folder.path(), &["first"]))).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await;
    let secret = b"a private input that nobody shall read ".repeat(3000);
    let name = client.upload(&secret).await;
    let hash = name.rsplit('/').next().unwrap();
    let files = stored(&artifacts);
    assert!(files.iter().any(|(path, _)| path.starts_with(artifacts.join("internal"))));
    for (path, bytes) in &files {
        assert!(!path.to_string_lossy().contains(hash), "{path:?}");
        for mark in [PRIVATE_MARK, &secret[..16]] {
            assert!(!bytes.windows(mark.len()).any(|window| window == mark), "{path:?}");
        }
    }
    service.stop().await;

    // A second key goes before the first; then the first is lost.
    let service = Service::start(with(keys(folder.path(), &["second", "first"]))).await;
    let mut client = service.client().await;
    assert!(client.read(&name).await.unwrap() == secret);
    let job = client.create_job(&model.name, "steps=1").await;
    let job = client.job_end(&job.name).await;
    let proof = job.result.expect("the private material is readable").proof_artifact;
    service.stop().await;
    let service = Service::start(with(keys(folder.path(), &["second"]))).await;
    let mut client = service.client().await;
    assert_eq!(client.read(&proof).await.unwrap().len(), 32);
    expect_error(&client.read(&name).await.unwrap_err(), Code::DataLoss, "STORED_BYTES_DAMAGED");
    service.stop().await;
}

#[test]
fn the_daemon_names_place_cause_and_remedy_where_artifacts_cannot_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, blake3::hash(b"key").to_hex().as_bytes()).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let path = file.to_str().unwrap();
    let nowhere = format!("file://{path}/artifacts");
    for (options, code, expected) in [
        (["--artifacts", "s3://bucket/prefix"], 1, vec!["write", "s3://bucket/prefix", "AWS_ENDPOINT_URL"]),
        (["--artifacts", &nowhere], 1, vec![path, "--artifacts"]),
        (["--artifacts", "ftp://example.org/x"], 2, vec!["ftp is no store", "s3://bucket/prefix"]),
        (["--artifact-key", path], 1, vec![path, "chmod 600"]),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_zkinferd"))
            .args(["serve", "--listen", "127.0.0.1:0", "--device", "cpu", "--data-dir"])
            .arg(folder.path().join("data"))
            .args(options)
            // Nothing listens there.
            .envs([("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "hidden")])
            .env("AWS_REGION", "us-east-1")
            .env("NO_PROXY", "127.0.0.1")
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert!(expected.iter().all(|part| message.contains(part)) && !message.contains("hidden"), "{message}");
    }
}
