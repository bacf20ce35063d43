//! Which backend to compute on: a device with the CPU behind it, or the CPU alone; always one type.
//!
//! A device is used only after [`crate::devices::open_tested`].

use std::str::FromStr;

use zkinfer_circuits::backend::{Backend as _, BackendError};

use crate::devices::{Accelerator, Device, NoDevice, devices, open_tested};
use crate::{CpuBackend, FallbackBackend};

/// The backend of this build: a device if one was chosen, and the CPU.
pub type SelectedBackend = FallbackBackend<Accelerator, CpuBackend>;

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// On the first device that passes its test, or else on the CPU.
    #[default]
    Auto,
    /// On the CPU.
    Cpu,
    /// On this device, in the driver's order from 0.
    Ordinal(usize),
}

/// Not a [`DeviceChoice`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `auto`, `cpu`, or the number of a device as `zkinferd devices` lists it")]
pub struct NotADeviceChoice;

impl FromStr for DeviceChoice {
    type Err = NotADeviceChoice;

    fn from_str(text: &str) -> Result<Self, NotADeviceChoice> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            number => number.parse().map(Self::Ordinal).map_err(|_| NotADeviceChoice),
        }
    }
}

/// What to select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Where to compute.
    pub device: DeviceChoice,
    /// What buffers on the device take at most, in bytes.
    pub memory_limit_bytes: u64,
}

impl Default for Selection {
    fn default() -> Self {
        Self { device: DeviceChoice::default(), memory_limit_bytes: u64::MAX }
    }
}

/// Why the device that was asked for cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// There are no devices.
    #[error("device {ordinal} was asked for: {reason}")]
    NoDevice {
        /// The device.
        ordinal: usize,
        /// Why there are none.
        reason: NoDevice,
    },
    /// There is none of this number.
    #[error("device {ordinal} was asked for; there are {n_devices}, numbered from 0")]
    NoSuchDevice {
        /// The device.
        ordinal: usize,
        /// How many there are.
        n_devices: usize,
    },
    /// It failed, or computed something else than the reference.
    #[error("device {ordinal} was asked for and cannot be used")]
    Unusable {
        /// The device.
        ordinal: usize,
        /// What failed.
        source: BackendError,
    },
}

/// The backend to compute on, and a sentence for the log that says why: the first device that passes its test, or else the CPU.
pub fn select_backend() -> (SelectedBackend, String) {
    select_automatically(u64::MAX)
}

/// As [`select_backend`], on what was chosen.
///
/// # Errors
/// [`SelectError`] if a device was chosen that cannot be used.
pub fn select(selection: Selection) -> Result<(SelectedBackend, String), SelectError> {
    match selection.device {
        DeviceChoice::Auto => Ok(select_automatically(selection.memory_limit_bytes)),
        DeviceChoice::Cpu => Ok(on_cpu("as chosen")),
        DeviceChoice::Ordinal(ordinal) => {
            let found = devices().map_err(|reason| SelectError::NoDevice { ordinal, reason })?;
            if ordinal >= found.len() {
                return Err(SelectError::NoSuchDevice { ordinal, n_devices: found.len() });
            }
            let device = open_tested(ordinal, selection.memory_limit_bytes).map_err(|source| SelectError::Unusable { ordinal, source })?;
            Ok(on_device(device, &[]))
        }
    }
}

fn select_automatically(memory_limit_bytes: u64) -> (SelectedBackend, String) {
    let found = match devices() {
        Ok(found) => found,
        Err(none) => return on_cpu(&none.to_string()),
    };
    let mut remarks = Vec::new();
    for (index, device) in found.iter().enumerate() {
        match open_tested(device.ordinal, memory_limit_bytes) {
            Ok(accelerator) => {
                remarks.extend(found[index + 1..].iter().map(|other| format!("not used: {}", title(other))));
                return on_device(accelerator, &remarks);
            }
            Err(error) => remarks.push(format!("{} cannot be used: {error}", title(device))),
        }
    }
    on_cpu(&remarks.join("; "))
}

fn title(device: &Device) -> String {
    format!("cuda:{} ({})", device.ordinal, device.name)
}

fn cpu_place(cpu: &CpuBackend) -> String {
    format!("the CPU ({}, {} threads)", cpu.level().name(), rayon::current_num_threads())
}

fn on_cpu(why: &str) -> (SelectedBackend, String) {
    let cpu = CpuBackend::new();
    let reason = format!("this build's kernels run on {}; {why}", cpu_place(&cpu));
    (FallbackBackend::new(None, cpu), reason)
}

fn on_device(device: Accelerator, remarks: &[String]) -> (SelectedBackend, String) {
    let cpu = CpuBackend::new();
    let mut reason = format!("this build's kernels run on {}, which passed its test, else on {}", device.name(), cpu_place(&cpu));
    for remark in remarks {
        reason += &format!("; {remark}");
    }
    (FallbackBackend::new(Some(device), cpu), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection_without_a_device_says_where_kernels_run_and_why() {
        let Err(none) = devices() else { return };
        let (backend, reason) = select_backend();
        let level = CpuBackend::new().level().name();
        assert_eq!(backend.name(), CpuBackend::new().name());
        assert!(reason.starts_with(&format!("this build's kernels run on the CPU ({level}, ")), "{reason}");
        assert!(reason.ends_with(&none.to_string()), "{reason}");
    }

    #[test]
    fn the_cpu_can_be_chosen_and_a_missing_device_is_an_error() {
        let (backend, reason) = select(Selection { device: DeviceChoice::Cpu, ..Selection::default() }).unwrap();
        assert_eq!(backend.name(), CpuBackend::new().name());
        assert!(reason.ends_with("as chosen"), "{reason}");
        let device = DeviceChoice::Ordinal(1000);
        let error = select(Selection { device, ..Selection::default() }).unwrap_err();
        assert!(error.to_string().starts_with("device 1000 was asked for"), "{error}");
    }

    #[test]
    fn choices_are_read_and_others_refused() {
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!("cpu".parse(), Ok(DeviceChoice::Cpu));
        assert_eq!("2".parse(), Ok(DeviceChoice::Ordinal(2)));
        for other in ["", "gpu", "-1", "1.5", "CPU"] {
            assert_eq!(other.parse::<DeviceChoice>(), Err(NotADeviceChoice), "{other}");
        }
    }
}
