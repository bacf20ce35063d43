//! Networks of real layers, proved by a prover that may claim anything about them: each layer proof verifies, whatever it is used for.

use std::sync::{Arc, OnceLock};

use plonky2::field::types::Field;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::backend::reference::Reference;
use crate::field::{Digest, F, K, from_signed};
use crate::kind::{LayerKind, Role};
use crate::layer::prover::{LinkedOracle, balance, commit_linked, prove};
use crate::layer::spec::layer_key;
use crate::layer::{LayerClaim, LayerShape, LayerSpec, OutputRule, verify};
use crate::ops::dense::trace::DenseConstants;
use crate::ops::trace::{LayerConstants, main_columns, registration_columns, weight_columns};
use crate::recursion::boundary::BoundaryWitness;
use crate::recursion::digest::{
    BoundaryShape, Chains, GlobalChallenges, GlobalInputs, LayerIdentity, StatementFields, input_commitment, model_commitment,
    output_commitment, program_digest,
};
use crate::recursion::kinds::{BoundaryKind, LeafIndex, LeafKind, dense};
use crate::recursion::layers::{ProvedLayer, StarkLayers, layer_shape};
use crate::recursion::outer::StatementWitness;
use crate::recursion::prover::tests::fixture::digest;
use crate::recursion::prover::{Aggregator, LeafJob, NoStore, NodeProof, ProveError, build_parameters};
use crate::recursion::salt::Salt;
use crate::security::{Profile, ProfileName};

/// One layer.
pub(super) const SINGLE: LeafIndex = LeafIndex(0);
/// One layer and the boundary.
pub(super) const LAST: LeafIndex = LeafIndex(1);
/// Two layers and the boundary.
pub(super) const LAST_TWO: LeafIndex = LeafIndex(2);
/// One layer of the wide kind and the boundary.
pub(super) const LAST_WIDE: LeafIndex = LeafIndex(3);
/// A registration of two layers.
pub(super) const REGISTRATION: LeafIndex = LeafIndex(4);

pub(super) const KIND: LayerKind = dense(8, 16);
pub(super) const WIDE_KIND: LayerKind = dense(8, 32);

pub(super) const N_INPUTS: usize = 12;
pub(super) const N_OUTPUTS: usize = 32;
const OFFSET: u8 = 128;

pub(super) fn real_kinds() -> Vec<LeafKind> {
    let boundary = Some(BoundaryKind { input_capacity: 64, output_capacity: 256 });
    let leaf = |role, layers: &[LayerKind], boundary| LeafKind { role, layers: layers.to_vec(), boundary };
    vec![
        leaf(Role::Inference, &[KIND], None),
        leaf(Role::Inference, &[KIND], boundary),
        leaf(Role::Inference, &[KIND, KIND], boundary),
        leaf(Role::Inference, &[WIDE_KIND], boundary),
        leaf(Role::Registration, &[KIND, KIND], None),
    ]
}

/// One prover for all tests of the process.
pub(super) fn real_prover() -> &'static Aggregator<StarkLayers> {
    static PROVER: OnceLock<Aggregator<StarkLayers>> = OnceLock::new();
    PROVER.get_or_init(|| {
        let profile = Profile::new(ProfileName::Default);
        let parameters = build_parameters::<StarkLayers>(&profile, &real_kinds()).expect("the circuits build");
        Aggregator::new(Arc::new(parameters), real_kinds(), Box::new(NoStore)).expect("they are the parameters' own")
    })
}

/// A layer with committed weights.
pub(super) struct Layer {
    pub(super) spec: LayerSpec,
    pub(super) constants: DenseConstants,
    shape: LayerShape,
    weights: LinkedOracle<Reference>,
}

/// The first layer of the sample network reads edge 1 and writes edge 2, the second reads 2 and writes 3.
pub(super) fn sample_spec(position: u32) -> LayerSpec {
    LayerSpec {
        kind: KIND,
        n_inputs: N_INPUTS,
        n_outputs: if position == 0 { N_INPUTS } else { N_OUTPUTS },
        log_period: if position == 0 { 8 } else { 7 },
        output: OutputRule::Requantize { shift: 24, lo: -127, hi: 127 },
        bias_bits: 16,
        mult_bits: 16,
        edges_in: [position + 1, 0],
        edge_out: position + 2,
        fan_out: 1,
    }
}

/// Constants that spread the outputs over most of the range between the clamps.
pub(super) fn sample_constants(spec: &LayerSpec, seed: u64) -> DenseConstants {
    let mut rng = StdRng::seed_from_u64(seed);
    DenseConstants {
        weights: (0..spec.n_inputs * spec.n_outputs).map(|_| rng.gen_range(-128..=127i8)).collect(),
        bias: (0..spec.n_outputs).map(|_| rng.gen_range(-8000..8000)).collect(),
        multipliers: (0..spec.n_outputs).map(|_| rng.gen_range(1 << 14..1 << 15)).collect(),
    }
}

impl Layer {
    pub(super) fn new(spec: LayerSpec, constants: DenseConstants) -> Self {
        spec.check_shape().expect("a valid layer");
        let profile = Profile::new(ProfileName::Default);
        let shape = layer_shape(spec.kind, Role::Inference, &profile);
        let columns = weight_columns(&spec, &LayerConstants::Dense(constants.clone()));
        let weights = commit_linked(&Reference, &shape, &columns).expect("commit");
        Self { spec, constants, shape, weights }
    }

    /// Evaluates the layer and commits what it read and wrote.
    pub(super) fn run(&self, input: &[i64]) -> Step<'_> {
        let constants = LayerConstants::Dense(self.constants.clone());
        let columns = weight_columns(&self.spec, &constants);
        let (main, output) = main_columns(&self.shape.system, &self.spec, &constants, &columns, [input, &[]]).expect("in range");
        let main = commit_linked(&Reference, &self.shape, &main).expect("commit");
        Step { layer: self, input: input.to_vec(), output, main }
    }

    /// The layer's registration at an index; whether the native verifier accepts it is part of the answer.
    pub(super) fn register(&self, index: usize) -> (ProvedLayer, bool) {
        let shape = layer_shape(self.spec.kind, Role::Registration, &Profile::new(ProfileName::Default));
        let columns = weight_columns(&self.spec, &LayerConstants::Dense(self.constants.clone()));
        let main = registration_columns(&shape.system, &self.spec, &columns).expect("in range");
        let main = commit_linked(&Reference, &shape, &main).expect("commit");
        let claim = LayerClaim {
            theta: self.spec.theta(),
            index,
            link_weights: self.weights.link,
            link_main: main.link,
            gamma_prime: K::ZERO,
            delta: K::ZERO,
            balance: K::ZERO,
        };
        let proof = prove(&Reference, &shape, &claim, &self.weights, &main).expect("prove");
        let is_accepted = verify(&shape, &claim, &proof) == Ok(());
        (ProvedLayer { theta: claim.theta, proof }, is_accepted)
    }
}

/// A layer on an input.
pub(super) struct Step<'a> {
    pub(super) layer: &'a Layer,
    pub(super) input: Vec<i64>,
    pub(super) output: Vec<i64>,
    main: LinkedOracle<Reference>,
}

impl Step<'_> {
    pub(super) fn identity(&self) -> LayerIdentity {
        let key = layer_key(self.layer.shape.kind_digest, &self.layer.spec.theta());
        LayerIdentity { key, link_weights: self.layer.weights.link, link_main: self.main.link }
    }

    /// The layer proof at an index; the native verifier accepts it.
    pub(super) fn prove(&self, index: usize, challenges: GlobalChallenges) -> ProvedLayer {
        let GlobalChallenges { gamma_prime, delta } = challenges;
        let (layer, theta) = (self.layer, self.layer.spec.theta());
        let balance = balance(&layer.shape, &theta, gamma_prime, delta, [&self.input, &[]], &self.output);
        let (link_weights, link_main) = (layer.weights.link, self.main.link);
        let claim = LayerClaim { theta, index, link_weights, link_main, gamma_prime, delta, balance };
        let proof = prove(&Reference, &layer.shape, &claim, &layer.weights, &self.main).expect("prove");
        assert_eq!(verify(&layer.shape, &claim, &proof), Ok(()), "the layer proof itself is true");
        ProvedLayer { theta: claim.theta, proof }
    }
}

/// What a prover claims: these layers, in this order, between this input and this output.
#[derive(Clone)]
pub(super) struct Claim<'a> {
    pub(super) steps: Vec<&'a Step<'a>>,
    pub(super) boundary: BoundaryWitness,
}

impl Claim<'_> {
    pub(super) fn chains(&self, count: usize) -> Chains {
        let steps = self.steps.iter().take(count).enumerate();
        steps.fold(Chains::start(), |chains, (index, step)| chains.after(index, &step.identity()))
    }

    /// What (γ', δ) are hashed from.
    pub(super) fn global(&self) -> GlobalInputs {
        let chains = self.chains(self.steps.len());
        let program = program_digest(self.steps.len(), chains.public, self.boundary.shape.digest());
        GlobalInputs {
            parameters_id: real_prover().parameters().id(),
            model: model_commitment(model_salt().digest(), program, chains.secret),
            program,
            input: input_commitment(&self.boundary.input, self.boundary.input_salt.digest()).expect("a small input"),
            output: output_commitment(&self.boundary.output, self.boundary.output_salt.digest()).expect("a small output"),
            n_layers: self.steps.len(),
            main_chain: chains.main,
        }
    }

    /// The statement of this claim.
    pub(super) fn statement(&self) -> StatementFields {
        let GlobalInputs { parameters_id, model, program, input, output, .. } = self.global();
        StatementFields { parameters_id, program, model, input, output, predicate: Digest::ZERO, context_nonce: digest(99) }
    }

    pub(super) fn witness(&self) -> StatementWitness {
        let GlobalInputs { parameters_id, input, output, .. } = self.global();
        let boundary = self.boundary.shape.digest();
        StatementWitness { parameters_id, model_salt: model_salt(), boundary, input, output, context_nonce: digest(99) }
    }

    fn leaf(&self, leaf: LeafIndex, layers: std::ops::Range<usize>, challenges: GlobalChallenges) -> Result<NodeProof, ProveError> {
        let proved: Vec<ProvedLayer> = layers.clone().map(|index| self.steps[index].prove(index, challenges)).collect();
        let has_boundary = real_kinds()[leaf.0].boundary.is_some();
        let job = LeafJob {
            leaf,
            start_index: layers.start,
            start_chains: self.chains(layers.start),
            challenges,
            layers: proved.iter().collect(),
            boundary: has_boundary.then_some(&self.boundary),
        };
        real_prover().prove_leaf(&Reference, &job)
    }

    /// The first layer alone; that of the sample network is made once.
    pub(super) fn first_leaf(&self, challenges: GlobalChallenges) -> NodeProof {
        static OF_SAMPLE: OnceLock<NodeProof> = OnceLock::new();
        let prove = || self.leaf(SINGLE, 0..1, challenges).expect("a true layer proof");
        let is_sample = std::ptr::eq(self.steps[0], &sample_steps()[0]) && challenges == sample_claim().global().challenges();
        if is_sample { OF_SAMPLE.get_or_init(prove).clone() } else { prove() }
    }

    /// The other layers and the boundary.
    pub(super) fn last_leaf(&self, challenges: GlobalChallenges) -> NodeProof {
        let (leaf, layers) = match self.steps.as_slice() {
            [_] => (LAST, 0..1),
            [_, second] if second.layer.spec.kind == WIDE_KIND => (LAST_WIDE, 1..2),
            [_, _] => (LAST, 1..2),
            steps => (LAST_TWO, 1..steps.len()),
        };
        self.leaf(leaf, layers, challenges).expect("true layer proofs")
    }

    /// Two layers and the boundary in one leaf, where there is such a leaf; otherwise as [`Self::root`].
    pub(super) fn leaf_or_root(&self, challenges: GlobalChallenges) -> NodeProof {
        let is_pair = self.steps.len() == 2 && self.steps.iter().all(|step| step.layer.spec.kind == KIND);
        if is_pair { self.leaf(LAST_TWO, 0..2, challenges).expect("true layer proofs") } else { self.root(challenges) }
    }

    /// Everything in one node, under any challenges: leaves and join have nothing against a claim whose parts fit each other.
    pub(super) fn root(&self, challenges: GlobalChallenges) -> NodeProof {
        let last = self.last_leaf(challenges);
        if self.steps.len() == 1 {
            return last;
        }
        real_prover().prove_join(&Reference, &self.first_leaf(challenges), &last).expect("neighbours")
    }
}

pub(super) fn model_salt() -> Salt {
    Salt::from_stored(digest(50))
}

/// Centered values of input bytes.
pub(super) fn centered(bytes: &[u8]) -> Vec<i64> {
    bytes.iter().map(|&byte| i64::from(byte) - i64::from(OFFSET)).collect()
}

/// The boundary of the sample network, for any input and output.
pub(super) fn sample_boundary(input: Vec<u8>, output: &[i64]) -> BoundaryWitness {
    let (n_inputs, n_outputs) = (input.len(), output.len());
    BoundaryWitness {
        shape: BoundaryShape { n_inputs, input_offset: OFFSET, first_input_edge: 1, input_fan_out: 1, n_outputs, output_edge: 3 },
        input,
        input_salt: Salt::from_stored(digest(60)),
        output: elements(output),
        output_salt: Salt::NONE,
    }
}

pub(super) fn elements(values: &[i64]) -> Vec<F> {
    values.iter().map(|&value| from_signed(value)).collect()
}

pub(super) fn sample_input() -> Vec<u8> {
    (0..N_INPUTS).map(|i| (91 * i + 40) as u8).collect()
}

/// The sample network's two layers.
pub(super) fn sample_layers() -> &'static [Layer; 2] {
    static LAYERS: OnceLock<[Layer; 2]> = OnceLock::new();
    LAYERS.get_or_init(|| {
        [0, 1].map(|position| {
            let spec = sample_spec(position);
            let constants = sample_constants(&spec, 200 + u64::from(position));
            Layer::new(spec, constants)
        })
    })
}

/// The sample network on the sample input.
pub(super) fn sample_steps() -> &'static [Step<'static>; 2] {
    static STEPS: OnceLock<[Step<'static>; 2]> = OnceLock::new();
    STEPS.get_or_init(|| {
        let [first, second] = sample_layers();
        let first = first.run(&centered(&sample_input()));
        let second = second.run(&first.output);
        [first, second]
    })
}

/// The true claim about the sample network.
pub(super) fn sample_claim() -> Claim<'static> {
    let steps = sample_steps();
    Claim { steps: steps.iter().collect(), boundary: sample_boundary(sample_input(), &steps[1].output) }
}
