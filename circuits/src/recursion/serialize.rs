//! Gate and generator serializers: plonky2's defaults, the base-4 range check, and the top bit of queries.
//!
//! A leading byte says which: 0 plonky2's own, 1 the range check, 2 the top bit (no gate).

use plonky2::gates::base_sum::BaseSumGate;
use plonky2::gates::gate::{Gate, GateRef};
use plonky2::plonk::circuit_data::CommonCircuitData;
use plonky2::util::serialization::{Buffer, DefaultGateSerializer, GateSerializer, IoError, IoResult, Read, Write};

use crate::field::{D, F};

/// Gate of the byte range check: a number as base-4 limbs.
pub type LimbGate = BaseSumGate<4>;

const STOCK: u8 = 0;
const LIMBS: u8 = 1;
#[cfg(feature = "prover")]
const TOP_BIT: u8 = 2;

/// Reads and writes every gate of our circuits.
#[derive(Debug, Default)]
pub struct Gates;

impl GateSerializer<F, D> for Gates {
    fn read_gate(&self, buffer: &mut Buffer, common: &CommonCircuitData<F, D>) -> IoResult<GateRef<F, D>> {
        match buffer.read_u8()? {
            STOCK => DefaultGateSerializer.read_gate(buffer, common),
            LIMBS => Ok(GateRef::new(<LimbGate as Gate<F, D>>::deserialize(buffer, common)?)),
            _ => Err(IoError),
        }
    }

    fn write_gate(&self, buffer: &mut Vec<u8>, gate: &GateRef<F, D>, common: &CommonCircuitData<F, D>) -> IoResult<()> {
        if gate.0.as_any().is::<LimbGate>() {
            buffer.write_u8(LIMBS)?;
            gate.0.serialize(buffer, common)
        } else {
            buffer.write_u8(STOCK)?;
            DefaultGateSerializer.write_gate(buffer, gate, common)
        }
    }
}

#[cfg(feature = "prover")]
mod generators {
    use plonky2::gates::base_sum::BaseSplitGenerator;
    use plonky2::iop::generator::{SimpleGenerator, WitnessGeneratorRef};
    use plonky2::util::serialization::{DefaultGeneratorSerializer, WitnessGeneratorSerializer};

    use super::*;
    use crate::field::C;
    use crate::layer::queries::TopBitGenerator;

    type LimbGenerator = BaseSplitGenerator<4>;

    /// Reads and writes every witness generator of our circuits.
    #[derive(Debug, Default)]
    pub struct Generators;

    fn read<G: SimpleGenerator<F, D>>(buffer: &mut Buffer, common: &CommonCircuitData<F, D>) -> IoResult<WitnessGeneratorRef<F, D>> {
        Ok(WitnessGeneratorRef::new(G::deserialize(buffer, common)?.adapter()))
    }

    fn stock() -> DefaultGeneratorSerializer<C, D> {
        DefaultGeneratorSerializer::default()
    }

    impl WitnessGeneratorSerializer<F, D> for Generators {
        fn read_generator(&self, buffer: &mut Buffer, common: &CommonCircuitData<F, D>) -> IoResult<WitnessGeneratorRef<F, D>> {
            match buffer.read_u8()? {
                STOCK => stock().read_generator(buffer, common),
                LIMBS => read::<LimbGenerator>(buffer, common),
                TOP_BIT => read::<TopBitGenerator>(buffer, common),
                _ => Err(IoError),
            }
        }

        fn write_generator(
            &self,
            buffer: &mut Vec<u8>,
            generator: &WitnessGeneratorRef<F, D>,
            common: &CommonCircuitData<F, D>,
        ) -> IoResult<()> {
            let id = generator.0.id();
            if id == SimpleGenerator::<F, D>::id(&LimbGenerator::default()) {
                buffer.write_u8(LIMBS)?;
                generator.0.serialize(buffer, common)
            } else if id == TopBitGenerator::default().id() {
                buffer.write_u8(TOP_BIT)?;
                generator.0.serialize(buffer, common)
            } else {
                buffer.write_u8(STOCK)?;
                stock().write_generator(buffer, generator, common)
            }
        }
    }
}

#[cfg(feature = "prover")]
pub use generators::Generators;
