//! The shape that all node circuits share, and the last step of building one.
//!
//! plonky2's in-circuit verifier is built for one `CommonCircuitData`: number of rows, set of gates, selectors, public inputs. Every node
//! declares the same set of gates and is padded to the same rows, so that a join verifies any two nodes.

use plonky2::gates::arithmetic_base::ArithmeticGate;
use plonky2::gates::arithmetic_extension::ArithmeticExtensionGate;
use plonky2::gates::base_sum::BaseSumGate;
use plonky2::gates::constant::ConstantGate;
use plonky2::gates::gate::GateRef;
use plonky2::gates::multiplication_extension::MulExtensionGate;
use plonky2::gates::noop::NoopGate;
use plonky2::gates::poseidon::PoseidonGate;
use plonky2::gates::poseidon_mds::PoseidonMdsGate;
use plonky2::gates::public_input::PublicInputGate;
use plonky2::gates::random_access::RandomAccessGate;
use plonky2::gates::reducing::ReducingGate;
use plonky2::gates::reducing_extension::ReducingExtensionGate;
use plonky2::plonk::circuit_data::{CircuitConfig, CircuitData, CommonCircuitData};
use thiserror::Error;

use crate::field::{Builder, C, D, F};
use crate::layer::queries::interpolation_gate;
use crate::recursion::public::N_NODE_PUBLIC;
use crate::recursion::serialize::LimbGate;
use crate::security::{CAP_HEIGHT, INNER_ARITY_BITS, Profile};

/// Base-4 limbs of seven bytes.
pub const PACKED_LIMBS: usize = 28;
/// Rows that building adds: the hash of the public inputs, its gate, the constants.
const BUILD_RESERVE: usize = 64;

/// A circuit.
pub type Circuit = CircuitData<F, C, D>;
/// Its shape.
pub type Common = CommonCircuitData<F, D>;

/// A circuit that is not a node.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NodeError {
    /// Too large.
    #[error("node circuit {name} has {gates} gates, more than the {limit} rows of a node; verify fewer layers in it")]
    TooManyGates {
        /// Which circuit.
        name: String,
        /// Its gates before the public inputs are hashed.
        gates: usize,
        /// Rows of a node.
        limit: usize,
    },
    /// Gates outside the common set.
    #[error("node circuit {name} uses gates outside the common set: {gates:?}; add them to common_gates or avoid them")]
    ForeignGates {
        /// Which circuit.
        name: String,
        /// Names of the gates.
        gates: Vec<String>,
    },
    /// Another shape, for another reason.
    #[error("node circuit {name} has another shape than the common node; compare its configuration and public inputs")]
    Shape {
        /// Which circuit.
        name: String,
    },
}

/// The gates of every node, used or not.
fn common_gates(config: &CircuitConfig) -> Vec<GateRef<F, D>> {
    let (wires, routed) = (config.num_wires, config.num_routed_wires);
    vec![
        GateRef::new(NoopGate),
        GateRef::new(ConstantGate::new(config.num_constants)),
        GateRef::new(PublicInputGate),
        GateRef::new(PoseidonGate::<F, D>::new()),
        GateRef::new(PoseidonMdsGate::<F, D>::new()),
        GateRef::new(ArithmeticGate::new_from_config(config)),
        GateRef::new(ArithmeticExtensionGate::<D>::new_from_config(config)),
        GateRef::new(MulExtensionGate::<D>::new_from_config(config)),
        GateRef::new(BaseSumGate::<2>::new_from_config::<F>(config)),
        GateRef::new(LimbGate::new(PACKED_LIMBS)),
        GateRef::new(RandomAccessGate::<F, D>::new_from_config(config, CAP_HEIGHT)),
        GateRef::new(ReducingGate::<D>::new(ReducingGate::<D>::max_coeffs_len(wires, routed))),
        GateRef::new(ReducingExtensionGate::<D>::new(ReducingExtensionGate::<D>::max_coeffs_len(wires, routed))),
        GateRef::new(interpolation_gate(INNER_ARITY_BITS)),
    ]
}

/// A builder for a node.
pub fn node_builder(profile: &Profile) -> Builder {
    Builder::new(profile.node_config())
}

fn declare_and_pad(builder: &mut Builder, profile: &Profile) {
    for gate in common_gates(&profile.node_config()) {
        builder.add_gate_to_gate_set(gate);
    }
    // One more than half the rows: building then pads to all of them.
    while builder.num_gates() <= 1 << (profile.node_log_rows() - 1) {
        builder.add_gate(NoopGate, vec![]);
    }
}

/// The shape of every node of a profile. Costs no commitment.
pub fn node_common(profile: &Profile) -> Common {
    let mut builder = node_builder(profile);
    let public = builder.add_virtual_targets(N_NODE_PUBLIC);
    builder.register_public_inputs(&public);
    declare_and_pad(&mut builder, profile);
    builder.mock_build::<C>().common
}

/// The gates and public inputs are in place: declares the common gates and pads. What remains is the expensive [`build_node`].
///
/// # Errors
/// A circuit that cannot fit.
pub fn finish_node(builder: &mut Builder, profile: &Profile, name: &str) -> Result<(), NodeError> {
    let limit = 1 << profile.node_log_rows();
    let gates = builder.num_gates();
    if gates + BUILD_RESERVE > limit {
        return Err(NodeError::TooManyGates { name: name.to_owned(), gates, limit });
    }
    declare_and_pad(builder, profile);
    Ok(())
}

/// Builds a finished node, and checks that it has the common shape.
///
/// # Errors
/// Another shape, with the reason.
pub fn build_node(builder: Builder, common: &Common, name: &str) -> Result<Circuit, NodeError> {
    let gates = builder.num_gates();
    let circuit = builder.build::<C>();
    check_node(&circuit.common, common, gates, name)?;
    Ok(circuit)
}

fn check_node(got: &Common, common: &Common, gates: usize, name: &str) -> Result<(), NodeError> {
    if got == common {
        return Ok(());
    }
    let name = name.to_owned();
    if got.degree_bits() > common.degree_bits() {
        return Err(NodeError::TooManyGates { name, gates, limit: common.degree() });
    }
    let foreign = got.gates.iter().filter(|gate| !common.gates.contains(gate)).map(|gate| gate.0.id());
    let gates: Vec<String> = foreign.collect();
    if gates.is_empty() { Err(NodeError::Shape { name }) } else { Err(NodeError::ForeignGates { name, gates }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::ProfileName;

    fn node_with(n_public: usize, extra: impl FnOnce(&mut Builder)) -> Result<(), NodeError> {
        let profile = Profile::new(ProfileName::Default);
        let mut builder = node_builder(&profile);
        let public = builder.add_virtual_targets(n_public);
        builder.register_public_inputs(&public);
        extra(&mut builder);
        finish_node(&mut builder, &profile, "test")?;
        let gates = builder.num_gates();
        check_node(&builder.mock_build::<C>().common, &node_common(&profile), gates, "test")
    }

    #[test]
    fn refuses_circuits_of_another_shape_with_the_reason() {
        assert_eq!(node_with(N_NODE_PUBLIC, |_| ()), Ok(()));
        let large = node_with(N_NODE_PUBLIC, |builder| {
            for _ in 0..8192 {
                builder.add_gate(NoopGate, vec![]);
            }
        });
        assert_eq!(large, Err(NodeError::TooManyGates { name: "test".into(), gates: 8192, limit: 8192 }));
        let foreign = node_with(N_NODE_PUBLIC, |builder| {
            builder.add_gate(BaseSumGate::<3>::new(5), vec![]);
        });
        let gates = vec!["BaseSumGate { num_limbs: 5 } + Base: 3".to_owned()];
        assert_eq!(foreign, Err(NodeError::ForeignGates { name: "test".into(), gates }));
        assert_eq!(node_with(N_NODE_PUBLIC - 1, |_| ()), Err(NodeError::Shape { name: "test".into() }));
    }
}
