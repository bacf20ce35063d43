//! Which backends to compute on: devices, each with the CPU behind it, or the CPU alone; always one type.
//!
//! A device is used only after [`crate::devices::open_tested`].

use std::str::FromStr;

use zkinfer_circuits::backend::{Backend, BackendError};

use crate::devices::{Accelerator, Device, NoDevice, devices, open_tested};
use crate::{CpuBackend, FallbackBackend};

/// The backend of this build: a device if one was chosen, and the CPU.
pub type SelectedBackend = FallbackBackend<Accelerator, CpuBackend>;

/// The backends that share the work, and a sentence that says why these.
#[derive(Debug)]
pub struct Selected {
    /// One for each device, or the CPU alone: never empty.
    pub backends: Vec<SelectedBackend>,
    /// Where kernels run, and what was passed over.
    pub reason: String,
}

/// Where to compute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// On all devices that pass their test, or else on the CPU.
    #[default]
    Auto,
    /// On the CPU.
    Cpu,
    /// On these devices, in the driver's order from 0: at least one, none twice.
    Ordinals(Vec<usize>),
}

/// Not a [`DeviceChoice`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `auto`, `cpu`, or different numbers of devices as `zkinferd devices` lists them, such as `0` or `0,2`")]
pub struct NotADeviceChoice;

impl FromStr for DeviceChoice {
    type Err = NotADeviceChoice;

    fn from_str(text: &str) -> Result<Self, NotADeviceChoice> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            numbers => {
                let ordinals = numbers.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>().map_err(|_| NotADeviceChoice)?;
                let is_repeated = ordinals.iter().enumerate().any(|(index, ordinal)| ordinals[..index].contains(ordinal));
                if is_repeated { Err(NotADeviceChoice) } else { Ok(Self::Ordinals(ordinals)) }
            }
        }
    }
}

/// What to select.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Where to compute.
    pub device: DeviceChoice,
    /// What buffers on each device take at most, in bytes.
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

/// One backend to compute on, and why: the first device that passes its test, or else the CPU.
pub fn select_backend() -> (SelectedBackend, String) {
    let Selected { mut backends, reason } = select_automatically(u64::MAX, 1);
    (backends.swap_remove(0), reason)
}

/// The backends of what was chosen.
///
/// # Errors
/// [`SelectError`] if a device was chosen that cannot be used.
pub fn select(selection: &Selection) -> Result<Selected, SelectError> {
    match &selection.device {
        DeviceChoice::Auto => Ok(select_automatically(selection.memory_limit_bytes, usize::MAX)),
        DeviceChoice::Cpu => Ok(select_cpu("as chosen")),
        DeviceChoice::Ordinals(ordinals) => {
            let opened = ordinals.iter().map(|&ordinal| open_chosen(ordinal, selection.memory_limit_bytes));
            Ok(on_devices(opened.collect::<Result<_, _>>()?, &[]))
        }
    }
}

fn open_chosen(ordinal: usize, memory_limit_bytes: u64) -> Result<Accelerator, SelectError> {
    let found = devices().map_err(|reason| SelectError::NoDevice { ordinal, reason })?;
    if ordinal >= found.len() {
        return Err(SelectError::NoSuchDevice { ordinal, n_devices: found.len() });
    }
    open_tested(ordinal, memory_limit_bytes).map_err(|source| SelectError::Unusable { ordinal, source })
}

/// The first devices that pass their test, at most so many.
fn select_automatically(memory_limit_bytes: u64, max_devices: usize) -> Selected {
    let found = match devices() {
        Ok(found) => found,
        Err(none) => return select_cpu(&none.to_string()),
    };
    let (mut accelerators, mut remarks) = (Vec::new(), Vec::new());
    for device in &found {
        if accelerators.len() == max_devices {
            remarks.push(format!("not used: {}", title(device)));
            continue;
        }
        match open_tested(device.ordinal, memory_limit_bytes) {
            Ok(accelerator) => accelerators.push(accelerator),
            Err(error) => remarks.push(format!("{} cannot be used: {error}", title(device))),
        }
    }
    if accelerators.is_empty() { select_cpu(&remarks.join("; ")) } else { on_devices(accelerators, &remarks) }
}

fn title(device: &Device) -> String {
    format!("cuda:{} ({})", device.ordinal, device.name)
}

fn cpu_place(cpu: &CpuBackend) -> String {
    format!("the CPU ({}, {} threads)", cpu.level().name(), rayon::current_num_threads())
}

/// The CPU alone; `why` ends the reason.
pub fn select_cpu(why: &str) -> Selected {
    let cpu = CpuBackend::new();
    let reason = format!("this build's kernels run on {}; {why}", cpu_place(&cpu));
    Selected { backends: vec![FallbackBackend::new(None, cpu)], reason }
}

fn on_devices(devices: Vec<Accelerator>, remarks: &[String]) -> Selected {
    let names: Vec<String> = devices.iter().map(Accelerator::name).collect();
    let passed = if names.len() == 1 { "passed its test" } else { "passed their tests" };
    let mut reason =
        format!("this build's kernels run on {}, which {passed}, else on {}", names.join(" and "), cpu_place(&CpuBackend::new()));
    for remark in remarks {
        reason += &format!("; {remark}");
    }
    let backends = devices.into_iter().map(|device| FallbackBackend::new(Some(device), CpuBackend::new())).collect();
    Selected { backends, reason }
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
        let Selected { backends, reason } = select(&Selection { device: DeviceChoice::Cpu, ..Selection::default() }).unwrap();
        assert_eq!(backends.iter().map(Backend::name).collect::<Vec<_>>(), [CpuBackend::new().name()]);
        assert!(reason.ends_with("as chosen"), "{reason}");
        let device = DeviceChoice::Ordinals(vec![1000]);
        let error = select(&Selection { device, ..Selection::default() }).unwrap_err();
        assert!(error.to_string().starts_with("device 1000 was asked for"), "{error}");
    }

    #[test]
    fn choices_are_read_and_others_refused() {
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!("cpu".parse(), Ok(DeviceChoice::Cpu));
        assert_eq!("2".parse(), Ok(DeviceChoice::Ordinals(vec![2])));
        assert_eq!("3,0".parse(), Ok(DeviceChoice::Ordinals(vec![3, 0])));
        for other in ["", "gpu", "-1", "1.5", "CPU", "0,", "1,1", "0,cpu"] {
            assert_eq!(other.parse::<DeviceChoice>(), Err(NotADeviceChoice), "{other}");
        }
    }
}
