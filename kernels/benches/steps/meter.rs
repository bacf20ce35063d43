//! Wall and CPU time, and memory.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};
use zkinfer_circuits::backend::CommitShape;

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

/// A size in bytes that Linux tells of this process; 0 elsewhere.
fn status_bytes(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().find_map(|word| word.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// The most memory that `run` had resident beyond what was resident before, in bytes, and its result.
pub(crate) fn peak_bytes<T>(run: impl FnOnce() -> T) -> (u64, T) {
    // Where the kernel refuses, the peak counts from the start of the process: larger, never smaller.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let before = status_bytes("VmRSS:");
    let result = run();
    (status_bytes("VmHWM:").saturating_sub(before), result)
}

/// Bytes that an oracle must hold: coefficients, extension, and the digests of all levels up to the cap.
pub(crate) fn held_bytes(n_columns: usize, log_rows: usize, shape: CommitShape) -> u64 {
    let n_leaves = 1 << (log_rows + shape.rate_bits);
    let elements = n_columns * ((1 << log_rows) + n_leaves);
    let digests = 2 * n_leaves - (1 << shape.cap_height);
    8 * (elements + 4 * digests) as u64
}

/// Peak, what must be held, and their ratio.
pub(crate) fn memory(peak_bytes: u64, held_bytes: u64) -> Value {
    let ratio = (peak_bytes as f64 / held_bytes as f64 * 1000.0).round() / 1000.0;
    json!({ "peak_bytes": peak_bytes, "held_bytes": held_bytes, "ratio": ratio })
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
