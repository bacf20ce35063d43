//! A layer kind with its FRI parameters and both constraint systems: everything a verifier of such layers fixes.

use plonky2::field::types::Field;
use plonky2::fri::reduction_strategies::FriReductionStrategy;
use plonky2::fri::structure::{FriBatchInfo, FriInstanceInfo, FriOracleInfo, FriPolynomialInfo};
use plonky2::fri::{FriConfig, FriParams};

use crate::air::{Cell, ConstraintSystem, ORACLES, OracleId};
use crate::field::{D, Digest, F, K};
use crate::hash::{self, Tag};
use crate::kind::{LayerKind, Operator, Role};
use crate::ops;

/// Version of the layer argument, part of every transcript.
pub const LAYER_VERSION: u64 = 2;

/// A batch of openings: its columns, oracle by oracle, in order.
pub type BatchColumns = Vec<Cell>;

/// A layer kind, its FRI parameters and one of its arguments.
#[derive(Clone, Debug)]
pub struct LayerShape {
    /// The kind.
    pub kind: LayerKind,
    /// The argument.
    pub role: Role,
    /// FRI parameters; `hiding` is false.
    pub fri: FriParams,
    /// The constraint system of (kind, role).
    pub system: ConstraintSystem,
    /// `H(Kind; …)`: the same for both roles.
    pub kind_digest: Digest,
}

impl LayerShape {
    /// The shape of a kind in a role, under FRI parameters.
    pub fn new(kind: LayerKind, role: Role, config: &FriConfig) -> Self {
        let systems = [Role::Inference, Role::Registration].map(|role| ops::system(&kind, role));
        let kind_digest = kind_digest(&kind, config, &systems);
        let [inference, registration] = systems;
        let system = match role {
            Role::Inference => inference,
            Role::Registration => registration,
        };
        Self { kind, role, fri: config.fri_params(kind.log_rows, false), system, kind_digest }
    }

    /// log₂ of n.
    pub fn log_rows(&self) -> usize {
        self.kind.log_rows
    }

    /// Cells opened in each batch: at ζ, gζ, g^m·ζ, z*(weights), z*(main). The third may be empty.
    pub fn batches(&self) -> [BatchColumns; 5] {
        let all = |oracle: OracleId| {
            (0..self.system.width(oracle)).map(move |column| Cell { oracle, column, rotation: crate::air::Rotation::Here })
        };
        let here = ORACLES.into_iter().flat_map(all).collect();
        let mut next = self.system.next.clone();
        next.extend([0, 1].map(|column| Cell { oracle: OracleId::Sums, column, rotation: crate::air::Rotation::Next }));
        [here, next, self.system.period.clone(), all(OracleId::Weights).collect(), all(OracleId::Main).collect()]
    }

    /// Number of values opened in each batch.
    pub fn batch_lengths(&self) -> [usize; 5] {
        self.batches().map(|batch| batch.len())
    }

    /// The FRI instance; `points` are those of [`Self::batches`]. Empty batches are left out.
    pub fn instance(&self, points: [K; 5]) -> FriInstanceInfo<F, D> {
        let batches = self.batches().into_iter().zip(points).filter(|(cells, _)| !cells.is_empty());
        FriInstanceInfo {
            oracles: self.oracle_widths().map(|num_polys| FriOracleInfo { num_polys, blinding: false }).to_vec(),
            batches: batches.map(|(cells, point)| FriBatchInfo { point, polynomials: polynomials(&cells) }).collect(),
        }
    }

    /// F columns of each oracle.
    pub fn oracle_widths(&self) -> [usize; 4] {
        ORACLES.map(|oracle| self.system.width(oracle))
    }
}

/// The cells of a batch as plonky2's polynomial references.
pub fn polynomials(cells: &[Cell]) -> Vec<FriPolynomialInfo> {
    cells.iter().map(|c| FriPolynomialInfo { oracle_index: c.oracle as usize, polynomial_index: c.column }).collect()
}

fn kind_digest(kind: &LayerKind, config: &FriConfig, systems: &[ConstraintSystem; 2]) -> Digest {
    let operator = match kind.operator {
        Operator::Dense => 1,
        Operator::Add => 2,
    };
    let numbers = [
        LAYER_VERSION as usize,
        operator,
        kind.log_rows,
        kind.n_columns,
        config.rate_bits,
        config.cap_height,
        config.num_query_rounds,
        config.proof_of_work_bits as usize,
    ];
    let mut elements: Vec<F> = numbers.into_iter().map(F::from_canonical_usize).collect();
    elements.extend(config.fri_params(kind.log_rows, false).reduction_arity_bits.iter().map(|&bits| F::from_canonical_usize(bits)));
    elements.extend(systems.iter().flat_map(|system| system.digest().elements));
    hash::hash(Tag::Kind, &elements)
}

/// A FRI configuration with constant arity and caps of 16 digests.
pub fn fri_config(rate_bits: usize, num_query_rounds: usize, proof_of_work_bits: u32) -> FriConfig {
    FriConfig {
        rate_bits,
        cap_height: 4,
        proof_of_work_bits,
        reduction_strategy: FriReductionStrategy::ConstantArityBits(4, 5),
        num_query_rounds,
    }
}
