//! Numbers of children, each by the name of its device, as their supervisor knows them; and of devices that were given none.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, NoLabelSet};

use super::collectors::{begin, encode_devices};
use crate::supervisor::ChildState;

/// Children by name: that of their device.
#[derive(Debug)]
pub(super) struct Told(pub(super) BTreeMap<String, ChildState>);

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_cordoned(&mut encoder)?;
        if !self.has_children() {
            return Ok(());
        }
        self.gauge(&mut encoder, "zkinfer_worker_up", |child| i64::from(child.has_session))?;
        self.counter(&mut encoder, "zkinfer_worker_starts_total", |child| child.n_starts)?;
        self.counter(&mut encoder, "zkinfer_worker_tasks_total", |child| child.work.n_ended)?;
        self.counter(&mut encoder, "zkinfer_worker_busy_seconds_total", |child| child.work.busy_ms as f64 / 1000.0)?;
        self.gauge(&mut encoder, "zkinfer_worker_resident_memory_bytes", |child| {
            i64::try_from(child.work.resident_bytes).unwrap_or(i64::MAX)
        })?;
        let devices = self.kept().map(|(name, child)| (name.to_owned(), child.work.device)).collect();
        encode_devices(&devices, encoder)
    }
}

impl Told {
    /// Whether children compute, and not the process that would keep them.
    pub(super) fn has_children(&self) -> bool {
        self.kept().next().is_some()
    }

    fn kept(&self) -> impl Iterator<Item = (&str, &ChildState)> {
        self.0.iter().filter(|(_, child)| child.is_kept).map(|(name, child)| (name.as_str(), child))
    }

    /// Devices only. A metric without samples is left out.
    pub(super) fn encode_cordoned(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let devices = || self.0.iter().filter_map(|(name, child)| Some((name.as_str(), child, child.is_watched?)));
        if devices().next().is_none() {
            return Ok(());
        }
        let mut cordoned = begin(encoder, "zkinfer_device_cordoned")?;
        devices().try_for_each(|(device, child, _)| {
            cordoned.encode_family(&[("device", device)])?.encode_gauge(&i64::from(child.cordoned.is_some()))
        })?;
        let mut watched = begin(encoder, "zkinfer_device_watched")?;
        devices().try_for_each(|(device, _, is_watched)| watched.encode_family(&[("device", device)])?.encode_gauge(&i64::from(is_watched)))
    }

    fn gauge(&self, encoder: &mut DescriptorEncoder<'_>, name: &'static str, value: impl Fn(&ChildState) -> i64) -> fmt::Result {
        let mut family = begin(encoder, name)?;
        self.kept().try_for_each(|(device, child)| family.encode_family(&[("device", device)])?.encode_gauge(&value(child)))
    }

    fn counter<V: EncodeCounterValue>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &'static str,
        value: impl Fn(&ChildState) -> V,
    ) -> fmt::Result {
        let mut family = begin(encoder, name)?;
        self.kept().try_for_each(|(device, child)| {
            family.encode_family(&[("device", device)])?.encode_counter::<NoLabelSet, _, u64>(&value(child), None)
        })
    }
}
