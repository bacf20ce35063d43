//! Circuits on the emulated device: that it is the device that proves them, what it keeps of them, and what happens when it fails.

use std::path::PathBuf;

use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_data::CircuitConfig;
use zkinfer_circuits::backend::{Backend, BackendError};
use zkinfer_circuits::field::{Builder, C};
use zkinfer_kernels::cuda::{DeviceOptions, GraphPolicy};
use zkinfer_kernels::{CpuBackend, CudaBackend, FallbackBackend, conformance};

use super::circuits::{Chain, wire_bytes};
use super::{Failing, N_BUFFERS, emulated, failing_allocation, open, open_without_shared_chunks, with_every_allocation_failing};

/// Proves on a fresh device; the memory that its buffers took tells that it was there that the oracles lay.
fn proved_on_the_device(chain: &Chain) {
    let backend = open(0);
    let proof = chain.prove(&backend).unwrap();
    assert!(backend.memory().peak_bytes > wire_bytes(&chain.circuit));
    assert!(proof == chain.prove(&CpuBackend::new()).unwrap());
    assert!(chain.accepts(proof));
}

#[test]
fn circuits_are_proved_on_the_device() {
    emulated(&[], || {
        for n_hashes in [0, 3, 20] {
            proved_on_the_device(&Chain::quick(n_hashes));
        }
    });
}

#[test]
fn every_gate_is_evaluated_on_the_device() {
    emulated(&[], || {
        let backend = open(0);
        conformance::check_gates(backend.clone()).unwrap();
        // 32 rows of 135 wires at rate 1/8 at least: the circuit was not left to the host.
        assert!(backend.memory().peak_bytes > 8 * (135 << 8));
    });
}

#[test]
fn circuits_are_proved_whatever_the_order_of_threads() {
    emulated(&[("EMUCUDA_SEED", "77")], || proved_on_the_device(&Chain::quick(20)));
}

#[test]
fn circuits_are_proved_side_by_side_when_streams_are_as_late_as_they_may() {
    emulated(&[("EMUCUDA_LAZY", "1")], || {
        let chains = [Chain::quick(3), Chain::quick(20)];
        let expected = chains.each_ref().map(|chain| chain.prove(&CpuBackend::new()).unwrap());
        let backend = open(0);
        std::thread::scope(|scope| {
            for (chain, expected) in chains.iter().zip(&expected).cycle().take(4) {
                let backend = &backend;
                scope.spawn(move || assert!(chain.prove(backend).unwrap() == *expected));
            }
        });
    });
}

#[test]
fn blinded_circuits_are_proved_on_the_device() {
    emulated(&[], || {
        let chain = Chain::new(CircuitConfig::standard_recursion_zk_config(), 3);
        let backend = open(0);
        let proofs = [chain.prove_blinded(&backend).unwrap(), chain.prove_blinded(&backend).unwrap()];
        assert!(backend.memory().peak_bytes > wire_bytes(&chain.circuit));
        assert!(proofs[0].proof.wires_cap != proofs[1].proof.wires_cap, "salts and blinding are fresh");
        assert!(proofs.into_iter().all(|proof| chain.accepts(proof)));
    });
}

#[test]
fn a_recursion_circuit_is_proved_on_the_device() {
    emulated(&[], || {
        let inner = Chain::quick(3);
        let mut b = Builder::new(CircuitConfig::standard_recursion_config());
        let common = &inner.circuit.common;
        let target = b.add_virtual_proof_with_pis(common);
        let verifier_data = b.constant_verifier_data(&inner.circuit.verifier_only);
        b.verify_proof::<C>(&target, &verifier_data, common);
        let circuit = b.build::<C>();
        let mut inputs = PartialWitness::new();
        inputs.set_proof_with_pis_target(&target, &inner.prove(&open(0)).unwrap()).unwrap();
        let backend = open(0);
        let proof = backend.prove_circuit(&circuit, inputs.clone()).unwrap();
        assert!(backend.memory().peak_bytes > wire_bytes(&circuit), "it has no gate that the device does not know");
        assert!(proof == CpuBackend::new().prove_circuit(&circuit, inputs).unwrap());
        circuit.verify(proof).unwrap();
        println!("2^{} rows, {:?}", circuit.common.degree_bits(), backend.memory());
    });
}

/// A circuit with a gate for which there is no kernel.
#[test]
fn a_circuit_with_an_unusual_gate_is_proved_on_the_cpu() {
    emulated(&[], || {
        let mut b = Builder::new(CircuitConfig::standard_recursion_config());
        let base = b.add_virtual_public_input();
        let exponent = b.two();
        b.exp(base, exponent, 5);
        let circuit = b.build::<C>();
        let mut inputs = PartialWitness::new();
        inputs.set_target(base, plonky2::field::types::Field::TWO).unwrap();
        let backend = open(0);
        let proof = backend.prove_circuit(&circuit, inputs.clone()).unwrap();
        assert_eq!(backend.memory().peak_bytes, 0);
        assert!(proof == CpuBackend::new().prove_circuit(&circuit, inputs).unwrap());
    });
}

#[test]
fn constants_are_kept_until_memory_is_short() {
    emulated(&[], || {
        let [first, second] = [20, 21].map(Chain::quick);
        let backend = open(0);
        let proof = first.prove(&backend).unwrap();
        let with_first = backend.memory();
        assert!(first.prove(&backend).unwrap() == proof);
        assert_eq!(backend.memory(), with_first, "nothing is uploaded twice");
        second.prove(&backend).unwrap();
        let with_both = backend.memory();
        assert!(with_both.used_bytes > with_first.used_bytes && with_both.peak_bytes > with_first.peak_bytes);
        backend.forget_circuits();
        assert!(backend.memory().used_bytes < with_first.used_bytes);
        // As much as one proof takes, and some that chunks leave unused: the first circuit makes room for the second.
        let options = DeviceOptions { graphs: GraphPolicy::Never, ..DeviceOptions::default() };
        let limited = CudaBackend::open_with(0, with_first.peak_bytes + with_first.peak_bytes / 8, options).unwrap();
        assert!(first.prove(&limited).unwrap() == proof);
        assert!(second.prove(&limited).unwrap() == second.prove(&CpuBackend::new()).unwrap());
        assert!(limited.memory().used_bytes <= with_first.used_bytes, "{:?}", limited.memory());
        let starved = CudaBackend::open(0, with_first.peak_bytes / 2).unwrap();
        assert!(matches!(first.prove(&starved), Err(BackendError::OutOfMemory { .. })));
    });
}

#[test]
fn every_failed_allocation_of_a_circuit_is_an_error_that_leaks_nothing_and_falls_back() {
    let file = failing_allocation();
    emulated(&[("EMUCUDA_FAIL_ALLOC", file.to_str().unwrap())], || {
        let file = PathBuf::from(std::env::var("EMUCUDA_FAIL_ALLOC").unwrap());
        let chain = Chain::quick(1);
        let expected = chain.prove(&CpuBackend::new()).unwrap();
        let mut backend = open_without_shared_chunks();
        let all = backend.free_bytes().unwrap();
        let mut n_repeated = 0;
        with_every_allocation_failing(&file, Failing::AllFromThere, N_BUFFERS, |is_after| {
            if is_after {
                backend = open_without_shared_chunks();
                assert_eq!(backend.free_bytes().unwrap(), all);
                return;
            }
            let fallback = FallbackBackend::new(Some(backend.clone()), CpuBackend::new());
            assert!(chain.prove(&fallback).unwrap() == expected);
            assert!(fallback.name().starts_with("cuda:0"), "the device stays in use");
            let reasons = fallback.reasons();
            assert!(reasons.len() <= 1 && reasons.iter().all(|reason| reason.starts_with("prove_circuit on the CPU: out of memory")));
            n_repeated += reasons.len();
        });
        println!("{n_repeated} circuits were proved on the CPU");
        assert!(n_repeated > 50);
    });
}

/// The device fails for good in a circuit proof: that proof and the next one are the CPU's.
fn lost_device_is_replaced() {
    let chain = Chain::quick(3);
    let expected = chain.prove(&CpuBackend::new()).unwrap();
    let backend = FallbackBackend::new(Some(open(0)), CpuBackend::new());
    for _ in 0..2 {
        assert!(chain.prove(&backend).unwrap() == expected);
    }
    let reasons = backend.reasons();
    assert!(reasons.len() == 1 && reasons[0].starts_with("prove_circuit on the CPU: device cuda:0 ("), "{reasons:?}");
    assert_eq!(backend.name(), CpuBackend::new().name());
}

#[test]
fn a_device_lost_at_the_start_of_a_circuit_is_replaced_by_the_cpu() {
    emulated(&[("EMUCUDA_FAIL_LAUNCH", "1")], lost_device_is_replaced);
}

#[test]
fn a_device_lost_in_the_middle_of_a_circuit_is_replaced_by_the_cpu() {
    emulated(&[("EMUCUDA_FAIL_LAUNCH", "60")], lost_device_is_replaced);
}
