//! The prover of a layer, over a [`Backend`]: the verifier's transcript, with the work between the challenges.

use plonky2::field::polynomial::PolynomialCoeffs;
use plonky2::field::types::{Field, PrimeField64};
use plonky2::fri::proof::{FriInitialTreeProof, FriProof, FriQueryRound, FriQueryStep};
use plonky2::hash::merkle_tree::MerkleCap;
use plonky2::iop::challenger::Challenger;

use super::proof::{LayerClaim, LayerProof};
use super::shape::LayerShape;
use super::transcript::{self, link, star_point};
use super::verifier::{header, points};
use super::{scalars, theta};
use crate::air::Cell;
use crate::backend::{Backend, BackendError, CommitShape, OpenedColumns, OpeningBatch, QueryAnswer, Scalars, SumsChallenges, by_query};
use crate::columns::Columns;
use crate::field::{D, Digest, F, H, K, ext};

/// An oracle that more than one proof or challenge refers to: opened at z*, identified by its link.
#[derive(Debug)]
pub struct LinkedOracle<B: Backend> {
    /// The backend's oracle.
    pub oracle: B::Oracle,
    /// Its cap.
    pub cap: MerkleCap<F, H>,
    /// All columns at z*.
    pub star_values: Vec<K>,
    /// Its identity.
    pub link: Digest,
}

/// The commitment shape of a layer's oracles.
pub fn commit_shape(shape: &LayerShape) -> CommitShape {
    CommitShape { rate_bits: shape.fri.config.rate_bits, cap_height: shape.fri.config.cap_height }
}

/// Commits a weights or main oracle and opens it at z*.
///
/// # Errors
/// [`BackendError`].
pub fn commit_linked<B: Backend>(backend: &B, shape: &LayerShape, columns: &Columns) -> Result<LinkedOracle<B>, BackendError> {
    let oracle = backend.commit(columns, commit_shape(shape))?;
    open_linked(backend, shape, oracle, columns.n_columns())
}

/// Opens a committed oracle (for example one loaded from a cache) at z*.
///
/// # Errors
/// [`BackendError`].
pub fn open_linked<B: Backend>(
    backend: &B,
    shape: &LayerShape,
    oracle: B::Oracle,
    n_columns: usize,
) -> Result<LinkedOracle<B>, BackendError> {
    let cap = backend.cap(&oracle);
    let star_values = backend.evaluate(&oracle, 0..n_columns, star_point(&cap))?;
    let link = link(shape.log_rows(), shape.fri.config.rate_bits, &cap, &star_values);
    Ok(LinkedOracle { oracle, cap, star_values, link })
}

/// Proves a layer whose weights and main oracles are committed.
///
/// `claim.balance` must be the layer's balance, see [`balance`]. A wrong witness or claim gives a proof that the verifier refuses.
///
/// # Errors
/// [`BackendError`].
pub fn prove<B: Backend>(
    backend: &B,
    shape: &LayerShape,
    claim: &LayerClaim,
    weights: &LinkedOracle<B>,
    main: &LinkedOracle<B>,
) -> Result<LayerProof, BackendError> {
    let system = &shape.system;
    let commit_shape = commit_shape(shape);
    let mut challenger = Challenger::<F, H>::new();
    let alpha = transcript::after_main(&mut challenger, shape.role, &header(shape, claim));
    let challenges = scalars::derive(&shape.kind, shape.role, &claim.theta, claim.gamma_prime, claim.delta, alpha);
    let period = period(shape, &claim.theta);
    let scalars = Scalars { theta: &claim.theta, challenges: &challenges, period };
    let projected = backend.project(system, scalars, [&weights.oracle, &main.oracle], commit_shape)?;
    let projected_cap = backend.cap(&projected);
    let [gamma, xi] = transcript::after_projected(&mut challenger, &projected_cap, claim.balance);
    let powers: Vec<K> = claim.gamma_prime.powers().take(system.combined_columns).collect();
    let combination = if powers.is_empty() { None } else { Some(backend.combine(&weights.oracle, &powers)?) };
    let total = scalars::batched_total(system, &claim.theta, claim.balance, xi);
    let sums_challenges = SumsChallenges { gamma, xi, total };
    let oracles = [&weights.oracle, &main.oracle, &projected];
    let sums = backend.sums(system, scalars, sums_challenges, oracles, combination.as_ref(), commit_shape)?;
    let sums_cap = backend.cap(&sums);
    let zeta = transcript::after_sums(&mut challenger, &sums_cap);
    let oracles = [&weights.oracle, &main.oracle, &projected, &sums];
    let points = points(shape, &claim.theta, [&weights.cap, &main.cap], zeta);
    let openings = open(backend, shape, oracles, points, [&weights.star_values, &main.star_values])?;
    transcript::after_openings(&mut challenger, &openings);
    let fri = prove_fri(backend, shape, &oracles, points, &mut challenger)?;
    let caps = [weights.cap.clone(), main.cap.clone(), projected_cap, sums_cap];
    Ok(LayerProof { caps, balance: claim.balance, openings, fri })
}

/// m = n/Q, from the one-hot part of θ.
fn period(shape: &LayerShape, claim_theta: &[F]) -> usize {
    let choices = &claim_theta[theta::GROUPS..theta::GROUPS + theta::N_GROUP_CHOICES];
    let log_groups = choices.iter().position(|&choice| choice == F::ONE).unwrap_or(0);
    shape.kind.rows() >> log_groups
}

/// The layer's balance in the ledger for given tensors (`docs/PROTOCOL.md` §3, SUM-LEDGER).
pub fn balance(shape: &LayerShape, claim_theta: &[F], gamma_prime: K, delta: K, inputs: [&[i64]; 2], output: &[i64]) -> K {
    let challenges = scalars::derive(&shape.kind, shape.role, claim_theta, gamma_prime, delta, K::ZERO);
    let weigh = |tensor: &[i64]| -> K {
        tensor.iter().rev().fold(K::ZERO, |sum, &value| sum * gamma_prime + ext(crate::field::from_signed(value), F::ZERO))
    };
    challenges[theta::D_OUT] * weigh(output) - challenges[theta::D_IN_1] * weigh(inputs[0]) - challenges[theta::D_IN_2] * weigh(inputs[1])
}

/// The openings of the five batches; those at z* were computed at commitment.
fn open<B: Backend>(
    backend: &B,
    shape: &LayerShape,
    oracles: [&B::Oracle; 4],
    points: [K; 5],
    star_values: [&Vec<K>; 2],
) -> Result<[Vec<K>; 5], BackendError> {
    let [here, next, period, _, _] = shape.batches();
    let mut opened = Vec::with_capacity(3);
    for (cells, point) in [here, next, period].iter().zip(points) {
        let mut values = Vec::with_capacity(cells.len());
        for run in runs(cells) {
            values.extend(backend.evaluate(oracles[run.oracle], run.columns, point)?);
        }
        opened.push(values);
    }
    let [here, next, period] = opened.try_into().expect("three batches were opened");
    Ok([here, next, period, star_values[0].clone(), star_values[1].clone()])
}

/// Consecutive columns of one oracle, merged.
fn runs(cells: &[Cell]) -> Vec<OpenedColumns> {
    let mut runs: Vec<OpenedColumns> = Vec::new();
    for cell in cells {
        let oracle = cell.oracle as usize;
        match runs.last_mut() {
            Some(run) if run.oracle == oracle && run.columns.end == cell.column => run.columns.end += 1,
            _ => runs.push(OpenedColumns { oracle, columns: cell.column..cell.column + 1 }),
        }
    }
    runs
}

fn prove_fri<B: Backend>(
    backend: &B,
    shape: &LayerShape,
    oracles: &[&B::Oracle],
    points: [K; 5],
    challenger: &mut Challenger<F, H>,
) -> Result<FriProof<F, H, D>, BackendError> {
    let config = &shape.fri.config;
    let batches: Vec<OpeningBatch> = shape
        .batches()
        .iter()
        .zip(points)
        .filter(|(cells, _)| !cells.is_empty())
        .map(|(cells, point)| OpeningBatch { point, opened: runs(cells) })
        .collect();
    let alpha = challenger.get_extension_challenge::<D>();
    let mut codeword = backend.batch(oracles, &batches, alpha)?;
    let mut trees = Vec::new();
    for &arity_bits in &shape.fri.reduction_arity_bits {
        let tree = backend.fold_commit(&codeword, arity_bits, config.cap_height)?;
        challenger.observe_cap::<H>(&backend.fold_cap(&tree));
        let beta = challenger.get_extension_challenge::<D>();
        codeword = backend.fold(codeword, arity_bits, beta)?;
        trees.push(tree);
    }
    let final_poly = backend.final_polynomial(&codeword, config.rate_bits)?;
    challenger.observe_extension_elements::<D>(&final_poly);
    let pow_witness = F::from_canonical_u64(backend.grind(challenger, config.proof_of_work_bits)?);
    challenger.observe_element(pow_witness);
    challenger.get_challenge();
    let indices = challenger.get_n_challenges(config.num_query_rounds);
    let leaves = indices.into_iter().map(|challenge| challenge.to_canonical_u64() as usize % shape.fri.lde_size()).collect();
    let query_round_proofs = answer_queries(backend, shape, oracles, &trees, leaves)?;
    Ok(FriProof {
        commit_phase_merkle_caps: trees.iter().map(|tree| backend.fold_cap(tree)).collect(),
        query_round_proofs,
        final_poly: PolynomialCoeffs::new(final_poly),
        pow_witness,
    })
}

fn answer_queries<B: Backend>(
    backend: &B,
    shape: &LayerShape,
    oracles: &[&B::Oracle],
    trees: &[B::FoldTree],
    mut leaves: Vec<usize>,
) -> Result<Vec<FriQueryRound<F, H, D>>, BackendError> {
    let of_oracles = oracles.iter().map(|oracle| backend.query(oracle, &leaves)).collect::<Result<Vec<_>, _>>()?;
    let mut of_trees = Vec::with_capacity(trees.len());
    for (tree, arity_bits) in trees.iter().zip(&shape.fri.reduction_arity_bits) {
        leaves.iter_mut().for_each(|leaf| *leaf >>= arity_bits);
        of_trees.push(backend.query_fold(tree, &leaves)?);
    }
    let step = |(row, merkle_proof): QueryAnswer| {
        let evals = row.chunks(D).map(|pair| ext(pair[0], pair[1])).collect();
        FriQueryStep { evals, merkle_proof }
    };
    let rounds = by_query(of_oracles, leaves.len()).into_iter().zip(by_query(of_trees, leaves.len()));
    let round = |(evals_proofs, folds): (Vec<QueryAnswer>, Vec<QueryAnswer>)| FriQueryRound {
        initial_trees_proof: FriInitialTreeProof { evals_proofs },
        steps: folds.into_iter().map(step).collect(),
    };
    Ok(rounds.map(round).collect())
}
