//! Writes the constants of the CUDA kernels from plonky2's definitions: `zkinfer-cuda-constants [--check]`.
//!
//! Without `--check` it writes `kernels/cuda/poseidon_constants.cuh`; with it, it compares and fails if the file differs.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use plonky2::field::types::{Field, PrimeField64};
use plonky2::hash::poseidon::{ALL_ROUND_CONSTANTS, HALF_N_FULL_ROUNDS, N_PARTIAL_ROUNDS, N_ROUNDS, Poseidon};
use zkinfer_circuits::field::F;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cuda/poseidon_constants.cuh");
const WIDTH: usize = 12;

/// Row after row.
type Matrix = [[u64; WIDTH]; WIDTH];

/// The header's text.
///
/// # Panics
/// If an entry of the matrix breaks a bound that the kernels rely on.
fn header() -> String {
    let mut text = String::from(
        "// Constants of Poseidon over Goldilocks. Generated: cargo run --release -p zkinfer-kernels --bin zkinfer-cuda-constants\n#pragma once\n",
    );
    let matrix = mds_matrix();
    let square = product(&matrix, &matrix);
    let cube = product(&square, &matrix);
    check_bounds(&matrix, &square, &cube);
    text.push_str(
        "// M: what its corner adds to the circulant; of that a fourth modulo x^3 - 1, a fourth modulo x^3 + 1, half modulo x^6 + 1.\n",
    );
    let _ = writeln!(text, "#define POSEIDON_MDS_CORNER {}", F::MDS_MATRIX_DIAG[0]);
    let [cyclic_3, negacyclic_3, negacyclic_6] = circulant_factors();
    macro_list(&mut text, "MDS_CYCLIC_3", &cyclic_3);
    macro_list(&mut text, "MDS_NEGACYCLIC_3", &negacyclic_3);
    macro_list(&mut text, "MDS_NEGACYCLIC_6", &negacyclic_6);
    text.push_str("// M, M^2, M^3, row after row.\n");
    macro_matrix(&mut text, "MDS", &matrix);
    macro_matrix(&mut text, "MDS_SQUARE", &square);
    macro_matrix(&mut text, "MDS_CUBE", &cube);
    text.push_str("// Of all rounds as they are defined.\n");
    array(&mut text, "ROUND", &ALL_ROUND_CONSTANTS);
    let (full, partial) = moved_constants(&matrix);
    text.push_str("// Of the full rounds, the fifth with what was moved there; of the partial rounds, the first element's.\n");
    array(&mut text, "FULL", &full);
    array(&mut text, "PARTIAL", &partial);
    text
}

/// The matrix M of a round: `M_rj = circulant_(j-r mod 12)`, with the diagonal added.
fn mds_matrix() -> Matrix {
    std::array::from_fn(|row| {
        std::array::from_fn(|column| {
            let diagonal = if row == column { F::MDS_MATRIX_DIAG[row] } else { 0 };
            F::MDS_MATRIX_CIRC[(column + WIDTH - row) % WIDTH] + diagonal
        })
    })
}

/// In integers.
fn product(left: &Matrix, right: &Matrix) -> Matrix {
    std::array::from_fn(|row| std::array::from_fn(|column| (0..WIDTH).map(|inner| left[row][inner] * right[inner][column]).sum()))
}

/// The circulant's coefficients by `x^12 - 1 = (x^3 - 1)(x^3 + 1)(x^6 + 1)`: modulo the factors, divided by 4, 4 and 2.
fn circulant_factors() -> [Vec<i64>; 3] {
    let circulant = F::MDS_MATRIX_CIRC.map(u64::cast_signed);
    let (cyclic_6, negacyclic_6) = halves(&circulant);
    let (cyclic_3, negacyclic_3) = halves(&cyclic_6);
    [cyclic_3, negacyclic_3, negacyclic_6]
}

/// Half of the sums and of the differences of the coefficients in the lower and the upper half.
fn halves(coefficients: &[i64]) -> (Vec<i64>, Vec<i64>) {
    let (lower, upper) = coefficients.split_at(coefficients.len() / 2);
    let pairs = || lower.iter().zip(upper);
    assert!(pairs().all(|(a, b)| (a + b) % 2 == 0), "halves are not integers");
    (pairs().map(|(a, b)| (a + b) / 2).collect(), pairs().map(|(a, b)| (a - b) / 2).collect())
}

/// What poseidon.cuh says of the sizes of its sums.
fn check_bounds(matrix: &Matrix, square: &Matrix, cube: &Matrix) {
    assert!(F::MDS_MATRIX_DIAG[1..].iter().all(|&value| value == 0), "the diagonal is more than the corner");
    let limb = 1 << 22;
    assert!(matrix.iter().all(|row| row.iter().sum::<u64>() <= 264), "M * limbs leaves 31 bits");
    let factors = circulant_factors().map(|factor| factor.iter().map(|value| value.unsigned_abs()).sum::<u64>());
    assert_eq!(factors, [64, 11, 25], "sums and differences of limbs leave 31 bits");
    // Of the cyclic parts, four limbs each; of the negacyclic ones, a difference of two and of one.
    let [cyclic_3, negacyclic_3, negacyclic_6] = factors;
    assert!((4 * cyclic_3 + 2 * negacyclic_3 + negacyclic_6) * limb < 1 << 31, "sums of limbs leave 31 bits");
    for row in 0..WIDTH {
        let factors = cube[row].iter().sum::<u64>() + square[row][0] + matrix[row][0];
        assert!(factors < 1 << 25, "sums of halves leave 57 bits");
        assert!(square[row].iter().sum::<u64>() + matrix[0][0] < 1 << 25 && matrix[row].iter().sum::<u64>() < 1 << 25);
    }
}

/// Of the eight full rounds and of the first element in the partial ones.
///
/// What a partial round adds to other elements passes its S-box unchanged, so that M times it may be added before the next round instead.
fn moved_constants(matrix: &Matrix) -> (Vec<u64>, Vec<u64>) {
    let (until, after) = (WIDTH * HALF_N_FULL_ROUNDS, WIDTH * (HALF_N_FULL_ROUNDS + N_PARTIAL_ROUNDS));
    let constants: Vec<F> = ALL_ROUND_CONSTANTS[..WIDTH * N_ROUNDS].iter().map(|&value| F::from_canonical_u64(value)).collect();
    let mut moved = [F::ZERO; WIDTH];
    let mut partial = Vec::new();
    for round in constants[until..after].chunks(WIDTH) {
        let mut added: [F; WIDTH] = std::array::from_fn(|i| round[i] + moved[i]);
        partial.push(added[0].to_canonical_u64());
        added[0] = F::ZERO;
        moved = std::array::from_fn(|row| (0..WIDTH).map(|i| F::from_canonical_u64(matrix[row][i]) * added[i]).sum());
    }
    let mut full = [&constants[..until], &constants[after..]].concat();
    for (constant, moved) in full[until..].iter_mut().zip(moved) {
        *constant += moved;
    }
    (full.iter().map(PrimeField64::to_canonical_u64).collect(), partial)
}

fn macro_list(text: &mut String, name: &str, values: &[i64]) {
    let values: Vec<String> = values.iter().map(i64::to_string).collect();
    let _ = writeln!(text, "#define POSEIDON_{name} {{{}}}", values.join(", "));
}

fn macro_matrix(text: &mut String, name: &str, matrix: &Matrix) {
    let rows = matrix.map(|row| row.map(|value| value.to_string()).join(", "));
    let _ = writeln!(text, "#define POSEIDON_{name} \\\n    {{{}}}", rows.join(", \\\n     "));
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
