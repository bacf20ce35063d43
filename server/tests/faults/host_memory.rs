//! A worker whose host has too little memory for a task: processes in control groups with limits. That needs root and a hierarchy whose groups may be
//! made; without them the test prints so and looks at nothing.

use std::path::{Path, PathBuf};

use zkinfer_proto::v1;

use crate::children::Kept;
use crate::harness::Service;
use crate::workers::config_for_workers;

/// What the job's input takes, and the limits of two groups, in MiB: one is too small for it, whatever else a process takes.
const EATEN: u64 = 300;
const LIMITS: [u64; 2] = [200, 600];

/// A control group with a limit. Gone when dropped.
struct Group(PathBuf);

impl Group {
    fn make(name: &str, limit_mib: u64) -> Result<Self, String> {
        let failed = |what: &Path, error: std::io::Error| format!("{}: {error}", what.display());
        let (top, limit, is_first) = match Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
            true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", true),
            false => ("/sys/fs/cgroup", "memory.max", false),
        };
        let folder = Path::new(top).join(format!("zkinfer-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&folder).map_err(|error| failed(&folder, error))?;
        let group = Self(folder);
        let file = group.0.join(limit);
        std::fs::write(&file, (limit_mib << 20).to_string()).map_err(|error| failed(&file, error))?;
        // So that what does not fit is not swapped out; there may be no swap, and no such file.
        let (swap, none) = if is_first { ("memory.swappiness", "0") } else { ("memory.swap.max", "0") };
        let _ = std::fs::write(group.0.join(swap), none);
        Ok(group)
    }

    /// Words that start a program in the group.
    fn starter(&self) -> Vec<String> {
        let join = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        ["sh", "-c", &join, "sh"].map(str::to_owned).to_vec()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_a_worker_has_no_memory_for_is_done_by_one_that_has_more() {
    let groups: Result<Vec<Group>, String> = ["small", "large"].iter().zip(LIMITS).map(|(name, limit)| Group::make(name, limit)).collect();
    let groups = match groups {
        Ok(groups) => groups,
        Err(reason) => return println!("not run: no control group can be made: {reason}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path());
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let large = Kept::start(address, &groups[1].starter());
    let model = client.ready_model("mlp").await.name;
    // While the large one has something to do, the small one takes it.
    let long = client.create_job(&model, "steps=30 ms=100").await.name;
    client.job_runs(&long).await;
    let small = Kept::start(address, &groups[0].starter());
    let hungry = client.create_job(&model, &format!("steps=1 eat={EATEN}")).await.name;
    let ended = client.job_end(&hungry).await;
    assert_eq!(ended.state(), v1::job::State::Succeeded, "{:?}", ended.failure);
    let outcomes: Vec<&str> = ended.notes.iter().map(|note| note.outcome.as_str()).collect();
    assert_eq!(outcomes, ["HOST_MEMORY"]);
    // Also what no host has enough memory for ends, and does not poison.
    let too_hungry = client.create_job(&model, &format!("steps=1 eat={}", 2 * LIMITS[1])).await.name;
    let failure = client.job_end(&too_hungry).await.failure.unwrap();
    assert_eq!((failure.reason.as_str(), failure.attempts), ("HOST_MEMORY", 2));
    let modest = client.create_job(&model, "steps=1").await.name;
    assert_eq!(client.job_end(&modest).await.state(), v1::job::State::Succeeded);
    small.end().await;
    large.end().await;
    service.stop().await;
}
