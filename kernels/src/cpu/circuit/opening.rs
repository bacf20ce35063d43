//! The openings of a circuit proof and their FRI proof.

use std::ops::Range;

use plonky2::field::extension::unflatten;
use plonky2::field::polynomial::PolynomialCoeffs;
use plonky2::field::types::{Field, PrimeField64};
use plonky2::fri::oracle::PolynomialBatch;
use plonky2::fri::proof::{FriInitialTreeProof, FriProof, FriQueryRound, FriQueryStep};
use plonky2::plonk::proof::OpeningSet;
use zkinfer_circuits::backend::{BackendError, OpenedColumns, OpeningBatch, QueryAnswer};
use zkinfer_circuits::field::{C, D, F, H, K, scale};

use super::Prover;
use crate::cpu::fri::{self, FoldTree, Polynomials};
use crate::cpu::oracle::Oracle;
use crate::cpu::wide;

/// The four oracles of a circuit, in the order of FRI.
pub(super) struct Oracles<'a> {
    pub(super) constants_sigmas: &'a PolynomialBatch<F, C, D>,
    pub(super) wires: &'a Oracle,
    pub(super) products: &'a Oracle,
    pub(super) quotient: &'a Oracle,
}

impl Polynomials for PolynomialBatch<F, C, D> {
    fn log_rows(&self) -> usize {
        self.degree_log
    }

    fn coefficients(&self, column: usize) -> &[F] {
        &self.polynomials[column].coeffs
    }
}

impl Oracles<'_> {
    fn polynomials(&self) -> [&dyn Polynomials; 4] {
        [self.constants_sigmas, self.wires, self.products, self.quotient]
    }

    fn n_columns(&self) -> [usize; 4] {
        [self.constants_sigmas.polynomials.len(), self.wires.n_columns(), self.products.n_columns(), self.quotient.n_columns()]
    }

    fn query(&self, leaf: usize) -> Result<Vec<QueryAnswer>, BackendError> {
        let tree = &self.constants_sigmas.merkle_tree;
        let mut answers = vec![(tree.get(leaf).to_vec(), tree.prove(leaf))];
        for oracle in [self.wires, self.products, self.quotient] {
            answers.push(oracle.query(leaf)?);
        }
        Ok(answers)
    }
}

impl Prover<'_> {
    /// Opens everything at ζ, and Z also at gζ.
    pub(super) fn open(&mut self, oracles: &Oracles<'_>, zeta: K) -> Result<(OpeningSet<F, D>, FriProof<F, H, D>), BackendError> {
        let common = &self.circuit.common;
        let next = scale(zeta, F::primitive_root_of_unity(common.degree_bits()));
        let n_columns = oracles.n_columns();
        let evaluate = |oracle: usize, columns: Range<usize>, point: K| {
            let oracle = oracles.polynomials()[oracle];
            let polynomials: Vec<&[F]> = columns.map(|column| oracle.coefficients(column)).collect();
            wide::evaluate(self.tables.dispatch(), &polynomials, point)
        };
        let [constants_sigmas, wires, products, quotient_polys] = [0, 1, 2, 3].map(|index| evaluate(index, 0..n_columns[index], zeta));
        let openings = OpeningSet {
            constants: constants_sigmas[common.constants_range()].to_vec(),
            plonk_sigmas: constants_sigmas[common.sigmas_range()].to_vec(),
            wires,
            plonk_zs: products[common.zs_range()].to_vec(),
            plonk_zs_next: evaluate(2, common.zs_range(), next),
            partial_products: products[common.partial_products_range()].to_vec(),
            quotient_polys,
            lookup_zs: Vec::new(),
            lookup_zs_next: Vec::new(),
        };
        for values in [&openings.constants, &openings.plonk_sigmas, &openings.wires, &openings.plonk_zs] {
            self.challenger.observe_extension_elements::<D>(values);
        }
        for values in [&openings.partial_products, &openings.quotient_polys, &openings.plonk_zs_next] {
            self.challenger.observe_extension_elements::<D>(values);
        }
        let all = n_columns.into_iter().enumerate().map(|(oracle, columns)| OpenedColumns { oracle, columns: 0..columns });
        let batches = [
            OpeningBatch { point: zeta, opened: all.collect() },
            OpeningBatch { point: next, opened: vec![OpenedColumns { oracle: 2, columns: common.zs_range() }] },
        ];
        let proof = self.fri(oracles, &batches)?;
        Ok((openings, proof))
    }

    fn fri(&mut self, oracles: &Oracles<'_>, batches: &[OpeningBatch]) -> Result<FriProof<F, H, D>, BackendError> {
        let params = &self.circuit.common.fri_params;
        let alpha = self.challenger.get_extension_challenge::<D>();
        let mut codeword = fri::batch(self.tables, &oracles.polynomials(), batches, alpha, params.config.rate_bits);
        let mut trees = Vec::new();
        for &arity_bits in &params.reduction_arity_bits {
            let tree = fri::fold_commit(self.tables.dispatch(), &codeword, arity_bits, params.config.cap_height)?;
            self.challenger.observe_cap(&tree.tree.cap());
            trees.push(tree);
            let beta = self.challenger.get_extension_challenge::<D>();
            codeword = fri::fold(self.tables, codeword, arity_bits, beta)?;
        }
        let final_polynomial = fri::final_polynomial(&codeword, params.config.rate_bits);
        self.challenger.observe_extension_elements::<D>(&final_polynomial);
        let nonce = F::from_canonical_u64(fri::grind(self.tables.dispatch(), &self.challenger, params.config.proof_of_work_bits)?);
        self.challenger.observe_element(nonce);
        self.challenger.get_challenge();
        let positions = self.challenger.get_n_challenges(params.config.num_query_rounds);
        let rounds = positions.into_iter().map(|position| {
            let leaf = position.to_canonical_u64() as usize % params.lde_size();
            query_round(oracles, &trees, &params.reduction_arity_bits, leaf)
        });
        Ok(FriProof {
            commit_phase_merkle_caps: trees.iter().map(|tree| tree.tree.cap()).collect(),
            query_round_proofs: rounds.collect::<Result<_, _>>()?,
            final_poly: PolynomialCoeffs::new(final_polynomial),
            pow_witness: nonce,
        })
    }
}

fn query_round(
    oracles: &Oracles<'_>,
    trees: &[FoldTree],
    arities: &[usize],
    mut leaf: usize,
) -> Result<FriQueryRound<F, H, D>, BackendError> {
    let initial_trees_proof = FriInitialTreeProof { evals_proofs: oracles.query(leaf)? };
    let mut steps = Vec::new();
    for (tree, arity_bits) in trees.iter().zip(arities) {
        leaf >>= arity_bits;
        let (evals, merkle_proof) = tree.query(leaf)?;
        steps.push(FriQueryStep { evals: unflatten::<F, D>(&evals), merkle_proof });
    }
    Ok(FriQueryRound { initial_trees_proof, steps })
}
