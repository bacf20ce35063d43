//! Writes the constants of the CUDA kernels from plonky2's definitions: `zkinfer-cuda-constants [--check]`.
//!
//! Without `--check` it writes `kernels/cuda/poseidon_constants.cuh`; with it, it compares and fails if the file differs.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use plonky2::hash::poseidon::{ALL_ROUND_CONSTANTS, Poseidon};
use zkinfer_circuits::field::F;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cuda/poseidon_constants.cuh");

/// The header's text.
fn header() -> String {
    let mut text = String::from(
        "// Constants of Poseidon over Goldilocks. Generated: cargo run --release -p zkinfer-kernels --bin zkinfer-cuda-constants\n#pragma once\n",
    );
    macro_list(&mut text, "MDS_CIRCULANT", &F::MDS_MATRIX_CIRC);
    macro_list(&mut text, "MDS_DIAGONAL", &F::MDS_MATRIX_DIAG);
    let corner = F::MDS_MATRIX_CIRC[0] + F::MDS_MATRIX_DIAG[0];
    let _ = writeln!(text, "#define POSEIDON_MDS_CORNER {corner}");
    array(&mut text, "ROUND", &ALL_ROUND_CONSTANTS);
    array(&mut text, "PARTIAL_FIRST", &F::FAST_PARTIAL_FIRST_ROUND_CONSTANT);
    array(&mut text, "PARTIAL_ROUND", &F::FAST_PARTIAL_ROUND_CONSTANTS);
    array(&mut text, "PARTIAL_V", F::FAST_PARTIAL_ROUND_VS.as_flattened());
    array(&mut text, "PARTIAL_W", F::FAST_PARTIAL_ROUND_W_HATS.as_flattened());
    array(&mut text, "PARTIAL_INITIAL", F::FAST_PARTIAL_ROUND_INITIAL_MATRIX.as_flattened());
    text
}

fn macro_list(text: &mut String, name: &str, values: &[u64]) {
    let values: Vec<String> = values.iter().map(u64::to_string).collect();
    let _ = writeln!(text, "#define POSEIDON_{name} {{{}}}", values.join(", "));
}

fn array(text: &mut String, name: &str, values: &[u64]) {
    let _ = writeln!(text, "static __device__ __constant__ const unsigned long long POSEIDON_{name}[{}] = {{", values.len());
    for line in values.chunks(6) {
        let words: Vec<String> = line.iter().map(|value| format!("0x{value:016x}ULL,")).collect();
        let _ = writeln!(text, "    {}", words.join(" "));
    }
    text.push_str("};\n");
}

fn main() -> ExitCode {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(_) => return fail("usage: zkinfer-cuda-constants [--check]"),
    };
    let file = Path::new(FILE);
    if check {
        let same = std::fs::read_to_string(file).is_ok_and(|text| text == header());
        return if same { ExitCode::SUCCESS } else { fail("poseidon_constants.cuh is not what the definitions give: write it again") };
    }
    match std::fs::write(file, header()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{FILE}: {error}")),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_constants_are_those_of_the_definitions() {
        assert_eq!(std::fs::read_to_string(FILE).unwrap(), header());
    }
}
