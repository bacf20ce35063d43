//! What one task hands to another, in bytes. All of it is internal: tensors and layer proofs show the witness.

use super::super::steps::{Bound, Tensors};
use crate::encoding::{Canonical, DIGEST_BYTES, DecodeError, Reader, Writer};
use crate::field::{Digest, F};
use crate::layer::LayerProof;
use crate::layer::encoding::{read_extension, write_extension};
use crate::program::MAX_LAYERS;
use crate::recursion::digest::GlobalChallenges;
use crate::recursion::layers::ProvedLayer;

const FORMAT_VERSION: u16 = 1;
/// Most elements of a tensor, or of θ.
const MAX_ELEMENTS: usize = 1 << 24;

impl Canonical for Tensors {
    const NAME: &'static str = "tensors";
    const MAX_BYTES: usize = 1 << 31;

    fn write(&self, writer: &mut Writer) {
        writer.head("ZKTT", FORMAT_VERSION);
        writer.size(self.0.len());
        for tensor in &self.0 {
            writer.size(tensor.len());
            tensor.iter().for_each(|&value| writer.i64(value));
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.head("ZKTT", FORMAT_VERSION)?;
        let tensor = |reader: &mut Reader<'_>| reader.list("tensor", MAX_ELEMENTS, 8, |reader| reader.i64("value"));
        Ok(Self(reader.list("tensors", MAX_LAYERS + 1, 8, tensor)?))
    }
}

/// The identity of a committed main oracle.
pub(super) struct Link(pub(super) Digest);

impl Canonical for Link {
    const NAME: &'static str = "link";
    const MAX_BYTES: usize = 64;

    fn write(&self, writer: &mut Writer) {
        writer.head("ZKLK", FORMAT_VERSION);
        writer.digest(self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.head("ZKLK", FORMAT_VERSION)?;
        Ok(Self(reader.digest("link")?))
    }
}

impl Canonical for Bound {
    const NAME: &'static str = "shared challenges";
    const MAX_BYTES: usize = (MAX_LAYERS + 8) * DIGEST_BYTES;

    fn write(&self, writer: &mut Writer) {
        writer.head("ZKBD", FORMAT_VERSION);
        writer.digest(self.input_commitment);
        writer.digest(self.output_commitment);
        writer.size(self.links.len());
        self.links.iter().for_each(|&link| writer.digest(link));
        write_extension(writer, self.challenges.gamma_prime);
        write_extension(writer, self.challenges.delta);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.head("ZKBD", FORMAT_VERSION)?;
        Ok(Self {
            input_commitment: reader.digest("input commitment")?,
            output_commitment: reader.digest("output commitment")?,
            links: reader.list("links", MAX_LAYERS, DIGEST_BYTES, |reader| reader.digest("link"))?,
            challenges: GlobalChallenges { gamma_prime: read_extension(reader, "γ'")?, delta: read_extension(reader, "δ")? },
        })
    }
}

impl Canonical for ProvedLayer {
    const NAME: &'static str = "proved layer";
    const MAX_BYTES: usize = LayerProof::MAX_BYTES + 64;

    fn write(&self, writer: &mut Writer) {
        writer.head("ZKPL", FORMAT_VERSION);
        writer.size(self.theta.len());
        self.theta.iter().for_each(|&element| writer.element(element));
        self.proof.write(writer);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.head("ZKPL", FORMAT_VERSION)?;
        let theta: Vec<F> = reader.list("θ", MAX_ELEMENTS, 8, |reader| reader.element("θ"))?;
        Ok(Self { theta, proof: LayerProof::read(reader)? })
    }
}
