//! Clients that mean harm, or behave as if: each is refused or bounded, and others are served meanwhile.
//! All traffic stays on loopback, and ends after a bounded number of bytes.

mod connections;
mod floods;
mod frames;
mod http;
mod idle;
mod limits;
mod messages;
mod names;
mod stalled;

use std::time::Duration;

use zkinfer_proto::v1;

use crate::harness::Client;

/// Long enough on a busy machine; who needs longer is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a service may take more of memory at most, for all that one client sends, in bytes.
const ROOM: u64 = 96 << 20;

/// Largest resident memory of a process so far, in bytes.
fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

/// The same, which counts from now on: before, the process may have had more at its start than it will have again.
fn peak_from_now(pid: u32) -> u64 {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    peak_bytes(pid)
}

/// Asserts that the service answers.
async fn is_served(client: &mut Client) {
    let answer = client.proofs.list_jobs(v1::ListJobsRequest::default());
    tokio::time::timeout(PATIENCE, answer).await.expect("is answered").expect("is served");
}
