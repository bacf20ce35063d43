//! `zkinferd devices`, in the real process; on emulated devices if they were built (kernels/cuda/emulator/build.sh) and this build has CUDA.
#![allow(clippy::print_stdout, reason = "says what was not run, and why")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs `zkinferd` with these arguments, on an emulated machine if one is described.
fn zkinferd(arguments: &[&str], machine: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zkinferd"));
    command.args(arguments).envs(machine.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

/// The folder of the emulated driver, if it was built and can be used.
fn emulator() -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cuda-emulator");
    let is_there = cfg!(feature = "cuda") && folder.join("libcuda.so.1").exists();
    if !is_there {
        println!("not run: this build has no CUDA, or there is no emulated driver");
    }
    is_there.then(|| folder.to_str().unwrap().to_owned())
}

#[test]
fn without_an_accelerator_the_cpu_is_listed_and_the_reason_told() {
    let output = zkinferd(&["devices"], &[("LD_LIBRARY_PATH", "/nonexistent")]);
    assert!(output.status.success());
    let listed = text(&output.stdout);
    assert!(listed.contains("cpu: portable, "), "{listed}");
    if !cfg!(feature = "cuda") {
        assert!(
            listed.starts_with("no accelerator: this build has no support for accelerators: build with the feature `cuda`"),
            "{listed}"
        );
        assert!(listed.lines().last().unwrap().starts_with("this build's kernels run on the CPU ("), "{listed}");
    }
}

#[test]
fn every_vector_level_passes_its_self_test() {
    let output = zkinferd(&["devices", "--self-test", "--json"], &[("LD_LIBRARY_PATH", "/nonexistent")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let report = report(&output);
    let levels = report["cpu"]["levels"].as_array().unwrap();
    assert_eq!(levels[0]["level"], "portable");
    assert!(levels.iter().all(|level| level["self_test"]["passed"] == true), "{report}");
    assert!(report["selected"]["reason"].as_str().unwrap().starts_with("this build's kernels run on "));
}

#[test]
fn a_device_that_is_not_there_ends_the_start_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let output = zkinferd(&["serve", "--listen", "127.0.0.1:0", "--device", "999", "--data-dir", data_dir.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("device 999 was asked for"), "{}", text(&output.stderr));
}

#[test]
fn emulated_devices_are_listed_and_pass_their_self_test() {
    let Some(folder) = emulator() else { return };
    let machine = [("LD_LIBRARY_PATH", folder.as_str()), ("EMUCUDA_DEVICES", "2")];
    let output = zkinferd(&["devices", "--self-test", "--json"], &machine);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let report = report(&output);
    let devices = report["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 2);
    for (ordinal, device) in devices.iter().enumerate() {
        assert_eq!(device["ordinal"], ordinal);
        assert_eq!(device["self_test"]["passed"], true, "{report}");
    }
    let selected = report["selected"]["backends"].as_array().unwrap();
    assert!(selected[0].as_str().unwrap().starts_with("cuda:0 ("), "{report}");
    assert!(selected[1].as_str().unwrap().starts_with("cuda:1 ("), "{report}");
    assert!(report["selected"]["reason"].as_str().unwrap().contains(" and cuda:1 ("), "{report}");
}

#[test]
fn a_failing_device_is_told_by_the_exit_code_and_not_selected() {
    let Some(folder) = emulator() else { return };
    let machine = [("LD_LIBRARY_PATH", folder.as_str()), ("EMUCUDA_MEM", "65536")];
    let output = zkinferd(&["devices", "--self-test", "--json"], &machine);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let report = report(&output);
    let error = &report["devices"][0]["self_test"]["error"];
    assert!(error.as_str().unwrap().starts_with("out of memory"), "{report}");
    assert!(report["selected"]["backends"][0].as_str().unwrap().starts_with("cpu "), "{report}");
    assert!(report["selected"]["reason"].as_str().unwrap().contains("cannot be used: out of memory"), "{report}");
}
