//! What quantization did to each layer, in numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::bounds;
use super::evaluate::{Rounding, evaluate};
use super::executor::execute;
use super::graph::{QuantGraph, QuantLayer, QuantOp};
use super::network::{Model, ValueId};
use super::quantize::QuantError;

/// What quantization did to a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantReport {
    /// Per layer, in order of evaluation.
    pub layers: Vec<LayerReport>,
    /// Calibration inputs that the measured figures come from.
    pub n_samples: usize,
    /// Real number of one step of the input.
    pub input_scale: f64,
    /// Trained parameters.
    pub n_parameters: u64,
    /// Multiply-accumulates.
    pub n_macs: u64,
}

/// What quantization did to a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Name in the model.
    pub name: String,
    /// `dense`, `dense, raw` or `add`.
    pub operator: String,
    /// Elements of the result.
    pub n_outputs: usize,
    /// Trained parameters.
    pub n_parameters: u64,
    /// Multiply-accumulates.
    pub n_macs: u64,
    /// Real number of one step of the result.
    pub scale: f64,
    /// Share of the float network's results, 0 … 1, that lie outside the integers' range by more than half a step; `None` without samples.
    pub saturation: Option<f64>,
    /// Signal-to-noise ratio against the float network in decibels, over all samples; `None` without samples, signal or noise.
    pub snr_db: Option<f64>,
    /// Smallest k with `|acc| < 2^k` for every input, from the actual weights (add: of `M₁·x₁ + M₂·x₂`).
    pub accumulator_bits: u32,
}

/// The float network, and its value that each layer of the program stands for.
pub(super) struct Reference<'a> {
    pub(super) model: &'a Model,
    pub(super) sources: Vec<ValueId>,
}

/// Sums over samples for one layer.
#[derive(Clone, Copy, Default)]
struct Tally {
    signal: f64,
    noise: f64,
    n_saturated: u64,
    n_elements: u64,
}

impl QuantReport {
    /// Runs program and float network on the samples and compares.
    pub(super) fn new(graph: &QuantGraph, reference: &Reference<'_>, samples: &[Vec<f32>]) -> Result<Self, QuantError> {
        let mut tallies = vec![Tally::default(); graph.layers.len()];
        for (index, sample) in samples.iter().enumerate() {
            let float = evaluate(reference.model, sample, Rounding::Skip).map_err(|source| QuantError::Calibration { index, source })?;
            let Ok(integer) = execute(graph, &graph.quantize_input(sample)) else {
                // The graph is valid and the sample has the network's length, or `evaluate` had refused it.
                continue;
            };
            for (layer_idx, layer) in graph.layers.iter().enumerate() {
                tallies[layer_idx].add(layer, &integer.tensors[layer_idx + 1], &float[reference.sources[layer_idx].0]);
            }
        }
        let layers = graph.layers.iter().zip(&tallies).map(|(layer, tally)| LayerReport::new(graph, layer, tally)).collect();
        Ok(Self {
            layers,
            n_samples: samples.len(),
            input_scale: graph.input.scale,
            n_parameters: graph.n_parameters(),
            n_macs: graph.n_macs(),
        })
    }
}

impl Tally {
    fn add(&mut self, layer: &QuantLayer, integers: &[i64], floats: &[f32]) {
        for (&integer, &float) in integers.iter().zip(floats) {
            let float = f64::from(float);
            let error = integer as f64 * layer.scale - float;
            let steps = float / layer.scale;
            let is_outside = |lo: i64, hi: i64| steps < lo as f64 - 0.5 || steps > hi as f64 + 0.5;
            self.signal += float * float;
            self.noise += error * error;
            self.n_saturated += u64::from(layer.requant().is_some_and(|requant| is_outside(requant.lo, requant.hi)));
            self.n_elements += 1;
        }
    }
}

impl LayerReport {
    fn new(graph: &QuantGraph, layer: &QuantLayer, tally: &Tally) -> Self {
        let operator = match &layer.op {
            QuantOp::Dense(dense) if dense.requant.is_some() => "dense",
            QuantOp::Dense(_) => "dense, raw",
            QuantOp::Add(_) => "add",
        };
        let has_ratio = tally.signal > 0.0 && tally.noise > 0.0;
        Self {
            name: layer.name.clone(),
            operator: operator.to_owned(),
            n_outputs: layer.n_outputs(),
            n_parameters: layer.n_parameters(),
            n_macs: layer.n_macs(),
            scale: layer.scale,
            saturation: (tally.n_elements > 0).then(|| tally.n_saturated as f64 / tally.n_elements as f64),
            snr_db: has_ratio.then(|| 10.0 * (tally.signal / tally.noise).log10()),
            accumulator_bits: accumulator_bits(graph, layer),
        }
    }
}

fn accumulator_bits(graph: &QuantGraph, layer: &QuantLayer) -> u32 {
    let magnitude = |tensor| graph.range(tensor).map_or(0, |(lo, hi)| u128::from(lo.unsigned_abs().max(hi.unsigned_abs())));
    let bound = match &layer.op {
        QuantOp::Dense(dense) => {
            let input = magnitude(dense.input);
            let rows = dense.weights.chunks_exact(dense.n_in).zip(&dense.bias);
            let row_bound = |(row, bias): (&[i8], &i64)| {
                let weights: u128 = row.iter().map(|weight| u128::from(weight.unsigned_abs())).sum();
                weights * input + u128::from(bias.unsigned_abs())
            };
            rows.map(row_bound).max().unwrap_or(0)
        }
        QuantOp::Add(add) => {
            let terms = [add.left, add.right].into_iter().zip(&add.requant.multipliers);
            terms.map(|(tensor, &multiplier)| magnitude(tensor) * u128::from(multiplier)).sum()
        }
    };
    bounds::bit_length(bound)
}

impl fmt::Display for QuantReport {
    /// A table, one line per layer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.layers.iter().map(|layer| layer.name.chars().count()).max().unwrap_or(0).max("layer".len());
        let (parameters, macs) = (self.n_parameters, self.n_macs);
        writeln!(
            f,
            "{:width$}  {:10}  {:>7}  {:>10}  {:>10}  {:>11}  {:>9}  {:>7}  {:>8}",
            "layer", "operator", "outputs", "parameters", "MACs", "scale", "saturated", "SNR dB", "acc bits"
        )?;
        for layer in &self.layers {
            let saturation = layer.saturation.map_or_else(|| "-".to_owned(), |share| format!("{:.3} %", share * 100.0));
            let snr = layer.snr_db.map_or_else(|| "-".to_owned(), |snr| format!("{snr:.1}"));
            let LayerReport { name, operator, n_outputs, n_parameters, n_macs, scale, accumulator_bits, .. } = layer;
            writeln!(
                f,
                "{name:width$}  {operator:10}  {n_outputs:>7}  {n_parameters:>10}  {n_macs:>10}  {scale:>11.4e}  {saturation:>9}  \
                 {snr:>7}  {accumulator_bits:>8}"
            )?;
        }
        write!(f, "total: {parameters} parameters, {macs} multiply-accumulates; measured on {} inputs", self.n_samples)
    }
}
