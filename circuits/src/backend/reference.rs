//! The reference backend: one obvious way to do each step, row by row, with plonky2's own transforms and trees.
//!
//! It defines what every other backend must reproduce, and serves small proofs in tests.

use std::ops::Range;

use plonky2::field::extension::flatten;
use plonky2::field::polynomial::{PolynomialCoeffs, PolynomialValues};
use plonky2::field::types::{Field, PrimeField64};
use plonky2::fri::oracle::PolynomialBatch;
use plonky2::hash::merkle_tree::{MerkleCap, MerkleTree};
use plonky2::iop::challenger::Challenger;
use plonky2::iop::witness::PartialWitness;
use plonky2::plonk::plonk_common::reduce_with_powers;
use plonky2::plonk::prover::prove_with_partition_witness;
use plonky2::util::reverse_index_bits_in_place;
use plonky2::util::timing::TimingTree;

use super::witness::deterministic_witness;
use super::{Backend, BackendError, Circuit, CircuitProof, CommitShape, OpeningBatch, OracleSizes, QueryAnswer, Scalars, SumsChallenges};
use crate::air::{Cell, ConstraintSystem, Domain, Leaves, Native, Node, OracleId, Rotation, Rule};
use crate::columns::Columns;
use crate::field::{C, D, F, H, K, ORDER, ext, lift, limbs, scale};

/// The slow, obvious backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

/// An oracle: plonky2's batch.
#[derive(Debug)]
pub struct Oracle {
    batch: PolynomialBatch<F, C, D>,
}

/// The polynomial in FRI.
#[derive(Debug)]
pub struct Codeword {
    coefficients: Vec<K>,
    values: Vec<K>,
    shift: F,
}

impl Oracle {
    fn rows(&self) -> usize {
        1 << self.batch.degree_log
    }

    fn coefficients(&self, column: usize) -> &PolynomialCoeffs<F> {
        &self.batch.polynomials[column]
    }

    /// Values of a column on shift·⟨g⟩.
    fn coset_values(&self, column: usize, shift: F, log_size: usize) -> Vec<F> {
        let padded = self.coefficients(column).padded(1 << log_size);
        padded.coset_fft(shift).values
    }
}

/// All columns on the coset shift·⟨g'⟩, g' of order `rows·blow_up`; the rows of the table are shift 1, blow-up 1.
struct Domain2 {
    columns: [Vec<Vec<F>>; 3],
    combined: Option<[Vec<F>; 2]>,
    size: usize,
    blow_up: usize,
    period: usize,
}

impl Domain2 {
    fn new(oracles: &[&Oracle], combination: Option<&[PolynomialCoeffs<F>; 2]>, period: usize, shift: F, blow_up: usize) -> Self {
        let size = oracles[0].rows() * blow_up;
        let log_size = size.trailing_zeros() as usize;
        let mut columns: [Vec<Vec<F>>; 3] = Default::default();
        for (target, oracle) in columns.iter_mut().zip(oracles) {
            *target = (0..oracle.batch.polynomials.len()).map(|c| oracle.coset_values(c, shift, log_size)).collect();
        }
        let combined = combination.map(|pair| [0, 1].map(|k| pair[k].padded(size).coset_fft(shift).values));
        Self { columns, combined, size, blow_up, period }
    }

    fn rotated(&self, point: usize, rotation: Rotation) -> usize {
        let rows = match rotation {
            Rotation::Here => 0,
            Rotation::Next => 1,
            Rotation::Period => self.period,
        };
        (point + rows * self.blow_up) % self.size
    }
}

/// The leaves of the arena at one point of a [`Domain2`].
struct AtPoint<'a> {
    domain: &'a Domain2,
    scalars: Scalars<'a>,
    point: usize,
}

impl Leaves<K> for AtPoint<'_> {
    fn cell(&self, cell: Cell) -> K {
        let point = self.domain.rotated(self.point, cell.rotation);
        // Columns that do not exist yet (projected, while it is being computed) are not read by the rules.
        let columns = &self.domain.columns[cell.oracle as usize];
        columns.get(cell.column).map_or(K::ZERO, |column| lift(column[point]))
    }

    fn parameter(&self, index: usize) -> K {
        lift(self.scalars.theta[index])
    }

    fn challenge(&self, index: usize) -> K {
        self.scalars.challenges[index]
    }

    fn combined(&self) -> K {
        self.domain.combined.as_ref().map_or(K::ZERO, |[c0, c1]| ext(c0[self.point], c1[self.point]))
    }
}

fn split(values: &[K]) -> [Vec<F>; 2] {
    let (c0, c1) = values.iter().map(|&value| limbs(value)).map(|[a, b]| (a, b)).unzip();
    [c0, c1]
}

fn rule_values(system: &ConstraintSystem, rule: Rule, scalars: Scalars<'_>, domain: &Domain2) -> Vec<K> {
    let rows = domain.size;
    match rule {
        Rule::Powers { ratio } => scalars.challenges[ratio].powers().take(rows).collect(),
        Rule::Fold { source, ratio } => {
            let column = &domain.columns[OracleId::Main as usize][source];
            let group_powers: Vec<K> = scalars.challenges[ratio].powers().take(rows / scalars.period).collect();
            (0..rows).map(|row| scale(group_powers[row / scalars.period], column[row % scalars.period])).collect()
        }
        Rule::Quotient { numerator, denominator } => {
            let nodes = [numerator, denominator];
            let values: Vec<[K; 2]> = (0..rows).map(|point| evaluate(system, &AtPoint { domain, scalars, point }, nodes)).collect();
            let denominators: Vec<K> = values.iter().map(|pair| pair[1]).collect();
            let inverses = K::batch_multiplicative_inverse(&denominators);
            values.iter().zip(inverses).map(|(pair, inverse)| pair[0] * inverse).collect()
        }
    }
}

fn evaluate<const N: usize>(system: &ConstraintSystem, leaves: &AtPoint<'_>, nodes: [Node; N]) -> [K; N] {
    let values = system.arena.evaluate(&mut Native, leaves);
    nodes.map(|node| values[node.0 as usize])
}

/// Σ_k ξ^k·s_k at a point.
fn summand(system: &ConstraintSystem, leaves: &AtPoint<'_>, xi: K) -> K {
    let values = system.arena.evaluate(&mut Native, leaves);
    system.summands.iter().rev().fold(K::ZERO, |sum, summand| sum * xi + values[summand.value.0 as usize])
}

/// Σ_k γ^(N−1−k)·c_k at the point x of a coset, c_k with the factor of its domain.
fn batched_constraints(system: &ConstraintSystem, leaves: &AtPoint<'_>, gamma: K, x: F, log_rows: usize) -> K {
    let values = system.arena.evaluate(&mut Native, leaves);
    let n = F::from_canonical_u64(1 << log_rows);
    let last_root = F::primitive_root_of_unity(log_rows).inverse();
    let z = x.exp_power_of_2(log_rows) - F::ONE;
    let lagrange = |root: F| root * z * (n * (x - root)).inverse();
    system.constraints.iter().fold(K::ZERO, |sum, constraint| {
        let factor = match constraint.domain {
            Domain::Every => F::ONE,
            Domain::First => lagrange(F::ONE),
            Domain::Last => lagrange(last_root),
            Domain::Step => x - last_root,
        };
        sum * gamma + scale(values[constraint.zero.0 as usize], factor)
    })
}

impl Reference {
    fn commit_coefficients(&self, polynomials: Vec<PolynomialCoeffs<F>>, shape: CommitShape) -> Oracle {
        let batch = PolynomialBatch::from_coeffs(polynomials, shape.rate_bits, false, shape.cap_height, &mut TimingTree::default(), None);
        Oracle { batch }
    }
}

impl Backend for Reference {
    type Oracle = Oracle;
    type Combination = [PolynomialCoeffs<F>; 2];
    type Codeword = Codeword;
    type FoldTree = MerkleTree<F, H>;

    fn name(&self) -> String {
        "reference".to_owned()
    }

    fn commit(&self, columns: &Columns, shape: CommitShape) -> Result<Oracle, BackendError> {
        let polynomials = columns.iter().map(|column| PolynomialValues::new(column.to_vec()).ifft()).collect();
        Ok(self.commit_coefficients(polynomials, shape))
    }

    fn cap(&self, oracle: &Oracle) -> MerkleCap<F, H> {
        oracle.batch.merkle_tree.cap.clone()
    }

    fn sizes(&self, Oracle { batch }: &Oracle) -> OracleSizes {
        let shape = CommitShape { rate_bits: batch.rate_bits, cap_height: batch.merkle_tree.cap.height() };
        OracleSizes { log_rows: batch.degree_log, n_columns: batch.polynomials.len(), shape }
    }

    fn save(&self, oracle: &Oracle) -> Result<Vec<u8>, BackendError> {
        let OracleSizes { log_rows, n_columns, shape } = self.sizes(oracle);
        let header = [log_rows, shape.rate_bits, shape.cap_height, n_columns].map(|size| size as u64);
        let coefficients = oracle.batch.polynomials.iter().flat_map(|p| p.coeffs.iter().map(|c| c.to_canonical_u64()));
        Ok(header.into_iter().chain(coefficients).flat_map(u64::to_le_bytes).collect())
    }

    fn load(&self, bytes: &[u8]) -> Result<Oracle, BackendError> {
        let damaged = |message: &str| BackendError::Damaged(message.to_owned());
        let (words, rest) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|&word| u64::from_le_bytes(word)).collect();
        let [log_rows, rate_bits, cap_height, n_columns, coefficients @ ..] = words.as_slice() else {
            return Err(damaged("the header is missing"));
        };
        let log_leaves = log_rows.saturating_add(*rate_bits);
        if log_leaves > F::TWO_ADICITY as u64 || *cap_height > log_leaves || *n_columns == 0 {
            return Err(damaged("its sizes are impossible"));
        }
        if !rest.is_empty() || n_columns.checked_mul(1 << log_rows) != Some(coefficients.len() as u64) {
            return Err(damaged("its length is not the one that its header states"));
        }
        if coefficients.iter().any(|&word| word >= ORDER) {
            return Err(damaged("a field element is not below p"));
        }
        let polynomials = coefficients
            .chunks(1 << log_rows)
            .map(|chunk| PolynomialCoeffs::new(chunk.iter().map(|&word| F::from_canonical_u64(word)).collect()))
            .collect();
        let shape = CommitShape { rate_bits: *rate_bits as usize, cap_height: *cap_height as usize };
        Ok(self.commit_coefficients(polynomials, shape))
    }

    fn evaluate(&self, oracle: &Oracle, columns: Range<usize>, point: K) -> Result<Vec<K>, BackendError> {
        Ok(columns.map(|column| oracle.coefficients(column).to_extension::<D>().eval(point)).collect())
    }

    fn combine(&self, weights: &Oracle, coefficients: &[K]) -> Result<Self::Combination, BackendError> {
        let mut sum = vec![K::ZERO; weights.rows()];
        for (column, &coefficient) in coefficients.iter().enumerate() {
            for (target, &value) in sum.iter_mut().zip(&weights.coefficients(column).coeffs) {
                *target += scale(coefficient, value);
            }
        }
        Ok(split(&sum).map(PolynomialCoeffs::new))
    }

    fn project(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        oracles: [&Oracle; 2],
        shape: CommitShape,
    ) -> Result<Oracle, BackendError> {
        let domain = Domain2::new(&oracles, None, scalars.period, F::ONE, 1);
        let columns: Vec<Vec<F>> = system.rules.iter().flat_map(|&rule| split(&rule_values(system, rule, scalars, &domain))).collect();
        self.commit(&Columns::from_columns(domain.size, &columns), shape)
    }

    fn sums(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        challenges: SumsChallenges,
        oracles: [&Oracle; 3],
        combination: Option<&Self::Combination>,
        shape: CommitShape,
    ) -> Result<Oracle, BackendError> {
        let rows = oracles[0].rows();
        let log_rows = oracles[0].batch.degree_log;
        let step = scale(challenges.total, F::from_canonical_usize(rows).inverse());
        // S on the rows, from 0.
        let domain = Domain2::new(&oracles, combination, scalars.period, F::ONE, 1);
        let mut sum = K::ZERO;
        let mut running = Vec::with_capacity(rows);
        for point in 0..rows {
            running.push(sum);
            sum += summand(system, &AtPoint { domain: &domain, scalars, point }, challenges.xi) - step;
        }
        let sum_polynomials = split(&running).map(|values| PolynomialValues::new(values).ifft());
        // Both quotients on a coset of twice the rows.
        let (shift, size) = (F::coset_shift(), 2 * rows);
        let domain = Domain2::new(&oracles, combination, scalars.period, shift, 2);
        let running = sum_polynomials.clone().map(|p| p.padded(size).coset_fft(shift).values);
        let running_at = |point: usize| ext(running[0][point], running[1][point]);
        let points: Vec<F> = F::two_adic_subgroup(log_rows + 1).into_iter().map(|x| x * shift).collect();
        let mut quotients = [Vec::with_capacity(size), Vec::with_capacity(size)];
        for (point, &x) in points.iter().enumerate() {
            let leaves = AtPoint { domain: &domain, scalars, point };
            let inverse_z = (x.exp_power_of_2(log_rows) - F::ONE).inverse();
            let next = running_at(domain.rotated(point, Rotation::Next));
            let sum_identity = next - running_at(point) - summand(system, &leaves, challenges.xi) + step;
            quotients[0].push(scale(sum_identity, inverse_z));
            quotients[1].push(scale(batched_constraints(system, &leaves, challenges.gamma, x, log_rows), inverse_z));
        }
        let [sum_quotient, quotient] =
            quotients.map(|values| split(&values).map(|values| PolynomialValues::new(values).coset_ifft(shift).coeffs));
        let mut polynomials: Vec<PolynomialCoeffs<F>> = sum_polynomials.into();
        polynomials.extend(sum_quotient.map(|c| PolynomialCoeffs::new(c[..rows].to_vec())));
        for half in [0..rows, rows..size] {
            polynomials.extend(quotient.each_ref().map(|c| PolynomialCoeffs::new(c[half.clone()].to_vec())));
        }
        Ok(self.commit_coefficients(polynomials, shape))
    }

    fn batch(&self, oracles: &[&Oracle], batches: &[OpeningBatch], alpha: K) -> Result<Codeword, BackendError> {
        let rows = oracles[0].rows();
        let rate_bits = oracles[0].batch.rate_bits;
        let mut final_polynomial = vec![K::ZERO; rows];
        for batch in batches {
            let mut composition = vec![K::ZERO; rows];
            let mut power = K::ONE;
            for opened in &batch.opened {
                for column in opened.columns.clone() {
                    for (target, &value) in composition.iter_mut().zip(&oracles[opened.oracle].coefficients(column).coeffs) {
                        *target += scale(power, value);
                    }
                    power *= alpha;
                }
            }
            let mut quotient = PolynomialCoeffs::new(composition).divide_by_linear(batch.point).coeffs;
            quotient.resize(rows, K::ZERO);
            for (target, value) in final_polynomial.iter_mut().zip(quotient) {
                *target = *target * power + value;
            }
        }
        let extended = PolynomialCoeffs::new(final_polynomial).lde(rate_bits);
        let values = extended.coset_fft(lift(F::coset_shift())).values;
        Ok(Codeword { coefficients: extended.coeffs, values, shift: F::coset_shift() })
    }

    fn fold_commit(&self, codeword: &Codeword, arity_bits: usize, cap_height: usize) -> Result<MerkleTree<F, H>, BackendError> {
        let mut values = codeword.values.clone();
        reverse_index_bits_in_place(&mut values);
        let leaves = values.chunks(1 << arity_bits).map(flatten::<F, D>).collect();
        Ok(MerkleTree::new(leaves, cap_height))
    }

    fn fold_cap(&self, tree: &MerkleTree<F, H>) -> MerkleCap<F, H> {
        tree.cap.clone()
    }

    fn fold(&self, codeword: Codeword, arity_bits: usize, beta: K) -> Result<Codeword, BackendError> {
        let coefficients: Vec<K> = codeword.coefficients.chunks(1 << arity_bits).map(|chunk| reduce_with_powers(chunk, beta)).collect();
        let shift = codeword.shift.exp_power_of_2(arity_bits);
        let values = PolynomialCoeffs::new(coefficients.clone()).coset_fft(lift(shift)).values;
        Ok(Codeword { coefficients, values, shift })
    }

    fn final_polynomial(&self, codeword: &Codeword, rate_bits: usize) -> Result<Vec<K>, BackendError> {
        Ok(codeword.coefficients[..codeword.coefficients.len() >> rate_bits].to_vec())
    }

    fn grind(&self, challenger: &Challenger<F, H>, bits: u32) -> Result<u64, BackendError> {
        let accepted = |nonce: &u64| {
            let mut attempt = challenger.clone();
            attempt.observe_element(F::from_canonical_u64(*nonce));
            attempt.get_challenge().to_canonical_u64().leading_zeros() >= bits
        };
        Ok((0u64..).find(accepted).expect("a nonce is found long before 2^64 tries"))
    }

    fn query(&self, oracle: &Oracle, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        self.query_fold(&oracle.batch.merkle_tree, leaves)
    }

    fn query_fold(&self, tree: &MerkleTree<F, H>, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        Ok(leaves.iter().map(|&leaf| (tree.get(leaf).to_vec(), tree.prove(leaf))).collect())
    }

    fn prove_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        let witness = deterministic_witness(circuit, inputs)?;
        prove_with_partition_witness(&circuit.prover_only, &circuit.common, witness, &mut TimingTree::default())
            .map_err(|error| BackendError::Witness(error.to_string()))
    }

    fn prove_blinded_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        circuit.prove(inputs).map_err(|error| BackendError::Witness(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::from_signed;

    fn saved() -> Vec<u8> {
        let columns = Columns::from_flat(8, (0..24).map(from_signed).collect());
        Reference.save(&Reference.commit(&columns, CommitShape { rate_bits: 1, cap_height: 2 }).unwrap()).unwrap()
    }

    fn refusal(bytes: &[u8]) -> String {
        match Reference.load(bytes) {
            Err(BackendError::Damaged(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_saved_oracle_comes_back_and_one_of_another_length_does_not() {
        let bytes = saved();
        let loaded = Reference.load(&bytes).unwrap();
        assert_eq!(Reference.save(&loaded).unwrap(), bytes);
        let shape = CommitShape { rate_bits: 1, cap_height: 2 };
        assert_eq!(Reference.sizes(&loaded), OracleSizes { log_rows: 3, n_columns: 3, shape });
        for length in [32, bytes.len() - 8, bytes.len() - 7, bytes.len() - 1] {
            assert!(refusal(&bytes[..length]).contains("length"), "{length} bytes");
        }
        for n_more in [1, 7, 8] {
            assert!(refusal(&[&bytes[..], &vec![0; n_more]].concat()).contains("length"), "{n_more} bytes more");
        }
        for length in [0, 7, 31] {
            assert!(refusal(&bytes[..length]).contains("header"), "{length} bytes");
        }
    }

    #[test]
    fn impossible_sizes_are_refused_before_anything_is_computed() {
        // Rows, rate bits, cap height, columns; in the third, the product of the sizes is that of the real ones.
        for sizes in [[64, 1, 2, 3], [3, u64::MAX, 2, 3], [0, 33, 2, 24], [3, 1, 5, 3], [3, 1, 2, 0], [3, 1, 2, u64::MAX / 4]] {
            let mut bytes = saved();
            for (target, size) in bytes.chunks_mut(8).zip(sizes) {
                target.copy_from_slice(&size.to_le_bytes());
            }
            let message = refusal(&bytes);
            assert!(message.contains("sizes") || message.contains("length"), "{sizes:?}: {message}");
        }
    }

    #[test]
    fn values_that_are_not_canonical_are_refused() {
        for (word, is_canonical) in [(ORDER - 1, true), (ORDER, false), (u64::MAX, false)] {
            for at in [32, saved().len() - 8] {
                let mut bytes = saved();
                bytes[at..][..8].copy_from_slice(&word.to_le_bytes());
                match is_canonical {
                    true => assert!(Reference.load(&bytes).is_ok()),
                    false => assert!(refusal(&bytes).contains("below p")),
                }
            }
        }
    }
}
