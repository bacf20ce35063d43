//! The public program of a model: layers, edges, boundary (`docs/PROTOCOL.md` §2, §5, §7).
//!
//! Tensors are numbered: 0 is the graph's input, k + 1 the output of layer k. Which tensor a layer reads is not stored: it follows from
//! the edge numbers, and [`Program::check`] returns it as [`Wiring`].

mod check;
mod encoding;

pub use check::{ProgramError, Wiring};

use crate::field::Digest;
use crate::kind::LayerKind;
use crate::layer::spec::{LayerSpec, layer_key};
use crate::recursion::digest::{BoundaryShape, Chains, program_digest, public_step};

/// Most layers of a program. With at most eight consumers of each tensor, all edge numbers stay below 2^16.
pub const MAX_LAYERS: usize = 4096;

/// Everything public about a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The layers, in an order in which each reads only earlier tensors.
    pub layers: Vec<LayerSpec>,
    /// Where the graph meets its user.
    pub boundary: BoundaryShape,
}

impl Program {
    /// The kinds of the layers, in order.
    pub fn kinds(&self) -> Vec<LayerKind> {
        self.layers.iter().map(|layer| layer.kind).collect()
    }

    /// `boundary digest` of `docs/PROTOCOL.md` §5.
    pub fn boundary_digest(&self) -> Digest {
        self.boundary.digest()
    }

    /// The public chain after all layers; θ of each is derived here, never read. `kind_digest` comes from the parameter set.
    ///
    /// The program must have passed [`Program::check`]: θ has no meaning for shapes out of range.
    pub fn public_chain(&self, mut kind_digest: impl FnMut(&LayerKind) -> Digest) -> Digest {
        let step = |chain, (layer_idx, layer): (usize, &LayerSpec)| {
            public_step(chain, layer_idx, layer_key(kind_digest(&layer.kind), &layer.theta()))
        };
        self.layers.iter().enumerate().fold(Chains::start().public, step)
    }

    /// `program digest = H(TAG_PROGRAM; layer count, public chain, boundary digest)`.
    pub fn digest(&self, kind_digest: impl FnMut(&LayerKind) -> Digest) -> Digest {
        program_digest(self.layers.len(), self.public_chain(kind_digest), self.boundary_digest())
    }

    /// Multiply-accumulates of all dense layers.
    pub fn n_macs(&self) -> u64 {
        let macs = |layer: &LayerSpec| match layer.kind.operator {
            crate::kind::Operator::Dense => (layer.n_inputs as u64).saturating_mul(layer.n_outputs as u64),
            crate::kind::Operator::Add => 0,
        };
        self.layers.iter().map(macs).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
pub(crate) mod samples {
    //! Programs for tests.

    use super::*;
    use crate::kind::Operator;
    use crate::layer::spec::OutputRule;

    /// A dense layer of kind (8, 16) with edges given.
    pub(crate) fn dense(n_inputs: usize, n_outputs: usize, output: OutputRule, edge_in: u32, edge_out: u32, fan_out: u32) -> LayerSpec {
        LayerSpec {
            kind: LayerKind { operator: Operator::Dense, log_rows: 8, n_columns: 16 },
            n_inputs,
            n_outputs,
            log_period: 8,
            output,
            bias_bits: 16,
            mult_bits: 16,
            edges_in: [edge_in, 0],
            edge_out,
            fan_out,
        }
    }

    pub(crate) const RELU: OutputRule = OutputRule::Requantize { shift: 24, lo: 0, hi: 127 };

    /// input → dense a → (dense b, add); add(a, b) → raw dense → output.
    pub(crate) fn residual() -> Program {
        let mut add = dense(12, 12, RELU, 3, 5, 1);
        add.kind = LayerKind { operator: Operator::Add, log_rows: 8, n_columns: 0 };
        add.edges_in = [3, 4];
        Program {
            layers: vec![dense(30, 12, RELU, 1, 2, 2), dense(12, 12, RELU, 2, 4, 1), add, dense(12, 3, OutputRule::Raw, 5, 6, 1)],
            boundary: BoundaryShape {
                n_inputs: 30,
                input_offset: 128,
                first_input_edge: 1,
                input_fan_out: 1,
                n_outputs: 3,
                output_edge: 6,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hash_bytes;

    fn kind_digest(kind: &LayerKind) -> Digest {
        hash_bytes(format!("{kind:?}").as_bytes())
    }

    #[test]
    fn every_public_fact_changes_the_digest() {
        let program = samples::residual();
        let digest = program.digest(kind_digest);
        let changes: Vec<fn(&mut Program)> = vec![
            |p| p.boundary.n_inputs += 1,
            |p| p.boundary.input_offset += 1,
            |p| p.boundary.first_input_edge += 1,
            |p| p.boundary.input_fan_out += 1,
            |p| p.boundary.n_outputs += 1,
            |p| p.boundary.output_edge += 1,
            |p| p.layers.swap(0, 1),
            |p| p.layers.truncate(3),
            |p| p.layers[0].kind.n_columns += 1,
            |p| p.layers[0].n_outputs += 1,
            |p| p.layers[0].log_period -= 1,
            |p| p.layers[0].bias_bits += 1,
            |p| p.layers[0].mult_bits += 1,
            |p| p.layers[0].edges_in[0] += 1,
            |p| p.layers[2].edges_in[1] += 1,
            |p| p.layers[0].edge_out += 1,
            |p| p.layers[0].fan_out += 1,
            |p| p.layers[0].output = crate::layer::spec::OutputRule::Raw,
            |p| p.layers[0].output = crate::layer::spec::OutputRule::Requantize { shift: 25, lo: 0, hi: 127 },
            |p| p.layers[0].output = crate::layer::spec::OutputRule::Requantize { shift: 24, lo: 1, hi: 127 },
            |p| p.layers[0].output = crate::layer::spec::OutputRule::Requantize { shift: 24, lo: 0, hi: 126 },
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut other = program.clone();
            change(&mut other);
            assert_ne!(other.digest(kind_digest), digest, "change {index}");
        }
    }
}
