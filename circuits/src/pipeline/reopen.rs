//! Oracles from the cache, checked against the columns that they are to be of.
//!
//! The columns are known to whoever reopens an oracle, so the cache need not be believed. Its sizes are compared, and its values at z* with those of the
//! columns, which take no transform: with g the generator of G and n its order,
//!
//! f(z) = (zⁿ − 1)/n · Σ_i f(gⁱ)·gⁱ/(z − gⁱ).
//!
//! z* follows from the saved cap. Coefficients of other columns agree with these at less than n of the points of K, of which there are 2^128 about: a mistake
//! is found. Extension and tree are taken as they are, since making them again is what the cache saves; with others than those of the coefficients no layer
//! proof verifies. Cost: O(n) per column, and n inversions at once.

use plonky2::field::types::Field;
use rayon::prelude::*;

use crate::backend::{Backend, BackendError, OracleSizes};
use crate::columns::Columns;
use crate::field::{F, K, lift, scale};
use crate::layer::LayerShape;
use crate::layer::prover::{LinkedOracle, commit_shape, open_linked};
use crate::layer::transcript::star_point;

/// An oracle as it was saved, opened at z*, if it is that of these columns.
///
/// # Errors
/// [`BackendError::Damaged`] if it is another, or damaged; else the backend's.
pub(super) fn reopen<B: Backend>(
    backend: &B,
    shape: &LayerShape,
    columns: &Columns,
    bytes: &[u8],
) -> Result<LinkedOracle<B>, BackendError> {
    let oracle = backend.load(bytes)?;
    let expected = OracleSizes { log_rows: shape.log_rows(), n_columns: columns.n_columns(), shape: commit_shape(shape) };
    if backend.sizes(&oracle) != expected {
        return Err(BackendError::Damaged("its sizes are not those of the layer's columns".to_owned()));
    }
    let linked = open_linked(backend, shape, oracle, columns.n_columns())?;
    if linked.star_values != values_at(columns, star_point(&linked.cap)) {
        return Err(BackendError::Damaged("its values are not those of the layer's columns".to_owned()));
    }
    Ok(linked)
}

/// The columns, as polynomials over G, at a point outside of it.
fn values_at(columns: &Columns, z: K) -> Vec<K> {
    let log_rows = columns.rows().ilog2() as usize;
    let points = F::two_adic_subgroup(log_rows);
    let differences: Vec<K> = points.iter().map(|&point| z - lift(point)).collect();
    let factor = scale(z.exp_power_of_2(log_rows) - K::ONE, F::from_canonical_usize(columns.rows()).inverse());
    let inverses = K::batch_multiplicative_inverse(&differences);
    let weights: Vec<K> = inverses.into_iter().zip(points).map(|(inverse, point)| scale(inverse, point)).collect();
    let value = |column: &[F]| column.iter().zip(&weights).map(|(&value, &weight)| scale(weight, value)).sum::<K>() * factor;
    columns.as_flat().par_chunks(columns.rows()).map(value).collect()
}

#[cfg(test)]
mod tests {
    use plonky2::field::polynomial::PolynomialValues;

    use super::*;
    use crate::field::{ext, from_signed};

    #[test]
    fn values_at_a_point_are_those_of_the_interpolated_columns() {
        let z = ext(F::from_canonical_u64(3), F::from_canonical_u64(1 << 40));
        for log_rows in [0, 1, 3, 8] {
            let columns = Columns::from_flat(1 << log_rows, (-5..(3 << log_rows) - 5).map(from_signed).collect());
            let interpolated = columns.iter().map(|column| PolynomialValues::new(column.to_vec()).ifft().to_extension::<2>().eval(z));
            assert_eq!(values_at(&columns, z), interpolated.collect::<Vec<_>>(), "2^{log_rows} rows");
        }
    }
}
