//! θ: the public scalars of a layer, hashed into its key (`docs/PROTOCOL.md` §2), by index.

/// O, the number of outputs.
pub const N_OUTPUTS: usize = 0;
/// g^m, the rotation by one group.
pub const ROTATION: usize = 1;
/// One-hot: \[Q = 2^k\].
pub const GROUPS: usize = 2;
/// Number of one-hot entries for Q.
pub const N_GROUP_CHOICES: usize = 9;
/// 1 if the output is the accumulator itself.
pub const RAW: usize = GROUPS + N_GROUP_CHOICES;
/// Lower clamp, centered.
pub const LO: usize = RAW + 1;
/// R = hi − lo.
pub const RANGE: usize = LO + 1;
/// 1/R.
pub const INVERSE_RANGE: usize = RANGE + 1;
/// 2^s.
pub const SCALE: usize = INVERSE_RANGE + 1;
/// 2^(s−1).
pub const HALF: usize = SCALE + 1;
/// c_0 … c_4: weights of the remainder's limbs.
pub const REMAINDER: usize = HALF + 1;
/// Number of remainder limbs.
pub const N_REMAINDER: usize = 5;
/// d_0 … d_4: the scaled top limb of the remainder.
pub const REMAINDER_TOP: usize = REMAINDER + N_REMAINDER;
/// Weights of the limbs of bias + 2^bias_bits.
pub const BIAS: usize = REMAINDER_TOP + N_REMAINDER;
/// Number of limbs of a registered constant.
pub const N_CONSTANT_LIMBS: usize = 4;
/// Its scaled top limb.
pub const BIAS_TOP: usize = BIAS + N_CONSTANT_LIMBS;
/// 2^bias_bits.
pub const BIAS_OFFSET: usize = BIAS_TOP + N_CONSTANT_LIMBS;
/// Weights of the limbs of a multiplier.
pub const MULTIPLIER: usize = BIAS_OFFSET + 1;
/// Its scaled top limb.
pub const MULTIPLIER_TOP: usize = MULTIPLIER + N_CONSTANT_LIMBS;
/// Edge of the first input.
pub const EDGE_IN_1: usize = MULTIPLIER_TOP + N_CONSTANT_LIMBS;
/// Edge of the second input, or 0.
pub const EDGE_IN_2: usize = EDGE_IN_1 + 1;
/// First edge of the output.
pub const EDGE_OUT: usize = EDGE_IN_2 + 1;
/// f_k = 1 for k < fan-out.
pub const FAN_OUT: usize = EDGE_OUT + 1;
/// Largest number of consumers of a tensor.
pub const MAX_FAN_OUT: usize = 8;
/// Length of θ.
pub const LENGTH: usize = FAN_OUT + MAX_FAN_OUT;

/// Index of γ' among the derived challenges.
pub const GAMMA_PRIME: usize = 0;
/// γ'^C.
pub const FOLD_RATIO: usize = 1;
/// 1 − γ'^(C·Q).
pub const FOLD_WRAP: usize = 2;
/// D_out.
pub const D_OUT: usize = 3;
/// δ^edge_in_1.
pub const D_IN_1: usize = 4;
/// δ^edge_in_2.
pub const D_IN_2: usize = 5;
/// α, the point of the lookups.
pub const ALPHA: usize = 6;
/// Number of derived challenges.
pub const N_CHALLENGES: usize = 7;
