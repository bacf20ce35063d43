//! What a prover says of its devices.

use zkinfer_circuits::backend::Condition;

/// A backend that shares the work: a device with the CPU behind it, or the CPU alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceReport {
    /// Jobs and registrations that it is working on.
    pub jobs: usize,
    /// The device was given up.
    pub is_degraded: bool,
    /// Its memory, and what it could not do.
    pub condition: Condition,
}
