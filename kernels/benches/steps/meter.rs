//! Wall and CPU time.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

/// Nanoseconds that the threads of this process have spent on a processor; 0 where the kernel does not tell.
fn cpu_ns() -> u64 {
    let of_task = |path: std::path::PathBuf| -> Option<u64> { fs::read_to_string(path).ok()?.split(' ').next()?.parse().ok() };
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0 };
    tasks.flatten().filter_map(|task| of_task(task.path().join("schedstat"))).sum()
}

/// The least wall time and the least CPU time of `repetitions` runs, in milliseconds, and the last result.
pub(crate) fn time<T>(repetitions: usize, mut run: impl FnMut() -> T) -> (Value, T) {
    let (mut wall, mut cpu, mut result) = (f64::MAX, f64::MAX, None);
    for _ in 0..repetitions {
        let (start, start_cpu) = (Instant::now(), cpu_ns());
        result = Some(run());
        wall = wall.min(start.elapsed().as_secs_f64() * 1e3);
        cpu = cpu.min((cpu_ns() - start_cpu) as f64 / 1e6);
    }
    let rounded = |milliseconds: f64| (milliseconds * 100.0).round() / 100.0;
    (json!({ "wall_ms": rounded(wall), "cpu_ms": rounded(cpu) }), result.expect("there is at least one repetition"))
}

/// The processor, and the load when the measurement began.
pub(crate) fn machine() -> Value {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")).map(|line| line.trim_start_matches([' ', '\t', ':']).to_owned());
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!({
        "processor": model,
        "threads": rayon::current_num_threads(),
        "load_at_start": load.split(' ').next(),
    "vectors": zkinfer_kernels::Level::detect().name(),
    })
}
