//! Committing, opening, querying, saving and loading.

use plonky2::field::types::Field;
use zkinfer_circuits::backend::reference::Reference;
use zkinfer_circuits::backend::{Backend, BackendError, CommitShape, OracleSizes};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, ORDER, ext};

use super::samples::Samples;
use super::{Case, require};
use crate::dual::DualBackend;

/// Widths around the boundaries of leaf hashing: 4 elements are copied, 8 are absorbed at once.
const WIDTHS: [usize; 13] = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 65];

pub(super) fn cases<B: Backend>() -> Vec<Case<B>> {
    let mut cases: Vec<Case<B>> = Vec::new();
    let mut add = |log_rows: usize, n_columns: usize, rate_bits: usize, cap_height: usize| {
        let shape = CommitShape { rate_bits, cap_height };
        let name = format!("oracle of {n_columns} columns, 2^{log_rows} rows, rate bits {rate_bits}, cap height {cap_height}");
        cases.push((name, Box::new(move |dual| oracle(dual, log_rows, n_columns, shape))));
    };
    for width in WIDTHS {
        add(8, width, 3, 4);
    }
    for log_rows in 9..=12 {
        add(log_rows, 3, 3, 4);
    }
    for (rate_bits, cap_height) in [(1, 0), (2, 1), (1, 9), (3, 11), (4, 2)] {
        add(8, 5, rate_bits, cap_height);
    }
    // Rows around the tiles of every vector width, and one matrix of more columns than fit a register file or a cache line.
    for log_rows in 0..8 {
        add(log_rows, 6, 2, 1);
    }
    for n_columns in [31, 33, 127, 129] {
        add(6, n_columns, 1, 0);
    }
    add(13, 2, 1, 4);
    add(15, 1, 4, 4);
    cases.push(("oracle of extreme values".to_owned(), Box::new(extremes)));
    for bits in [0, 1, 5, 11] {
        cases.push((format!("grinding {bits} bits"), Box::new(move |dual| grinding(dual, bits))));
    }
    cases
}

fn oracle<B: Backend>(dual: &DualBackend<Reference, B>, log_rows: usize, n_columns: usize, shape: CommitShape) -> Result<(), BackendError> {
    let mut samples = Samples::new((log_rows * 1000 + n_columns) as u64);
    let columns = samples.columns(1 << log_rows, n_columns);
    let oracle = dual.commit(&columns, shape)?;
    let bytes = dual.save(&oracle)?;
    let loaded = dual.load(&bytes)?;
    require(dual.save(&loaded)? == bytes, "save after load")?;
    require(dual.sizes(&loaded) == OracleSizes { log_rows, n_columns, shape }, "sizes after load")?;
    check_refusals(dual, &bytes)?;
    let n_leaves = 1 << (log_rows + shape.rate_bits);
    for oracle in [&oracle, &loaded] {
        for range in [0..n_columns, 0..1, n_columns - 1..n_columns, n_columns / 2..n_columns] {
            dual.evaluate(oracle, range, samples.extension())?;
        }
        // In any order, and one twice.
        dual.query(oracle, &[n_leaves - 1, 0, n_leaves / 3, n_leaves / 2, 0])?;
        dual.query(oracle, &[])?;
    }
    Ok(())
}

/// Bytes of another length, and a value that is not below p: the second backend's at the end, the reference's after its header of four words.
fn check_refusals<B: Backend>(dual: &DualBackend<Reference, B>, bytes: &[u8]) -> Result<(), BackendError> {
    let refused = |bytes: &[u8]| matches!(dual.load(bytes), Err(BackendError::Damaged(_)));
    for cut in [0, 4, 8, 40, bytes.len() - 8, bytes.len() - 1] {
        require(refused(&bytes[..cut]), "load of truncated bytes")?;
    }
    for n_more in [1, 7, 8] {
        require(refused(&[bytes, &vec![0; n_more]].concat()), "load of bytes with others behind them")?;
    }
    let mut spoilt = bytes.to_vec();
    spoilt[40..48].fill(0xff);
    require(refused(&spoilt), "load of a value that is not below p")?;
    // The second backend's last values are its own to guard.
    let mut spoilt = bytes.to_vec();
    let end = spoilt.len();
    spoilt[end - 8..].fill(0xff);
    require(refused(&spoilt), "load of damaged bytes at the end")
}

/// Columns of one value each, canonical or not, opened at points of F and of K.
fn extremes<B: Backend>(dual: &DualBackend<Reference, B>) -> Result<(), BackendError> {
    let values = [0, 1, ORDER - 1, ORDER, u64::MAX, 1 << 32].map(F::from_noncanonical_u64);
    let columns = values.iter().flat_map(|&value| [value; 512]).collect();
    let oracle = dual.commit(&Columns::from_flat(512, columns), CommitShape { rate_bits: 3, cap_height: 4 })?;
    dual.query(&oracle, &[0, 4095])?;
    for (c0, c1) in values.iter().flat_map(|&c0| values.map(|c1| (c0, c1))) {
        dual.evaluate(&oracle, 0..values.len(), ext(c0, c1))?;
    }
    Ok(())
}

fn grinding<B: Backend>(dual: &DualBackend<Reference, B>, bits: u32) -> Result<(), BackendError> {
    use plonky2::iop::challenger::Challenger;
    let mut samples = Samples::new(bits.into());
    // Every filling of the sponge's buffer, and a state from which challenges were drawn.
    for observed in 0..9 {
        let mut challenger = Challenger::new();
        challenger.observe_elements(&samples.elements(observed));
        dual.grind(&challenger, bits)?;
        challenger.get_challenge();
        dual.grind(&challenger, bits)?;
    }
    Ok(())
}
