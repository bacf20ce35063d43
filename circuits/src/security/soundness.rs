//! The error terms of one level, each the probability that one try of an adversary succeeds; SECURITY.md has them as a table.
//!
//! FRI over a domain of N points, rate ρ, batches c columns by powers of one challenge and folds 2^a values by powers of another: it tests
//! curves of degree c − 1 and 2^a − 1. A challenge is *exceptional* if it makes words that are jointly far from the code look close; a curve
//! of degree d has at most d times as many exceptional challenges as a line:
//!
//! - unique decoding: N + 1 (eprint 2020/654, §4); also what the heuristic figure assumes, as Plonky3's calculator does;
//! - Johnson radius, agreement √ρ·(1 + 1/2m), m ≥ 3: `(2(m+½)⁵ + 3(m+½)γρ)/(3ρ^1.5)·N + (m+½)/√ρ` with γ = 1 − √ρ·(1 + 1/2m) (Ben-Sasson,
//!   Carmon, Haböck, Kopparty, Saraf: *On Proximity Gaps for Reed-Solomon Codes*, eprint 2025/2055, Theorem 4.2, in the form that the
//!   calculator `ethereum/soundcalc` states); the list of codewords at this radius has at most L = (m+½)/√ρ members.

use super::FriLevel;

/// |K| = p², just below 2^128; the difference moves no printed digit.
const EXTENSION_BITS: f64 = 128.0;
/// |F|, likewise.
const FIELD_BITS: f64 = 64.0;
/// Largest multiplicity m that is tried.
const MAX_MULTIPLICITY: u32 = 1000;

/// F columns opened by a layer proof, over all points; the largest is the registration of 256 weight columns.
pub(super) const MAX_LAYER_COLUMNS: usize = 818;
/// Constraints of a layer; the same one has most.
pub(super) const MAX_LAYER_CONSTRAINTS: usize = 141;
/// Summands of a layer.
pub(super) const MAX_LAYER_SUMMANDS: usize = 3;
/// Looked-up cells of a row and the table's; the same one has most.
pub(super) const MAX_LOOKUP_CELLS: usize = 268;
/// Largest tensor, number of weight cells of a row group, and number of edges: `C·Q, E ≤ 2^16`.
const MAX_TENSOR: f64 = 65_536.0;
/// F columns opened by a proof of an aggregation circuit, over both points.
pub(super) const MAX_CIRCUIT_COLUMNS: usize = 300;
/// Constraints of an aggregation circuit that one challenge of F combines.
pub(super) const MAX_CIRCUIT_CONSTRAINTS: usize = 200;
/// plonky2's quotient: constraints of degree ≤ 8n, the identity ≤ 9n.
const CIRCUIT_IDENTITY_DEGREE: f64 = 9.0;

/// What a level proves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Argument {
    /// A layer, in either role.
    Layer,
    /// An aggregation circuit of plonky2.
    Circuit {
        /// Repetitions of the arguments whose challenges are from F.
        n_challenges: usize,
        /// Wires under copy constraints.
        n_routed_wires: usize,
    },
}

/// A level: its FRI parameters, log₂ of its rows, and what it proves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub(super) fri: FriLevel,
    pub(super) log_rows: usize,
    pub(super) argument: Argument,
}

impl Level {
    fn rows(&self) -> f64 {
        exp2(self.log_rows)
    }

    fn n_columns(&self) -> usize {
        match self.argument {
            Argument::Layer => MAX_LAYER_COLUMNS,
            Argument::Circuit { .. } => MAX_CIRCUIT_COLUMNS,
        }
    }

    /// FRI's batching and all its foldings, for a bound on the exceptional challenges of a line over a domain.
    fn commit_error(&self, exceptional: impl Fn(f64) -> f64) -> f64 {
        let mut domain_bits = self.log_rows + self.fri.rate_bits;
        let mut challenges = (self.n_columns() - 1) as f64 * exceptional(exp2(domain_bits));
        for arity_bits in self.fri.config().fri_params(self.log_rows, false).reduction_arity_bits {
            challenges += (exp2(arity_bits) - 1.0) * exceptional(exp2(domain_bits));
            domain_bits -= arity_bits;
        }
        over_extension(challenges)
    }

    /// Everything but FRI and the permutation argument, L the size of the list. Row by row as in SECURITY.md.
    fn algebraic_error(&self, list: f64) -> f64 {
        let rows = self.rows();
        match self.argument {
            Argument::Layer => over_extension(
                // Links; then what ζ, γ and ξ check, of any member of the list.
                list * list * rows / 2.0
                    + list * (5.0 * rows + (MAX_LAYER_CONSTRAINTS - 1) as f64 + (MAX_LAYER_SUMMANDS - 1) as f64)
                    // α, γ' and δ come after the openings at z*, which leave one member: lookups; folding; Freivalds; ledger.
                    + 2.0 * MAX_LOOKUP_CELLS as f64 * rows
                    + MAX_TENSOR
                    + MAX_TENSOR.max(rows)
                    + (MAX_TENSOR + rows),
            ),
            Argument::Circuit { n_challenges, .. } => {
                let batching = (MAX_CIRCUIT_CONSTRAINTS as f64 / FIELD_BITS.exp2()).powi(n_challenges as i32);
                list * (over_extension(CIRCUIT_IDENTITY_DEGREE * rows) + batching)
            }
        }
    }

    /// plonky2's copy constraints: `Π f − Π g` of degree routed wires · n in its two challenges, for every repetition. A zero of a
    /// denominator is no second chance: where it frees a product, both products vanish.
    fn permutation_error(&self) -> Option<f64> {
        match self.argument {
            Argument::Layer => None,
            Argument::Circuit { n_challenges, n_routed_wires } => {
                Some((n_routed_wires as f64 * self.rows() / FIELD_BITS.exp2()).powi(n_challenges as i32))
            }
        }
    }

    /// Bits of FRI's commit phase, exceptional challenges counted as for unique decoding.
    pub(super) fn commit_bits(&self) -> f64 {
        bits(self.commit_error(|domain| domain + 1.0))
    }

    /// Bits of the algebraic terms, the list being one codeword.
    pub(super) fn algebraic_bits(&self) -> f64 {
        bits(self.algebraic_error(1.0))
    }

    /// Bits of the permutation argument.
    pub(super) fn permutation_bits(&self) -> Option<f64> {
        self.permutation_error().map(bits)
    }

    /// Bits of the sum of all terms in the Johnson regime, at the best m.
    pub(super) fn proven_bits(&self) -> f64 {
        let rate = 1.0 / exp2(self.fri.rate_bits);
        let error = |m: f64| {
            let agreement = rate.sqrt() * (1.0 + 0.5 / m);
            let list = (m + 0.5) / rate.sqrt();
            let query = agreement.powi(self.fri.n_queries as i32) / exp2(self.fri.pow_bits as usize);
            query
                + self.commit_error(|domain| johnson_exceptional(m, rate, domain))
                + self.algebraic_error(list)
                + list * self.permutation_error().unwrap_or(0.0)
        };
        bits((3..=MAX_MULTIPLICITY).map(|m| error(f64::from(m))).fold(1.0, f64::min))
    }
}

/// Exceptional challenges of a line at agreement √ρ·(1 + 1/2m).
fn johnson_exceptional(m: f64, rate: f64, domain: f64) -> f64 {
    let half = m + 0.5;
    let radius = 1.0 - rate.sqrt() * (1.0 + 0.5 / m);
    (2.0 * half.powi(5) + 3.0 * half * radius * rate) / (3.0 * rate.powf(1.5)) * domain + half / rate.sqrt()
}

fn exp2(bits: usize) -> f64 {
    (bits as f64).exp2()
}

fn bits(error: f64) -> f64 {
    -error.log2()
}

fn over_extension(challenges: f64) -> f64 {
    challenges / EXTENSION_BITS.exp2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::air::Rule;
    use crate::kind::Role;
    use crate::recursion::kinds::LAYER_KINDS;
    use crate::recursion::layers::layer_shape;
    use crate::recursion::parameters::Parameters;
    use crate::security::{Profile, ProfileName};

    #[test]
    fn layer_constants_are_the_largest_of_all_kinds_and_roles() {
        let profile = Profile::new(ProfileName::Default);
        let mut largest = [0; 4];
        for kind in LAYER_KINDS {
            for role in [Role::Inference, Role::Registration] {
                let shape = layer_shape(kind, role, &profile);
                let lookups = shape.system.rules.iter().filter(|rule| matches!(rule, Rule::Quotient { .. })).count();
                let columns = shape.batch_lengths().iter().sum();
                let counts = [columns, shape.system.constraints.len(), shape.system.summands.len(), 2 * lookups];
                for (largest, count) in largest.iter_mut().zip(counts) {
                    *largest = count.max(*largest);
                }
            }
        }
        assert_eq!(largest, [MAX_LAYER_COLUMNS, MAX_LAYER_CONSTRAINTS, MAX_LAYER_SUMMANDS, MAX_LOOKUP_CELLS]);
    }

    #[test]
    fn circuit_constants_bound_the_published_circuits() {
        for name in [ProfileName::Default, ProfileName::Strict] {
            let parameters = Parameters::embedded(name).unwrap();
            for key in [parameters.outer(), parameters.registration()] {
                check_circuit(&key.common, parameters.profile());
            }
        }
    }

    #[cfg(feature = "prover")]
    #[test]
    fn circuit_constants_bound_the_nodes() {
        for name in [ProfileName::Default, ProfileName::Strict] {
            let profile = Profile::new(name);
            check_circuit(&crate::recursion::node::node_common(&profile), &profile);
        }
    }

    fn check_circuit(common: &plonky2::plonk::circuit_data::CommonCircuitData<crate::field::F, { crate::field::D }>, profile: &Profile) {
        let challenges = common.config.num_challenges;
        // At ζ everything; at gζ the products again.
        let at_zeta = common.num_constants + common.config.num_routed_wires + common.config.num_wires;
        let products = challenges * (2 + common.num_partial_products + common.quotient_degree_factor);
        assert!(at_zeta + products <= MAX_CIRCUIT_COLUMNS, "{at_zeta} + {products} columns");
        let constraints = common.num_gate_constraints + challenges * (2 + common.num_partial_products);
        assert!(constraints <= MAX_CIRCUIT_CONSTRAINTS, "{constraints} constraints");
        assert!(common.quotient_degree_factor as f64 + 1.0 <= CIRCUIT_IDENTITY_DEGREE);
        assert!(common.degree_bits() <= profile.node_log_rows());
    }

    #[test]
    fn exceptional_challenges_agree_with_a_calculation_by_hand() {
        // m = 3, ρ = 1/4, N = 1024: γ = 1 − 7/12; (2·3.5^5 + 10.5·(5/12)/4)/(3/8) · 1024 + 7.
        let expected = (2.0 * 525.218_75 + 1.093_75) / 0.375 * 1024.0 + 7.0;
        assert!((johnson_exceptional(3.0, 0.25, 1024.0) - expected).abs() < 1e-6);
    }
}
