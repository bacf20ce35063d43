//! The table of the CPU's kernels against plonky2's, measured side by side by `cargo bench -p zkinfer-kernels`.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use super::significant;

/// A row: where the figures stand in a result. `LEVEL` in a pointer is the level of vectors that was measured.
struct Row {
    what: &'static str,
    plonky2: &'static str,
    ours: &'static str,
    ratio: &'static str,
    unit: &'static str,
    aim: &'static str,
}

const POSEIDON: &[Row] = &[
    Row {
        what: "Poseidon permutation, one core",
        plonky2: "/permutation_one_thread_ns/plonky2/median",
        ours: "/permutation_one_thread_ns/LEVEL x32/median",
        ratio: "/permutation_one_thread_ns/LEVEL x32/ratio",
        unit: "ns",
        aim: "≤ 250 ns",
    },
    Row {
        what: "Merkle tree, 2^15 leaves of 135",
        plonky2: "/merkle_tree_2^15x135_ms/plonky2/median",
        ours: "/merkle_tree_2^15x135_ms/LEVEL/median",
        ratio: "/merkle_tree_2^15x135_ms/LEVEL/ratio",
        unit: "ms",
        aim: "",
    },
];

const COMMIT: &[Row] = &[
    commit(
        "commitment of 135 columns of 2^12, rate 1/8",
        "/135x2^12_rate_1~18/plonky2/median",
        "/135x2^12_rate_1~18/LEVEL/wall_ms/median",
        "/135x2^12_rate_1~18/LEVEL/ratio/median",
    ),
    commit(
        "commitment of 135 columns of 2^16, rate 1/8",
        "/135x2^16_rate_1~18/plonky2/median",
        "/135x2^16_rate_1~18/LEVEL/wall_ms/median",
        "/135x2^16_rate_1~18/LEVEL/ratio/median",
    ),
    commit(
        "commitment of 256 columns of 2^14, rate 1/2",
        "/256x2^14_rate_1~12/plonky2/median",
        "/256x2^14_rate_1~12/LEVEL/wall_ms/median",
        "/256x2^14_rate_1~12/LEVEL/ratio/median",
    ),
];

const CIRCUIT: &[Row] = &[
    Row {
        what: "recursive proof, 2^12 rows",
        plonky2: "/recursive/plonky2/wall_ms/median",
        ours: "/recursive/ours/wall_ms/median",
        ratio: "/recursive/times_as_fast/wall/median",
        unit: "ms",
        aim: "≥ 3 times",
    },
    Row {
        what: "recursive proof with zero knowledge, 2^14 rows",
        plonky2: "/recursive_with_zero_knowledge/plonky2/wall_ms/median",
        ours: "/recursive_with_zero_knowledge/ours/wall_ms/median",
        ratio: "/recursive_with_zero_knowledge/times_as_fast/wall/median",
        unit: "ms",
        aim: "",
    },
];

const fn commit(what: &'static str, plonky2: &'static str, ours: &'static str, ratio: &'static str) -> Row {
    Row { what, plonky2, ours, ratio, unit: "ms", aim: "≥ 4.5 times" }
}

/// What the CPU's kernels have resident at their peak: what, in which result, where.
const MEMORY: &[(&str, &str, &str)] = &[
    ("commitment of 135 columns of 2^12, rate 1/8", "kernels_commit", "/135x2^12_rate_1~18/memory"),
    ("commitment of 135 columns of 2^16, rate 1/8", "kernels_commit", "/135x2^16_rate_1~18/memory"),
    ("commitment of 256 columns of 2^14, rate 1/2", "kernels_commit", "/256x2^14_rate_1~12/memory"),
    ("layer of 2^14 x 256, committed and proved", "kernels_steps", "/memory_of_dense_2^14x256_rate_1~18"),
];

/// Appends the table of memory, if all its results are there.
pub(super) fn write_memory(text: &mut String, results: &Path) -> anyhow::Result<()> {
    let path = |name: &str| results.join(format!("{name}.json"));
    if !MEMORY.iter().all(|(_, name, _)| path(name).exists()) {
        return Ok(());
    }
    text.push_str("| memory of the CPU's kernels | must hold | at its peak | ratio | aim |\n|---|---|---|---|---|\n");
    for (what, name, place) in MEMORY {
        let result: Value =
            serde_json::from_str(&std::fs::read_to_string(path(name))?).with_context(|| format!("{name}.json is not a result"))?;
        let figure = |of: &str| {
            let pointer = format!("{place}/{of}");
            result.pointer(&pointer).and_then(Value::as_f64).with_context(|| format!("{name}.json has no number at {pointer}"))
        };
        let (held, peak) = (figure("held_bytes")?, figure("peak_bytes")?);
        let [held_mb, peak_mb, ratio] = [held / 1e6, peak / 1e6, peak / held].map(significant);
        let _ = writeln!(text, "| {what} | {held_mb} MB | {peak_mb} MB | {ratio} | ≤ 1.3 |");
    }
    text.push_str("\nResident beyond the input, by `cargo bench -p zkinfer-kernels --bench commit` and `--bench steps -- memory`.\n\n");
    Ok(())
}

/// Appends the table, if all its results are there.
pub(super) fn write(text: &mut String, results: &Path) -> anyhow::Result<()> {
    let parts = [("kernels_poseidon", POSEIDON), ("kernels_commit", COMMIT), ("kernels_circuit", CIRCUIT)];
    let paths = parts.map(|(name, rows)| (results.join(format!("{name}.json")), rows));
    if !paths.iter().all(|(path, _)| path.exists()) {
        return Ok(());
    }
    let mut sources = Vec::new();
    text.push_str("| the CPU's kernels | plonky2 1.1.0 | here | times as fast | aim |\n|---|---|---|---|---|\n");
    for (path, rows) in &paths {
        let read = || Ok::<Value, anyhow::Error>(serde_json::from_str(&std::fs::read_to_string(path)?)?);
        let result = read().with_context(|| format!("{} is not a result", path.display()))?;
        for row in *rows {
            write_row(text, row, &result).with_context(|| format!("{} lacks a figure", path.display()))?;
        }
        let source = |pointer: &str| result.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        sources.push((source("/machine/processor"), source("/machine/vectors"), source("/command")));
    }
    let (processor, vectors, _) = &sources[0];
    let commands: Vec<String> = sources.iter().map(|(_, _, command)| format!("`{command}`")).collect();
    let _ = writeln!(text, "\n{processor}, 2 threads, {vectors}; medians of runs taken in turns; {}.\n", commands.join(", "));
    Ok(())
}

fn write_row(text: &mut String, row: &Row, result: &Value) -> anyhow::Result<()> {
    let level = result.pointer("/machine/vectors").and_then(Value::as_str).context("no level of vectors")?;
    let figure = |pointer: &str| {
        let pointer = pointer.replace("LEVEL", level);
        result.pointer(&pointer).and_then(Value::as_f64).with_context(|| format!("no number at {pointer}"))
    };
    let [plonky2, ours, ratio] = [figure(row.plonky2)?, figure(row.ours)?, figure(row.ratio)?].map(significant);
    let Row { what, unit, aim, .. } = row;
    let _ = writeln!(text, "| {what} | {plonky2} {unit} | {ours} {unit} | {ratio} | {aim} |");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_the_figures_of_the_level_that_was_measured() {
        let result = serde_json::json!({
            "machine": { "vectors": "avx2" },
            "recursive": {
                "plonky2": { "wall_ms": { "median": 600.0 } },
                "ours": { "wall_ms": { "median": 200.0 } },
                "times_as_fast": { "wall": { "median": 3.0 } },
            },
        });
        let mut text = String::new();
        write_row(&mut text, &CIRCUIT[0], &result).expect("all figures are there");
        assert_eq!(text, "| recursive proof, 2^12 rows | 600 ms | 200 ms | 3.00 | ≥ 3 times |\n");
        let error = write_row(&mut text, &POSEIDON[0], &result).expect_err("another benchmark's row");
        assert_eq!(error.to_string(), "no number at /permutation_one_thread_ns/plonky2/median");
    }
}
