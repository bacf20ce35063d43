//! Parameter profiles, and the security that they give, computed.
//!
//! For each level of the recursion (SECURITY.md); none of the figures alone is "the" security:
//!
//! - **heuristic**, FRI's queries: list decoding up to capacity minus the entropy term. A word over an alphabet of 2^64 may agree with a
//!   codeword of rate ρ on a fraction a = ρ + h(a)/64 (h the binary entropy), so q queries and g bits of grinding give `g − q·log₂ a` bits.
//!   (The older conjecture "up to capacity", `q·rate_bits + g`, is refuted: eprint 2025/2010, 2025/2046.)
//! - **commit**, FRI's batching and foldings, and **algebraic**, the terms of the argument itself: what 2^128 elements of K allow, if
//!   exceptional challenges are counted as for unique decoding, and the list of codewords is one, as the heuristic assumes.
//! - **permutation**: plonky2's copy constraints with c challenges from F: `c·(64 − log₂(routed wires · 2^k))` bits at 2^k gates.
//! - **proven**: the *sum* of all errors in the Johnson regime, without conjecture (`security/soundness.rs`).
//!
//! The composite figures are the least of what binds them, the hash's collision resistance included.

mod soundness;

use plonky2::fri::FriConfig;
use plonky2::fri::reduction_strategies::FriReductionStrategy;
use plonky2::plonk::circuit_data::CircuitConfig;
use serde::{Deserialize, Serialize};

use soundness::{Argument, Level};

/// Height of every Merkle cap: 16 digests, one row of a circuit to select from.
pub const CAP_HEIGHT: usize = 4;
/// log₂ of the rows of the smallest and the largest layer.
pub const LAYER_LOG_ROWS: std::ops::RangeInclusive<usize> = 8..=16;
/// Least heuristic bits of every level of both profiles.
pub const MIN_HEURISTIC_BITS: f64 = 101.0;
/// log₂ of the folding arity of layers and nodes; one value, so that one set of gates verifies both.
pub const INNER_ARITY_BITS: usize = 4;
/// Bits of work for a collision of Poseidon's digests: half of four elements of F.
pub const HASH_BITS: f64 = 128.0;

/// The two parameter sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ProfileName {
    /// At least 101 bits of FRI's queries by the heuristic, about 60 proven.
    Default,
    /// At least 85 proven bits, about what |K| ≈ 2^128 allows at the largest sizes; more at small ones.
    Strict,
}

/// FRI parameters of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FriLevel {
    /// −log₂ of the rate.
    pub rate_bits: usize,
    /// Queries.
    pub n_queries: usize,
    /// Bits of grinding.
    pub pow_bits: u32,
    /// log₂ of the folding arity.
    pub arity_bits: usize,
    /// Folding stops at a polynomial of at most 2^this coefficients.
    pub final_poly_bits: usize,
}

impl FriLevel {
    const fn inner(rate_bits: usize, n_queries: usize, pow_bits: u32) -> Self {
        Self { rate_bits, n_queries, pow_bits, arity_bits: INNER_ARITY_BITS, final_poly_bits: 6 }
    }

    /// plonky2's form of these parameters.
    pub fn config(&self) -> FriConfig {
        FriConfig {
            rate_bits: self.rate_bits,
            cap_height: CAP_HEIGHT,
            proof_of_work_bits: self.pow_bits,
            reduction_strategy: FriReductionStrategy::ConstantArityBits(self.arity_bits, self.final_poly_bits),
            num_query_rounds: self.n_queries,
        }
    }
}

/// All parameters of a proof system instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    name: ProfileName,
    node: FriLevel,
    node_log_rows: usize,
    outer: FriLevel,
    n_challenges: usize,
}

impl Profile {
    /// The profile of that name.
    pub fn new(name: ProfileName) -> Self {
        match name {
            // 28 queries and 20 bits rather than 30 and 16: a join verifies two nodes, and must fit a node.
            ProfileName::Default => Self {
                name,
                node: FriLevel::inner(3, 28, 20),
                node_log_rows: 13,
                outer: FriLevel { rate_bits: 3, n_queries: 30, pow_bits: 16, arity_bits: 2, final_poly_bits: 1 },
                n_challenges: 2,
            },
            ProfileName::Strict => Self {
                name,
                node: FriLevel::inner(3, 54, 16),
                node_log_rows: 14,
                outer: FriLevel { rate_bits: 3, n_queries: 54, pow_bits: 16, arity_bits: 2, final_poly_bits: 1 },
                n_challenges: 3,
            },
        }
    }

    /// The name.
    pub fn name(&self) -> ProfileName {
        self.name
    }

    /// log₂ of the rows of every node circuit.
    pub fn node_log_rows(&self) -> usize {
        self.node_log_rows
    }

    /// FRI parameters of a layer of 2^log_rows rows.
    ///
    /// Rows of the circuit that verifies a layer are dearer than rows of the layer: small tables take a low rate and few queries. Up to
    /// 2^13 rows the rate lets a node verify two of the widest layers; from 2^14 on memory counts, and 1/8 lets a node verify one.
    pub fn layer(&self, log_rows: usize) -> FriLevel {
        match (self.name, log_rows) {
            (ProfileName::Default, ..=9) => FriLevel::inner(5, 18, 14),
            (ProfileName::Default, 10..=13) => FriLevel::inner(4, 23, 12),
            (ProfileName::Default, _) => FriLevel::inner(3, 30, 16),
            (ProfileName::Strict, ..=9) => FriLevel::inner(5, 34, 16),
            (ProfileName::Strict, 10..=13) => FriLevel::inner(4, 42, 16),
            (ProfileName::Strict, _) => FriLevel::inner(3, 56, 16),
        }
    }

    /// plonky2's configuration of a layer's FRI.
    pub fn layer_fri(&self, log_rows: usize) -> FriConfig {
        self.layer(log_rows).config()
    }

    /// Configuration of every node circuit.
    pub fn node_config(&self) -> CircuitConfig {
        CircuitConfig { num_challenges: self.n_challenges, fri_config: self.node.config(), ..CircuitConfig::standard_recursion_config() }
    }

    /// Configuration of the published proofs' circuits: zero knowledge.
    pub fn outer_config(&self) -> CircuitConfig {
        CircuitConfig { zero_knowledge: true, fri_config: self.outer.config(), ..self.node_config() }
    }

    /// Every number above, in a fixed order: part of the parameters id.
    pub fn numbers(&self) -> Vec<u64> {
        let mut numbers = vec![self.name as u64, self.node_log_rows as u64, self.n_challenges as u64, CAP_HEIGHT as u64];
        let layers = LAYER_LOG_ROWS.map(|log_rows| self.layer(log_rows));
        for level in layers.chain([self.node, self.outer]) {
            numbers.extend([
                level.rate_bits as u64,
                level.n_queries as u64,
                u64::from(level.pow_bits),
                level.arity_bits as u64,
                level.final_poly_bits as u64,
            ]);
        }
        numbers
    }

    /// The figures of every level.
    pub fn levels(&self) -> Vec<LevelSecurity> {
        let (n_challenges, n_routed_wires) = (self.n_challenges, self.node_config().num_routed_wires);
        let circuit = |name: &str, fri: FriLevel| {
            let argument = Argument::Circuit { n_challenges, n_routed_wires };
            LevelSecurity::new(name.to_owned(), &Level { fri, log_rows: self.node_log_rows, argument })
        };
        let layer = |log_rows: usize| {
            let level = Level { fri: self.layer(log_rows), log_rows, argument: Argument::Layer };
            LevelSecurity::new(format!("layer of 2^{log_rows} rows"), &level)
        };
        LAYER_LOG_ROWS.map(layer).chain([circuit("node", self.node), circuit("outer", self.outer)]).collect()
    }

    /// The least of each figure over all levels.
    pub fn security(&self) -> Security {
        let levels = self.levels();
        let least = |figure: fn(&LevelSecurity) -> f64| levels.iter().map(figure).fold(f64::INFINITY, f64::min);
        Security {
            heuristic_bits: least(|level| level.heuristic_bits),
            commit_bits: least(|level| level.commit_bits),
            algebraic_bits: least(|level| level.algebraic_bits),
            permutation_bits: least(|level| level.permutation_bits.unwrap_or(f64::INFINITY)),
            proven_bits: least(|level| level.proven_bits),
        }
    }
}

/// The figures of one level.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LevelSecurity {
    /// Which level.
    pub level: String,
    /// Bits of FRI's queries, heuristic.
    pub heuristic_bits: f64,
    /// Bits of FRI's commit phase, heuristic.
    pub commit_bits: f64,
    /// Bits of the algebraic terms, heuristic (the list of codewords is one).
    pub algebraic_bits: f64,
    /// Bits of plonky2's permutation argument, for circuits.
    pub permutation_bits: Option<f64>,
    /// Bits of the sum of all terms, proven.
    pub proven_bits: f64,
}

impl LevelSecurity {
    fn new(name: String, level: &Level) -> Self {
        Self {
            level: name,
            heuristic_bits: heuristic_bits(&level.fri),
            commit_bits: level.commit_bits(),
            algebraic_bits: level.algebraic_bits(),
            permutation_bits: level.permutation_bits(),
            proven_bits: level.proven_bits(),
        }
    }
}

/// The figures of a parameter set: each is the least over all levels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Security {
    /// Bits of FRI's queries, heuristic.
    pub heuristic_bits: f64,
    /// Bits of FRI's commit phase, heuristic.
    pub commit_bits: f64,
    /// Bits of the algebraic terms, heuristic.
    pub algebraic_bits: f64,
    /// Bits of plonky2's permutation argument.
    pub permutation_bits: f64,
    /// Bits of the sum of all terms, proven.
    pub proven_bits: f64,
}

impl Security {
    /// The least of all heuristic figures and the hash's.
    pub fn composite_heuristic_bits(&self) -> f64 {
        weakest(&self.heuristic_terms()).1
    }

    /// The least of the proven figure, the permutation argument's and the hash's.
    pub fn composite_proven_bits(&self) -> f64 {
        weakest(&self.proven_terms()).1
    }

    fn heuristic_terms(&self) -> [(&'static str, f64); 5] {
        [
            ("FRI", self.heuristic_bits),
            ("FRI's commit phase", self.commit_bits),
            ("the size of the extension field", self.algebraic_bits),
            ("the permutation argument", self.permutation_bits),
            ("the hash", HASH_BITS),
        ]
    }

    fn proven_terms(&self) -> [(&'static str, f64); 3] {
        [("FRI", self.proven_bits), ("the permutation argument", self.permutation_bits), ("the hash", HASH_BITS)]
    }
}

/// The least term; a figure that is no number is weakest.
fn weakest(terms: &[(&'static str, f64)]) -> (&'static str, f64) {
    let least = |a: (&'static str, f64), b: (&'static str, f64)| if a.1.is_nan() || a.1 <= b.1 { a } else { b };
    terms.iter().copied().fold(("the hash", HASH_BITS), least)
}

fn binary_entropy(x: f64) -> f64 {
    -x * x.log2() - (1.0 - x) * (1.0 - x).log2()
}

/// Heuristic bits of a level: `g − q·log₂ a` with a = ρ + h(a)/64, found by iteration (a contraction for ρ ≤ 1/2).
pub fn heuristic_bits(level: &FriLevel) -> f64 {
    let rate = (-(level.rate_bits as f64)).exp2();
    let agreement = (0..64).fold(rate, |agreement, _| rate + binary_entropy(agreement) / 64.0);
    f64::from(level.pow_bits) - level.n_queries as f64 * agreement.log2()
}

/// What a verifier demands of the parameters that a proof was made with: least bits of the two composite figures ([`Security`]).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecurityFloor {
    /// Least of [`Security::composite_heuristic_bits`].
    pub heuristic_bits: f64,
    /// Least of [`Security::composite_proven_bits`].
    pub proven_bits: f64,
}

impl Default for SecurityFloor {
    /// What the default profile promises.
    fn default() -> Self {
        Self { heuristic_bits: 89.0, proven_bits: 57.0 }
    }
}

/// Parameters too weak for the verifier.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "the parameters give {got:.1} {figure} bits ({bound_by} is weakest), {required:.1} are demanded; take a stronger profile or demand less"
)]
pub struct WeakParameters {
    /// Which composite figure falls short: "heuristic" or "proven".
    pub figure: &'static str,
    /// What it is bounded by.
    pub bound_by: &'static str,
    /// What the parameters give.
    pub got: f64,
    /// What is demanded.
    pub required: f64,
}

impl SecurityFloor {
    /// Checks the figures of a parameter set against the demands.
    ///
    /// # Errors
    /// The first figure that falls short. A demand that is no number is never met.
    pub fn check(&self, security: &Security) -> Result<(), WeakParameters> {
        let figures = [
            ("heuristic", weakest(&security.heuristic_terms()), self.heuristic_bits),
            ("proven", weakest(&security.proven_terms()), self.proven_bits),
        ];
        let falls_short = |got: f64, required: f64| got.partial_cmp(&required).is_none_or(std::cmp::Ordering::is_lt);
        match figures.into_iter().find(|&(_, (_, got), required)| falls_short(got, required)) {
            Some((figure, (bound_by, got), required)) => Err(WeakParameters { figure, bound_by, got, required }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_of_both_profiles_has_101_heuristic_bits() {
        for name in [ProfileName::Default, ProfileName::Strict] {
            for level in Profile::new(name).levels() {
                assert!(level.heuristic_bits >= MIN_HEURISTIC_BITS, "{name:?}: {level:?}");
            }
        }
    }

    #[test]
    fn default_profile_has_the_figures_of_the_design() {
        let security = Profile::new(ProfileName::Default).security();
        assert!((57.0..62.0).contains(&security.proven_bits), "{security:?}");
        assert!((89.0..90.0).contains(&security.permutation_bits), "{security:?}");
        assert_eq!(security.composite_heuristic_bits(), security.permutation_bits);
        assert_eq!(security.composite_proven_bits(), security.proven_bits);
        assert_eq!(SecurityFloor::default().check(&security), Ok(()));
    }

    #[test]
    fn strict_profile_reaches_what_the_extension_field_allows() {
        let security = Profile::new(ProfileName::Strict).security();
        assert!((85.0..90.0).contains(&security.proven_bits), "{security:?}");
        assert!((99.0..100.0).contains(&security.composite_heuristic_bits()), "{security:?}");
        assert_eq!(security.composite_heuristic_bits(), security.commit_bits);
        // More queries would add nothing: the queries alone give more than the sum.
        assert!(security.heuristic_bits > 170.0 && security.permutation_bits > 120.0, "{security:?}");
    }

    #[test]
    fn no_composite_exceeds_what_binds_it() {
        for name in [ProfileName::Default, ProfileName::Strict] {
            let profile = Profile::new(name);
            let security = profile.security();
            let (heuristic, proven) = (security.composite_heuristic_bits(), security.composite_proven_bits());
            assert!(proven <= heuristic && heuristic <= HASH_BITS, "{security:?}");
            for level in profile.levels() {
                let permutation = level.permutation_bits.unwrap_or(HASH_BITS);
                let least =
                    [level.heuristic_bits, level.commit_bits, level.algebraic_bits, permutation].into_iter().fold(HASH_BITS, f64::min);
                assert!(heuristic <= least && proven <= level.proven_bits, "{level:?}");
                assert!(level.proven_bits <= least, "the proven regime never gives more: {level:?}");
            }
        }
        let strong =
            Security { heuristic_bits: 200.0, commit_bits: 190.0, algebraic_bits: 180.0, permutation_bits: 170.0, proven_bits: 160.0 };
        assert_eq!((strong.composite_heuristic_bits(), strong.composite_proven_bits()), (HASH_BITS, HASH_BITS));
    }

    #[test]
    fn figures_agree_with_the_published_table() {
        let level = FriLevel { rate_bits: 3, n_queries: 28, pow_bits: 16, arity_bits: 4, final_poly_bits: 5 };
        assert!((heuristic_bits(&level) - 97.23).abs() < 0.01, "{}", heuristic_bits(&level));
    }

    #[test]
    fn refuses_weak_parameters_by_figure_and_demand() {
        let [default, strict] = [ProfileName::Default, ProfileName::Strict].map(|name| Profile::new(name).security());
        let refusal = |floor: SecurityFloor, security: &Security| floor.check(security).unwrap_err().to_string();
        let proven = SecurityFloor { proven_bits: 85.0, ..SecurityFloor::default() };
        assert_eq!(
            refusal(proven, &default),
            "the parameters give 57.8 proven bits (FRI is weakest), 85.0 are demanded; take a stronger profile or demand less"
        );
        assert_eq!(proven.check(&strict), Ok(()));
        let heuristic = SecurityFloor { heuristic_bits: 100.0, ..SecurityFloor::default() };
        assert_eq!(
            refusal(heuristic, &default),
            "the parameters give 89.4 heuristic bits (the permutation argument is weakest), 100.0 are demanded; take a stronger profile or demand less"
        );
        assert_eq!(
            refusal(heuristic, &strict),
            "the parameters give 99.3 heuristic bits (FRI's commit phase is weakest), 100.0 are demanded; take a stronger profile or demand less"
        );
        assert_eq!(SecurityFloor { heuristic_bits: 99.0, ..heuristic }.check(&strict), Ok(()));
        assert_eq!(SecurityFloor { proven_bits: 128.0, ..proven }.check(&strict).unwrap_err().got, strict.proven_bits);
        assert!(SecurityFloor { proven_bits: f64::NAN, ..proven }.check(&strict).is_err());
    }
}
