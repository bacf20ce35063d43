//! The private material of a model in bytes: what the service stores, and nobody else may see.

use zeroize::Zeroizing;

use super::PipelineError;
use crate::encoding::{Canonical, DecodeError, DecodeProblem, Reader, Writer};
use crate::layer::LayerSpec;
use crate::ops::dense::trace::DenseConstants;
use crate::ops::trace::LayerConstants;
use crate::program::Program;
use crate::key::{profile_code, read_profile};
use crate::recursion::salt::Salt;
use crate::security::ProfileName;

const MAGIC: &str = "ZKMS";
const FORMAT_VERSION: u16 = 1;
/// Most private constants of one kind in a layer.
const MAX_CONSTANTS: usize = 1 << 24;

/// A compiled model: its public program, its private constants, the salt of its commitment.
#[derive(Clone)]
pub struct ModelSecret {
    /// Profile of the parameters that it is committed under.
    pub profile: ProfileName,
    /// The public program.
    pub program: Program,
    /// Private constants of each layer.
    pub constants: Vec<LayerConstants>,
    /// Salt of the model commitment; [`Salt::NONE`] for public weights.
    pub salt: Salt,
}

impl std::fmt::Debug for ModelSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ModelSecret {{ {} layers, hidden }}", self.constants.len())
    }
}

impl ModelSecret {
    /// The bytes, wiped when dropped.
    pub fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.to_bytes())
    }

    /// Reads the bytes back, and checks that constants and program agree.
    ///
    /// # Errors
    /// [`PipelineError::Secret`].
    pub fn from_secret_bytes(bytes: &[u8]) -> Result<Self, PipelineError> {
        let secret = Self::from_bytes(bytes).map_err(|error| PipelineError::Secret(error.to_string()))?;
        let agree = secret.program.layers.len() == secret.constants.len()
            && secret.program.layers.iter().zip(&secret.constants).all(|(spec, constants)| fits(spec, constants));
        if agree { Ok(secret) } else { Err(PipelineError::Secret("its constants do not fit its program".to_owned())) }
    }
}

fn fits(spec: &LayerSpec, constants: &LayerConstants) -> bool {
    match constants {
        LayerConstants::Add(_) => spec.kind.operator == crate::kind::Operator::Add,
        LayerConstants::Dense(dense) => {
            let multipliers = dense.multipliers.len();
            spec.kind.operator == crate::kind::Operator::Dense
                && Some(dense.weights.len()) == spec.n_inputs.checked_mul(spec.n_outputs)
                && dense.bias.len() == spec.n_outputs
                && multipliers == if spec.output == crate::layer::OutputRule::Raw { 0 } else { spec.n_outputs }
        }
    }
}

impl Canonical for ModelSecret {
    const NAME: &'static str = "private model";
    const MAX_BYTES: usize = 1 << 31;

    fn write(&self, writer: &mut Writer) {
        writer.head(MAGIC, FORMAT_VERSION);
        writer.u8(profile_code(self.profile));
        self.program.write(writer);
        writer.digest(self.salt.digest());
        writer.size(self.constants.len());
        for constants in &self.constants {
            write_constants(writer, constants);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.head(MAGIC, FORMAT_VERSION)?;
        Ok(Self {
            profile: read_profile(reader)?,
            program: Program::read(reader)?,
            salt: Salt::from_stored(reader.digest("salt")?),
            constants: reader.list("layers", crate::program::MAX_LAYERS, 1, read_constants)?,
        })
    }
}

fn write_constants(writer: &mut Writer, constants: &LayerConstants) {
    match constants {
        LayerConstants::Dense(dense) => {
            writer.u8(0);
            writer.blob(&dense.weights.iter().map(|&weight| weight as u8).collect::<Vec<u8>>());
            writer.size(dense.bias.len());
            dense.bias.iter().for_each(|&bias| writer.i64(bias));
            writer.size(dense.multipliers.len());
            dense.multipliers.iter().for_each(|&multiplier| writer.u32(multiplier));
        }
        LayerConstants::Add(multipliers) => {
            writer.u8(1);
            multipliers.iter().for_each(|&multiplier| writer.u32(multiplier));
        }
    }
}

fn read_constants(reader: &mut Reader<'_>) -> Result<LayerConstants, DecodeError> {
    match reader.u8("operator")? {
        0 => Ok(LayerConstants::Dense(DenseConstants {
            weights: reader.blob("weights", MAX_CONSTANTS * 16)?.iter().map(|&byte| byte as i8).collect(),
            bias: reader.list("bias", MAX_CONSTANTS, 8, |reader| reader.i64("bias"))?,
            multipliers: reader.list("multipliers", MAX_CONSTANTS, 4, |reader| reader.u32("multiplier"))?,
        })),
        1 => Ok(LayerConstants::Add([reader.u32("multiplier")?, reader.u32("multiplier")?])),
        got => Err(reader.error("operator", DecodeProblem::Value { got: got.into(), expected: "0 (dense) or 1 (add)" })),
    }
}
