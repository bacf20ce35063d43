//! The challenges that constraints use, derived from γ', δ, α and θ; natively and in circuit.
//!
//! γ'^C and 1 − γ'^(C·Q) for the fold, D_out = δ^edge_out·Σ f_k δ^k and δ^edge_in for the ledger. A registration has γ' = δ = 0
//! and uses α alone; its other derived challenges are 0.

use plonky2::field::types::{Field, PrimeField64};
use plonky2::iop::ext_target::ExtensionTarget;
use plonky2::iop::target::Target;

use super::{LayerShape, theta};
use crate::air::Op;
use crate::field::{Builder, D, F, K, lift, scale};
use crate::kind::{LayerKind, Role};

/// Edges are below 2^EDGE_BITS.
pub const EDGE_BITS: usize = 16;

/// The derived challenges, in the order of [`theta`].
pub fn derive(kind: &LayerKind, role: Role, theta: &[F], gamma_prime: K, delta: K, alpha: K) -> [K; theta::N_CHALLENGES] {
    let mut derived = [K::ZERO; theta::N_CHALLENGES];
    derived[theta::ALPHA] = alpha;
    if role == Role::Registration {
        return derived;
    }
    let fold_ratio = gamma_prime.exp_u64(kind.n_columns as u64);
    let mut wrap = K::ZERO;
    let mut power = fold_ratio;
    for choice in 0..theta::N_GROUP_CHOICES {
        wrap += scale(power, theta[theta::GROUPS + choice]);
        power *= power;
    }
    let edge_power = |index: usize| delta.exp_u64(theta[index].to_canonical_u64());
    let consumers: K = (0..theta::MAX_FAN_OUT).map(|k| scale(delta.exp_u64(k as u64), theta[theta::FAN_OUT + k])).sum();
    derived[theta::GAMMA_PRIME] = gamma_prime;
    derived[theta::FOLD_RATIO] = fold_ratio;
    derived[theta::FOLD_WRAP] = K::ONE - wrap;
    derived[theta::D_OUT] = edge_power(theta::EDGE_OUT) * consumers;
    derived[theta::D_IN_1] = edge_power(theta::EDGE_IN_1);
    derived[theta::D_IN_2] = edge_power(theta::EDGE_IN_2);
    derived
}

/// δ^e for an edge e < 2^EDGE_BITS, given δ^(2^k).
fn edge_power_circuit(builder: &mut Builder, squares: &[ExtensionTarget<D>], edge: Target) -> ExtensionTarget<D> {
    let bits = builder.split_le(edge, EDGE_BITS);
    let one = builder.one_extension();
    bits.iter().zip(squares).fold(one, |product, (bit, &square)| {
        // product·(1 + bit·(square − 1))
        let square_minus_one = builder.add_const_extension(square, -F::ONE);
        let product_times = builder.mul_extension(product, square_minus_one);
        let bit = builder.convert_to_ext(bit.target);
        builder.mul_add_extension(bit, product_times, product)
    })
}

/// [`derive()`] in circuit: the challenges that the shape's constraints read; the others stay 0.
pub fn derive_circuit(
    builder: &mut Builder,
    shape: &LayerShape,
    theta: &[Target],
    [gamma_prime, delta, alpha]: [ExtensionTarget<D>; 3],
) -> [ExtensionTarget<D>; theta::N_CHALLENGES] {
    let mut derived = [builder.zero_extension(); theta::N_CHALLENGES];
    derived[theta::ALPHA] = alpha;
    if shape.role == Role::Registration {
        return derived;
    }
    derived[theta::GAMMA_PRIME] = gamma_prime;
    let reads = |challenge: usize| shape.system.arena.ops().contains(&Op::Challenge(challenge));
    if reads(theta::FOLD_RATIO) || reads(theta::FOLD_WRAP) {
        [derived[theta::FOLD_RATIO], derived[theta::FOLD_WRAP]] = fold_circuit(builder, &shape.kind, theta, gamma_prime);
    }
    let squares: Vec<ExtensionTarget<D>> =
        std::iter::successors(Some(delta), |&power| Some(builder.square_extension(power))).take(EDGE_BITS).collect();
    let mut consumers = builder.zero_extension();
    for k in (0..theta::MAX_FAN_OUT).rev() {
        let consumer = builder.convert_to_ext(theta[theta::FAN_OUT + k]);
        consumers = builder.mul_add_extension(consumers, delta, consumer);
    }
    let first = edge_power_circuit(builder, &squares, theta[theta::EDGE_OUT]);
    derived[theta::D_OUT] = builder.mul_extension(first, consumers);
    for (challenge, edge) in [(theta::D_IN_1, theta::EDGE_IN_1), (theta::D_IN_2, theta::EDGE_IN_2)] {
        if reads(challenge) {
            derived[challenge] = edge_power_circuit(builder, &squares, theta[edge]);
        }
    }
    derived
}

/// γ'^C and 1 − γ'^(C·Q).
fn fold_circuit(builder: &mut Builder, kind: &LayerKind, theta: &[Target], gamma_prime: ExtensionTarget<D>) -> [ExtensionTarget<D>; 2] {
    let ratio = builder.exp_u64_extension(gamma_prime, kind.n_columns as u64);
    let mut wrap = builder.zero_extension();
    let mut power = ratio;
    for choice in 0..theta::N_GROUP_CHOICES {
        let chosen = builder.convert_to_ext(theta[theta::GROUPS + choice]);
        wrap = builder.mul_add_extension(chosen, power, wrap);
        power = builder.square_extension(power);
    }
    let one = builder.one_extension();
    [ratio, builder.sub_extension(one, wrap)]
}

/// Σ_k ξ^k·T_k of a system's totals.
pub fn batched_total(system: &crate::air::ConstraintSystem, theta: &[F], balance: K, xi: K) -> K {
    use crate::air::Total;
    system.summands.iter().rev().fold(K::ZERO, |sum, summand| {
        let total = match summand.total {
            Total::Zero => K::ZERO,
            Total::Balance => balance,
            Total::Parameter(index) => lift(theta[index]),
        };
        sum * xi + total
    })
}

#[cfg(test)]
mod tests {
    use plonky2::iop::witness::PartialWitness;
    use plonky2::plonk::circuit_data::CircuitConfig;

    use super::*;
    use crate::air::SystemBuilder;
    use crate::field::{C, ext};
    use crate::kind::Operator;
    use crate::layer::shape::fri_config;
    use crate::layer::spec::{LayerSpec, OutputRule};

    fn k(seed: u64) -> K {
        ext(F::from_canonical_u64(seed), F::from_canonical_u64(seed * seed + 1))
    }

    /// Four groups of 64 rows, edges of several bits, three consumers.
    fn shape_and_theta(operator: Operator) -> (LayerShape, Vec<F>) {
        let (n_columns, log_period) = if operator == Operator::Dense { (6, 6) } else { (0, 8) };
        let kind = LayerKind { operator, log_rows: 8, n_columns };
        let spec = LayerSpec {
            kind,
            n_inputs: 20,
            n_outputs: 20,
            log_period,
            output: OutputRule::Requantize { shift: 23, lo: -30, hi: 90 },
            bias_bits: 20,
            mult_bits: 20,
            edges_in: [0x8001, if operator == Operator::Dense { 0 } else { 0x0405 }],
            edge_out: 0x0123,
            fan_out: 3,
        };
        (LayerShape::new(kind, Role::Inference, &fri_config(1, 2, 3)), spec.theta())
    }

    /// Both give the same for every challenge that the shape's constraints read.
    fn check(shape: &LayerShape, scalars: &[F]) {
        let challenges = [k(11), k(12), k(13)];
        let mut builder = Builder::new(CircuitConfig::standard_recursion_config());
        let targets: Vec<Target> = scalars.iter().map(|&scalar| builder.constant(scalar)).collect();
        let constants = challenges.map(|challenge| builder.constant_extension(challenge));
        let derived = derive_circuit(&mut builder, shape, &targets, constants);
        let [gamma_prime, delta, alpha] = challenges;
        let native = derive(&shape.kind, shape.role, scalars, gamma_prime, delta, alpha);
        let read: Vec<usize> = (0..theta::N_CHALLENGES).filter(|&c| shape.system.arena.ops().contains(&Op::Challenge(c))).collect();
        read.iter().for_each(|&challenge| builder.register_public_inputs(&derived[challenge].0));
        let proof = builder.build::<C>().prove(PartialWitness::new()).expect("nothing is constrained");
        let expected: Vec<F> = read.iter().flat_map(|&challenge| crate::field::limbs(native[challenge])).collect();
        assert_eq!(proof.public_inputs, expected, "challenges {read:?} of {}", shape.system.name);
    }

    #[test]
    fn circuit_derives_what_constraints_read() {
        for operator in [Operator::Dense, Operator::Add] {
            let (shape, scalars) = shape_and_theta(operator);
            check(&shape, &scalars);
        }
    }

    /// Also where constraints read one challenge and not the one that it is computed with.
    #[test]
    fn each_challenge_is_derived_whichever_others_are_read() {
        for challenge in 0..theta::N_CHALLENGES {
            let (mut shape, scalars) = shape_and_theta(Operator::Dense);
            let mut system = SystemBuilder::new(format!("one that reads challenge {challenge}"));
            system.arena.challenge(challenge);
            shape.system = system.build();
            check(&shape, &scalars);
        }
    }
}
