//! What a backend says of itself to those who watch over it; the protocol does not depend on it.

/// The state of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// What its buffers take on its device, if it has one of its own.
    pub memory: Option<DeviceMemory>,
    /// Steps that were done elsewhere because the device's memory did not suffice.
    pub n_fallbacks_memory: u64,
    /// Steps that were done elsewhere because the device failed.
    pub n_fallbacks_device: u64,
}

/// Memory of a device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Allocated now.
    pub used_bytes: u64,
    /// Allocated at most so far.
    pub peak_bytes: u64,
    /// Never exceeded.
    pub limit_bytes: u64,
}
