//! Devices whose memory does not hold all weights at once: idle oracles make room, and nothing that is computed changes.

use std::sync::atomic::{AtomicUsize, Ordering};

use zkinfer_circuits::backend::{Backend, BackendError, CommitShape};
use zkinfer_kernels::{CpuBackend, CudaBackend};

use crate::rounds::{Seen, rounds_over, sample_columns, weights};
use crate::{emulated, open};

/// Columns of the models' weights: beside them the rest of a proof is small.
const N_COLUMNS: usize = 64;
/// Three models, by what a proof of each shows.
const MODELS: [usize; 3] = [1, 2, 3];

/// A device on which one proof fits, but not all weights, with them; and what is expected of proofs over them.
fn crowded_device() -> (CudaBackend, Vec<<CudaBackend as Backend>::Oracle>, Vec<Seen>) {
    let reference = CpuBackend::new();
    let expected = MODELS.map(|model| rounds_over(&reference, N_COLUMNS, &weights(&reference, N_COLUMNS, model).unwrap()).unwrap());
    let roomy = open(0);
    let oracle = weights(&roomy, N_COLUMNS, 1).unwrap();
    let weight_bytes = roomy.memory().used_bytes;
    rounds_over(&roomy, N_COLUMNS, &oracle).unwrap();
    let limit = roomy.memory().peak_bytes + weight_bytes / 8;
    assert!(limit < 3 * weight_bytes, "{limit} bytes against {weight_bytes} of each model");
    let crowded = CudaBackend::open(0, limit).unwrap();
    let oracles = MODELS.map(|model| weights(&crowded, N_COLUMNS, model).unwrap());
    (crowded, oracles.into(), expected.into())
}

fn stayed_within_the_limit(backend: &CudaBackend) {
    let memory = backend.memory();
    println!("{memory:?}");
    assert!(memory.peak_bytes <= memory.limit_bytes && memory.n_evicted > 0 && memory.evicted_bytes > memory.n_evicted);
}

#[test]
fn models_that_do_not_fit_together_are_proved_in_turn() {
    emulated(&[], || {
        let (backend, oracles, expected) = crowded_device();
        for _ in 0..2 {
            for (oracle, expected) in oracles.iter().zip(&expected) {
                let before = backend.memory().n_evicted;
                assert!(rounds_over(&backend, N_COLUMNS, oracle).unwrap() == *expected);
                assert!(backend.memory().n_evicted > before, "another model's weights made room");
            }
        }
        stayed_within_the_limit(&backend);
        drop(oracles);
        assert!(backend.memory().used_bytes < 4 << 20);
    });
}

#[test]
fn oracles_are_saved_alike_on_the_device_and_off_it() {
    emulated(&[], || {
        let cpu = CpuBackend::new();
        let (backend, oracles, _) = crowded_device();
        for (oracle, model) in oracles.iter().zip(MODELS) {
            let (used, n_evicted) = (backend.memory().used_bytes, backend.memory().n_evicted);
            assert!(backend.save(oracle).unwrap() == cpu.save(&weights(&cpu, N_COLUMNS, model).unwrap()).unwrap());
            assert_eq!((backend.memory().used_bytes, backend.memory().n_evicted), (used, n_evicted));
        }
    });
}

/// Callers that need memory at the same time move each other's idle oracles, never those in use; one that finds none gets an error.
fn models_share_a_crowded_device() {
    let (backend, oracles, expected) = crowded_device();
    let n_refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (backend, oracles, expected, n_refused) = (&backend, &oracles, &expected, &n_refused);
            scope.spawn(move || {
                for turn in 0..3 {
                    let model = (thread + turn) % MODELS.len();
                    match rounds_over(backend, N_COLUMNS, &oracles[model]) {
                        Ok(seen) => assert!(seen == expected[model]),
                        Err(BackendError::OutOfMemory { .. }) => _ = n_refused.fetch_add(1, Ordering::Relaxed),
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    println!("{n_refused:?} of 6 found the memory in use");
    stayed_within_the_limit(&backend);
    // Nothing was lost on the way.
    for (oracle, expected) in oracles.iter().zip(&expected) {
        assert!(rounds_over(&backend, N_COLUMNS, oracle).unwrap() == *expected);
    }
}

#[test]
fn two_callers_share_a_crowded_device() {
    emulated(&[("EMUCUDA_SEED", "5")], models_share_a_crowded_device);
}

#[test]
fn two_callers_share_a_crowded_device_whose_streams_are_late() {
    emulated(&[("EMUCUDA_LAZY", "1")], models_share_a_crowded_device);
}

#[test]
fn memory_that_the_driver_lacks_is_made_of_idle_oracles() {
    // A small device, and a second user of it whose buffers the first one's account does not know.
    emulated(&[("EMUCUDA_MEM", "4194304"), ("EMUCUDA_LAZY", "1")], || {
        let (cpu, other) = (CpuBackend::new(), open(0));
        let _held = [8, 9].map(|model| weights(&other, N_COLUMNS, model).unwrap());
        let backend = open(0);
        let oracles = MODELS.map(|model| weights(&backend, N_COLUMNS, model).unwrap());
        for (oracle, model) in oracles.iter().zip(MODELS) {
            let expected = rounds_over(&cpu, N_COLUMNS, &weights(&cpu, N_COLUMNS, model).unwrap()).unwrap();
            assert!(rounds_over(&backend, N_COLUMNS, oracle).unwrap() == expected);
        }
        stayed_within_the_limit(&backend);
    });
}

#[test]
fn idle_chunks_are_given_back_before_there_is_no_memory() {
    emulated(&[], || {
        let (shape, cpu) = (CommitShape { rate_bits: 1, cap_height: 2 }, CpuBackend::new());
        // The second takes most of the limit; chunks of the first, and what the second needs beyond them, exceed it.
        let backend = CudaBackend::open(0, 4 << 20).unwrap();
        for n_columns in [60, 104] {
            let columns = sample_columns(1 << 10, n_columns);
            let expected = cpu.cap(&cpu.commit(&columns, shape).unwrap());
            assert!(backend.cap(&backend.commit(&columns, shape).unwrap()) == expected);
            println!("{:?}", backend.memory());
        }
        assert!(backend.memory().peak_bytes > 3 << 20);
        let too_large = sample_columns(1 << 10, 180);
        assert!(matches!(backend.commit(&too_large, shape), Err(BackendError::OutOfMemory { .. })));
        assert!(backend.memory().peak_chunk_bytes <= 4 << 20);
    });
}
