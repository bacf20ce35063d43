//! The tables of docs/RELIABILITY.md.

use std::fmt::Write;
use std::path::Path;

use clap::ValueEnum as _;

use crate::faults::Fault;
use crate::record::Record;

use super::significant;

/// Runs with kills and without.
const RUNS: &[(&str, &str)] = &[
    ("chaos-sqlite", "SQLite"),
    ("chaos-postgres", "PostgreSQL"),
    ("chaos-split", "SQLite, jobs split"),
    ("chaos-roles", "PostgreSQL, 2 api, 2 scheduler, 2 workers, jobs split"),
    ("chaos-network", "SQLite, workers in network namespaces"),
    ("chaos-clocks", "SQLite, skewed clocks"),
];

/// Label and measure of each row.
const CHAOS: &[(&str, &str)] = &[
    ("jobs", "jobs"),
    ("of them succeeded, each with one proof that verifies", "jobs_succeeded"),
    ("kills of a server", "kills_server"),
    ("kills of a worker's supervisor", "kills_worker_supervisor"),
    ("kills of a worker's prover", "kills_worker_prover"),
    ("kills of the database", "kills_database"),
    ("cuts of a worker's network", "network_cuts"),
    ("attempts that gave a result", "attempts_done"),
    ("attempts lost with their process", "attempts_lost"),
    ("attempts whose artifacts were not to be had", "attempts_storage"),
    ("calls that clients repeated", "calls_repeated"),
    ("creations sent once more after their answer", "creations_replayed"),
    ("seconds", "wall_s"),
    ("**violations**", "violations"),
];

const LOAD: &[(&str, &str, f64, &str, &str)] = &[
    ("jobs a second, created in batches while none begins", "fill_jobs_per_s", 1.0, "", ""),
    ("jobs a second, submitted to succeeded", "jobs_per_s", 1.0, "", ""),
    ("jobs not proved yet at the end", "queued_at_the_end", 1.0, "", ""),
    ("jobs a second, until none is left", "drain_jobs_per_s", 1.0, "", ""),
    ("streams that watched, open at a time", "open_streams", 1.0, "", ""),
    ("GetJob, median", "get_job_p50_ms", 1.0, " ms", ""),
    ("GetJob, 99 of 100", "get_job_p99_ms", 1.0, " ms", "≤ 20 ms"),
    ("processor time a job, clients included", "cpu_ms_per_job", 1.0, " ms", ""),
    ("resident memory", "resident_bytes", 1e-6, " MB", ""),
    ("the same, mean of the second half less that of the first", "resident_bytes_second_half_minus_first", 1e-6, " MB", "0"),
    ("the same, mean of the last fifth less that of the fourth", "resident_bytes_last_fifth_minus_fourth", 1e-6, " MB", "0"),
];

/// Label, measure, scale and unit of each row.
const SOAK: &[(&str, &str, f64, &str)] = &[
    ("minutes", "measured_s", 1.0 / 60.0, ""),
    ("jobs a second", "jobs_per_s", 1.0, ""),
    ("jobs", "jobs", 1.0, ""),
    ("of them deleted for their age", "jobs_deleted", 1.0, ""),
    ("resident memory", "resident_bytes", 1e-6, " MB"),
    ("its growth in the second half", "resident_bytes_per_hour_in_second_half", 1e-6, " MB an hour"),
    ("mean of the last 12 minutes less that of the 12 before", "resident_bytes_last_fifth_minus_fourth", 1e-6, " MB"),
    ("open files and sockets", "open_files", 1.0, ""),
    ("their growth in the second half", "open_files_per_hour_in_second_half", 1.0, " an hour"),
    ("threads", "threads", 1.0, ""),
    ("tasks of the runtime", "tokio_tasks", 1.0, ""),
    ("their growth in the second half", "tokio_tasks_per_hour_in_second_half", 1.0, " an hour"),
];

const OVERHEAD: &[(&str, &str, f64, &str)] = &[
    ("proof by a call in the process, verified", "direct_prove_wall_s", 1.0, " s"),
    ("proof by a job, submitted over gRPC to succeeded", "submit_to_succeeded_wall_s", 1.0, " s"),
    ("of it, the prover", "prove_in_service_wall_s", 1.0, " s"),
    ("of it, the prover's verification of what it made", "verify_own_output_wall_s", 1e3, " ms"),
    ("of it, all else: queue, stores, events, gRPC", "service_wall_s", 1e3, " ms"),
    ("all else, of the prover's time, verification included (aim: < 3 %)", "service_percent_of_prove", 1.0, " %"),
    ("the job over the call of its pair, with what differs by chance", "job_percent_over_call", 1.0, " %"),
];

fn read(results: &Path, name: &str) -> anyhow::Result<Option<Record>> {
    let path = results.join(format!("{name}.json"));
    if path.exists() { Record::read(&path).map(Some) } else { Ok(None) }
}

pub(super) fn origin(text: &mut String, record: &Record) {
    let _ = writeln!(
        text,
        "\n{}, {} cores; commit {}; `{}`.\n",
        record.machine.processor, record.machine.n_cores, record.commit, record.command
    );
}

pub(super) fn chaos(results: &Path) -> anyhow::Result<String> {
    let mut runs = Vec::new();
    for (name, title) in RUNS {
        if let Some(record) = read(results, name)? {
            runs.push((title, record));
        }
    }
    let mut text = String::new();
    if runs.is_empty() {
        text.push_str("No results are committed.\n");
        return Ok(text);
    }
    let titles: Vec<&str> = runs.iter().map(|(title, _)| **title).collect();
    let _ = writeln!(text, "| | {} |\n|---|{}", titles.join(" | "), "---|".repeat(runs.len()));
    for (label, measure) in CHAOS {
        let cells: Vec<String> = runs.iter().map(|(_, record)| format!("{:.0}", record.median(measure).unwrap_or(0.0))).collect();
        let _ = writeln!(text, "| {label} | {} |", cells.join(" | "));
    }
    runs.iter().for_each(|(_, record)| origin(&mut text, record));
    Ok(text)
}

/// What came of each fault on each database.
pub(super) fn faults(results: &Path) -> anyhow::Result<String> {
    let runs = [read(results, "faults-sqlite")?, read(results, "faults-postgres")?];
    if runs.iter().all(Option::is_none) {
        return Ok("No results are committed.\n".to_owned());
    }
    let mut text = String::from("| `--only` | fault | what must hold | SQLite | PostgreSQL |\n|---|---|---|---|---|\n");
    for fault in Fault::value_variants() {
        let name = fault.name();
        let help = fault.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default();
        let cells = runs.each_ref().map(|run| run.as_ref().map_or_else(|| "–".to_owned(), |record| outcome(record, &name)));
        let _ = writeln!(text, "| {name} | {help} | {} | {} |", fault.condition(), cells.join(" | "));
    }
    runs.iter().flatten().for_each(|record| origin(&mut text, record));
    Ok(text)
}

fn outcome(record: &Record, fault: &str) -> String {
    let Some(outcome) = record.settings.get(&format!("outcome of {fault}")) else { return "–".to_owned() };
    match record.median(&format!("{fault}_jobs")) {
        Some(n_jobs) => format!("{outcome}, {n_jobs:.0} jobs"),
        None => outcome.clone(),
    }
}

pub(super) fn horizontal(results: &Path) -> anyhow::Result<String> {
    let Some(record) = read(results, "horizontal")? else { return Ok("No results are committed.\n".to_owned()) };
    let mut text = String::from("| worker | tasks done |\n|---|---|\n");
    for (name, summary) in &record.measures {
        if let Some(worker) = name.strip_prefix("tasks_done_by_") {
            let _ = writeln!(text, "| {worker} | {:.0} |", summary.median);
        }
    }
    let jobs = |measure: &str| record.median(measure).unwrap_or(0.0);
    let _ = writeln!(text, "\n{:.0} of {:.0} jobs succeeded; {:.0} violations.", jobs("jobs_succeeded"), jobs("jobs"), jobs("violations"));
    origin(&mut text, &record);
    Ok(text)
}

pub(super) fn load(results: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    for (name, title, aim) in [
        ("load-sqlite", "SQLite", "≥ 200"),
        ("load-postgres", "PostgreSQL", "≥ 500"),
        ("load-million", "PostgreSQL, a million queued", "≥ 500"),
    ] {
        let Some(record) = read(results, name)? else { continue };
        let _ = writeln!(text, "| {title} | | aim |\n|---|---|---|");
        for (label, measure, scale, unit, row_aim) in LOAD {
            let Some(summary) = record.measures.get(*measure) else { continue };
            let aim = if *measure == "jobs_per_s" { aim } else { row_aim };
            let _ = writeln!(text, "| {label} | {}{unit} | {aim} |", significant(summary.median * scale));
        }
        origin(&mut text, &record);
    }
    if text.is_empty() {
        text.push_str("No results are committed.\n");
    }
    Ok(text)
}

/// What grows while jobs come and go for long.
pub(super) fn soak(results: &Path) -> anyhow::Result<String> {
    let mut runs = Vec::new();
    for (name, title) in [("soak-sqlite", "SQLite"), ("soak-postgres", "PostgreSQL")] {
        runs.extend(read(results, name)?.map(|record| (title, record)));
    }
    if runs.is_empty() {
        return Ok("No results are committed.\n".to_owned());
    }
    let titles: Vec<&str> = runs.iter().map(|(title, _)| *title).collect();
    let mut text = format!("| median | {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(runs.len()));
    for (label, measure, scale, unit) in SOAK {
        let show = |record: &Record| record.median(measure).map_or_else(|| "–".to_owned(), |value| significant(value * scale) + unit);
        let cells: Vec<String> = runs.iter().map(|(_, record)| show(record)).collect();
        let _ = writeln!(text, "| {label} | {} |", cells.join(" | "));
    }
    runs.iter().for_each(|(_, record)| origin(&mut text, record));
    Ok(text)
}

pub(super) fn overhead(results: &Path) -> anyhow::Result<String> {
    let Some(record) = read(results, "overhead")? else { return Ok("No results are committed.\n".to_owned()) };
    let mut text = String::from("| mlp-mnist | median | least to largest |\n|---|---|---|\n");
    for (label, measure, scale, unit) in OVERHEAD {
        let Some(summary) = record.measures.get(*measure) else { continue };
        let show = |value: f64| significant(value * scale);
        let _ = writeln!(text, "| {label} | {}{unit} | {} to {} |", show(summary.median), show(summary.min), show(summary.max));
    }
    origin(&mut text, &record);
    Ok(text)
}
