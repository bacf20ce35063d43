//! Which accelerators this machine has, and which backend to compute on.
//!
//! With the feature `cuda` the driver is asked what it sees, so that an operator learns what is there. [`select_backend`] chooses the CPU: a device is
//! used by whoever opens `CudaBackend` on it.

use crate::CpuBackend;

/// An accelerator that the driver reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The driver's name for it.
    pub name: String,
    /// Compute capability, major and minor.
    pub compute_capability: (i32, i32),
    /// Memory, in bytes.
    pub memory_bytes: u64,
}

/// Why no accelerator is reported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDevice {
    /// This build does not look for any.
    #[error("this build has no support for accelerators: build with the feature `cuda`")]
    NotBuilt,
    /// The CUDA driver is not installed.
    #[error("the CUDA driver library was not found: install the driver, or make libcuda visible to the dynamic loader")]
    NoDriver,
    /// The driver failed.
    #[error("the CUDA driver failed: {0}")]
    Driver(String),
    /// The driver sees no device.
    #[error("the CUDA driver sees no device")]
    None,
}

/// The accelerators of this machine.
///
/// # Errors
/// [`NoDevice`]: why there are none.
pub fn devices() -> Result<Vec<Device>, NoDevice> {
    driver::devices()
}

/// The backend of this build, and a sentence for the log that says why it was chosen.
pub fn select_backend() -> (CpuBackend, String) {
    let backend = CpuBackend::new();
    let place = format!("this build's kernels run on the CPU ({}, {} threads)", backend.level().name(), rayon::current_num_threads());
    let reason = match devices() {
        Ok(devices) => {
            let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
            format!("{place}; not used: {}", names.join(", "))
        }
        Err(none) => format!("{place}; {none}"),
    };
    (backend, reason)
}

#[cfg(feature = "cuda")]
pub(crate) use driver::is_driver_present;

#[cfg(not(feature = "cuda"))]
mod driver {
    use super::{Device, NoDevice};

    pub(super) fn devices() -> Result<Vec<Device>, NoDevice> {
        Err(NoDevice::NotBuilt)
    }
}

#[cfg(feature = "cuda")]
mod driver {
    use cudarc::driver::{CudaContext, DriverError, sys};

    use super::{Device, NoDevice};

    pub(super) fn devices() -> Result<Vec<Device>, NoDevice> {
        if !is_driver_present() {
            return Err(NoDevice::NoDriver);
        }
        let failed = |error: DriverError| NoDevice::Driver(error.to_string());
        let count = CudaContext::device_count().map_err(failed)?;
        if count == 0 {
            return Err(NoDevice::None);
        }
        (0..count as usize).map(|ordinal| device(ordinal).map_err(failed)).collect()
    }

    fn device(ordinal: usize) -> Result<Device, DriverError> {
        let context = CudaContext::new(ordinal)?;
        Ok(Device { name: context.name()?, compute_capability: context.compute_capability()?, memory_bytes: context.total_mem()? as u64 })
    }

    /// Must be asked first: cudarc panics if the library is missing.
    pub(crate) fn is_driver_present() -> bool {
        // SAFETY: opens and closes the driver's shared library, whose initializers are those of the installed CUDA driver and have no
        // precondition on the caller; nothing of it is kept.
        #[allow(unsafe_code)]
        unsafe {
            sys::is_culib_present()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection_says_where_kernels_run_and_why() {
        let (backend, reason) = select_backend();
        let level = backend.level().name();
        assert!(reason.starts_with(&format!("this build's kernels run on the CPU ({level}, ")), "{reason}");
        if let Err(none) = devices() {
            assert!(reason.ends_with(&none.to_string()), "{reason}");
        }
    }
}
