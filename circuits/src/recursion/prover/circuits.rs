//! Building the circuits: gates first (fast, gives the wires), then the commitment to them (seconds), which a store can replace.

use thiserror::Error;
use tracing::info_span;

use crate::field::{Builder, C, Digest};
use crate::recursion::digest::verifier_data_digest;
use crate::recursion::join::JoinTargets;
use crate::recursion::kinds::LeafKind;
use crate::recursion::leaf::{LayerCircuit, LeafTargets, build_leaf};
use crate::recursion::node::{Circuit, Common, NodeError, build_node, finish_node, node_builder, node_common};
use crate::recursion::outer::{OuterConstants, OuterTargets, RegistrationOuterTargets, outer_builder};
use crate::recursion::parameters::{Parameters, ParametersError, common_digest};
use crate::recursion::prover::seal::{seal, unseal};
use crate::recursion::prover::store::CircuitStore;
use crate::recursion::registry::Registry;
use crate::recursion::serialize::{Gates, Generators};
use crate::security::Profile;

/// Version of the stored form of circuits.
const STORE_VERSION: u32 = 1;

/// A circuit that could not be built.
#[derive(Debug, Error)]
pub enum CircuitError {
    /// Not a node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Parameters.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
    /// Another circuit than the parameters name.
    #[error("circuit {name} is not the one that the parameters file names; rebuild the file with zkinfer-params")]
    Mismatch {
        /// Which circuit.
        name: String,
    },
}

/// A leaf circuit's gates, before the commitment.
pub(super) struct LeafGates<L: LayerCircuit> {
    pub(super) targets: LeafTargets,
    pub(super) layers: Vec<L::Targets>,
}

/// Readable name of a leaf circuit.
pub(super) fn leaf_name(kind: &LeafKind) -> String {
    let layers: Vec<String> =
        kind.layers.iter().map(|layer| format!("{:?}{}x{}", layer.operator, layer.log_rows, layer.n_columns)).collect();
    let boundary = kind.boundary.map(|kind| format!("-boundary{}x{}", kind.input_capacity, kind.output_capacity));
    format!("{:?}-{}{}", kind.role, layers.join("+"), boundary.unwrap_or_default()).to_lowercase()
}

/// Adds the gates of a leaf.
pub(super) fn leaf_gates<L: LayerCircuit>(profile: &Profile, kind: &LeafKind) -> Result<(Builder, LeafGates<L>), NodeError> {
    let mut builder = node_builder(profile);
    let verified = kind.layers.iter().map(|layer| L::verify(&mut builder, layer, kind.role, profile));
    let (slots, layers): (Vec<_>, Vec<_>) = verified.collect::<Vec<_>>().into_iter().unzip();
    let targets = build_leaf(&mut builder, kind.role, &slots, kind.boundary);
    finish_node(&mut builder, profile, &leaf_name(kind))?;
    Ok((builder, LeafGates { targets, layers }))
}

/// Adds the gates of the join.
pub(super) fn join_gates(profile: &Profile, common: &Common, registry_root: Digest) -> Result<(Builder, JoinTargets), NodeError> {
    let mut builder = node_builder(profile);
    let targets = JoinTargets::build(&mut builder, common, registry_root);
    finish_node(&mut builder, profile, "join")?;
    Ok((builder, targets))
}

/// Adds the gates of the outer circuit of inferences.
pub(super) fn outer_gates(constants: &OuterConstants) -> (Builder, OuterTargets) {
    let mut builder = outer_builder(constants);
    let targets = OuterTargets::build(&mut builder, constants);
    (builder, targets)
}

/// Adds the gates of the outer circuit of registrations.
pub(super) fn registration_gates(constants: &OuterConstants) -> (Builder, RegistrationOuterTargets) {
    let mut builder = outer_builder(constants);
    let targets = RegistrationOuterTargets::build(&mut builder, constants);
    (builder, targets)
}

/// Builds every circuit of a profile and gives its parameter set. Takes one to two seconds a circuit.
///
/// # Errors
/// A circuit that does not fit a node, or leaf kinds that make no registry.
pub fn build_parameters<L: LayerCircuit>(profile: &Profile, kinds: &[LeafKind]) -> Result<Parameters, CircuitError> {
    let common = node_common(profile);
    let mut leaves = Vec::with_capacity(kinds.len());
    for kind in kinds {
        let name = leaf_name(kind);
        let _span = info_span!("build_leaf", name).entered();
        let (builder, _) = leaf_gates::<L>(profile, kind)?;
        leaves.push(verifier_data_digest(&build_node(builder, &common, &name)?.verifier_only));
    }
    let registry = Registry::new(leaves).map_err(ParametersError::from)?;
    let (builder, _) = join_gates(profile, &common, registry.root())?;
    let join_digest = verifier_data_digest(&build_node(builder, &common, "join")?.verifier_only);
    let constants = OuterConstants { profile, node_common: &common, registry_root: registry.root(), join_digest };
    let outer = outer_gates(&constants).0.build::<C>().verifier_data();
    let registration = registration_gates(&constants).0.build::<C>().verifier_data();
    let node_digest = common_digest(&common, "node")?;
    Ok(Parameters::new(profile.clone(), registry, join_digest, node_digest, outer, registration)?)
}

/// Completes a circuit from the store, or builds and stores it; either way it must be the circuit of that identity.
pub(super) fn complete(builder: Builder, name: &str, identity: Digest, store: &dyn CircuitStore) -> Result<Circuit, CircuitError> {
    let _span = info_span!("complete_circuit", name).entered();
    let key = store_key(name, identity);
    if let Some(circuit) = store.load(&key).and_then(|bytes| decode_circuit(&bytes))
        && verifier_data_digest(&circuit.verifier_only) == identity
    {
        return Ok(circuit);
    }
    let circuit = builder.build::<C>();
    if verifier_data_digest(&circuit.verifier_only) != identity {
        return Err(CircuitError::Mismatch { name: name.to_owned() });
    }
    if let Some(bytes) = encode_circuit(&circuit) {
        store.store(&key, &bytes);
    }
    Ok(circuit)
}

fn store_key(name: &str, identity: Digest) -> String {
    let short = crate::recursion::proof::encode_digest(identity);
    format!("circuit-v{STORE_VERSION}-{name}-{}", hex::encode(&short[..8]))
}

fn encode_circuit(circuit: &Circuit) -> Option<Vec<u8>> {
    circuit.to_bytes(&Gates, &Generators).ok().map(seal)
}

fn decode_circuit(bytes: &[u8]) -> Option<Circuit> {
    Circuit::from_bytes(unseal(bytes)?, &Gates, &Generators).ok()
}
