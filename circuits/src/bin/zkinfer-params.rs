//! Rebuilds a parameters file from source: `zkinfer-params [--check] [--profile default|strict] [FILE]`.
//!
//! Without `--check` it writes FILE (by default the one in `circuits/params`); with it, it compares and fails if the file differs.

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

struct Arguments {
    mode: Mode,
    profile: ProfileName,
    file: PathBuf,
}

fn parse_profile(word: Option<String>) -> Result<ProfileName> {
    match word.as_deref() {
        Some("default") => Ok(ProfileName::Default),
        Some("strict") => Ok(ProfileName::Strict),
        other => bail!("--profile is {other:?}; give default or strict"),
    }
}

fn parse_arguments() -> Result<Arguments> {
    let (mut mode, mut profile, mut file) = (Mode::Write, ProfileName::Default, None);
    let mut words = std::env::args().skip(1);
    while let Some(argument) = words.next() {
        match argument.as_str() {
            "--check" => mode = Mode::Check,
            "--profile" => profile = parse_profile(words.next())?,
            option if option.starts_with('-') => {
                bail!("unknown option {option}; usage: zkinfer-params [--check] [--profile default|strict] [FILE]")
            }
            path => file = Some(PathBuf::from(path)),
        }
    }
    let name = match profile {
        ProfileName::Default => "default.bin",
        ProfileName::Strict => "strict.bin",
    };
    let file = file.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/params")).join(name));
    Ok(Arguments { mode, profile, file })
}

fn report(parameters: &Parameters) {
    let security = parameters.security();
    println!("parameters id      {:?}", parameters.id().elements);
    println!("leaf circuits      {}", parameters.registry().leaves().len());
    println!("heuristic bits     {:.1}", security.composite_heuristic_bits());
    println!("proven bits        {:.1}", security.composite_proven_bits());
}

fn run() -> Result<()> {
    let Arguments { mode, profile, file } = parse_arguments()?;
    let parameters = build_parameters::<StarkLayers>(&Profile::new(profile), &leaf_kinds())?;
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
