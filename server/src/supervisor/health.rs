//! Whether a device can be trusted, as its driver's management library says. Without that library every device is healthy until its child says otherwise.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;

/// Errors after which a device, or what it has in memory, is not to be trusted: memory that could not be corrected (48, 63, 64, 94, 95), links (74), a
/// device that fell off its bus (79) or whose firmware hangs (119).
const CRITICAL_XIDS: [u64; 8] = [48, 63, 64, 74, 79, 94, 95, 119];
/// How long the library waits for an event, in milliseconds.
const WAIT_MS: u32 = 1_000;

/// Health of devices.
pub trait DeviceHealth: Send + Sync {
    /// Why the device of this number is not to be trusted any more; `None`: it is. Once sick, always sick.
    fn sickness(&self, ordinal: usize) -> Option<String>;
}

/// Nothing is known to be wrong.
pub struct Unwatched;

impl DeviceHealth for Unwatched {
    fn sickness(&self, _: usize) -> Option<String> {
        None
    }
}

/// What NVML said, by the number of the device.
#[derive(Clone, Default)]
pub struct NvmlHealth {
    sick: Arc<Mutex<HashMap<usize, String>>>,
}

impl NvmlHealth {
    /// Listens to NVML for these devices, on a thread of its own, for as long as the process lives.
    ///
    /// # Errors
    /// There is no NVML, or it does not know the devices.
    pub fn start(ordinals: &[usize]) -> Result<Self, NvmlError> {
        let nvml = Nvml::init()?;
        let watched = indices(ordinals, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(), &nvml);
        let health = Self::default();
        let told = health.clone();
        std::thread::Builder::new()
            .name("device-health".to_owned())
            .spawn(move || {
                if let Err(error) = told.listen(&nvml, &watched) {
                    tracing::warn!(%error, "the health of devices is not watched any more");
                }
            })
            .map_err(|_| NvmlError::Unknown)?;
        Ok(health)
    }

    fn listen(&self, nvml: &Nvml, watched: &HashMap<u32, usize>) -> Result<(), NvmlError> {
        let mut set = nvml.create_event_set()?;
        for &index in watched.keys() {
            let events = EventTypes::CRITICAL_XID_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR;
            let device = nvml.device_by_index(index)?;
            let supported = device.supported_event_types()? & events;
            set = device.register_events(supported, set).map_err(|failed| failed.error)?;
        }
        loop {
            match set.wait(WAIT_MS) {
                Ok(event) => {
                    let xid = match event.event_data {
                        Some(XidError::Value(xid)) => Some(xid),
                        Some(XidError::Unknown) | None => None,
                    };
                    let is_memory = event.event_type.contains(EventTypes::DOUBLE_BIT_ECC_ERROR);
                    let ordinal = event.device.index().ok().and_then(|index| watched.get(&index));
                    if let (Some(&ordinal), Some(reason)) = (ordinal, judge(xid, is_memory)) {
                        self.mark(ordinal, reason);
                    }
                }
                Err(NvmlError::Timeout) => {}
                // Which one it was is not told: none of them is trusted.
                Err(error @ NvmlError::GpuLost) => {
                    watched.values().for_each(|&ordinal| self.mark(ordinal, "a device fell off its bus".to_owned()));
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn mark(&self, ordinal: usize, reason: String) {
        self.sick.lock().unwrap_or_else(PoisonError::into_inner).entry(ordinal).or_insert(reason);
    }
}

impl DeviceHealth for NvmlHealth {
    fn sickness(&self, ordinal: usize) -> Option<String> {
        self.sick.lock().unwrap_or_else(PoisonError::into_inner).get(&ordinal).cloned()
    }
}

/// Why an event makes a device sick, if it does.
fn judge(xid: Option<u64>, is_memory: bool) -> Option<String> {
    match xid {
        Some(xid) if CRITICAL_XIDS.contains(&xid) => Some(format!("Xid {xid}")),
        _ if is_memory => Some("a memory error that could not be corrected".to_owned()),
        _ => None,
    }
}

/// The number of each device of CUDA by its index of NVML, which sees all devices in the order of the bus, whatever the variable shows to CUDA.
fn indices(ordinals: &[usize], visible: Option<&str>, nvml: &Nvml) -> HashMap<u32, usize> {
    let by_uuid = |uuid: &str| nvml.device_by_uuid(uuid).and_then(|device| device.index()).ok();
    ordinals.iter().filter_map(|&ordinal| Some((index(ordinal, visible, by_uuid)?, ordinal))).collect()
}

fn index(ordinal: usize, visible: Option<&str>, by_uuid: impl Fn(&str) -> Option<u32>) -> Option<u32> {
    match visible {
        None => u32::try_from(ordinal).ok(),
        Some(list) => {
            let entry = list.split(',').nth(ordinal)?.trim();
            entry.parse().ok().or_else(|| by_uuid(entry))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn critical_errors_make_a_device_sick_and_those_of_programs_do_not() {
        for xid in CRITICAL_XIDS {
            assert_eq!(judge(Some(xid), false), Some(format!("Xid {xid}")));
        }
        // 13 and 31: a program's fault; 43: a program was stopped.
        for xid in [13, 31, 43] {
            assert_eq!(judge(Some(xid), false), None);
        }
        assert!(judge(None, true).is_some());
    }

    #[test]
    fn devices_are_found_behind_the_variable_that_hides_others() {
        let by_uuid = |uuid: &str| (uuid == "GPU-5").then_some(5);
        assert_eq!(index(1, None, by_uuid), Some(1));
        assert_eq!(index(1, Some("3, 2"), by_uuid), Some(2));
        assert_eq!(index(0, Some("GPU-5"), by_uuid), Some(5));
        assert_eq!(index(0, Some("GPU-6"), by_uuid), None);
        assert_eq!(index(2, Some("3,2"), by_uuid), None);
    }

    #[test]
    fn the_first_reason_stays() {
        let health = NvmlHealth::default();
        health.mark(1, "Xid 79".to_owned());
        health.mark(1, "Xid 48".to_owned());
        assert_eq!((health.sickness(0), health.sickness(1)), (None, Some("Xid 79".to_owned())));
    }
}
