//! A model of two layers whose "proofs" are free wires: balances are chosen so that the ledger closes.

use std::sync::{Arc, OnceLock};

use plonky2::field::types::Field;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};

use crate::backend::reference::Reference;
use crate::field::{Builder, Digest, F, K, lift};
use crate::kind::{LayerKind, Role};
use crate::recursion::boundary::BoundaryWitness;
use crate::recursion::digest::{
    BoundaryShape, Chains, GlobalChallenges, GlobalInputs, LayerIdentity, StatementFields, input_commitment,
    model_commitment, output_commitment, program_digest,
};
use crate::recursion::kinds::{BoundaryKind, LeafIndex, LeafKind, dense};
use crate::recursion::leaf::{LayerCircuit, LayerSlot};
use crate::recursion::outer::StatementWitness;
use crate::recursion::prover::{Aggregator, LeafJob, NodeProof, NoStore, ProveError, build_parameters};
use crate::recursion::salt::Salt;
use crate::security::{Profile, ProfileName};

pub(super) const LAYER: LeafIndex = LeafIndex(0);
pub(super) const BOUNDARY: LeafIndex = LeafIndex(1);
pub(super) const GROUP: LeafIndex = LeafIndex(2);
pub(super) const REGISTRATION: LeafIndex = LeafIndex(3);

/// The balance that a free layer claims, and its identity.
#[derive(Clone, Copy, Debug)]
pub(super) struct FreeLayer {
    pub(super) identity: LayerIdentity,
    pub(super) balance: K,
}

/// Layers that verify nothing.
pub(super) struct FreeLayers;

impl LayerCircuit for FreeLayers {
    type Targets = LayerSlot;
    type Witness = FreeLayer;

    fn verify(builder: &mut Builder, _: &LayerKind, _: Role, _: &Profile) -> (LayerSlot, LayerSlot) {
        let slot = LayerSlot {
            index: builder.add_virtual_target(),
            layer_key: builder.add_virtual_hash(),
            link_weights: builder.add_virtual_hash(),
            link_main: builder.add_virtual_hash(),
            gamma_prime: builder.add_virtual_extension_target(),
            delta: builder.add_virtual_extension_target(),
            balance: builder.add_virtual_extension_target(),
        };
        (slot, slot)
    }

    fn set(
        witness: &mut PartialWitness<F>,
        targets: &LayerSlot,
        _: &LayerKind,
        layer: &FreeLayer,
    ) -> anyhow::Result<()> {
        witness.set_hash_target(targets.layer_key, layer.identity.key)?;
        witness.set_hash_target(targets.link_weights, layer.identity.link_weights)?;
        witness.set_hash_target(targets.link_main, layer.identity.link_main)?;
        witness.set_extension_target(targets.balance, layer.balance)
    }
}

/// An aggregator on the reference backend.
pub(super) struct Prover(Aggregator<FreeLayers>);

impl std::ops::Deref for Prover {
    type Target = Aggregator<FreeLayers>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Prover {
    pub(super) fn prove_leaf(&self, job: &LeafJob<'_, FreeLayers>) -> Result<NodeProof, ProveError> {
        self.0.prove_leaf(&Reference, job)
    }

    pub(super) fn prove_join(&self, left: &NodeProof, right: &NodeProof) -> Result<NodeProof, ProveError> {
        self.0.prove_join(&Reference, left, right)
    }

    pub(super) fn prove_outer(&self, root: &NodeProof, statement: &StatementWitness) -> Result<Vec<u8>, ProveError> {
        self.0.prove_outer(&Reference, root, statement)
    }
}

pub(super) fn test_kinds() -> Vec<LeafKind> {
    let boundary = Some(BoundaryKind { input_capacity: 64, output_capacity: 16 });
    let leaf = |role, n_layers, boundary| LeafKind { role, layers: vec![dense(8, 16); n_layers], boundary };
    vec![
        leaf(Role::Inference, 1, None),
        leaf(Role::Inference, 0, boundary),
        leaf(Role::Inference, 2, boundary),
        leaf(Role::Registration, 1, None),
    ]
}

/// One prover for all tests of the process: building its eight circuits takes a while.
pub(super) fn prover() -> &'static Prover {
    static PROVER: OnceLock<Prover> = OnceLock::new();
    PROVER.get_or_init(|| {
        let profile = Profile::new(ProfileName::Default);
        let parameters = build_parameters::<FreeLayers>(&profile, &test_kinds()).expect("the test circuits build");
        let aggregator = Aggregator::new(Arc::new(parameters), test_kinds(), Box::new(NoStore));
        Prover(aggregator.expect("they are the parameters' own"))
    })
}

pub(super) fn digest(value: u64) -> Digest {
    Digest { elements: std::array::from_fn(|i| F::from_canonical_u64(100 * value + i as u64)) }
}

/// An inference on two layers and its statement.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) layers: [FreeLayer; 2],
    pub(super) boundary: BoundaryWitness,
    pub(super) model_salt: Salt,
    pub(super) challenges: GlobalChallenges,
    pub(super) statement: StatementFields,
}

/// `D_in·Σ γ'^i (a_i − offset) − δ^out·Σ γ'^i v_i`, the slow way.
pub(super) fn boundary_balance(boundary: &BoundaryWitness, challenges: &GlobalChallenges) -> K {
    let shape = &boundary.shape;
    let (gamma, delta) = (challenges.gamma_prime, challenges.delta);
    let offset = F::from_canonical_u8(shape.input_offset);
    let sum = |values: &[F]| -> K { values.iter().zip(gamma.powers()).map(|(&value, power)| power * lift(value)).sum() };
    let input: Vec<F> = boundary.input.iter().map(|&byte| F::from_canonical_u8(byte) - offset).collect();
    let edges = shape.first_input_edge..shape.first_input_edge + shape.input_fan_out;
    let weight: K = edges.map(|edge| delta.exp_u64(edge as u64)).sum();
    weight * sum(&input) - delta.exp_u64(shape.output_edge as u64) * sum(&boundary.output)
}

impl Instance {
    /// Commits, derives the challenges, and lets the second layer close the ledger.
    pub(super) fn new(boundary: BoundaryWitness) -> Self {
        let mut layers = [1, 2].map(|i| FreeLayer {
            identity: LayerIdentity { key: digest(i), link_weights: digest(10 + i), link_main: digest(20 + i) },
            balance: K::from_canonical_u64(7 * i),
        });
        let parameters_id = prover().parameters().id();
        let model_salt = Salt::from_stored(digest(50));
        let chains = Self::chains_of(&layers, 2);
        let program = program_digest(2, chains.public, boundary.shape.digest());
        let model = model_commitment(model_salt.digest(), program, chains.secret);
        let input = input_commitment(&boundary.input, boundary.input_salt.digest()).expect("a small input");
        let output = output_commitment(&boundary.output, boundary.output_salt.digest()).expect("a small output");
        let global =
            GlobalInputs { parameters_id, model, program, input, output, n_layers: 2, main_chain: chains.main };
        let challenges = global.challenges();
        layers[1].balance = -layers[0].balance - boundary_balance(&boundary, &challenges);
        let statement = StatementFields {
            parameters_id,
            program,
            model,
            input,
            output,
            predicate: Digest::ZERO,
            context_nonce: digest(99),
        };
        Self { layers, boundary, model_salt, challenges, statement }
    }

    fn chains_of(layers: &[FreeLayer; 2], count: usize) -> Chains {
        layers.iter().take(count).enumerate().fold(Chains::start(), |chains, (i, layer)| chains.after(i, &layer.identity))
    }

    pub(super) fn chains(&self, count: usize) -> Chains {
        Self::chains_of(&self.layers, count)
    }

    pub(super) fn witness(&self) -> StatementWitness {
        StatementWitness {
            parameters_id: self.statement.parameters_id,
            model_salt: self.model_salt,
            boundary: self.boundary.shape.digest(),
            input: self.statement.input,
            output: self.statement.output,
            context_nonce: self.statement.context_nonce,
        }
    }

    fn job(&self, leaf: LeafIndex, start: usize, layers: std::ops::Range<usize>) -> LeafJob<'_, FreeLayers> {
        LeafJob {
            leaf,
            start_index: start,
            start_chains: self.chains(start),
            challenges: self.challenges,
            layers: self.layers[layers].iter().collect(),
            boundary: None,
        }
    }

    pub(super) fn layer(&self, index: usize) -> Result<NodeProof, ProveError> {
        prover().prove_leaf(&self.job(LAYER, index, index..index + 1))
    }

    /// The boundary alone, after `start` layers.
    pub(super) fn boundary_leaf(&self, start: usize) -> Result<NodeProof, ProveError> {
        prover().prove_leaf(&LeafJob { boundary: Some(&self.boundary), ..self.job(BOUNDARY, start, 0..0) })
    }

    /// Everything in one leaf.
    pub(super) fn group(&self) -> Result<NodeProof, ProveError> {
        prover().prove_leaf(&LeafJob { boundary: Some(&self.boundary), ..self.job(GROUP, 0, 0..2) })
    }
}

/// A boundary of 30 inputs with all features: offset, fan-out, salted input.
pub(super) fn sample_boundary() -> BoundaryWitness {
    BoundaryWitness {
        shape: BoundaryShape {
            n_inputs: 30,
            input_offset: 128,
            first_input_edge: 1,
            input_fan_out: 2,
            n_outputs: 10,
            output_edge: 5,
        },
        input: (0..30).map(|i| (37 * i + 200) as u8).collect(),
        input_salt: Salt::from_stored(digest(60)),
        output: (0..10).map(|i| F::from_canonical_u64(i) - F::from_canonical_u64(5)).collect(),
        output_salt: Salt::NONE,
    }
}

/// An honest instance with its leaves, made once.
pub(super) struct Honest {
    pub(super) instance: Instance,
    pub(super) layers: [NodeProof; 2],
    pub(super) boundary: NodeProof,
    pub(super) joined_layers: NodeProof,
    pub(super) root: NodeProof,
}

pub(super) fn honest() -> &'static Honest {
    static HONEST: OnceLock<Honest> = OnceLock::new();
    HONEST.get_or_init(|| {
        let instance = Instance::new(sample_boundary());
        let layers = [0, 1].map(|index| instance.layer(index).expect("an honest layer"));
        let boundary = instance.boundary_leaf(2).expect("an honest boundary");
        let joined_layers = prover().prove_join(&layers[0], &layers[1]).expect("honest neighbours");
        let root = prover().prove_join(&joined_layers, &boundary).expect("a join and a leaf");
        Honest { instance, layers, boundary, joined_layers, root }
    })
}

/// A changed copy of a statement's witness.
pub(super) fn changed(mut witness: StatementWitness, change: impl FnOnce(&mut StatementWitness)) -> StatementWitness {
    change(&mut witness);
    witness
}
