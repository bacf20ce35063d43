//! Networks handled here rather than by the service: imported, quantized and compiled exactly as the service does it.

use zkinfer_circuits::compile::{Compiled, compile};
use zkinfer_circuits::model::{QuantGraph, QuantReport};
use zkinfer_server::prover::Quantization;
use zkinfer_server::prover::local::quantized;

use super::read;
use crate::arguments::{Granularity, NetworkArguments};

/// An integer program, and what quantization did to it.
pub(super) fn quantize(arguments: &NetworkArguments) -> anyhow::Result<(QuantGraph, QuantReport)> {
    let source = read(&arguments.file)?;
    let calibration = arguments.calibration.as_deref().map(read).transpose()?;
    let quantization = Quantization { per_channel: arguments.granularity == Granularity::PerChannel, percentile: None };
    Ok(quantized(&source, calibration.as_deref(), quantization)?)
}

/// A program with its private constants.
pub(super) fn compile_network(arguments: &NetworkArguments) -> anyhow::Result<Compiled> {
    Ok(compile(&quantize(arguments)?.0)?)
}
