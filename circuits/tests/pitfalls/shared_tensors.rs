//! A tensor with two consumers, one of which reads a + d and the other a − d: every layer is true on what it read, and with one power of δ
//! for the tensor the ledger would balance. With one power for each edge it does not.

use plonky2::field::types::Field;
use zkinfer_circuits::field::{K, from_signed, lift};
use zkinfer_circuits::kind::Role;
use zkinfer_circuits::layer::prover::balance;
use zkinfer_circuits::layer::{LayerClaim, LayerProof, LayerVerifyError, verify};

use crate::support::forge::Forgery;
use crate::support::{Layer, dense_spec, gamma_delta, random_add, random_dense, requantize};

const WIDTH: usize = 40;
/// input →1 producer →2 dense →4, producer →3 and 4→ sum →5 output.
const INPUT_EDGE: u32 = 1;
const OUTPUT_EDGE: u64 = 5;

fn producer() -> Layer {
    let mut layer = random_dense(dense_spec(8, 8, 64, 30, WIDTH, requantize(24, -120, 120)), 121);
    (layer.spec.edges_in, layer.spec.edge_out, layer.spec.fan_out) = ([INPUT_EDGE, 0], 2, 2);
    layer
}

fn dense_consumer(read: &[i64]) -> Layer {
    let mut layer = random_dense(dense_spec(8, 8, 64, WIDTH, WIDTH, requantize(24, -120, 120)), 122);
    (layer.spec.edges_in, layer.spec.edge_out) = ([2, 0], 4);
    layer.inputs[0] = read.to_vec();
    layer
}

fn sum_consumer(read: &[i64], branch: &[i64]) -> Layer {
    let mut layer = random_add(8, WIDTH, 123);
    (layer.spec.edges_in, layer.spec.edge_out, layer.spec.fan_out) = ([3, 4], OUTPUT_EDGE as u32, 1);
    layer.inputs = [read.to_vec(), branch.to_vec()];
    layer
}

/// The residual network, its consumers reading a + d and a − d.
fn network(difference: &[i64]) -> [Forgery; 3] {
    let producer = Forgery::honest(producer(), Role::Inference);
    let shifted = |sign: i64| producer.output.iter().zip(difference).map(|(a, d)| a + sign * d).collect::<Vec<i64>>();
    let dense = Forgery::honest(dense_consumer(&shifted(1)), Role::Inference);
    let sum = Forgery::honest(sum_consumer(&shifted(-1), &dense.output), Role::Inference);
    [producer, dense, sum]
}

/// Σ γ'^i v_i.
fn weigh(tensor: &[i64]) -> K {
    tensor.iter().zip(gamma_delta().0.powers()).map(|(&value, power)| power * lift(from_signed(value))).sum()
}

/// What the boundary adds: the true input produced, the stated output consumed.
fn boundary(network: &[Forgery; 3]) -> K {
    let (_, delta) = gamma_delta();
    delta.exp_u64(INPUT_EDGE.into()) * weigh(&network[0].layer.inputs[0]) - delta.exp_u64(OUTPUT_EDGE) * weigh(&network[2].output)
}

fn prove(network: &[Forgery; 3]) -> Vec<(LayerClaim, LayerProof)> {
    network.iter().map(|forgery| forgery.prove(&forgery.shape)).collect()
}

fn ledger(network: &[Forgery; 3], proofs: &[(LayerClaim, LayerProof)]) -> K {
    boundary(network) + proofs.iter().map(|(claim, _)| claim.balance).sum::<K>()
}

fn small_difference() -> Vec<i64> {
    let mut difference = vec![0; WIDTH];
    (difference[3], difference[17]) = (1, -2);
    difference
}

/// The ledger if edges 2 and 3 had one power, δ^2.
fn ledger_with_one_power_per_tensor(network: &[Forgery; 3]) -> K {
    let (gamma_prime, delta) = gamma_delta();
    let [producer, dense, sum] = network;
    let of = |forgery: &Forgery, edges_in: [u32; 2]| {
        let mut spec = forgery.layer.spec.clone();
        spec.edges_in = edges_in;
        let inputs = [forgery.layer.inputs[0].as_slice(), forgery.layer.inputs[1].as_slice()];
        balance(&forgery.shape, &spec.theta(), gamma_prime, delta, inputs, &forgery.output)
    };
    let produced = delta.exp_u64(2) * weigh(&producer.output);
    let read = delta.exp_u64(INPUT_EDGE.into()) * weigh(&producer.layer.inputs[0]);
    produced + produced - read + of(dense, [2, 0]) + of(sum, [2, 4]) + boundary(network)
}

#[test]
fn true_residual_network_balances() {
    let network = network(&[0; WIDTH]);
    let proofs = prove(&network);
    for (forgery, (claim, proof)) in network.iter().zip(&proofs) {
        assert_eq!(verify(&forgery.shape, claim, proof), Ok(()));
    }
    assert_eq!(ledger(&network, &proofs), K::ZERO);
    assert_eq!(ledger_with_one_power_per_tensor(&network), K::ZERO);
}

#[test]
fn consumers_that_read_a_plus_d_and_a_minus_d_are_refused() {
    let (honest, mut forged) = (network(&[0; WIDTH]), network(&small_difference()));
    // The attack is real: another output, every layer true, and a ledger with one power for the tensor is content.
    assert_ne!(forged[2].output, honest[2].output);
    let proofs = prove(&forged);
    for (forgery, (claim, proof)) in forged.iter().zip(&proofs) {
        assert_eq!(verify(&forgery.shape, claim, proof), Ok(()));
    }
    assert_eq!(ledger_with_one_power_per_tensor(&forged), K::ZERO);
    // One power for each edge: what is missing is (δ^3 − δ^2)·Σ γ'^i d_i.
    let (_, delta) = gamma_delta();
    let missing = ledger(&forged, &proofs);
    assert_eq!(missing, (delta.exp_u64(3) - delta.exp_u64(2)) * weigh(&small_difference()));
    assert_ne!(missing, K::ZERO);
    // No layer can claim the balance that would make up for it.
    for forgery in &mut forged {
        forgery.balance_error = -missing;
        let (claim, proof) = forgery.prove(&forgery.shape);
        assert_eq!(verify(&forgery.shape, &claim, &proof), Err(LayerVerifyError::Sums));
    }
}
