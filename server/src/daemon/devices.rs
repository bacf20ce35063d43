//! `zkinferd devices`: what could compute here, and whether it computes rightly.

use std::error::Error;
use std::process::ExitCode;

use serde_json::{Value, json};
use zkinfer_circuits::backend::Backend as _;
use zkinfer_kernels::devices::{Device, NoDevice, devices, open_tested};
use zkinfer_kernels::select::{Selected, Selection, select};
use zkinfer_kernels::{CpuBackend, Level, conformance};

use super::arguments::DevicesArguments;
use super::found::{Listing, Tested};
use super::print;

/// What a self-test said.
type Outcome = Result<(), String>;

/// What is there. An outcome is absent if no test was asked for.
struct Report {
    devices: Result<Vec<(Device, Option<Outcome>)>, NoDevice>,
    levels: Vec<(Level, Option<Outcome>)>,
    threads: usize,
    backends: Vec<String>,
    reason: String,
}

/// Exit code 1 if a test failed.
pub(super) fn devices_command(arguments: &DevicesArguments) -> anyhow::Result<ExitCode> {
    if arguments.list {
        return print(&serde_json::to_string(&Listing::of(devices()))?);
    }
    if let Some(ordinal) = arguments.test {
        let limit = arguments.device_memory_mib.map_or(u64::MAX, |mebibytes| u64::from(mebibytes) << 20);
        let error = open_tested(ordinal, limit).err().map(|error| error.to_string());
        return print(&serde_json::to_string(&Tested { error })?);
    }
    let report = Report::make(arguments.self_test)?;
    let printed = if arguments.json { print(&serde_json::to_string_pretty(&report.json())?)? } else { print(&report.text())? };
    Ok(if report.has_failed() { ExitCode::FAILURE } else { printed })
}

impl Report {
    fn make(is_tested: bool) -> anyhow::Result<Self> {
        let devices = devices().map(|found| {
            let tested = |device: Device| {
                let outcome = is_tested.then(|| open_tested(device.ordinal, u64::MAX).map(drop).map_err(|error| error.to_string()));
                (device, outcome)
            };
            found.into_iter().map(tested).collect()
        });
        let levels = Level::available().into_iter().map(|level| (level, is_tested.then(|| test_level(level)))).collect();
        let Selected { backends, reason } = select(&Selection::default())?;
        let backends = backends.iter().map(|backend| backend.name()).collect();
        Ok(Self { devices, levels, threads: CpuBackend::threads(), backends, reason })
    }

    fn has_failed(&self) -> bool {
        let devices = self.devices.iter().flatten().map(|(_, outcome)| outcome);
        devices.chain(self.levels.iter().map(|(_, outcome)| outcome)).any(|outcome| matches!(outcome, Some(Err(_))))
    }

    fn text(&self) -> String {
        let mut lines = Vec::new();
        match &self.devices {
            Ok(devices) => lines.extend(devices.iter().map(|(device, outcome)| {
                let (major, minor) = device.compute_capability;
                let gigabytes = device.memory_bytes as f64 / 1e9;
                let Device { ordinal, name, .. } = device;
                format!("cuda:{ordinal}: {name}, compute capability {major}.{minor}, {gigabytes:.1} GB{}", outcome_text(outcome))
            })),
            Err(none) => lines.push(format!("no accelerator: {none}")),
        }
        let threads = self.threads;
        lines.extend(
            self.levels.iter().map(|(level, outcome)| format!("cpu: {}, {threads} threads{}", level.name(), outcome_text(outcome))),
        );
        lines.push(self.reason.clone());
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let devices: Vec<Value> = self.devices.iter().flatten().map(|(device, outcome)| device_json(device, outcome)).collect();
        let level = |(level, outcome): &(Level, Option<Outcome>)| json!({ "level": level.name(), "self_test": outcome_json(outcome) });
        json!({
            "devices": devices,
            "no_device": self.devices.as_ref().err().map(ToString::to_string),
            "cpu": { "threads": self.threads, "levels": self.levels.iter().map(level).collect::<Vec<_>>() },
            "selected": { "backends": self.backends, "reason": self.reason },
        })
    }
}

fn test_level(level: Level) -> Outcome {
    let backend = CpuBackend::with_level(level).map_err(|error| error.to_string())?;
    let with_source = |error: conformance::ConformanceError| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    conformance::check_layer(backend).map_err(with_source)
}

fn outcome_text(outcome: &Option<Outcome>) -> String {
    match outcome {
        None => String::new(),
        Some(Ok(())) => "; self-test passed".to_owned(),
        Some(Err(error)) => format!("; self-test FAILED: {error}"),
    }
}

fn outcome_json(outcome: &Option<Outcome>) -> Value {
    match outcome {
        None => Value::Null,
        Some(Ok(())) => json!({ "passed": true }),
        Some(Err(error)) => json!({ "passed": false, "error": error }),
    }
}

fn device_json(device: &Device, outcome: &Option<Outcome>) -> Value {
    let (major, minor) = device.compute_capability;
    json!({
        "ordinal": device.ordinal,
        "name": device.name,
        "compute_capability": format!("{major}.{minor}"),
        "memory_bytes": device.memory_bytes,
        "multiprocessors": device.limits.multiprocessors,
        "clock_khz": device.limits.clock_khz,
        "memory_bytes_per_s": device.limits.bytes_per_s(),
        "self_test": outcome_json(outcome),
    })
}
