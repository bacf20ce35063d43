//! Which accelerators this machine has.
//!
//! With the feature `cuda` the driver is asked; a device is only listed, not opened. [`crate::select`] chooses among them.

use zkinfer_circuits::backend::BackendError;

pub use driver::Accelerator;

/// An accelerator that the driver reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its place in the driver's order, from 0.
    pub ordinal: usize,
    /// The driver's name for it.
    pub name: String,
    /// Compute capability, major and minor.
    pub compute_capability: (i32, i32),
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// What bounds its speed.
    pub limits: SpeedLimits,
}

/// What a device can do at most, from what the driver says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpeedLimits {
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Their highest clock, in kHz.
    pub clock_khz: u32,
    /// The memory's highest clock, in kHz; 0 if the driver does not say.
    pub memory_clock_khz: u32,
    /// Width of the memory's bus, in bits.
    pub bus_bits: u32,
}

impl SpeedLimits {
    /// Thread instructions a second: four schedulers a multiprocessor, each issuing one for 32 threads in every cycle.
    pub fn instructions_per_s(&self) -> f64 {
        f64::from(self.multiprocessors) * 128.0 * f64::from(self.clock_khz) * 1e3
    }

    /// Bytes a second between memory and multiprocessors, at two transfers a cycle; `None` if the driver does not say.
    pub fn bytes_per_s(&self) -> Option<f64> {
        let bytes = f64::from(self.memory_clock_khz) * 1e3 * 2.0 * f64::from(self.bus_bits) / 8.0;
        (bytes > 0.0).then_some(bytes)
    }

    /// The least time, in ns, of work that takes so many thread instructions and moves so many bytes.
    pub fn least_ns(&self, instructions: f64, bytes: f64) -> f64 {
        let of_memory = self.bytes_per_s().map_or(0.0, |rate| bytes / rate);
        1e9 * of_memory.max(instructions / self.instructions_per_s())
    }
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

/// The accelerators of this machine, in the driver's order.
///
/// # Errors
/// [`NoDevice`]: why there are none.
pub fn devices() -> Result<Vec<Device>, NoDevice> {
    driver::devices()
}

/// Opens device `ordinal` and lets it prove a small layer and a small circuit, as the reference does. Its buffers will never take more than
/// `memory_limit_bytes`.
///
/// # Errors
/// [`BackendError`]: why the device cannot be used.
pub fn open_tested(ordinal: usize, memory_limit_bytes: u64) -> Result<Accelerator, BackendError> {
    driver::open_tested(ordinal, memory_limit_bytes)
}

#[cfg(any(feature = "cuda", test))]
pub(crate) use driver::is_driver_present;

#[cfg(not(any(feature = "cuda", test)))]
mod driver {
    use zkinfer_circuits::backend::BackendError;

    use super::{Device, NoDevice};

    /// The accelerator of this build.
    pub type Accelerator = crate::absent::Absent;

    pub(super) fn devices() -> Result<Vec<Device>, NoDevice> {
        Err(NoDevice::NotBuilt)
    }

    pub(super) fn open_tested(ordinal: usize, _memory_limit_bytes: u64) -> Result<Accelerator, BackendError> {
        Err(BackendError::Device { device: format!("cuda:{ordinal}"), message: NoDevice::NotBuilt.to_string() })
    }
}

#[cfg(any(feature = "cuda", test))]
mod driver {
    use cudarc::driver::result::{self, DriverError};
    use cudarc::driver::{CudaContext, sys};
    use zkinfer_circuits::backend::BackendError;

    use super::{Device, NoDevice, SpeedLimits};

    /// The accelerator of this build.
    pub type Accelerator = crate::CudaBackend;

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

    /// Without a context, which would take memory on a device that is perhaps not used.
    fn device(ordinal: usize) -> Result<Device, DriverError> {
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_CLOCK_RATE, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        };
        let handle = result::device::get(ordinal as i32)?;
        // SAFETY: the handle was just given by the driver, which was initialized before.
        #[allow(unsafe_code)]
        let memory_bytes = unsafe { result::device::total_mem(handle) }? as u64;
        // SAFETY: as above.
        #[allow(unsafe_code)]
        let attribute = |attribute| unsafe { result::device::get_attribute(handle, attribute) };
        let compute_capability =
            (attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?, attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?);
        let positive = |kind| attribute(kind).map(|value| u32::try_from(value).unwrap_or(0));
        let limits = SpeedLimits {
            multiprocessors: positive(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            clock_khz: positive(CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?,
            memory_clock_khz: positive(CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?,
            bus_bits: positive(CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?,
        };
        Ok(Device { ordinal, name: result::device::get_name(handle)?, compute_capability, memory_bytes, limits })
    }

    pub(super) fn open_tested(ordinal: usize, memory_limit_bytes: u64) -> Result<Accelerator, BackendError> {
        let device = Accelerator::open(ordinal, memory_limit_bytes)?;
        device.self_test()?;
        Ok(device)
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
    use super::SpeedLimits;

    /// An H100 PCIe: 114 multiprocessors at 1.755 GHz, HBM2e of 5,120 bits at 1.593 GHz.
    #[test]
    fn limits_are_those_of_the_data_sheet() {
        let limits = SpeedLimits { multiprocessors: 114, clock_khz: 1_755_000, memory_clock_khz: 1_593_000, bus_bits: 5_120 };
        assert!((limits.bytes_per_s().unwrap() / 2.039e12 - 1.0).abs() < 1e-3);
        assert!((limits.instructions_per_s() / 25.6e12 - 1.0).abs() < 1e-3);
        assert!((limits.least_ns(25.6e12, 1.0) / 1e9 - 1.0).abs() < 1e-3, "bound by instructions");
        assert!((limits.least_ns(1.0, 2.039e12) / 1e9 - 1.0).abs() < 1e-3, "bound by memory");
        let silent = SpeedLimits { memory_clock_khz: 0, ..limits };
        assert_eq!(silent.bytes_per_s(), None);
        assert_eq!(silent.least_ns(0.0, 1e12), 0.0);
    }
}
