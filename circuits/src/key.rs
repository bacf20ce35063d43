//! The verifier key of a registered model: all that is needed, beside the parameter set, to check statements about it.

use crate::encoding::{Canonical, DIGEST_BYTES, DecodeError, DecodeProblem, HEAD_BYTES, Reader, Writer};
use crate::field::Digest;
use crate::program::Program;
use crate::recursion::digest::registration_digest;
use crate::security::ProfileName;

const MAGIC: &str = "ZKVK";
const FORMAT_VERSION: u16 = 1;
/// Longest registration proof.
pub const MAX_REGISTRATION_BYTES: usize = 1 << 22;
/// Longest name of a tensor, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 256;
/// Most axes of a tensor.
pub const MAX_AXES: usize = 16;
const MAX_AXIS: usize = 1 << 32;
const MAX_TENSOR_BYTES: usize = 8 + MAX_NAME_BYTES + 8 + 8 * MAX_AXES + 8 + 8;

/// What the integers of a tensor mean: real = scale · (integer − zero_point).
///
/// Name, scale and how the elements are arranged are display data: whoever wrote the key says so, nothing proves it. Number of elements
/// and zero point follow from the program, and [`VerifierKey::check_tensors`] compares them.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Name in the model.
    pub name: String,
    /// Shape in the model.
    pub shape: Vec<usize>,
    /// Real number of one integer step; positive and finite.
    pub scale: f64,
    /// The integer that stands for zero.
    pub zero_point: i64,
}

/// Why a key's description of a tensor contradicts its program.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TensorError {
    /// A shape of another number of elements.
    #[error("the key gives the {tensor} the shape {shape:?}; the program's has {expected} elements")]
    Elements {
        /// "input" or "output".
        tensor: &'static str,
        /// Elements in the program.
        expected: usize,
        /// Shape in the key.
        shape: Vec<usize>,
    },
    /// Another zero point.
    #[error("the key gives the {tensor} the zero point {got}; the program's is {expected}")]
    ZeroPoint {
        /// "input" or "output".
        tensor: &'static str,
        /// Zero point in the program.
        expected: i64,
        /// Zero point in the key.
        got: i64,
    },
    /// No scale.
    #[error("the key gives the {tensor} the scale {got}; a scale is positive and finite")]
    Scale {
        /// "input" or "output".
        tensor: &'static str,
        /// Scale in the key.
        got: f64,
    },
}

/// A registered model, as a verifier sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifierKey {
    /// Profile of the parameter set.
    pub profile: ProfileName,
    /// Id of the parameter set.
    pub parameters_id: Digest,
    /// The readable program.
    pub program: Program,
    /// Commitment to program and private constants.
    pub model_commitment: Digest,
    /// Proof that the private constants are in the program's ranges.
    pub registration_proof: Vec<u8>,
    /// The graph's input.
    pub input: TensorInfo,
    /// The graph's output.
    pub output: TensorInfo,
}

impl VerifierKey {
    /// The public input of the registration proof, for the program digest that the verifier computed.
    pub fn registration_digest(&self, program_digest: Digest) -> Digest {
        registration_digest(self.parameters_id, program_digest, self.model_commitment)
    }

    /// Checks what the program says of both tensors: elements, and the zero point (of an output, which is stated centered, 0).
    ///
    /// # Errors
    /// The first contradiction.
    pub fn check_tensors(&self) -> Result<(), TensorError> {
        let boundary = &self.program.boundary;
        check_tensor("input", &self.input, boundary.n_inputs, i64::from(boundary.input_offset))?;
        check_tensor("output", &self.output, boundary.n_outputs, 0)
    }
}

fn check_tensor(tensor: &'static str, info: &TensorInfo, expected: usize, zero_point: i64) -> Result<(), TensorError> {
    let n_elements = info.shape.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis));
    if n_elements != Some(expected) {
        return Err(TensorError::Elements { tensor, expected, shape: info.shape.clone() });
    }
    if info.zero_point != zero_point {
        return Err(TensorError::ZeroPoint { tensor, expected: zero_point, got: info.zero_point });
    }
    if !is_scale(info.scale) {
        return Err(TensorError::Scale { tensor, got: info.scale });
    }
    Ok(())
}

fn is_scale(scale: f64) -> bool {
    scale.is_finite() && scale > 0.0
}

impl Canonical for VerifierKey {
    const NAME: &'static str = "verifier key";
    const MAX_BYTES: usize = HEAD_BYTES + 1 + 2 * DIGEST_BYTES + Program::MAX_BYTES + 8 + MAX_REGISTRATION_BYTES + 2 * MAX_TENSOR_BYTES;

    fn write(&self, writer: &mut Writer) {
        writer.head(MAGIC, FORMAT_VERSION);
        writer.u8(profile_code(self.profile));
        writer.digest(self.parameters_id);
        self.program.write(writer);
        writer.digest(self.model_commitment);
        writer.blob(&self.registration_proof);
        write_tensor(writer, &self.input);
        write_tensor(writer, &self.output);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.head(MAGIC, FORMAT_VERSION)?;
        Ok(Self {
            profile: read_profile(reader)?,
            parameters_id: reader.digest("parameters_id")?,
            program: Program::read(reader)?,
            model_commitment: reader.digest("model_commitment")?,
            registration_proof: reader.blob("registration_proof", MAX_REGISTRATION_BYTES)?.to_vec(),
            input: read_tensor(reader)?,
            output: read_tensor(reader)?,
        })
    }
}

pub(crate) fn profile_code(profile: ProfileName) -> u8 {
    match profile {
        ProfileName::Default => 0,
        ProfileName::Strict => 1,
    }
}

pub(crate) fn read_profile(reader: &mut Reader<'_>) -> Result<ProfileName, DecodeError> {
    match reader.u8("profile")? {
        0 => Ok(ProfileName::Default),
        1 => Ok(ProfileName::Strict),
        got => Err(reader.error("profile", DecodeProblem::Value { got: got.into(), expected: "0 (default) or 1 (strict)" })),
    }
}

fn write_tensor(writer: &mut Writer, tensor: &TensorInfo) {
    writer.blob(tensor.name.as_bytes());
    writer.size(tensor.shape.len());
    for &axis in &tensor.shape {
        writer.size(axis);
    }
    writer.f64(tensor.scale);
    writer.i64(tensor.zero_point);
}

fn read_tensor(reader: &mut Reader<'_>) -> Result<TensorInfo, DecodeError> {
    let name = reader.text("tensor.name", MAX_NAME_BYTES)?;
    let shape = reader.list("tensor.shape", MAX_AXES, 8, |reader| reader.size("tensor.axis", MAX_AXIS))?;
    let scale = reader.f64("tensor.scale")?;
    if !is_scale(scale) {
        let problem = DecodeProblem::Value { got: scale.to_bits(), expected: "the bits of a positive finite number" };
        return Err(reader.error("tensor.scale", problem));
    }
    Ok(TensorInfo { name, shape, scale, zero_point: reader.i64("tensor.zero_point")? })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::hash::hash_bytes;
    use crate::program::samples;
    use proptest::prelude::*;

    pub(crate) fn sample() -> VerifierKey {
        let tensor = |name: &str, n: usize, zero_point| TensorInfo { name: name.into(), shape: vec![1, n], scale: 0.5, zero_point };
        VerifierKey {
            profile: ProfileName::Default,
            parameters_id: hash_bytes(b"parameters"),
            program: samples::residual(),
            model_commitment: hash_bytes(b"model"),
            registration_proof: vec![7; 40],
            input: tensor("x", 30, 128),
            output: tensor("y", 3, 0),
        }
    }

    #[test]
    fn round_trips() {
        assert_eq!(VerifierKey::from_bytes(&sample().to_bytes()), Ok(sample()));
    }

    #[test]
    fn refuses_tensors_that_contradict_the_program() {
        assert_eq!(sample().check_tensors(), Ok(()));
        let refusal = |change: &dyn Fn(&mut VerifierKey)| {
            let mut key = sample();
            change(&mut key);
            key.check_tensors().unwrap_err()
        };
        for shape in [vec![1, 31], vec![], vec![30, 0], vec![usize::MAX, 2], vec![2, 15, 2]] {
            let expected = TensorError::Elements { tensor: "input", expected: 30, shape: shape.clone() };
            assert_eq!(refusal(&|key| key.input.shape.clone_from(&shape)), expected);
        }
        let expected = TensorError::Elements { tensor: "output", expected: 3, shape: vec![2] };
        assert_eq!(refusal(&|key| key.output.shape = vec![2]), expected);
        let zero_point = |tensor, expected, got| TensorError::ZeroPoint { tensor, expected, got };
        assert_eq!(refusal(&|key| key.input.zero_point = 127), zero_point("input", 128, 127));
        assert_eq!(refusal(&|key| key.output.zero_point = 1), zero_point("output", 0, 1));
        for scale in [0.0, -1.0, f64::INFINITY] {
            assert_eq!(refusal(&|key| key.output.scale = scale), TensorError::Scale { tensor: "output", got: scale });
        }
        // Arrangement, names and scales are the key's word.
        let mut key = sample();
        (key.input.shape, key.input.name, key.input.scale) = (vec![2, 15], "other".into(), 7.0);
        assert_eq!(key.check_tensors(), Ok(()));
    }

    #[test]
    fn refuses_a_scale_that_is_no_scale() {
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let mut key = sample();
            key.input.scale = scale;
            assert_eq!(VerifierKey::from_bytes(&key.to_bytes()).unwrap_err().field, "tensor.scale");
        }
    }

    #[test]
    fn refuses_a_registration_proof_that_claims_to_be_huge() {
        let mut key = sample();
        key.registration_proof = vec![0; MAX_REGISTRATION_BYTES + 1];
        assert_eq!(VerifierKey::from_bytes(&key.to_bytes()).unwrap_err().field, "registration_proof");
    }

    proptest! {
        #[test]
        fn changed_bytes_never_panic(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut bytes = sample().to_bytes();
            let index = at.index(bytes.len());
            bytes[index] ^= flip;
            if let Ok(key) = VerifierKey::from_bytes(&bytes) {
                prop_assert_eq!(key.to_bytes(), bytes.clone());
                prop_assert_ne!(key, sample());
            }
            prop_assert!(VerifierKey::from_bytes(&bytes[..index]).is_err());
        }
    }
}
