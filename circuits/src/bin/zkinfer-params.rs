//! Rebuilds the parameters file from source: `zkinfer-params [--check] [FILE]`.
//!
//! Without `--check` it writes FILE (default `circuits/params/default.bin`); with it, it compares and fails if the file differs.

#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use zkinfer_circuits::recursion::kinds::leaf_kinds;
use zkinfer_circuits::recursion::layers::StarkLayers;
use zkinfer_circuits::recursion::parameters::Parameters;
use zkinfer_circuits::recursion::prover::build_parameters;
use zkinfer_circuits::security::{Profile, ProfileName};

enum Mode {
    Write,
    Check,
}

fn parse_arguments() -> Result<(Mode, PathBuf)> {
    let mut mode = Mode::Write;
    let mut file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/params/default.bin"));
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--check" => mode = Mode::Check,
            option if option.starts_with('-') => bail!("unknown option {option}; usage: zkinfer-params [--check] [FILE]"),
            path => file = PathBuf::from(path),
        }
    }
    Ok((mode, file))
}

fn report(parameters: &Parameters) {
    let security = parameters.security();
    println!("parameters id      {:?}", parameters.id().elements);
    println!("leaf circuits      {}", parameters.registry().leaves().len());
    println!("heuristic FRI bits {:.1}", security.heuristic_bits);
    println!("proven FRI bits    {:.1}", security.proven_bits);
    println!("permutation bits   {:.1}", security.permutation_bits);
}

fn run() -> Result<()> {
    let (mode, file) = parse_arguments()?;
    let parameters = build_parameters::<StarkLayers>(&Profile::new(ProfileName::Default), &leaf_kinds())?;
    let bytes = parameters.to_bytes()?;
    report(&parameters);
    match mode {
        Mode::Write => {
            std::fs::write(&file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
            println!("wrote {} ({} bytes)", file.display(), bytes.len());
        }
        Mode::Check => {
            let stored = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            if stored != bytes {
                bail!("{} is not what this source builds; rebuild it with zkinfer-params", file.display());
            }
            println!("{} is what this source builds", file.display());
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
