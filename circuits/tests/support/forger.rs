//! A test-only prover that can lie: a second, independent backend over coefficient vectors of any length.
//!
//! Without hooks it gives the same proofs as the reference backend. Its hooks change the projected columns, the sums oracle, the nonce;
//! its oracles may hold n + 1 coefficients or a tree that mixes two codewords; its quotients are those of what was really committed.

use std::ops::Range;
use std::sync::Mutex;

use plonky2::field::extension::flatten;
use plonky2::field::polynomial::{PolynomialCoeffs, PolynomialValues};
use plonky2::field::types::{Field, PrimeField64};
use plonky2::hash::merkle_tree::{MerkleCap, MerkleTree};
use plonky2::iop::challenger::Challenger;
use plonky2::iop::witness::PartialWitness;
use plonky2::plonk::plonk_common::reduce_with_powers;
use plonky2::util::reverse_index_bits_in_place;
use zkinfer_circuits::air::{ConstraintSystem, Domain, OracleId};
use zkinfer_circuits::backend::{
    Backend, BackendError, Circuit, CircuitProof, CommitShape, OpeningBatch, OracleSizes, QueryAnswer, Scalars, SumsChallenges,
};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{D, F, H, K, ext, lift, limbs, scale};

use super::table::Table;

/// Polynomials of any degree behind one Merkle tree, which need not be theirs.
#[derive(Clone, Debug)]
pub struct Polynomials {
    pub rows: usize,
    pub coefficients: Vec<Vec<F>>,
    pub tree: MerkleTree<F, H>,
}

/// Changes the projected K columns (one vector per rule) before they are committed.
pub type ProjectHook = Box<dyn Fn(&Table<'_>, &mut [Vec<K>]) + Send + Sync>;
/// Changes the coefficients of the eight columns of the sums oracle.
pub type SumsHook = Box<dyn Fn(&mut [Vec<F>]) + Send + Sync>;

/// The dishonest backend.
#[derive(Default)]
pub struct Forger {
    pub on_project: Option<ProjectHook>,
    pub on_sums: Option<SumsHook>,
    /// Adds c·(X^n − 1) to one column of the projected or sums oracle.
    pub raised: Option<(OracleId, usize, F)>,
    /// Uses Σ_k ξ^k·(true sum of s_k) as the total, and keeps (ξ, true total − claimed total) here.
    pub true_total: Option<Mutex<Option<(K, K)>>>,
    /// Searches a nonce for which all of so many query positions satisfy the predicate.
    pub chosen_queries: Option<(usize, fn(usize) -> bool)>,
}

/// The polynomial in FRI.
#[derive(Debug)]
pub struct Word {
    coefficients: Vec<K>,
    values: Vec<K>,
    shift: F,
}

/// Values of a polynomial of any degree on shift·⟨g⟩, g of order `size`.
pub fn coset_values(coefficients: &[F], shift: F, size: usize) -> Vec<F> {
    let mut folded = vec![F::ZERO; size];
    for ((k, &coefficient), power) in coefficients.iter().enumerate().zip(shift.powers()) {
        folded[k % size] += coefficient * power;
    }
    PolynomialCoeffs::new(folded).fft().values
}

/// Adds c·(X^n − 1): no value on the n rows changes.
pub fn raise(coefficients: &mut Vec<F>, rows: usize, c: F) {
    coefficients.resize(coefficients.len().max(rows + 1), F::ZERO);
    coefficients[0] -= c;
    coefficients[rows] += c;
}

pub fn interpolate(values: &[F]) -> Vec<F> {
    PolynomialValues::new(values.to_vec()).ifft().coeffs
}

pub fn split(values: &[K]) -> [Vec<F>; 2] {
    let (c0, c1) = values.iter().map(|&value| limbs(value)).map(|[a, b]| (a, b)).unzip();
    [c0, c1]
}

fn evaluate(coefficients: &[F], point: K) -> K {
    coefficients.iter().rev().fold(K::ZERO, |sum, &c| sum * point + lift(c))
}

/// (p − p(point)) / (X − point), by synthetic division.
fn divide_by_linear(coefficients: &[K], point: K) -> Vec<K> {
    let mut quotient = vec![K::ZERO; coefficients.len() - 1];
    let mut carry = K::ZERO;
    for k in (1..coefficients.len()).rev() {
        carry = carry * point + coefficients[k];
        quotient[k - 1] = carry;
    }
    quotient
}

impl Polynomials {
    /// Commits polynomials as they are.
    pub fn new(rows: usize, coefficients: Vec<Vec<F>>, shape: CommitShape) -> Self {
        let size = rows << shape.rate_bits;
        let values: Vec<Vec<F>> = coefficients.iter().map(|c| coset_values(c, F::coset_shift(), size)).collect();
        let mut leaves: Vec<Vec<F>> = (0..size).map(|i| values.iter().map(|column| column[i]).collect()).collect();
        reverse_index_bits_in_place(&mut leaves);
        Self { rows, coefficients, tree: MerkleTree::new(leaves, shape.cap_height) }
    }

    /// Columns, with c·(X^n − 1) added to one of them.
    pub fn raised(columns: &Columns, column: usize, c: F, shape: CommitShape) -> Self {
        let mut coefficients: Vec<Vec<F>> = columns.iter().map(interpolate).collect();
        raise(&mut coefficients[column], columns.rows(), c);
        Self::new(columns.rows(), coefficients, shape)
    }
}

impl Forger {
    /// The K columns of the projected oracle on the rows, after the hook.
    pub fn projected_rows(&self, table: &mut Table<'_>) -> Vec<Vec<K>> {
        let mut columns = table.honest_projection();
        if let Some(hook) = &self.on_project {
            hook(table, &mut columns);
        }
        columns
    }

    fn raise_in(&self, oracle: OracleId, rows: usize, coefficients: &mut [Vec<F>]) {
        if let Some((which, column, c)) = self.raised
            && which == oracle
        {
            raise(&mut coefficients[column], rows, c);
        }
    }

    /// The total that the running sum closes with.
    fn total(&self, table: &Table<'_>, challenges: SumsChallenges) -> K {
        let Some(missing) = &self.true_total else { return challenges.total };
        let total: K = (0..table.size).map(|row| table.batched_summands(row, challenges.xi)).sum();
        *missing.lock().unwrap() = Some((challenges.xi, total - challenges.total));
        total
    }
}

/// Interpolates values on a coset; the two coordinates of each K value apart.
fn coset_interpolate(values: &[K], shift: F) -> [Vec<F>; 2] {
    split(values).map(|values| PolynomialValues::new(values).coset_ifft(shift).coeffs)
}

/// Σ_k γ^(N−1−k)·c_k at a point of a coset, with the factor of each domain.
fn batched_constraints(table: &Table<'_>, point: usize, x: F, gamma: K) -> K {
    let values = table.evaluate(point);
    let log_rows = table.rows.trailing_zeros() as usize;
    let (n, last) = (F::from_canonical_usize(table.rows), F::primitive_root_of_unity(log_rows).inverse());
    let z = x.exp_power_of_2(log_rows) - F::ONE;
    table.system.constraints.iter().fold(K::ZERO, |sum, constraint| {
        let factor = match constraint.domain {
            Domain::Every => F::ONE,
            Domain::First => z / (n * (x - F::ONE)),
            Domain::Last => last * z / (n * (x - last)),
            Domain::Step => x - last,
        };
        sum * gamma + scale(values[constraint.zero.0 as usize], factor)
    })
}

/// Quotients of the sum identity and of the batched constraints by Z: coefficients on four times the rows, cut where a proof has room.
fn quotients(table: &Table<'_>, sum: &[Vec<F>; 2], step: K, challenges: SumsChallenges) -> Vec<Vec<F>> {
    let (rows, size, shift) = (table.rows, table.size, F::coset_shift());
    let blow_up = size / rows;
    let running = sum.each_ref().map(|c| coset_values(c, shift, size));
    let at = |point: usize| ext(running[0][point % size], running[1][point % size]);
    let points = F::two_adic_subgroup(size.trailing_zeros() as usize);
    let (mut sum_quotient, mut quotient) = (Vec::with_capacity(size), Vec::with_capacity(size));
    for (point, &root) in points.iter().enumerate() {
        let x = root * shift;
        let inverse_z = (x.exp_u64(rows as u64) - F::ONE).inverse();
        let identity = at(point + blow_up) - at(point) - table.batched_summands(point, challenges.xi) + step;
        sum_quotient.push(scale(identity, inverse_z));
        quotient.push(scale(batched_constraints(table, point, x, challenges.gamma), inverse_z));
    }
    let mut columns: Vec<Vec<F>> = coset_interpolate(&sum_quotient, shift).map(|c| c[..=rows].to_vec()).into();
    let quotient = coset_interpolate(&quotient, shift);
    for half in [0..rows, rows..2 * rows + 1] {
        columns.extend(quotient.each_ref().map(|c| c[half.clone()].to_vec()));
    }
    columns
}

impl Backend for Forger {
    type Oracle = Polynomials;
    type Combination = [Vec<F>; 2];
    type Codeword = Word;
    type FoldTree = MerkleTree<F, H>;

    fn name(&self) -> String {
        "forger".to_owned()
    }

    fn commit(&self, columns: &Columns, shape: CommitShape) -> Result<Polynomials, BackendError> {
        Ok(Polynomials::new(columns.rows(), columns.iter().map(interpolate).collect(), shape))
    }

    fn cap(&self, oracle: &Polynomials) -> MerkleCap<F, H> {
        oracle.tree.cap.clone()
    }

    fn sizes(&self, oracle: &Polynomials) -> OracleSizes {
        let n_leaves = oracle.tree.leaves.len();
        let shape = CommitShape { rate_bits: (n_leaves / oracle.rows).ilog2() as usize, cap_height: oracle.tree.cap.height() };
        OracleSizes { log_rows: oracle.rows.ilog2() as usize, n_columns: oracle.coefficients.len(), shape }
    }

    fn save(&self, _oracle: &Polynomials) -> Result<Vec<u8>, BackendError> {
        Err(BackendError::Damaged("the forger saves nothing".to_owned()))
    }

    fn load(&self, _bytes: &[u8]) -> Result<Polynomials, BackendError> {
        Err(BackendError::Damaged("the forger loads nothing".to_owned()))
    }

    fn evaluate(&self, oracle: &Polynomials, columns: Range<usize>, point: K) -> Result<Vec<K>, BackendError> {
        Ok(columns.map(|column| evaluate(&oracle.coefficients[column], point)).collect())
    }

    fn combine(&self, weights: &Polynomials, coefficients: &[K]) -> Result<[Vec<F>; 2], BackendError> {
        let mut sum = vec![K::ZERO; weights.rows + 1];
        for (column, &coefficient) in weights.coefficients.iter().zip(coefficients) {
            for (target, &value) in sum.iter_mut().zip(column) {
                *target += scale(coefficient, value);
            }
        }
        Ok(split(&sum))
    }

    fn project(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        oracles: [&Polynomials; 2],
        shape: CommitShape,
    ) -> Result<Polynomials, BackendError> {
        let mut table = Table::new(system, scalars, &oracles, None, F::ONE, 1);
        let columns = self.projected_rows(&mut table);
        let mut coefficients: Vec<Vec<F>> = columns.iter().flat_map(|c| split(c)).map(|c| interpolate(&c)).collect();
        self.raise_in(OracleId::Projected, table.rows, &mut coefficients);
        Ok(Polynomials::new(table.rows, coefficients, shape))
    }

    fn sums(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        challenges: SumsChallenges,
        oracles: [&Polynomials; 3],
        combination: Option<&[Vec<F>; 2]>,
        shape: CommitShape,
    ) -> Result<Polynomials, BackendError> {
        let table = Table::new(system, scalars, &oracles, combination, F::ONE, 1);
        let rows = table.rows;
        let step = scale(self.total(&table, challenges), F::from_canonical_usize(rows).inverse());
        let mut sum = K::ZERO;
        let mut running = Vec::with_capacity(rows);
        for row in 0..rows {
            running.push(sum);
            sum += table.batched_summands(row, challenges.xi) - step;
        }
        let sum = split(&running).map(|values| interpolate(&values));
        let extended = Table::new(system, scalars, &oracles, combination, F::coset_shift(), 4);
        let claimed_step = scale(challenges.total, F::from_canonical_usize(rows).inverse());
        let mut coefficients: Vec<Vec<F>> = sum.clone().into();
        let used_step = if self.true_total.is_some() { step } else { claimed_step };
        coefficients.extend(quotients(&extended, &sum, used_step, challenges));
        self.raise_in(OracleId::Sums, rows, &mut coefficients);
        if let Some(hook) = &self.on_sums {
            hook(&mut coefficients);
        }
        Ok(Polynomials::new(rows, coefficients, shape))
    }

    fn batch(&self, oracles: &[&Polynomials], batches: &[OpeningBatch], alpha: K) -> Result<Word, BackendError> {
        let rows = oracles[0].rows;
        let size = oracles[0].tree.leaves.len();
        let mut combined = vec![K::ZERO; rows];
        for batch in batches {
            let mut composition = vec![K::ZERO; rows + 1];
            let mut power = K::ONE;
            for column in batch.opened.iter().flat_map(|o| oracles[o.oracle].coefficients[o.columns.clone()].iter()) {
                for (target, &value) in composition.iter_mut().zip(column) {
                    *target += scale(power, value);
                }
                power *= alpha;
            }
            for (target, value) in combined.iter_mut().zip(divide_by_linear(&composition, batch.point)) {
                *target = *target * power + value;
            }
        }
        combined.resize(size, K::ZERO);
        let values = PolynomialCoeffs::new(combined.clone()).coset_fft(lift(F::coset_shift())).values;
        Ok(Word { coefficients: combined, values, shift: F::coset_shift() })
    }

    fn fold_commit(&self, word: &Word, arity_bits: usize, cap_height: usize) -> Result<MerkleTree<F, H>, BackendError> {
        let mut values = word.values.clone();
        reverse_index_bits_in_place(&mut values);
        let leaves = values.chunks(1 << arity_bits).map(flatten::<F, D>).collect();
        Ok(MerkleTree::new(leaves, cap_height))
    }

    fn fold_cap(&self, tree: &MerkleTree<F, H>) -> MerkleCap<F, H> {
        tree.cap.clone()
    }

    fn fold(&self, word: Word, arity_bits: usize, beta: K) -> Result<Word, BackendError> {
        let coefficients: Vec<K> = word.coefficients.chunks(1 << arity_bits).map(|chunk| reduce_with_powers(chunk, beta)).collect();
        let shift = word.shift.exp_power_of_2(arity_bits);
        let values = PolynomialCoeffs::new(coefficients.clone()).coset_fft(lift(shift)).values;
        Ok(Word { coefficients, values, shift })
    }

    fn final_polynomial(&self, word: &Word, rate_bits: usize) -> Result<Vec<K>, BackendError> {
        Ok(word.coefficients[..word.coefficients.len() >> rate_bits].to_vec())
    }

    fn grind(&self, challenger: &Challenger<F, H>, bits: u32) -> Result<u64, BackendError> {
        let accepted = |nonce: &u64| {
            let mut attempt = challenger.clone();
            attempt.observe_element(F::from_canonical_u64(*nonce));
            let enough_work = attempt.get_challenge().to_canonical_u64().leading_zeros() >= bits;
            enough_work
                && self
                    .chosen_queries
                    .is_none_or(|(count, wanted)| attempt.get_n_challenges(count).iter().all(|c| wanted(c.to_canonical_u64() as usize)))
        };
        Ok((0u64..).find(accepted).expect("a nonce is found long before 2^64 tries"))
    }

    fn query(&self, oracle: &Polynomials, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        self.query_fold(&oracle.tree, leaves)
    }

    fn query_fold(&self, tree: &MerkleTree<F, H>, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        Ok(leaves.iter().map(|&leaf| (tree.get(leaf).to_vec(), tree.prove(leaf))).collect())
    }

    fn prove_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        circuit.prove(inputs).map_err(|error| BackendError::Witness(error.to_string()))
    }

    fn prove_blinded_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        self.prove_circuit(circuit, inputs)
    }
}
