//! A device with the CPU behind it, on a device that fails when it is told to.

#[allow(dead_code, reason = "shared with the tests of CUDA")]
mod circuits;
#[allow(dead_code, reason = "shared with the tests of CUDA")]
mod rounds;

use circuits::Chain;
use plonky2::plonk::circuit_data::CircuitConfig;
use rounds::rounds;
use zkinfer_circuits::backend::{Backend as _, BackendError};
use zkinfer_kernels::absent::Absent;
use zkinfer_kernels::faulty::{Fault, FaultSwitch, FaultyBackend};
use zkinfer_kernels::{CpuBackend, FallbackBackend};

/// Steps whose inputs can be moved to the CPU while the device is there.
const MOVABLE: [&str; 8] = ["commit", "evaluate", "combine", "project", "sums", "batch", "grind", "query"];
/// Steps on a codeword or its tree, which lie on the device alone.
const UNMOVABLE: [&str; 4] = ["fold_commit", "fold", "final_polynomial", "query_fold"];

fn faulty() -> (FallbackBackend<FaultyBackend<CpuBackend>, CpuBackend>, FaultSwitch) {
    let switch = FaultSwitch::default();
    let device = FaultyBackend::new(CpuBackend::new(), switch.clone());
    (FallbackBackend::new(Some(device), CpuBackend::new()), switch)
}

#[test]
fn a_step_without_memory_is_repeated_on_the_cpu_and_the_device_stays() {
    let expected = rounds(&CpuBackend::new()).unwrap();
    for step in MOVABLE {
        let (backend, switch) = faulty();
        switch.fail_at(step, Fault::OutOfMemory);
        assert!(rounds(&backend).unwrap() == expected, "{step}");
        assert!(!switch.is_armed(), "the rounds have the step {step}");
        let reasons = backend.reasons();
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(reasons[0].starts_with(&format!("{step} on the CPU: out of memory")), "{reasons:?}");
        assert!(backend.name().starts_with("faulty "), "{step}");
    }
}

#[test]
fn a_job_whose_codeword_is_stuck_is_begun_again_on_the_cpu() {
    let expected = rounds(&CpuBackend::new()).unwrap();
    for step in UNMOVABLE {
        let (backend, switch) = faulty();
        switch.fail_at(step, Fault::OutOfMemory);
        assert!(matches!(rounds(&backend), Err(BackendError::OutOfMemory { .. })), "{step}");
        assert_eq!(backend.name(), CpuBackend::new().name());
        assert!(rounds(&backend).unwrap() == expected, "{step}");
    }
}

#[test]
fn a_lost_device_is_given_nothing_more_whatever_the_step() {
    let expected = rounds(&CpuBackend::new()).unwrap();
    for step in MOVABLE.into_iter().chain(UNMOVABLE) {
        let (backend, switch) = faulty();
        switch.fail_at(step, Fault::Lost);
        match rounds(&backend) {
            // Nothing lay on it yet.
            Ok(seen) => assert!(seen == expected && step == "commit", "{step}"),
            Err(BackendError::Device { .. }) => assert!(rounds(&backend).unwrap() == expected, "{step}"),
            Err(other) => panic!("{step}: {other}"),
        }
        assert_eq!(backend.name(), CpuBackend::new().name());
        assert!(!backend.reasons().is_empty());
    }
}

#[test]
fn a_circuit_is_proved_on_the_device_and_repeated_on_the_cpu_whatever_fails() {
    let chain = Chain::quick(3);
    let expected = chain.prove(&CpuBackend::new()).unwrap();
    for (fault, stays, message) in [(Fault::OutOfMemory, true, "out of memory"), (Fault::Lost, false, "device faulty")] {
        let (backend, switch) = faulty();
        assert!(chain.prove(&backend).unwrap() == expected && backend.reasons().is_empty());
        switch.fail_at("prove_circuit", fault);
        assert!(chain.prove(&backend).unwrap() == expected);
        assert!(!switch.is_armed(), "the device was asked first");
        assert!(backend.reasons()[0].starts_with(&format!("prove_circuit on the CPU: {message}")), "{:?}", backend.reasons());
        assert_eq!(backend.name().starts_with("faulty "), stays);
        assert!(chain.prove(&backend).unwrap() == expected);
        assert_eq!(backend.reasons().len(), 1);
    }
}

#[test]
fn a_blinded_circuit_is_proved_on_the_device_and_repeated_on_the_cpu() {
    let chain = Chain::new(CircuitConfig::standard_recursion_zk_config(), 1);
    let (backend, switch) = faulty();
    switch.fail_at("prove_blinded_circuit", Fault::OutOfMemory);
    let proof = chain.prove_blinded(&backend).unwrap();
    assert!(!switch.is_armed() && chain.accepts(proof));
    assert!(backend.reasons()[0].starts_with("prove_blinded_circuit on the CPU: out of memory"), "{:?}", backend.reasons());
    // A refusal is the circuit's, not the device's: it is not repeated.
    assert!(matches!(chain.prove(&backend), Err(BackendError::Unsupported(_))));
    assert_eq!(backend.reasons().len(), 1);
}

#[test]
fn without_a_device_the_cpu_computes() {
    let backend = FallbackBackend::<Absent, _>::new(None, CpuBackend::new());
    assert!(rounds(&backend).unwrap() == rounds(&CpuBackend::new()).unwrap());
    assert!(backend.reasons().is_empty());
}
