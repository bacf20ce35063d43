//! Checksums of the wire: BLAKE3 of whole artifacts, CRC-32C of chunks. Python's library has neither.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::sync::Mutex;

/// CRC-32C of bytes.
#[pyfunction]
pub(crate) fn crc32c(data: &[u8]) -> u32 {
    ::crc32c::crc32c(data)
}

/// BLAKE3 of bytes that come in pieces.
#[pyclass(frozen, module = "zkinfer._verify")]
#[derive(Debug, Default)]
pub(crate) struct Blake3(Mutex<blake3::Hasher>);

fn poisoned<T>(_: T) -> PyErr {
    PyRuntimeError::new_err("the hash was left half updated")
}

#[pymethods]
impl Blake3 {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Appends bytes.
    fn update(&self, data: &[u8]) -> PyResult<()> {
        self.0.lock().map_err(poisoned)?.update(data);
        Ok(())
    }

    /// The hash of all bytes so far: 32 bytes.
    fn digest(&self) -> PyResult<[u8; 32]> {
        Ok(*self.0.lock().map_err(poisoned)?.finalize().as_bytes())
    }
}
