//! The conformance suite, for every backend of this crate.

use std::error::Error;

use zkinfer_circuits::backend::Backend;
use zkinfer_circuits::backend::reference::Reference;
use zkinfer_kernels::{CpuBackend, DualBackend, Level, conformance};

fn check(backend: impl Backend) {
    if let Err(error) = conformance::check(backend) {
        panic!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default());
    }
}

#[test]
fn cpu_backend_conforms_at_every_level() {
    for level in Level::available() {
        let backend = CpuBackend::with_level(level).unwrap();
        assert!(backend.name().starts_with(&format!("cpu {} (", level.name())), "{}", backend.name());
        check(backend);
    }
}

#[test]
fn every_buffer_of_the_cpu_backend_is_the_reference_s() {
    conformance::check_every_buffer(CpuBackend::new()).map_err(|error| error.source).unwrap();
}

#[test]
fn reference_conforms() {
    check(Reference);
}

#[test]
fn dual_backend_conforms() {
    check(DualBackend::new(CpuBackend::new(), Reference));
}
