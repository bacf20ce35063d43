//! The CUDA backend on the emulated driver (`kernels/cuda/emulator/build.sh`): the real kernels and the real host code, executed on the CPU.
//!
//! Every test runs in a process of its own, whose environment says what the emulated machine is like. Without the emulated driver they print why
//! they did nothing; `ZKINFER_CUDA_EMULATOR` names another folder to take it from. With `ZKINFER_CUDA_REAL=1` they run on the first real device: all but
//! those that need a machine which only the emulator can be.
#![cfg(feature = "cuda")]
#![allow(clippy::print_stdout, reason = "says what was not run, and why")]
#![allow(missing_docs)]

mod circuit_proofs;
mod circuits;
mod graphs;
mod residency;
mod rounds;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use plonky2::field::types::Field;
use rounds::{Seen, rounds, sample_columns, weights};
use zkinfer_circuits::backend::reference::Reference;
use zkinfer_circuits::backend::{Backend, BackendError, CommitShape};
use zkinfer_circuits::field::F;
use zkinfer_kernels::cuda::{ChunkPolicy, DeviceOptions};
use zkinfer_kernels::devices::{NoDevice, devices};
use zkinfer_kernels::select::{DeviceChoice, SelectError, Selected, Selection, select};
use zkinfer_kernels::{CpuBackend, CudaBackend, DualBackend, FallbackBackend, Inspect, conformance, select_backend};

/// Set in the process that runs a test's body.
const INNER: &str = "ZKINFER_CUDA_INNER";
const NO_LIMIT: u64 = u64::MAX;

/// The folder of the emulated driver, if it was built.
fn emulator() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cuda-emulator");
    let folder = std::env::var_os("ZKINFER_CUDA_EMULATOR").map_or(default, PathBuf::from);
    folder.join("libcuda.so.1").exists().then_some(folder)
}

/// Whether a real device computes.
fn is_real() -> bool {
    std::env::var_os("ZKINFER_CUDA_REAL").is_some_and(|value| value == "1")
}

/// What an emulated machine may have that makes it no other: the order of threads, late streams.
const NO_OTHER_MACHINE: [&str; 2] = ["EMUCUDA_SEED", "EMUCUDA_LAZY"];

/// Runs `body` in a process of its own, with these variables, on the driver in this folder if there is one.
fn apart(folder: Option<&Path>, machine: &[(&str, &str)], body: impl FnOnce()) {
    let thread = std::thread::current();
    let name = thread.name().expect("the harness names its threads");
    if std::env::var(INNER).is_ok_and(|inner| inner == name) {
        return body();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads", "1"]).env(INNER, name);
    command.envs(folder.map(|folder| ("LD_LIBRARY_PATH", folder)));
    // The runtime of a sanitizer that the emulated driver was built with.
    command.envs(std::env::var_os("ZKINFER_CUDA_PRELOAD").map(|library| ("LD_PRELOAD", library)));
    let output = command.envs(machine.iter().copied()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    println!("{}", String::from_utf8_lossy(&text));
    assert!(output.status.success(), "{name} failed on the machine {machine:?}");
}

/// Runs `body` on an emulated machine, or on a real one that is like it.
fn emulated(machine: &[(&str, &str)], body: impl FnOnce()) {
    if is_real() {
        return match machine.iter().find(|(variable, _)| !NO_OTHER_MACHINE.contains(variable)) {
            Some((variable, _)) => println!("not run on a real device, which is no machine with {variable}"),
            None => apart(None, &[], body),
        };
    }
    match emulator() {
        Some(folder) => apart(Some(&folder), machine, body),
        None => println!("not run, there is no emulated driver: kernels/cuda/emulator/build.sh builds it"),
    }
}

/// Every buffer an allocation of its own, which the driver of a sanitizer guards; else as a service opens a device.
fn open(ordinal: usize) -> CudaBackend {
    let is_guarded = std::env::var_os("ZKINFER_CUDA_PRELOAD").is_some();
    let chunks = if is_guarded { ChunkPolicy::OneForEachBuffer } else { ChunkPolicy::Shared };
    CudaBackend::open_with(ordinal, NO_LIMIT, DeviceOptions { chunks, ..DeviceOptions::default() }).unwrap()
}

fn check(backend: impl Backend) {
    if let Err(error) = conformance::check(backend) {
        panic!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default());
    }
}

#[test]
fn cuda_backend_conforms() {
    emulated(&[], || {
        let backend = open(0);
        let free = backend.free_bytes().unwrap();
        check(backend.clone());
        backend.forget_circuits();
        let memory = backend.memory();
        let left = backend.free_bytes().unwrap();
        assert!(backend.graph_use().n_made > 0 && backend.graph_use().n_refused == 0, "{:?}", backend.graph_use());
        drop(backend);
        // A real driver's memory is others' too, and it keeps what it likes.
        if !is_real() {
            let graph_bytes = free - left - memory.chunk_bytes;
            assert!(graph_bytes > 0 && graph_bytes < 1 << 20, "{graph_bytes} bytes in graphs");
            assert_eq!(open(0).free_bytes().unwrap(), free);
        }
        // What remains in use are tables of twiddles: nothing leaked.
        assert!(memory.used_bytes < 8 << 20 && memory.peak_bytes > memory.used_bytes, "{memory:?}");
        assert!(memory.used_bytes <= memory.chunk_bytes && memory.peak_bytes <= memory.peak_chunk_bytes, "{memory:?}");
    });
}

#[test]
fn every_buffer_of_the_device_is_the_cpu_s() {
    emulated(&[("EMUCUDA_LAZY", "1")], || {
        let backend = open(0);
        assert!(rounds(&DualBackend::of_every_buffer(CpuBackend::new(), backend.clone())).unwrap() == expected());
        conformance::check_every_buffer(backend).map_err(|error| error.source).unwrap();
    });
}

fn expected() -> Seen {
    rounds(&Reference).unwrap()
}

#[test]
fn device_passes_its_self_test() {
    emulated(&[], || open(0).self_test().unwrap());
}

#[test]
fn rounds_agree_with_the_reference_whatever_the_order_of_threads() {
    emulated(&[("EMUCUDA_SEED", "77")], || assert!(rounds(&open(0)).unwrap() == expected()));
}

#[test]
fn rounds_agree_when_streams_are_as_late_as_they_may() {
    emulated(&[("EMUCUDA_LAZY", "1")], || {
        let (backend, expected) = (open(0), expected());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| assert!(rounds(&backend).unwrap() == expected));
            }
        });
    });
}

/// A cap of all leaves shows the whole extension, unhashed.
fn extensions_agree(sizes: &[(usize, usize, usize)]) {
    let dual = DualBackend::new(CpuBackend::new(), open(0));
    for &(log_rows, n_columns, rate_bits) in sizes {
        let shape = CommitShape { rate_bits, cap_height: log_rows + rate_bits };
        dual.commit(&sample_columns(1 << log_rows, n_columns), shape).unwrap();
    }
}

/// Every number of stages that is left beside steps of four, in contiguous, strided and gathering launches, and blocks of less than a warp.
#[test]
fn transforms_of_every_size_agree_with_the_cpu() {
    emulated(&[("EMUCUDA_SEED", "5")], || {
        let (cpu, cuda) = (CpuBackend::new(), open(0));
        let dual = DualBackend::of_every_buffer(cpu.clone(), cuda.clone());
        for log_size in 0..=18 {
            let columns = sample_columns(1 << log_size, 1);
            dual.commit(&columns, CommitShape { rate_bits: 1, cap_height: log_size + 1 }).unwrap();
            let oracle = cpu.commit(&columns, CommitShape { rate_bits: 0, cap_height: log_size }).unwrap();
            let buffers = cpu.oracle_values(&oracle).unwrap();
            let (coefficients, values) = buffers[..2 << log_size].split_at(1 << log_size);
            assert!(cuda.interpolate_coset(values, F::coset_shift()).unwrap() == coefficients, "2^{log_size} values on a coset");
        }
        assert!(matches!(cuda.interpolate_coset(&[F::ONE; 3], F::ONE), Err(BackendError::Unsupported(_))));
    });
}

#[test]
fn transforms_of_several_launches_agree_with_the_cpu() {
    emulated(&[], || extensions_agree(&[(12, 4, 0), (13, 2, 1), (14, 1, 3)]));
}

#[test]
fn large_transforms_agree_with_the_cpu() {
    // The largest takes three launches, and pinned memory for its upload.
    emulated(&[], || extensions_agree(&[(17, 1, 1), (21, 1, 0)]));
}

#[test]
fn columns_are_uploaded_in_groups_while_others_are_transformed() {
    // Four groups of one column through two buffers; two groups, the second not full.
    emulated(&[("EMUCUDA_LAZY", "1")], || extensions_agree(&[(20, 4, 0), (18, 5, 0)]));
}

#[test]
fn callers_upload_in_groups_at_the_same_time() {
    emulated(&[("EMUCUDA_LAZY", "1"), ("EMUCUDA_SEED", "3")], || {
        let (backend, shape) = (open(0), CommitShape { rate_bits: 0, cap_height: 4 });
        let columns = sample_columns(1 << 19, 4);
        let cpu = CpuBackend::new();
        let expected = cpu.cap(&cpu.commit(&columns, shape).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert!(backend.cap(&backend.commit(&columns, shape).unwrap()) == expected));
            }
        });
        assert!(backend.memory().used_bytes < 4 << 20);
    });
}

#[test]
fn tops_of_trees_are_computed_in_one_launch() {
    emulated(&[], || {
        let dual = DualBackend::of_every_buffer(CpuBackend::new(), open(0));
        let mut before = (0, 0);
        // Levels of at most 2^8 parents are the top's; those below and none have launches of their own.
        for (log_rows, cap_height, levels, tops) in [
            (0, 0, 0, 0),
            (1, 0, 0, 1),
            (4, 4, 0, 0),
            (8, 1, 0, 1),
            (9, 0, 0, 1),
            (9, 9, 0, 0),
            (10, 3, 1, 1),
            (12, 8, 3, 1),
            (12, 9, 3, 0),
            (11, 10, 1, 0),
        ] {
            dual.commit(&sample_columns(1 << log_rows, 5), CommitShape { rate_bits: 0, cap_height }).unwrap();
            let launches = dual.second().launches();
            let now = (launches["merkle_level"], launches["merkle_top"]);
            assert_eq!((now.0 - before.0, now.1 - before.1), (levels, tops), "2^{log_rows} leaves, cap {cap_height}");
            before = now;
        }
    });
}

#[test]
fn two_devices_give_equal_results() {
    emulated(&[("EMUCUDA_DEVICES", "2")], || {
        let found = devices().unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].compute_capability, (9, 0));
        let (first, second) = (open(0), open(1));
        assert_ne!(first.name(), second.name());
        assert!(rounds(&first).unwrap() == rounds(&second).unwrap());
        rounds(&DualBackend::new(first, second)).unwrap();
        assert!(matches!(CudaBackend::open(2, NO_LIMIT), Err(BackendError::Device { .. })));
    });
}

#[test]
fn machine_without_a_device_is_an_error_and_no_panic() {
    emulated(&[("EMUCUDA_DEVICES", "0")], || {
        assert!(matches!(devices(), Err(NoDevice::None | NoDevice::Driver(_))));
        assert!(matches!(CudaBackend::open(0, NO_LIMIT), Err(BackendError::Device { .. })));
    });
}

#[test]
fn machine_without_a_driver_is_an_error_and_no_panic() {
    apart(Some(Path::new("/nonexistent")), &[], || match devices() {
        Err(NoDevice::NoDriver) => assert!(matches!(CudaBackend::open(0, NO_LIMIT), Err(BackendError::Device { .. }))),
        other => println!("not run, this machine has a driver: {other:?}"),
    });
}

#[test]
fn limit_of_memory_holds_and_is_an_error() {
    emulated(&[], || {
        let unlimited = open(0);
        rounds(&unlimited).unwrap();
        let peak = unlimited.memory().peak_bytes;
        let limited = CudaBackend::open(0, peak / 2).unwrap();
        assert!(matches!(rounds(&limited), Err(BackendError::OutOfMemory { needed_bytes, .. }) if needed_bytes > 0));
        assert!(limited.memory().peak_chunk_bytes <= peak / 2);
        // Buffers of all sizes leave less than a quarter of the chunks unused.
        let enough = CudaBackend::open(0, peak + peak / 3).unwrap();
        rounds(&enough).unwrap();
        println!("{:?}", enough.memory());
        assert!(enough.memory().peak_chunk_bytes <= enough.memory().limit_bytes);
    });
}

/// The file whose number says which allocation fails, one for each test.
fn failing_allocation() -> PathBuf {
    let thread = std::thread::current();
    let test = thread.name().expect("the harness names its threads").replace("::", "-");
    std::env::temp_dir().join(format!("zkinfer-cuda-{}-{test}", std::process::id()))
}

/// Which allocations fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    /// One: it succeeds when idle oracles have made room.
    One,
    /// It and all later ones, whatever makes room: the memory is others'.
    AllFromThere,
}

/// Runs `body` with every allocation failing in turn, until one run has fewer; says whether the run's failure came.
fn with_every_allocation_failing(file: &Path, failing: Failing, n_expected: i32, mut body: impl FnMut(bool)) {
    for turn in 1.. {
        let (number, end) = if failing == Failing::One { (turn, "0") } else { (-turn, "-1") };
        std::fs::write(file, format!("{number:<12}")).unwrap();
        let reached = || std::fs::read_to_string(file).unwrap().trim() == end;
        body(false);
        let is_last = !reached();
        std::fs::write(file, "0").unwrap();
        body(true);
        if is_last {
            println!("{} allocations failed in turn", turn - 1);
            assert!(turn > n_expected);
            return std::fs::remove_file(file).unwrap();
        }
    }
}

/// At least so many allocations a run where every buffer is one.
const N_BUFFERS: i32 = 50;

fn open_without_shared_chunks() -> CudaBackend {
    CudaBackend::open_with(0, NO_LIMIT, DeviceOptions { chunks: ChunkPolicy::OneForEachBuffer, ..DeviceOptions::default() }).unwrap()
}

/// Each failure leaves what the error of a run leaves: tables, and after them nothing.
fn failed_allocations_leak_nothing(chunks: ChunkPolicy, failing: Failing, n_expected: i32) {
    let file = failing_allocation();
    emulated(&[("EMUCUDA_FAIL_ALLOC", file.to_str().unwrap())], || {
        let file = PathBuf::from(std::env::var("EMUCUDA_FAIL_ALLOC").unwrap());
        let open = || CudaBackend::open_with(0, NO_LIMIT, DeviceOptions { chunks, ..DeviceOptions::default() }).unwrap();
        let mut backend = open();
        let all = backend.free_bytes().unwrap();
        with_every_allocation_failing(&file, failing, n_expected, |is_after| {
            if is_after {
                // The error is past: chunks and graphs may remain, then nothing.
                assert!(all - backend.free_bytes().unwrap() >= backend.memory().chunk_bytes);
                backend = open();
                assert_eq!(backend.free_bytes().unwrap(), all);
                return;
            }
            match rounds(&backend) {
                Ok(_) | Err(BackendError::OutOfMemory { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        });
    });
}

#[test]
fn every_failed_allocation_is_repeated_or_an_error_that_leaks_nothing() {
    failed_allocations_leak_nothing(ChunkPolicy::OneForEachBuffer, Failing::One, N_BUFFERS);
}

#[test]
fn every_failed_chunk_is_repeated_or_an_error_that_leaks_nothing() {
    // A shared chunk that fails is replaced by one that is just large enough: only the second failure in a row shows.
    failed_allocations_leak_nothing(ChunkPolicy::Shared, Failing::One, 1);
}

#[test]
fn every_full_device_with_shared_chunks_is_an_error_that_leaks_nothing() {
    failed_allocations_leak_nothing(ChunkPolicy::Shared, Failing::AllFromThere, 1);
}

#[test]
fn every_full_device_is_an_error_that_leaks_nothing() {
    failed_allocations_leak_nothing(ChunkPolicy::OneForEachBuffer, Failing::AllFromThere, N_BUFFERS);
}

#[test]
fn every_failed_allocation_with_idle_oracles_is_mended_by_them() {
    let file = failing_allocation();
    emulated(&[("EMUCUDA_FAIL_ALLOC", file.to_str().unwrap())], || {
        let file = PathBuf::from(std::env::var("EMUCUDA_FAIL_ALLOC").unwrap());
        let expected = expected();
        let mut backend = open_without_shared_chunks();
        let mut idle = weights(&backend, 1, 1).unwrap();
        let bytes = backend.save(&idle).unwrap();
        with_every_allocation_failing(&file, Failing::One, N_BUFFERS, |is_after| {
            if is_after {
                // Moved away or not, the idle oracle is what it was.
                assert!(backend.save(&idle).unwrap() == bytes);
                backend = open_without_shared_chunks();
                idle = weights(&backend, 1, 1).unwrap();
                return;
            }
            assert!(rounds(&backend).unwrap() == expected);
        });
    });
}

#[test]
fn every_full_device_falls_back_to_the_cpu_or_to_a_new_job() {
    let file = failing_allocation();
    emulated(&[("EMUCUDA_FAIL_ALLOC", file.to_str().unwrap())], || {
        let file = PathBuf::from(std::env::var("EMUCUDA_FAIL_ALLOC").unwrap());
        let expected = expected();
        let mut backend = FallbackBackend::new(Some(open_without_shared_chunks()), CpuBackend::new());
        let (mut n_repeated, mut n_begun_again) = (0, 0);
        with_every_allocation_failing(&file, Failing::AllFromThere, N_BUFFERS, |is_after| {
            if is_after {
                backend = FallbackBackend::new(Some(open_without_shared_chunks()), CpuBackend::new());
                return;
            }
            match rounds(&backend) {
                Ok(seen) => {
                    assert!(seen == expected);
                    n_repeated += backend.reasons().len();
                }
                // The codeword was on the device: the job begun again runs on the CPU.
                Err(BackendError::OutOfMemory { .. }) => {
                    assert!(rounds(&backend).unwrap() == expected);
                    assert_eq!(backend.name(), CpuBackend::new().name());
                    n_begun_again += 1;
                }
                Err(other) => panic!("{other}"),
            }
        });
        println!("{n_repeated} steps repeated, {n_begun_again} jobs begun again");
        assert!(n_repeated > n_begun_again && n_begun_again > 0);
    });
}

/// The device fails for good at a launch of the rounds: the first run is repeated or begun again, the second does not touch the device.
fn lost_device_is_replaced() {
    let expected = expected();
    let backend = FallbackBackend::new(Some(open(0)), CpuBackend::new());
    match rounds(&backend) {
        Ok(seen) => assert!(seen == expected),
        Err(BackendError::Device { device, .. }) => assert!(device.starts_with("cuda:0"), "{device}"),
        Err(other) => panic!("{other}"),
    }
    assert!(!backend.reasons().is_empty(), "the launch was reached");
    assert_eq!(backend.name(), CpuBackend::new().name());
    assert!(rounds(&backend).unwrap() == expected);
}

#[test]
fn device_that_is_lost_at_once_is_replaced_by_the_cpu() {
    emulated(&[("EMUCUDA_FAIL_LAUNCH", "1")], lost_device_is_replaced);
}

#[test]
fn device_that_is_lost_in_the_middle_is_replaced_by_the_cpu() {
    emulated(&[("EMUCUDA_FAIL_LAUNCH", "60")], lost_device_is_replaced);
}

#[test]
fn selection_takes_the_device_that_passes_its_test() {
    emulated(&[("EMUCUDA_DEVICES", "2")], || {
        let (backend, reason) = select_backend();
        assert!(backend.name().starts_with("cuda:0 ("), "{}", backend.name());
        assert!(reason.contains(", which passed its test, else on the CPU (") && reason.contains("; not used: cuda:1 ("), "{reason}");
        assert!(rounds(&backend).unwrap() == expected());
        let second = Selection { device: DeviceChoice::Ordinals(vec![1]), ..Selection::default() };
        assert!(select(&second).unwrap().backends[0].name().starts_with("cuda:1 ("));
        let starved = Selection { memory_limit_bytes: 1 << 10, ..second };
        assert!(matches!(select(&starved), Err(SelectError::Unusable { ordinal: 1, source: BackendError::OutOfMemory { .. } })));
    });
}

#[test]
fn selection_for_a_service_takes_all_devices_or_those_that_are_named() {
    emulated(&[("EMUCUDA_DEVICES", "3")], || {
        let Selected { backends, reason } = select(&Selection::default()).unwrap();
        assert_eq!(backends.len(), 3);
        assert!(reason.contains(" and cuda:2 (") && reason.contains(", which passed their tests, else on the CPU ("), "{reason}");
        let named = Selection { device: DeviceChoice::Ordinals(vec![2, 0]), ..Selection::default() };
        let names: Vec<String> = select(&named).unwrap().backends.iter().map(Backend::name).collect();
        assert!(names[0].starts_with("cuda:2 (") && names[1].starts_with("cuda:0 (") && names.len() == 2, "{names:?}");
    });
}

#[test]
fn selection_leaves_a_device_that_fails_its_test() {
    emulated(&[("EMUCUDA_FAIL_LAUNCH", "9")], || {
        let (backend, reason) = select_backend();
        assert_eq!(backend.name(), CpuBackend::new().name());
        assert!(reason.contains("cannot be used: device cuda:0 ("), "{reason}");
    });
}

#[test]
fn fallback_without_a_device_is_the_second_backend() {
    let backend = FallbackBackend::<CudaBackend, _>::new(None, CpuBackend::new());
    assert!(rounds(&backend).unwrap() == expected());
    assert!(backend.reasons().is_empty());
}
