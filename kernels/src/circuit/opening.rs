//! The openings of a circuit proof and their FRI proof.

use plonky2::field::extension::unflatten;
use plonky2::field::polynomial::PolynomialCoeffs;
use plonky2::field::types::{Field, PrimeField64};
use plonky2::fri::proof::{FriInitialTreeProof, FriProof, FriQueryRound, FriQueryStep};
use plonky2::plonk::proof::OpeningSet;
use zkinfer_circuits::backend::{BackendError, OpenedColumns, OpeningBatch, QueryAnswer, by_query};
use zkinfer_circuits::field::{D, F, H, K, scale};

use super::{CircuitBackend, Prover};

/// The oracles of a circuit proof, in the order of FRI.
pub(super) struct Oracles<'a, 'b, B: CircuitBackend> {
    /// Constants and σ.
    pub(super) fixed: &'a B::Fixed<'b>,
    /// Wires, products, quotients.
    pub(super) committed: [&'a B::Oracle; 3],
}

impl<B: CircuitBackend> Prover<'_, B> {
    /// Columns of the four oracles, the fixed one first, without salt.
    fn n_columns(&self) -> [usize; 4] {
        let common = &self.circuit.common;
        let n_products = common.config.num_challenges * (1 + common.num_partial_products);
        [common.sigmas_range().end, common.config.num_wires, n_products, common.config.num_challenges * common.quotient_degree_factor]
    }

    /// Opens everything at ζ, and Z also at gζ.
    pub(super) fn open(&mut self, oracles: &Oracles<'_, '_, B>, zeta: K) -> Result<(OpeningSet<F, D>, FriProof<F, H, D>), BackendError> {
        let common = &self.circuit.common;
        let next = scale(zeta, F::primitive_root_of_unity(common.degree_bits()));
        let n_columns = self.n_columns();
        let [wires, products, quotients] = oracles.committed;
        let fixed = self.backend.evaluate_fixed(oracles.fixed, zeta)?;
        let wires = self.backend.evaluate(wires, 0..n_columns[1], zeta)?;
        let products_at_zeta = self.backend.evaluate(products, 0..n_columns[2], zeta)?;
        let openings = OpeningSet {
            constants: fixed[common.constants_range()].to_vec(),
            plonk_sigmas: fixed[common.sigmas_range()].to_vec(),
            wires,
            plonk_zs: products_at_zeta[common.zs_range()].to_vec(),
            plonk_zs_next: self.backend.evaluate(products, common.zs_range(), next)?,
            partial_products: products_at_zeta[common.partial_products_range()].to_vec(),
            quotient_polys: self.backend.evaluate(quotients, 0..n_columns[3], zeta)?,
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

    fn fri(&mut self, oracles: &Oracles<'_, '_, B>, batches: &[OpeningBatch]) -> Result<FriProof<F, H, D>, BackendError> {
        let (backend, params) = (self.backend, &self.circuit.common.fri_params);
        let alpha = self.challenger.get_extension_challenge::<D>();
        let mut codeword = backend.batch_with_fixed(oracles.fixed, oracles.committed, batches, alpha)?;
        let mut trees = Vec::new();
        for &arity_bits in &params.reduction_arity_bits {
            let tree = backend.fold_commit(&codeword, arity_bits, params.config.cap_height)?;
            self.challenger.observe_cap(&backend.fold_cap(&tree));
            trees.push(tree);
            let beta = self.challenger.get_extension_challenge::<D>();
            codeword = backend.fold(codeword, arity_bits, beta)?;
        }
        let final_polynomial = backend.final_polynomial(&codeword, params.config.rate_bits)?;
        self.challenger.observe_extension_elements::<D>(&final_polynomial);
        let nonce = F::from_canonical_u64(backend.grind(&self.challenger, params.config.proof_of_work_bits)?);
        self.challenger.observe_element(nonce);
        self.challenger.get_challenge();
        let positions = self.challenger.get_n_challenges(params.config.num_query_rounds);
        let leaves = positions.into_iter().map(|position| position.to_canonical_u64() as usize % params.lde_size()).collect();
        Ok(FriProof {
            commit_phase_merkle_caps: trees.iter().map(|tree| backend.fold_cap(tree)).collect(),
            query_round_proofs: self.query_rounds(oracles, &trees, leaves)?,
            final_poly: PolynomialCoeffs::new(final_polynomial),
            pow_witness: nonce,
        })
    }

    fn query_rounds(
        &self,
        oracles: &Oracles<'_, '_, B>,
        trees: &[B::FoldTree],
        mut leaves: Vec<usize>,
    ) -> Result<Vec<FriQueryRound<F, H, D>>, BackendError> {
        // The circuit has this tree on the host.
        let fixed = &self.circuit.prover_only.constants_sigmas_commitment.merkle_tree;
        let mut of_oracles = vec![leaves.iter().map(|&leaf| (fixed.get(leaf).to_vec(), fixed.prove(leaf))).collect()];
        for oracle in oracles.committed {
            of_oracles.push(self.backend.query(oracle, &leaves)?);
        }
        let mut of_trees = Vec::with_capacity(trees.len());
        for (tree, arity_bits) in trees.iter().zip(&self.circuit.common.fri_params.reduction_arity_bits) {
            leaves.iter_mut().for_each(|leaf| *leaf >>= arity_bits);
            of_trees.push(self.backend.query_fold(tree, &leaves)?);
        }
        let step = |(row, merkle_proof): QueryAnswer| FriQueryStep { evals: unflatten::<F, D>(&row), merkle_proof };
        let rounds = by_query(of_oracles, leaves.len()).into_iter().zip(by_query(of_trees, leaves.len()));
        let round = |(evals_proofs, folds): (Vec<QueryAnswer>, Vec<QueryAnswer>)| FriQueryRound {
            initial_trees_proof: FriInitialTreeProof { evals_proofs },
            steps: folds.into_iter().map(step).collect(),
        };
        Ok(rounds.map(round).collect())
    }
}
