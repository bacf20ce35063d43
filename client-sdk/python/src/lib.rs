//! `zkinfer._verify`: what the Python package takes from Rust: the verifier, the documents that it reads, and the checksums of the wire.
//!
//! No prover, no network, no files. The package's Python code gives these names their public form; `package/zkinfer/_verify.pyi` types them.

mod checksum;
mod document;
mod verifier;

/// The extension module.
#[pyo3::pymodule]
mod _verify {
    #[pymodule_export]
    use crate::checksum::{Blake3, crc32c};
    #[pymodule_export]
    use crate::document::{Key, Statement, context_nonce, input_commitment, read_key, read_statement};
    #[pymodule_export]
    use crate::verifier::{Acceptance, Refusal, verify};
}
