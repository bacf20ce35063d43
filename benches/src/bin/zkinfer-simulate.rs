//! Simulates the placement of a million jobs on a thousand devices.
#![allow(clippy::print_stdout, reason = "a command prints")]

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use zkinfer_benches::simulation::{Report, Settings, run};

/// Simulates a large cluster with the service's own placement, and writes `simulation.json`, or `simulation-small.json`.
#[derive(Debug, Parser)]
struct Arguments {
    /// A hundred devices and twenty thousand jobs instead of a thousand and a million.
    #[arg(long)]
    small: bool,
    /// Of all chance; the committed results have the default.
    #[arg(long)]
    seed: Option<u64>,
    /// Work that arrives, in percent of what all devices can do; the committed results have the default.
    #[arg(long)]
    load_percent: Option<u64>,
    /// Prints the result and writes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Folder of the result.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (name, mut settings) = if arguments.small { ("simulation-small", Settings::small()) } else { ("simulation", Settings::large()) };
    settings.seed = arguments.seed.unwrap_or(settings.seed);
    settings.load_percent = arguments.load_percent.unwrap_or(settings.load_percent);
    anyhow::ensure!(settings.load_percent > 0, "--load-percent must be at least 1");
    let began = Instant::now();
    let report = run(&settings)?;
    print(&report);
    println!("simulated in {:.1} s", began.elapsed().as_secs_f64());
    if !arguments.dry_run {
        let path = arguments.results.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("written to {}", path.display());
    }
    Ok(())
}

fn print(report: &Report) {
    for (name, count) in report.jobs.iter().chain(&report.failed_attempts).chain(&report.counts) {
        println!("{name:<36} {count:>14}");
    }
    for (name, figure) in &report.figures {
        println!("{name:<36} {figure:>14.4}");
    }
    for (name, waits) in &report.networks {
        println!(
            "{name:<14} to its proof: {:>9} ms median, {:>9} ms p99, {:>9} ms longest",
            waits.median_ms, waits.p99_ms, waits.longest_ms
        );
    }
    println!("tenant       share  work     jobs  wait: median      p99  longest ms  longest of a task  overtaken");
    for tenant in &report.tenants {
        println!(
            "{:<12} {:>5} {:>4} % {:>8} {:>13} {:>8} {:>11} {:>18} {:>10}",
            tenant.tenant,
            tenant.share,
            tenant.work_percent,
            tenant.jobs,
            tenant.wait.median_ms,
            tenant.wait.p99_ms,
            tenant.wait.longest_ms,
            tenant.longest_task_wait_ms,
            tenant.overtaken_ms
        );
    }
}
