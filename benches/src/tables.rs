//! The generated tables of README.md, SECURITY.md, docs/GPU.md and docs/RELIABILITY.md: between two marks of the file stands what the code and
//! the committed results say.

mod device;
mod kernels;
mod reliability;

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, ensure};
use zkinfer_circuits::security::{LevelSecurity, Profile, ProfileName, Security};

use crate::record::Record;

/// A generated part of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The document, from the root of the workspace.
    pub file: &'static str,
    /// Name in the marks `<!-- NAME:begin … -->` and `<!-- NAME:end -->`.
    pub name: &'static str,
    /// What stands between them.
    pub text: String,
}

/// All generated parts.
///
/// # Errors
/// A result file that cannot be read.
pub fn blocks(results: &Path) -> anyhow::Result<Vec<Block>> {
    Ok(vec![
        Block { file: "README.md", name: "measures", text: measures(results)? },
        Block { file: "SECURITY.md", name: "figures", text: figures() },
        Block { file: "docs/GPU.md", name: "h200", text: device::write(results)? },
        Block { file: "docs/RELIABILITY.md", name: "chaos", text: reliability::chaos(results)? },
        Block { file: "docs/RELIABILITY.md", name: "faults", text: reliability::faults(results)? },
        Block { file: "docs/RELIABILITY.md", name: "horizontal", text: reliability::horizontal(results)? },
        Block { file: "docs/RELIABILITY.md", name: "load", text: reliability::load(results)? },
        Block { file: "docs/RELIABILITY.md", name: "soak", text: reliability::soak(results)? },
        Block { file: "docs/RELIABILITY.md", name: "overhead", text: reliability::overhead(results)? },
    ])
}

impl Block {
    /// The document with this block in place.
    ///
    /// # Errors
    /// A document without the marks.
    pub fn place(&self, document: &str) -> anyhow::Result<String> {
        let (begin, end) = (format!("<!-- {}:begin", self.name), format!("<!-- {}:end -->", self.name));
        let missing = || format!("{} has no marks {begin} … --> and {end}", self.file);
        let after_begin = document.find(&begin).with_context(missing)?;
        let from = after_begin + document[after_begin..].find("-->\n").with_context(missing)? + "-->\n".len();
        let to = document.find(&end).with_context(missing)?;
        ensure!(from <= to, "{}: the marks of {} are in the wrong order", self.file, self.name);
        Ok(format!("{}{}{}", &document[..from], self.text, &document[to..]))
    }
}

/// Security of every level of both profiles.
fn figures() -> String {
    let mut text = String::new();
    for (name, title) in [(ProfileName::Default, "default"), (ProfileName::Strict, "strict")] {
        let profile = Profile::new(name);
        let heads = "heuristic: FRI's queries | FRI's commit phase | algebraic terms | permutation | proven: sum of all";
        let _ = writeln!(text, "| profile `{title}` | {heads} |\n|---|---|---|---|---|---|");
        for level in profile.levels() {
            let LevelSecurity { level, heuristic_bits, commit_bits, algebraic_bits, permutation_bits, proven_bits } = level;
            let permutation = permutation_bits.map_or_else(|| "–".to_owned(), |bits| format!("{bits:.1}"));
            let _ = writeln!(
                text,
                "| {level} | {heuristic_bits:.1} | {commit_bits:.1} | {algebraic_bits:.1} | {permutation} | {proven_bits:.1} |"
            );
        }
        let security = profile.security();
        let Security { heuristic_bits, commit_bits, algebraic_bits, permutation_bits, proven_bits } = security;
        let least = [heuristic_bits, commit_bits, algebraic_bits, permutation_bits, proven_bits];
        let _ = writeln!(text, "| **least** | {} |\n", least.map(|bits| format!("**{bits:.1}**")).join(" | "));
        let (heuristic, proven) = (security.composite_heuristic_bits(), security.composite_proven_bits());
        let _ = writeln!(text, "Composite of `{title}`: {heuristic:.1} bits heuristic, {proven:.1} bits proven.\n");
    }
    text
}

/// A row of the table of measures.
struct Row {
    what: &'static str,
    measure: &'static str,
    /// Turns the unit of the measure into the one shown.
    scale: f64,
    unit: &'static str,
    target: &'static str,
}

const fn row(what: &'static str, measure: &'static str, scale: f64, unit: &'static str, target: &'static str) -> Row {
    Row { what, measure, scale, unit, target }
}

const END_TO_END: &[Row] = &[
    row("one proof, submitted over gRPC to verified by the client", "submit_to_verified_wall_s", 1.0, "s", "1.5 s"),
    row("processor time of the same", "submit_to_verified_cpu_s", 1.0, "s", ""),
    row("of it, committing tensors", "stage_commit_wall_s", 1e3, "ms", ""),
    row("of it, layer proofs", "stage_layer_wall_s", 1e3, "ms", "70 ms"),
    row("largest resident memory, service and client in one process", "peak_bytes", 1e-6, "MB", "1500 MB"),
    row("proof", "proof_bytes", 1e-3, "kB", "200 kB"),
    row("verification, the registration proof included", "verify_wall_s", 1e3, "ms", "20 ms"),
    row("registration, first time", "registration_first_wall_s", 1.0, "s", "30 s"),
    row("registration again, with caches", "registration_cached_wall_s", 1.0, "s", "2 s"),
];

const STOCK: &[Row] = &[
    row("one proof, submitted over gRPC to verified by the client", "submit_to_verified_wall_s", 1.0, "s", "8 s"),
    row("processor time of the same", "submit_to_verified_cpu_s", 1.0, "s", ""),
    row("largest resident memory, service and client in one process", "peak_bytes", 1e-6, "MB", "1500 MB"),
    row("registration, first time", "registration_first_wall_s", 1.0, "s", "30 s"),
    row("registration again, with caches", "registration_cached_wall_s", 1.0, "s", "2 s"),
];

const DENSE: &[Row] = &[
    row("one proof, submitted over gRPC to verified by the client", "submit_to_verified_wall_s", 1.0, "s", "2.5 s"),
    row("processor time of the same", "submit_to_verified_cpu_s", 1.0, "s", ""),
    row("of it, committing tensors", "stage_commit_wall_s", 1e3, "ms", ""),
    row("of it, layer proofs", "stage_layer_wall_s", 1e3, "ms", "250 ms"),
    row("largest resident memory, service and client in one process", "peak_bytes", 1e-6, "MB", ""),
    row("proof", "proof_bytes", 1e-3, "kB", "200 kB"),
    row("verification, the registration proof included", "verify_wall_s", 1e3, "ms", "20 ms"),
    row("registration, first time", "registration_first_wall_s", 1.0, "s", ""),
    row("registration again, with caches", "registration_cached_wall_s", 1.0, "s", ""),
];

const MICRO: &[Row] = &[
    row("layer of 2^14 × 256 weights, weights committed: proof", "layer_2^14x256_prove_wall_s", 1.0, "s", "0.26 s"),
    row("the same, processor time", "layer_2^14x256_prove_cpu_s", 1.0, "s", ""),
    row("the same, committing the weights (once a model)", "layer_2^14x256_commit_weights_wall_s", 1.0, "s", ""),
];

fn measures(results: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let tables = [
        ("end-to-end", "mlp-mnist, end to end", END_TO_END),
        ("end-to-end-portable", "mlp-mnist with plonky2's own Poseidon, the level of processors without vectors", STOCK),
        ("end-to-end-stock", "mlp-mnist on plonky2's own transforms, trees and circuit prover", STOCK),
        ("end-to-end-dense", "five layers 1024 wide on 4 inputs (4.2 M weights), end to end", DENSE),
        ("micro", "one layer", MICRO),
    ];
    for (name, title, rows) in tables {
        let path = results.join(format!("{name}.json"));
        if path.exists() {
            write_table(&mut text, title, rows, &Record::read(&path)?);
        }
    }
    kernels::write(&mut text, results)?;
    kernels::write_memory(&mut text, results)?;
    if text.is_empty() {
        text.push_str("No results are committed.\n");
    }
    Ok(text)
}

fn write_table(text: &mut String, title: &str, rows: &[Row], record: &Record) {
    let _ = writeln!(text, "| {title} | median | least to largest | aim |\n|---|---|---|---|");
    for row in rows {
        let Some(summary) = record.measures.get(row.measure) else { continue };
        let show = |value: f64| significant(value * row.scale);
        let range = if summary.n == 1 { "once".to_owned() } else { format!("{} to {}", show(summary.min), show(summary.max)) };
        let aim = if row.target.is_empty() { String::new() } else { format!("≤ {}", row.target) };
        let _ = writeln!(text, "| {} | {} {} | {range} | {aim} |", row.what, show(summary.median), row.unit);
    }
    let machine = &record.machine;
    let gigabytes = machine.memory_bytes as f64 / 1e9;
    let backend = record.settings.get("backend").map_or("", String::as_str);
    let _ = writeln!(
        text,
        "\n{}, {} cores, {gigabytes:.0} GB; backend {backend}; commit {}; `{}`.\n",
        machine.processor, machine.n_cores, record.commit, record.command
    );
}

/// Three significant digits.
fn significant(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    let decimals = usize::try_from((2 - digits).clamp(0, 6)).unwrap_or(0);
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_three_digits() {
        let shown = [0.012_345, 1.5, 12.345, 123.45, 1234.5, 0.0].map(significant);
        assert_eq!(shown, ["0.0123", "1.50", "12.3", "123", "1234", "0.00"]);
    }

    #[test]
    fn replaces_what_is_between_the_marks() {
        let block = Block { file: "README.md", name: "measures", text: "new\n".to_owned() };
        let document = "a\n<!-- measures:begin (written) -->\nold\n<!-- measures:end -->\nb\n";
        let placed = block.place(document).expect("the marks are there");
        assert_eq!(placed, "a\n<!-- measures:begin (written) -->\nnew\n<!-- measures:end -->\nb\n");
        assert_eq!(block.place(&placed).expect("still there"), placed);
        let error = block.place("nothing").expect_err("no marks").to_string();
        assert_eq!(error, "README.md has no marks <!-- measures:begin … --> and <!-- measures:end -->");
    }

    #[test]
    fn figures_name_every_level_of_both_profiles() {
        let text = figures();
        for expected in ["profile `default`", "profile `strict`", "| node |", "| outer |", "layer of 2^16 rows"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn measures_without_results_say_so() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(measures(folder.path()).expect("no file is read"), "No results are committed.\n");
    }
}
