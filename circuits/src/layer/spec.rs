//! The public description of one layer, and its scalars θ.

use plonky2::field::types::Field;
use serde::{Deserialize, Serialize};

use super::theta;
use crate::field::{Digest, F, from_signed};
use crate::gadgets::requantize::{Unsafe, check_product};
use crate::hash::{self, Tag};
use crate::kind::{LayerKind, Operator};

/// Largest shift s of a requantization.
pub const MAX_SHIFT: u32 = 39;
/// Smallest shift.
pub const MIN_SHIFT: u32 = 8;
/// Largest width of a multiplier and of a bias, in bits.
pub const MAX_CONSTANT_BITS: u32 = 31;

/// How a layer's output follows from its accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputRule {
    /// The accumulator itself; only for graph outputs.
    Raw,
    /// `clamp(⌊(v + 2^(shift−1)) / 2^shift⌋, lo, hi)`.
    Requantize {
        /// s.
        shift: u32,
        /// Lower clamp, centered.
        lo: i64,
        /// Upper clamp, centered.
        hi: i64,
    },
}

/// Everything public about a layer. Weights, bias and multipliers are not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSpec {
    /// The table's shape.
    pub kind: LayerKind,
    /// I: elements of an input (of each input, for add).
    pub n_inputs: usize,
    /// O: elements of the output.
    pub n_outputs: usize,
    /// log₂ of the period m (rows of a group); `log_rows` unless folded.
    pub log_period: usize,
    /// The output rule.
    pub output: OutputRule,
    /// Registered: −2^bias_bits ≤ bias < 2^bias_bits.
    pub bias_bits: u32,
    /// Registered: multipliers < 2^mult_bits.
    pub mult_bits: u32,
    /// Edges read; the second is 0 for dense.
    pub edges_in: [u32; 2],
    /// First edge of the output.
    pub edge_out: u32,
    /// Number of consumers, 1 … 8, with consecutive edges.
    pub fan_out: u32,
}

/// Why a layer's description is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("layer field {field} is {got}: {expected}")]
pub struct SpecError {
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub got: i128,
    /// What it must be.
    pub expected: &'static str,
}

fn require(holds: bool, field: &'static str, got: i128, expected: &'static str) -> Result<(), SpecError> {
    if holds { Ok(()) } else { Err(SpecError { field, got, expected }) }
}

/// Weights of the limbs of a `bits`-bit value (c), and of the scaled top limb (d): bytes `x_k` and `Σ d_k x_k` put `Σ c_k x_k` in `[0, 2^bits)`.
pub fn limb_weights(bits: u32, n_limbs: usize) -> (Vec<F>, Vec<F>) {
    let used = bits.div_ceil(8) as usize;
    let weight = |k: usize| if k < used { F::from_canonical_u64(1 << (8 * k)) } else { F::ZERO };
    let top_scale = 1u64 << ((8 - bits % 8) % 8);
    let top = |k: usize| if k + 1 == used { F::from_canonical_u64(top_scale) } else { F::ZERO };
    ((0..n_limbs).map(weight).collect(), (0..n_limbs).map(top).collect())
}

impl LayerSpec {
    /// m, rows of a group.
    pub fn period(&self) -> usize {
        1 << self.log_period
    }

    /// log₂ of Q, the number of groups.
    pub fn log_groups(&self) -> usize {
        self.kind.log_rows - self.log_period
    }

    /// Shift, lower clamp and upper clamp used in the table; a raw layer requantizes the value 0.
    pub fn requantization(&self) -> (u32, i64, i64) {
        match self.output {
            OutputRule::Raw => (MIN_SHIFT, 0, 255),
            OutputRule::Requantize { shift, lo, hi } => (shift, lo, hi),
        }
    }

    /// Checks shapes and ranges that concern this layer alone.
    ///
    /// # Errors
    /// The first field out of range.
    pub fn check_shape(&self) -> Result<(), SpecError> {
        // First: rows and periods are powers that it bounds.
        require((8..=16).contains(&self.kind.log_rows), "kind.log_rows", self.kind.log_rows as i128, "must be 8 to 16")?;
        require(self.log_period <= self.kind.log_rows, "log_period", self.log_period as i128, "must not exceed log_rows")?;
        require(self.log_groups() < theta::N_GROUP_CHOICES, "log_period", self.log_period as i128, "gives more than 256 groups")?;
        let rows = self.kind.rows() as i128;
        let (inputs, outputs) = (self.n_inputs as i128, self.n_outputs as i128);
        require(inputs >= 1 && inputs <= self.period() as i128, "n_inputs", inputs, "must be 1 to the period")?;
        require(outputs >= 1 && outputs <= rows, "n_outputs", outputs, "must be 1 to the rows")?;
        let (shift, lo, hi) = self.requantization();
        require((MIN_SHIFT..=MAX_SHIFT).contains(&shift), "shift", shift.into(), "must be 8 to 39")?;
        require((-512..=512).contains(&lo), "lo", lo.into(), "must be -512 to 512")?;
        require((1..=255).contains(&hi.saturating_sub(lo)), "hi", hi.into(), "must exceed lo by 1 to 255")?;
        require((8..=MAX_CONSTANT_BITS).contains(&self.bias_bits), "bias_bits", self.bias_bits.into(), "must be 8 to 31")?;
        require((1..=MAX_CONSTANT_BITS).contains(&self.mult_bits), "mult_bits", self.mult_bits.into(), "must be 1 to 31")?;
        require((1..=theta::MAX_FAN_OUT as u32).contains(&self.fan_out), "fan_out", self.fan_out.into(), "must be 1 to 8")?;
        self.check_operator()
    }

    fn check_operator(&self) -> Result<(), SpecError> {
        let columns = self.kind.n_columns;
        match self.kind.operator {
            Operator::Dense => {
                require((1..=256).contains(&columns), "kind.n_columns", columns as i128, "must be 1 to 256")?;
                let capacity = columns << self.log_groups();
                require(self.n_outputs <= capacity, "n_outputs", self.n_outputs as i128, "must fit columns x groups")?;
                require(self.edges_in[1] == 0, "edges_in", self.edges_in[1].into(), "a dense layer has one input")
            }
            Operator::Add => {
                require(columns == 0, "kind.n_columns", columns as i128, "must be 0 for add")?;
                require(self.log_groups() == 0, "log_period", self.log_period as i128, "must be log_rows for add")?;
                require(self.n_inputs == self.n_outputs, "n_outputs", self.n_outputs as i128, "must equal n_inputs for add")?;
                require(self.output != OutputRule::Raw, "output", 0, "an add layer is requantized")
            }
        }
    }

    /// Checks that no equation of the layer can wrap, for inputs of absolute value at most `max_input`; returns the bound on |output|.
    ///
    /// # Errors
    /// The inequality that fails (`docs/PROTOCOL.md` §1).
    pub fn check_no_wrap(&self, max_inputs: [i64; 2]) -> Result<i64, SpecError> {
        let multiplier = 1i128 << self.mult_bits;
        let (accumulator, scaled) = match self.kind.operator {
            Operator::Dense => {
                let accumulator = self.n_inputs as i128 * i128::from(max_inputs[0]) * 128 + (1i128 << self.bias_bits);
                (accumulator, accumulator * multiplier)
            }
            Operator::Add => (0, i128::from(max_inputs[0] + max_inputs[1]) * multiplier),
        };
        require(accumulator < 1 << 62, "n_inputs", self.n_inputs as i128, "the accumulator may exceed 62 bits")?;
        let OutputRule::Requantize { shift, lo, hi } = self.output else {
            return Ok(accumulator as i64);
        };
        check_product(scaled.unsigned_abs(), shift, lo, hi).map_err(|source| {
            let expected = match source {
                Unsafe::Wrap(_) => "both sides of the requantization must stay below p",
                Unsafe::Overshoot => "the overshoot may exceed 24 bits: enlarge it",
            };
            SpecError { field: "shift", got: shift.into(), expected }
        })?;
        Ok(lo.abs().max(hi.abs()))
    }

    /// θ, in the order of [`theta`].
    pub fn theta(&self) -> Vec<F> {
        let (shift, lo, hi) = self.requantization();
        let mut scalars = vec![F::ZERO; theta::LENGTH];
        let small = |value: u64| F::from_canonical_u64(value);
        scalars[theta::N_OUTPUTS] = small(self.n_outputs as u64);
        scalars[theta::ROTATION] = F::primitive_root_of_unity(self.log_groups());
        scalars[theta::GROUPS + self.log_groups()] = F::ONE;
        scalars[theta::RAW] = F::from_bool(self.output == OutputRule::Raw);
        scalars[theta::LO] = from_signed(lo);
        scalars[theta::RANGE] = from_signed(hi - lo);
        scalars[theta::INVERSE_RANGE] = from_signed(hi - lo).inverse();
        scalars[theta::SCALE] = small(1 << shift);
        scalars[theta::HALF] = small(1 << (shift - 1));
        let mut limbs = |first: usize, first_top: usize, bits: u32, count: usize| {
            let (weights, top) = limb_weights(bits, count);
            scalars[first..first + count].copy_from_slice(&weights);
            scalars[first_top..first_top + count].copy_from_slice(&top);
        };
        limbs(theta::REMAINDER, theta::REMAINDER_TOP, shift, theta::N_REMAINDER);
        limbs(theta::BIAS, theta::BIAS_TOP, self.bias_bits + 1, theta::N_CONSTANT_LIMBS);
        limbs(theta::MULTIPLIER, theta::MULTIPLIER_TOP, self.mult_bits, theta::N_CONSTANT_LIMBS);
        scalars[theta::BIAS_OFFSET] = small(1 << self.bias_bits);
        scalars[theta::EDGE_IN_1] = small(self.edges_in[0].into());
        scalars[theta::EDGE_IN_2] = small(self.edges_in[1].into());
        scalars[theta::EDGE_OUT] = small(self.edge_out.into());
        for k in 0..(self.fan_out as usize).min(theta::MAX_FAN_OUT) {
            scalars[theta::FAN_OUT + k] = F::ONE;
        }
        scalars
    }
}

/// `layer key = H(LayerKey; kind digest, θ)`.
pub fn layer_key(kind_digest: Digest, theta: &[F]) -> Digest {
    let mut elements = kind_digest.elements.to_vec();
    elements.extend_from_slice(theta);
    hash::hash(Tag::LayerKey, &elements)
}
