//! Memory at its peak, beside what must be held.

use std::fs;

use serde_json::{Value, json};
use zkinfer_circuits::backend::CommitShape;

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
pub(crate) fn report(peak_bytes: u64, held_bytes: u64) -> Value {
    let ratio = (peak_bytes as f64 / held_bytes as f64 * 1000.0).round() / 1000.0;
    json!({ "peak_bytes": peak_bytes, "held_bytes": held_bytes, "ratio": ratio })
}
