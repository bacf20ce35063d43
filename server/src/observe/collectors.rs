//! Numbers that are not counted but looked up whenever the metrics are read: the process and the prover's devices.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::catalogue::{Kind, described};
use super::children::Told;
use super::devices::DeviceReport;
use super::process;
use crate::prover::Prover;
use crate::supervisor::Children;

/// The collectors of a service that proves with `prover`, or by `children`.
pub(super) fn collectors(prover: Arc<dyn Prover>, children: Option<Arc<Children>>) -> Vec<Box<dyn Collector>> {
    vec![Box::new(ProcessCollector::new()), Box::new(DeviceCollector { prover, children })]
}

/// Begins a metric of the catalogue.
pub(super) fn begin<'e>(encoder: &'e mut DescriptorEncoder<'_>, name: &'static str) -> Result<MetricEncoder<'e>, fmt::Error> {
    let described = described(name);
    let (stem, kind) = match described.kind {
        Kind::Counter => (name.trim_end_matches("_total"), MetricType::Counter),
        Kind::Gauge => (name, MetricType::Gauge),
        Kind::Histogram => (name, MetricType::Histogram),
    };
    // A registry ends help texts with a dot; here nobody else does.
    encoder.encode_descriptor(stem, &format!("{}.", described.help), None, kind)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &'static str, value: Option<impl EncodeGaugeValue>) -> fmt::Result {
    let Some(value) = value else { return Ok(()) };
    begin(encoder, name)?.encode_gauge(&value)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &'static str, value: Option<impl EncodeCounterValue>) -> fmt::Result {
    let Some(value) = value else { return Ok(()) };
    begin(encoder, name)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

/// This process.
#[derive(Debug, Clone)]
pub(super) struct ProcessCollector {
    started_seconds: f64,
}

impl ProcessCollector {
    /// Of a process that starts now.
    pub(super) fn new() -> Self {
        Self { started_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()) }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let facts = process::facts();
        gauge(&mut encoder, "process_resident_memory_bytes", crate::process::resident_bytes())?;
        gauge(&mut encoder, "process_peak_resident_memory_bytes", crate::process::peak_resident_bytes())?;
        counter(&mut encoder, "process_cpu_seconds_total", facts.cpu.map(|time| time.as_secs_f64()))?;
        gauge(&mut encoder, "process_open_fds", facts.open_fds)?;
        gauge(&mut encoder, "process_start_time_seconds", Some(self.started_seconds))
    }
}

/// Devices of this process, or of the children that compute in its stead.
struct DeviceCollector {
    prover: Arc<dyn Prover>,
    children: Option<Arc<Children>>,
}

impl fmt::Debug for DeviceCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DeviceCollector")
    }
}

impl Collector for DeviceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(children) = &self.children {
            let told = Told(children.states());
            if told.has_children() {
                return told.encode(encoder);
            }
            // Its devices were all passed over: it computes itself.
            told.encode_cordoned(&mut encoder)?;
        }
        let reports = self.prover.devices().into_iter().enumerate().map(|(device, report)| (device.to_string(), report)).collect();
        encode_devices(&reports, encoder)
    }
}

/// Devices with what they are called.
pub(super) type NamedReports = Vec<(String, DeviceReport)>;

pub(super) fn encode_devices(reports: &NamedReports, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
    if reports.is_empty() {
        // A service whose devices are all elsewhere: the counter is there all the same, so that an alert on it has a 0 to begin with.
        return fallbacks(&mut encoder, &vec![("0".to_owned(), DeviceReport::default())]);
    }
    let mut jobs = begin(&mut encoder, "zkinfer_device_jobs")?;
    each(reports, |device, report| jobs.encode_family(&[("device", device)])?.encode_gauge(&report.jobs))?;
    let mut degraded = begin(&mut encoder, "zkinfer_device_degraded")?;
    each(reports, |device, report| degraded.encode_family(&[("device", device)])?.encode_gauge(&i64::from(report.is_degraded)))?;
    fallbacks(&mut encoder, reports)?;
    memory(&mut encoder, reports)
}

fn each(reports: &NamedReports, mut write: impl FnMut(&str, &DeviceReport) -> fmt::Result) -> fmt::Result {
    reports.iter().try_for_each(|(device, report)| write(device, report))
}

fn fallbacks(encoder: &mut DescriptorEncoder<'_>, reports: &NamedReports) -> fmt::Result {
    let mut family = begin(encoder, "zkinfer_backend_fallbacks_total")?;
    each(reports, |device, report| {
        let by_reason = [("memory", report.condition.n_fallbacks_memory), ("device", report.condition.n_fallbacks_device)];
        by_reason.iter().try_for_each(|(reason, count)| {
            family.encode_family(&[("device", device), ("reason", reason)])?.encode_counter::<NoLabelSet, _, u64>(count, None)
        })
    })
}

fn memory(encoder: &mut DescriptorEncoder<'_>, reports: &NamedReports) -> fmt::Result {
    // A metric without samples is left out.
    if reports.iter().all(|(_, report)| report.condition.memory.is_none()) {
        return Ok(());
    }
    let mut family = begin(encoder, "zkinfer_device_memory_bytes")?;
    each(reports, |device, report| {
        let Some(memory) = report.condition.memory else { return Ok(()) };
        let by_kind = [("used", memory.used_bytes), ("peak", memory.peak_bytes), ("limit", memory.limit_bytes)];
        by_kind.iter().try_for_each(|(kind, bytes)| family.encode_family(&[("device", device), ("kind", kind)])?.encode_gauge(bytes))
    })
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::prometheus_text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[derive(Debug)]
    struct Fixed(NamedReports);

    impl Collector for Fixed {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            encode_devices(&self.0, encoder)
        }
    }

    #[test]
    fn fallbacks_begin_at_zero_whatever_devices_there_are() {
        for reports in [vec![], vec![("0".to_owned(), DeviceReport::default())]] {
            let mut text = String::new();
            let mut registry = Registry::default();
            registry.register_collector(Box::new(Fixed(reports.clone())));
            encode(&mut text, &registry).unwrap();
            for reason in ["memory", "device"] {
                let sample = format!("zkinfer_backend_fallbacks_total{{device=\"0\",reason=\"{reason}\"}} 0\n");
                assert!(text.contains(&sample), "{text}");
            }
            assert_eq!(text.contains("zkinfer_device_jobs"), !reports.is_empty());
        }
    }
}
