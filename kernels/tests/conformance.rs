//! The conformance suite, for every backend of this crate.

use std::error::Error;

use zkinfer_circuits::backend::Backend;
use zkinfer_circuits::backend::reference::Reference;
use zkinfer_kernels::conformance::{self, ConformanceError};
use zkinfer_kernels::{CpuBackend, DualBackend, Level};

fn require(result: Result<(), ConformanceError>) {
    if let Err(error) = result {
        panic!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default());
    }
}

fn check(backend: impl Backend) {
    require(conformance::check(backend));
}

fn cpu_backends() -> impl Iterator<Item = CpuBackend> {
    Level::available().into_iter().map(|level| {
        let backend = CpuBackend::with_level(level).unwrap();
        assert!(backend.name().starts_with(&format!("cpu {} (", level.name())), "{}", backend.name());
        backend
    })
}

#[test]
fn cpu_backend_conforms_in_layers_at_every_level() {
    for backend in cpu_backends() {
        require(conformance::check_every_buffer(backend));
    }
}

#[test]
fn cpu_backend_conforms_in_circuits_at_every_level() {
    for backend in cpu_backends() {
        require(conformance::check_circuits(backend));
    }
}

#[test]
fn reference_conforms() {
    check(Reference);
}

#[test]
fn dual_backend_conforms() {
    check(DualBackend::new(CpuBackend::new(), Reference));
}
