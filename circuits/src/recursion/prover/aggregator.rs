//! Leaf, join and outer proofs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use plonky2::field::types::Field;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use thiserror::Error;
use tracing::info_span;

use crate::backend::{Backend, BackendError};
use crate::field::F;
use crate::recursion::boundary::{BoundaryError, BoundaryWitness};
use crate::recursion::digest::{Chains, GlobalChallenges, verifier_data_digest};
use crate::recursion::gadgets::{Proof, VerifierData};
use crate::recursion::join::JoinTargets;
use crate::recursion::kinds::{LeafIndex, LeafKind};
use crate::recursion::leaf::LayerCircuit;
use crate::recursion::node::{Circuit, Common, node_common};
use crate::recursion::outer::{OuterConstants, OuterTargets, RegistrationOuterTargets, RegistrationWitness, StatementWitness};
use crate::recursion::parameters::{Parameters, common_digest};
use crate::recursion::proof::{ProofKind, encode_proof};
use crate::recursion::prover::circuits::{
    CircuitError, LeafGates, complete, join_gates, leaf_gates, leaf_name, outer_gates, registration_gates,
};
use crate::recursion::prover::store::CircuitStore;
use crate::recursion::public::NodePublic;
use crate::recursion::registry::{RegistryError, RegistryPath};

/// A proof that could not be made.
#[derive(Debug, Error)]
pub enum ProveError {
    /// The circuit.
    #[error(transparent)]
    Circuit(#[from] CircuitError),
    /// No such leaf.
    #[error("there is no leaf circuit number {index}, only {n_kinds}; plan with recursion::plan")]
    NoSuchLeaf {
        /// Leaf asked for.
        index: usize,
        /// Leaves known.
        n_kinds: usize,
    },
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Layers against kind.
    #[error("leaf {name} verifies {expected} layers, got {got} layer proofs")]
    LayerCount {
        /// Leaf circuit.
        name: String,
        /// Layers of its kind.
        expected: usize,
        /// Layer proofs given.
        got: usize,
    },
    /// Boundary against kind.
    #[error("leaf {name} {expected} a boundary, the job {got}")]
    BoundaryPresence {
        /// Leaf circuit.
        name: String,
        /// "has" or "has not".
        expected: &'static str,
        /// "gives one" or "gives none".
        got: &'static str,
    },
    /// A boundary that does not fit.
    #[error(transparent)]
    Boundary(#[from] BoundaryError),
    /// No nodes.
    #[error("there are no nodes to aggregate")]
    NoNodes,
    /// The machine.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A witness that violates the circuit.
    #[error("the witness does not satisfy circuit {name}: {reason}")]
    Unsatisfied {
        /// Which circuit.
        name: String,
        /// What plonky2 says.
        reason: String,
    },
}

/// A proof of a node. An internal artifact: it reveals rows of witness tables, and never leaves the prover's side.
#[derive(Clone)]
pub struct NodeProof {
    pub(super) proof: Proof,
    pub(super) verifier_data: VerifierData,
    /// Slot in the registry; `None` for a join.
    pub(super) slot: Option<usize>,
}

impl std::fmt::Debug for NodeProof {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "NodeProof {{ slot: {:?} }}", self.slot)
    }
}

impl NodeProof {
    /// The node's public inputs.
    pub fn public(&self) -> Option<NodePublic<F>> {
        NodePublic::from_slice(&self.proof.public_inputs)
    }
}

/// What a leaf proves.
pub struct LeafJob<'a, L: LayerCircuit> {
    /// The circuit.
    pub leaf: LeafIndex,
    /// Index of the first layer.
    pub start_index: usize,
    /// Chains before the first layer.
    pub start_chains: Chains,
    /// γ' and δ; [`GlobalChallenges::zero`] for registrations.
    pub challenges: GlobalChallenges,
    /// Layer proofs, in order.
    pub layers: Vec<&'a L::Witness>,
    /// The boundary, if the leaf contains it.
    pub boundary: Option<&'a BoundaryWitness>,
}

struct LeafCircuit<L: LayerCircuit> {
    gates: LeafGates<L>,
    circuit: Circuit,
}

/// A value made on first use; users of one value wait for each other, of different values do not.
struct Lazy<T>(Mutex<Option<Arc<T>>>);

impl<T> Lazy<T> {
    fn empty() -> Self {
        Self(Mutex::new(None))
    }

    fn get(&self, make: impl FnOnce() -> Result<T, CircuitError>) -> Result<Arc<T>, CircuitError> {
        // A panic while making leaves None behind: the next user tries again.
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = slot.as_ref() {
            return Ok(Arc::clone(value));
        }
        let value = Arc::new(make()?);
        *slot = Some(Arc::clone(&value));
        Ok(value)
    }
}

/// Proves nodes and published proofs under one parameter set.
pub struct Aggregator<L: LayerCircuit> {
    parameters: Arc<Parameters>,
    kinds: Vec<LeafKind>,
    common: Common,
    store: Box<dyn CircuitStore>,
    leaves: Vec<Lazy<LeafCircuit<L>>>,
    join: Lazy<(JoinTargets, Circuit)>,
    outer: Lazy<(OuterTargets, Circuit)>,
    registration: Lazy<(RegistrationOuterTargets, Circuit)>,
}

/// Proves a circuit, and verifies the proof: plonky2 notices contradictory wires, but divides by Z whether the constraints vanish or not,
/// so a witness that violates a gate gives a proof that nobody accepts. Verifying costs milliseconds.
pub(super) fn satisfied(circuit: &Circuit, name: &str, prove: impl FnOnce() -> Result<Proof, BackendError>) -> Result<Proof, ProveError> {
    let _span = info_span!("prove_circuit", name).entered();
    let unsatisfied = |reason: String| ProveError::Unsatisfied { name: name.to_owned(), reason };
    match catch_unwind(AssertUnwindSafe(prove)) {
        Ok(Ok(proof)) => match circuit.verify(proof.clone()) {
            Ok(()) => Ok(proof),
            Err(error) => Err(unsatisfied(format!("the constraints do not vanish ({error})"))),
        },
        Ok(Err(BackendError::Witness(reason))) => Err(unsatisfied(reason)),
        Ok(Err(error)) => Err(ProveError::Backend(error)),
        Err(_) => Err(unsatisfied("the circuit prover panicked".to_owned())),
    }
}

fn assign(name: &str, result: anyhow::Result<()>) -> Result<(), ProveError> {
    result.map_err(|error| ProveError::Unsatisfied { name: name.to_owned(), reason: error.to_string() })
}

impl<L: LayerCircuit> Aggregator<L> {
    /// An aggregator whose leaf circuits are `kinds`, in the order of the parameters' registry.
    ///
    /// # Errors
    /// Parameters of other circuits than this source builds.
    pub fn new(parameters: Arc<Parameters>, kinds: Vec<LeafKind>, store: Box<dyn CircuitStore>) -> Result<Self, CircuitError> {
        let common = node_common(parameters.profile());
        let known = parameters.registry().leaves().len();
        if common_digest(&common, "node")? != parameters.node_common_digest() || known != kinds.len() {
            return Err(CircuitError::Mismatch { name: "node".to_owned() });
        }
        let leaves = kinds.iter().map(|_| Lazy::empty()).collect();
        let (join, outer, registration) = (Lazy::empty(), Lazy::empty(), Lazy::empty());
        Ok(Self { parameters, kinds, common, store, leaves, join, outer, registration })
    }

    /// The parameter set.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    pub(super) fn node_common(&self) -> &Common {
        &self.common
    }

    pub(super) fn store(&self) -> &dyn CircuitStore {
        self.store.as_ref()
    }

    fn constants(&self) -> OuterConstants<'_> {
        OuterConstants {
            profile: self.parameters.profile(),
            node_common: &self.common,
            registry_root: self.parameters.registry().root(),
            join_digest: self.parameters.join_digest(),
        }
    }

    fn leaf_kind(&self, leaf: LeafIndex) -> Result<&LeafKind, ProveError> {
        let unknown = ProveError::NoSuchLeaf { index: leaf.0, n_kinds: self.kinds.len() };
        self.kinds.get(leaf.0).ok_or(unknown)
    }

    fn leaf_circuit(&self, leaf: LeafIndex, kind: &LeafKind) -> Result<Arc<LeafCircuit<L>>, ProveError> {
        let identity = self.parameters.registry().leaves()[leaf.0];
        let made = self.leaves[leaf.0].get(|| {
            let (builder, gates) = leaf_gates::<L>(self.parameters.profile(), kind)?;
            let circuit = complete(builder, &leaf_name(kind), identity, self.store.as_ref())?;
            Ok(LeafCircuit { gates, circuit })
        });
        Ok(made?)
    }

    pub(super) fn join_circuit(&self) -> Result<Arc<(JoinTargets, Circuit)>, CircuitError> {
        self.join.get(|| {
            let root = self.parameters.registry().root();
            let (builder, targets) = join_gates(self.parameters.profile(), &self.common, root)?;
            Ok((targets, complete(builder, "join", self.parameters.join_digest(), self.store.as_ref())?))
        })
    }

    fn outer_circuit(&self) -> Result<Arc<(OuterTargets, Circuit)>, CircuitError> {
        self.outer.get(|| {
            let (builder, targets) = outer_gates(&self.constants());
            let identity = verifier_data_digest(&self.parameters.outer().verifier_only);
            Ok((targets, complete(builder, "outer", identity, self.store.as_ref())?))
        })
    }

    fn registration_circuit(&self) -> Result<Arc<(RegistrationOuterTargets, Circuit)>, CircuitError> {
        self.registration.get(|| {
            let (builder, targets) = registration_gates(&self.constants());
            let identity = verifier_data_digest(&self.parameters.registration().verifier_only);
            Ok((targets, complete(builder, "registration-outer", identity, self.store.as_ref())?))
        })
    }

    /// Builds or loads a leaf circuit ahead of its first proof.
    ///
    /// # Errors
    /// A circuit that is not the one of the parameters.
    pub fn warm_leaf(&self, leaf: LeafIndex) -> Result<(), ProveError> {
        self.leaf_circuit(leaf, self.leaf_kind(leaf)?).map(|_| ())
    }

    /// Builds or loads the join ahead of its first proof.
    ///
    /// # Errors
    /// A circuit that is not the one of the parameters.
    pub fn warm_join(&self) -> Result<(), ProveError> {
        Ok(self.join_circuit().map(|_| ())?)
    }

    /// Builds or loads an outer circuit ahead of its first proof.
    ///
    /// # Errors
    /// A circuit that is not the one of the parameters.
    pub fn warm_outer(&self, kind: ProofKind) -> Result<(), ProveError> {
        match kind {
            ProofKind::Inference => Ok(self.outer_circuit().map(|_| ())?),
            ProofKind::Registration => Ok(self.registration_circuit().map(|_| ())?),
        }
    }

    fn check_job(kind: &LeafKind, job: &LeafJob<'_, L>) -> Result<(), ProveError> {
        let (expected, got) = (kind.layers.len(), job.layers.len());
        if expected != got {
            return Err(ProveError::LayerCount { name: leaf_name(kind), expected, got });
        }
        match (kind.boundary, job.boundary) {
            (Some(capacities), Some(boundary)) => Ok(boundary.check(capacities)?),
            (None, None) => Ok(()),
            (expected, got) => Err(ProveError::BoundaryPresence {
                name: leaf_name(kind),
                expected: if expected.is_some() { "has" } else { "has not" },
                got: if got.is_some() { "gives one" } else { "gives none" },
            }),
        }
    }

    /// Proves a leaf.
    ///
    /// # Errors
    /// A job that does not fit its circuit, or a witness that violates it.
    pub fn prove_leaf<B: Backend>(&self, backend: &B, job: &LeafJob<'_, L>) -> Result<NodeProof, ProveError> {
        let kind = self.leaf_kind(job.leaf)?;
        Self::check_job(kind, job)?;
        let leaf = self.leaf_circuit(job.leaf, kind)?;
        let name = leaf_name(kind);
        let mut witness = PartialWitness::new();
        assign(&name, set_leaf(&mut witness, &leaf.gates, kind, job))?;
        let proof = satisfied(&leaf.circuit, &name, || backend.prove_circuit(&leaf.circuit, witness))?;
        Ok(NodeProof { proof, verifier_data: leaf.circuit.verifier_only.clone(), slot: Some(job.leaf.0) })
    }

    pub(super) fn path(&self, node: &NodeProof) -> Result<Option<RegistryPath>, RegistryError> {
        node.slot.map(|slot| self.parameters.registry().path(slot)).transpose()
    }

    /// Joins two nodes that follow each other.
    ///
    /// # Errors
    /// Nodes that do not fit together.
    pub fn prove_join<B: Backend>(&self, backend: &B, left: &NodeProof, right: &NodeProof) -> Result<NodeProof, ProveError> {
        let join = self.join_circuit()?;
        let (targets, circuit) = join.as_ref();
        let (left_path, right_path) = (self.path(left)?, self.path(right)?);
        let children = [(&left.proof, &left.verifier_data, left_path.as_ref()), (&right.proof, &right.verifier_data, right_path.as_ref())];
        let mut witness = PartialWitness::new();
        assign("join", targets.set(&mut witness, children, self.parameters.join_digest()))?;
        let proof = satisfied(circuit, "join", || backend.prove_circuit(circuit, witness))?;
        Ok(NodeProof { proof, verifier_data: circuit.verifier_only.clone(), slot: None })
    }

    /// Joins any number of nodes, in order, pairwise.
    ///
    /// # Errors
    /// No nodes, or nodes that do not fit together.
    pub fn aggregate<B: Backend>(&self, backend: &B, mut nodes: Vec<NodeProof>) -> Result<NodeProof, ProveError> {
        while nodes.len() > 1 {
            let mut above = Vec::with_capacity(nodes.len().div_ceil(2));
            for pair in nodes.chunks(2) {
                above.push(match pair {
                    [left, right] => self.prove_join(backend, left, right)?,
                    rest => rest[0].clone(),
                });
            }
            nodes = above;
        }
        nodes.pop().ok_or(ProveError::NoNodes)
    }

    /// The published proof of an inference, encoded.
    ///
    /// Its blinding comes from the operating system, fresh each time: two proofs of one statement share no cap.
    ///
    /// # Errors
    /// A node that is no whole inference, or a statement that is not about it.
    pub fn prove_outer<B: Backend>(&self, backend: &B, root: &NodeProof, statement: &StatementWitness) -> Result<Vec<u8>, ProveError> {
        let outer = self.outer_circuit()?;
        let (targets, circuit) = outer.as_ref();
        let path = self.path(root)?;
        let mut witness = PartialWitness::new();
        let node = (&root.proof, &root.verifier_data, path.as_ref());
        assign("outer", targets.set(&mut witness, node, statement))?;
        let proof = satisfied(circuit, "outer", || backend.prove_blinded_circuit(circuit, witness))?;
        Ok(encode_proof(ProofKind::Inference, self.parameters.id(), &proof.proof))
    }

    /// The published proof of a registration, encoded.
    ///
    /// # Errors
    /// A node that is no whole registration.
    pub fn prove_registration<B: Backend>(
        &self,
        backend: &B,
        root: &NodeProof,
        registration: &RegistrationWitness,
    ) -> Result<Vec<u8>, ProveError> {
        let outer = self.registration_circuit()?;
        let (targets, circuit) = outer.as_ref();
        let path = self.path(root)?;
        let mut witness = PartialWitness::new();
        let node = (&root.proof, &root.verifier_data, path.as_ref());
        assign("registration outer", targets.set(&mut witness, node, registration))?;
        let proof = satisfied(circuit, "registration outer", || backend.prove_blinded_circuit(circuit, witness))?;
        Ok(encode_proof(ProofKind::Registration, self.parameters.id(), &proof.proof))
    }
}

pub(super) fn set_leaf<L: LayerCircuit>(
    witness: &mut PartialWitness<F>,
    gates: &LeafGates<L>,
    kind: &LeafKind,
    job: &LeafJob<'_, L>,
) -> anyhow::Result<()> {
    let targets = &gates.targets;
    let (start, chains) = (&targets.start, &job.start_chains);
    witness.set_target(start.index, F::from_canonical_usize(job.start_index))?;
    witness.set_target_arr(&start.public, &chains.public.elements)?;
    witness.set_target_arr(&start.secret, &chains.secret.elements)?;
    witness.set_target_arr(&start.main, &chains.main.elements)?;
    witness.set_extension_target(targets.gamma_prime, job.challenges.gamma_prime)?;
    witness.set_extension_target(targets.delta, job.challenges.delta)?;
    for ((layer_targets, layer_kind), layer) in gates.layers.iter().zip(&kind.layers).zip(&job.layers) {
        L::set(witness, layer_targets, layer_kind, layer)?;
    }
    match (&targets.boundary, job.boundary) {
        (Some(boundary_targets), Some(boundary)) => boundary_targets.set(witness, boundary),
        _ => Ok(()),
    }
}
