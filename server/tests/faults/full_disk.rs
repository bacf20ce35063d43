//! A disk without space, a small file system in memory. Mounting needs root; without it the test prints so and looks at nothing.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tonic::Code;
use zkinfer_proto::v1;

use crate::harness::{Service, config, expect_error, job_request};

/// Room for the database and its log, and little more.
const SIZE: &str = "size=6m";

/// Unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(folder.path()).output();
        match output {
            Ok(output) if output.status.success() => Ok(Self(folder)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all space that is left.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        for block in [vec![1; 64 << 10], vec![1; 1 << 10], vec![1; 1]] {
            while file.write_all(&block).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_what_is_new_keeps_what_was_accepted_and_recovers() {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(reason) => {
            println!("not run: no small disk can be mounted: {reason}");
            return;
        }
    };
    let service = Service::start(config(disk.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let before = client.create_job(&model, "steps=1").await.name;
    assert_eq!(client.job_end(&before).await.state(), v1::job::State::Succeeded);
    let running = client.create_job(&model, "steps=40 ms=20").await.name;
    client.job_runs(&running).await;

    let ballast = disk.fill();
    let refused = (0..100).map(|i| job_request(&model, &format!("steps=1 ms={i}")));
    let mut accepted = Vec::new();
    let mut refusals = 0;
    for request in refused {
        match client.proofs.create_job(request).await {
            // The log has a little room of its own.
            Ok(job) => accepted.push(job.into_inner().name),
            Err(status) => {
                expect_error(&status, Code::ResourceExhausted, "STORAGE_FULL");
                refusals += 1;
            }
        }
    }
    assert!(refusals > 50, "{refusals} refusals");
    // Reading goes on.
    assert_eq!(client.get_job(&before).await.state(), v1::job::State::Succeeded);

    File::create(&ballast).unwrap();
    std::fs::remove_file(&ballast).unwrap();
    let after = client.create_job(&model, "steps=1").await.name;
    for name in accepted.iter().chain([&running, &after]) {
        let job = client.job_end(name).await;
        assert_eq!(job.state(), v1::job::State::Succeeded, "{:?}", job.failure);
        let proof = client.read(&job.result.unwrap().proof_artifact).await.unwrap();
        assert_eq!(proof.len(), 32);
    }
    service.stop().await;
    // Nothing is damaged: it opens, which checks the database, and has what it had.
    let service = Service::start(config(disk.path())).await;
    assert_eq!(service.client().await.get_job(&after).await.state(), v1::job::State::Succeeded);
    service.stop().await;
}
