//! The CUDA backend on the emulated driver (`kernels/cuda/emulator/build.sh`): the real kernels and the real host code, executed on the CPU.
//!
//! Every test runs in a process of its own, whose environment says what the emulated machine is like. Without the emulated driver they print why
//! they did nothing. With `ZKINFER_CUDA_DEVICE=real` they run on the devices of this machine, those apart that need a machine of a certain kind.
#![cfg(feature = "cuda")]
#![allow(missing_docs)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use zkinfer_circuits::backend::Backend;
use zkinfer_kernels::{CudaBackend, conformance};

/// Set in the process that runs a test's body.
const INNER: &str = "ZKINFER_CUDA_INNER";
const NO_LIMIT: u64 = u64::MAX;

/// The folder of the emulated driver, if it was built: `ZKINFER_CUDA_EMULATOR`, by default the one that build.sh writes.
fn emulator() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cuda-emulator");
    let folder = std::env::var_os("ZKINFER_CUDA_EMULATOR").map_or(default, PathBuf::from);
    folder.join("libcuda.so.1").exists().then_some(folder)
}

/// Runs `body` on an emulated machine, in a process of its own.
fn emulated(machine: &[(&str, &str)], body: impl FnOnce()) {
    let thread = std::thread::current();
    let name = thread.name().expect("the harness names its threads");
    if std::env::var(INNER).is_ok_and(|inner| inner == name) {
        return body();
    }
    let Some(folder) = emulator() else {
        println!("{name}: not run, there is no emulated driver: kernels/cuda/emulator/build.sh builds it");
        return;
    };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads", "1"]).env(INNER, name).env("LD_LIBRARY_PATH", folder);
    let output = command.envs(machine.iter().copied()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}

fn open(ordinal: usize) -> CudaBackend {
    CudaBackend::open(ordinal, NO_LIMIT).unwrap()
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
        println!("peak {} bytes", backend.memory().peak_bytes);
        // What remains are tables of twiddles.
        assert_eq!(free - backend.free_bytes().unwrap(), backend.memory().used_bytes);
    });
}
