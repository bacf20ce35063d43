//! The table of docs/GPU.md: a device beside the processors of its machine.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::record::Record;

use super::reliability::origin;
use super::significant;

/// Folders of what was measured with the device, and of what was measured on the same machine without it.
const DEVICE: &str = "h200";
const PROCESSORS: &str = "h200-cpu";

/// Result, label, measure, scale and unit of each row of whole proofs.
const PROOFS: &[(&str, &str, &str, f64, &str)] = &[
    ("end-to-end", "mlp-mnist: one proof, submitted over gRPC to verified by the client", "submit_to_verified_wall_s", 1e3, "ms"),
    ("end-to-end", "processor time of the same", "submit_to_verified_cpu_s", 1e3, "ms"),
    ("end-to-end", "of it, committing tensors", "stage_commit_wall_s", 1e3, "ms"),
    ("end-to-end", "of it, layer proofs", "stage_layer_wall_s", 1e3, "ms"),
    ("end-to-end", "of it, leaf circuits", "stage_leaf_wall_s", 1e3, "ms"),
    ("end-to-end", "of it, the outer circuit", "stage_outer_wall_s", 1e3, "ms"),
    ("end-to-end-dense", "five layers 1024 wide: one proof, submitted to verified", "submit_to_verified_wall_s", 1e3, "ms"),
    ("end-to-end-dense", "processor time of the same", "submit_to_verified_cpu_s", 1e3, "ms"),
];

/// Label, benchmark, figure, scale and unit of each row of single steps.
const STEPS: &[(&str, &str, &str, f64, &str)] = &[
    ("committing 135 columns of 2^16 at rate 1/8", "transforms_and_tree_135x2^16_rate_1/8", "ns", 1e-6, "ms"),
    ("committing 4 columns of 2^16, their leaves not hashed", "transforms_and_levels_4x2^16_rate_1/8", "ns", 1e-6, "ms"),
    ("grinding, a nonce", "poseidon_by_grinding", "ns_per_nonce", 1.0, "ns"),
    ("committing the activations of a layer of 2^14 rows", "layer_proof_2^14_rows", "commit_ns", 1e-6, "ms"),
    ("proof of the same layer", "layer_proof_2^14_rows", "proof_ns", 1e-6, "ms"),
];

/// The measure of a queue, by how many proofs are worked on at a time.
const QUEUE: (&str, &str) = ("workers_", "_proofs_per_s");

pub(super) fn write(results: &Path) -> anyhow::Result<String> {
    let (device, processors) = (results.join(DEVICE), results.join(PROCESSORS));
    if !device.exists() {
        return Ok("No results are committed.\n".to_owned());
    }
    let mut text = "| | device | processors | ratio |\n|---|---|---|---|\n".to_owned();
    for &(result, label, measure, scale, unit) in PROOFS {
        let median = |folder: &Path| -> anyhow::Result<f64> {
            let record = Record::read(&folder.join(result).with_extension("json"))?;
            record.median(measure).map(|value| value * scale).with_context(|| format!("{result} has no {measure}"))
        };
        write_row(&mut text, label, [median(&device)?, median(&processors)?], unit);
    }
    write_throughput(&mut text, &device, &processors)?;
    write_steps(&mut text, &device.join("device.json"))?;
    origin(&mut text, &Record::read(&device.join("throughput-auto.json"))?);
    Ok(text)
}

/// The ratio says how many times the device is faster.
fn write_row(text: &mut String, label: &str, [device, processors]: [f64; 2], unit: &str) {
    let ratio = if device > 0.0 { significant(processors / device) } else { "–".to_owned() };
    let _ = writeln!(text, "| {label} | {} {unit} | {} {unit} | {ratio} |", significant(device), significant(processors));
}

fn write_throughput(text: &mut String, device: &Path, processors: &Path) -> anyhow::Result<()> {
    let (device, processors) =
        (Record::read(&device.join("throughput-auto.json"))?, Record::read(&processors.join("throughput-cpu.json"))?);
    let numbers = device.measures.keys().filter_map(|name| name.strip_prefix(QUEUE.0)?.strip_suffix(QUEUE.1)?.parse().ok());
    for n in numbers.collect::<BTreeSet<u32>>() {
        let rate = |record: &Record| record.median(&format!("{}{n}{}", QUEUE.0, QUEUE.1));
        let Some(of_device) = rate(&device) else { continue };
        let (other, ratio) = match rate(&processors) {
            Some(rate) => (format!("{} a second", significant(rate)), significant(of_device / rate)),
            None => ("–".to_owned(), "–".to_owned()),
        };
        let _ = writeln!(text, "| mlp-mnist from a queue, {n} at a time | {} a second | {other} | {ratio} |", significant(of_device));
    }
    Ok(())
}

fn write_steps(text: &mut String, path: &Path) -> anyhow::Result<()> {
    let file = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let result: Value = serde_json::from_str(&file).with_context(|| format!("{} is no result", path.display()))?;
    let backend = |prefix: &str| result.as_object().and_then(|all| all.iter().find(|(name, _)| name.starts_with(prefix)));
    let (device, processors) =
        (backend("cuda:").context("no device was measured")?.1, backend("cpu ").context("no processor was measured")?.1);
    for &(label, benchmark, figure, scale, unit) in STEPS {
        let value = |of: &Value| of[benchmark][figure].as_f64().map(|value| value * scale).with_context(|| format!("no {benchmark}"));
        write_row(text, label, [value(device)?, value(processors)?], unit);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_how_many_times_the_device_is_faster() {
        let mut text = String::new();
        write_row(&mut text, "a step", [2.0, 10.0], "ms");
        assert_eq!(text, "| a step | 2.00 ms | 10.0 ms | 5.00 |\n");
    }

    #[test]
    fn without_results_it_says_so() {
        assert_eq!(write(Path::new("/nonexistent")).expect("text"), "No results are committed.\n");
    }
}
