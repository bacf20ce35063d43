//! The canonical encoding of a program.

use super::{MAX_LAYERS, Program};
use crate::encoding::{Canonical, DecodeError, DecodeProblem, Reader, Writer};
use crate::kind::{LayerKind, Operator};
use crate::layer::spec::{LayerSpec, OutputRule};
use crate::recursion::digest::BoundaryShape;

const MAGIC: &str = "ZKPG";
const VERSION: u16 = 1;
/// Bytes of a raw layer, the shortest.
const MIN_LAYER_BYTES: usize = 1 + 8 + 8 + 8 + 8 + 8 + 1 + 6 * 4;
/// Bytes of a requantized layer, the longest.
const MAX_LAYER_BYTES: usize = MIN_LAYER_BYTES + 4 + 8 + 8;
/// Sizes above this have no meaning; [`Program::check`] is stricter.
const MAX_SIZE: usize = 1 << 32;

const DENSE: u8 = 0;
const ADD: u8 = 1;
const RAW: u8 = 0;
const REQUANTIZE: u8 = 1;

impl Canonical for Program {
    const NAME: &'static str = "program";
    const MAX_BYTES: usize = 128 + MAX_LAYERS * MAX_LAYER_BYTES;

    fn write(&self, writer: &mut Writer) {
        writer.head(MAGIC, VERSION);
        writer.size(self.layers.len());
        for layer in &self.layers {
            write_layer(writer, layer);
        }
        let boundary = &self.boundary;
        writer.size(boundary.n_inputs);
        writer.u8(boundary.input_offset);
        writer.size(boundary.first_input_edge);
        writer.size(boundary.input_fan_out);
        writer.size(boundary.n_outputs);
        writer.size(boundary.output_edge);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.head(MAGIC, VERSION)?;
        let layers = reader.list("layers", MAX_LAYERS, MIN_LAYER_BYTES, read_layer)?;
        let boundary = BoundaryShape {
            n_inputs: reader.size("boundary.n_inputs", MAX_SIZE)?,
            input_offset: reader.u8("boundary.input_offset")?,
            first_input_edge: reader.size("boundary.first_input_edge", MAX_SIZE)?,
            input_fan_out: reader.size("boundary.input_fan_out", MAX_SIZE)?,
            n_outputs: reader.size("boundary.n_outputs", MAX_SIZE)?,
            output_edge: reader.size("boundary.output_edge", MAX_SIZE)?,
        };
        Ok(Self { layers, boundary })
    }
}

fn write_layer(writer: &mut Writer, layer: &LayerSpec) {
    writer.u8(match layer.kind.operator {
        Operator::Dense => DENSE,
        Operator::Add => ADD,
    });
    writer.size(layer.kind.log_rows);
    writer.size(layer.kind.n_columns);
    writer.size(layer.n_inputs);
    writer.size(layer.n_outputs);
    writer.size(layer.log_period);
    match layer.output {
        OutputRule::Raw => writer.u8(RAW),
        OutputRule::Requantize { shift, lo, hi } => {
            writer.u8(REQUANTIZE);
            writer.u32(shift);
            writer.i64(lo);
            writer.i64(hi);
        }
    }
    writer.u32(layer.bias_bits);
    writer.u32(layer.mult_bits);
    writer.u32(layer.edges_in[0]);
    writer.u32(layer.edges_in[1]);
    writer.u32(layer.edge_out);
    writer.u32(layer.fan_out);
}

fn read_layer(reader: &mut Reader<'_>) -> Result<LayerSpec, DecodeError> {
    let kind = LayerKind {
        operator: read_operator(reader)?,
        log_rows: reader.size("log_rows", MAX_SIZE)?,
        n_columns: reader.size("n_columns", MAX_SIZE)?,
    };
    Ok(LayerSpec {
        kind,
        n_inputs: reader.size("n_inputs", MAX_SIZE)?,
        n_outputs: reader.size("n_outputs", MAX_SIZE)?,
        log_period: reader.size("log_period", MAX_SIZE)?,
        output: read_output(reader)?,
        bias_bits: reader.u32("bias_bits")?,
        mult_bits: reader.u32("mult_bits")?,
        edges_in: [reader.u32("edge_in_1")?, reader.u32("edge_in_2")?],
        edge_out: reader.u32("edge_out")?,
        fan_out: reader.u32("fan_out")?,
    })
}

fn read_operator(reader: &mut Reader<'_>) -> Result<Operator, DecodeError> {
    match reader.u8("operator")? {
        DENSE => Ok(Operator::Dense),
        ADD => Ok(Operator::Add),
        got => Err(reader.error("operator", DecodeProblem::Value { got: got.into(), expected: "0 (dense) or 1 (add)" })),
    }
}

fn read_output(reader: &mut Reader<'_>) -> Result<OutputRule, DecodeError> {
    match reader.u8("output rule")? {
        RAW => Ok(OutputRule::Raw),
        REQUANTIZE => Ok(OutputRule::Requantize { shift: reader.u32("shift")?, lo: reader.i64("lo")?, hi: reader.i64("hi")? }),
        got => Err(reader.error("output rule", DecodeProblem::Value { got: got.into(), expected: "0 (raw) or 1 (requantize)" })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::samples;
    use proptest::prelude::*;

    #[test]
    fn round_trips() {
        let program = samples::residual();
        assert_eq!(Program::from_bytes(&program.to_bytes()), Ok(program));
    }

    #[test]
    fn refuses_unknown_operators_and_output_rules() {
        let mut bytes = samples::residual().to_bytes();
        let start = crate::encoding::HEAD_BYTES + 8;
        bytes[start] = 2;
        assert_eq!(Program::from_bytes(&bytes).unwrap_err().field, "operator");
        bytes[start] = 0;
        bytes[start + 41] = 2;
        assert_eq!(Program::from_bytes(&bytes).unwrap_err().field, "output rule");
    }

    proptest! {
        // Whatever decodes re-encodes to the same bytes, and checking it ends without panic.
        #[test]
        fn mutated_bytes_never_panic(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let honest = samples::residual().to_bytes();
            let mut bytes = honest.clone();
            let index = at.index(bytes.len());
            bytes[index] = value;
            if let Ok(program) = Program::from_bytes(&bytes) {
                prop_assert_eq!(program.to_bytes(), bytes);
                let _ = program.check();
            }
            prop_assert!(Program::from_bytes(&honest[..cut.index(honest.len())]).is_err());
        }
    }
}
