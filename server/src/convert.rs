//! Between the wire and the prover's types. Values that come from clients were checked before.

use std::time::Duration;

use zkinfer_proto::v1;

use crate::engine::graph;
use crate::prover::{Cost, InputEncoding, ModelFacts, Quantization, StatementFields, StepPlan, TensorFacts};

/// Percentile used when the client asks for one without saying which.
pub(crate) const DEFAULT_PERCENTILE: f64 = 99.99;

pub(crate) fn quantization(options: Option<&v1::QuantizationOptions>) -> Quantization {
    use v1::quantization_options::{Calibration, Granularity};
    let options = options.copied().unwrap_or_default();
    let per_channel = match options.granularity() {
        Granularity::PerTensor => false,
        Granularity::PerChannel | Granularity::Unspecified => true,
    };
    let percentile = match options.calibration() {
        Calibration::Percentile if options.percentile == 0.0 => Some(DEFAULT_PERCENTILE),
        Calibration::Percentile => Some(options.percentile),
        Calibration::MinMax | Calibration::Unspecified => None,
    };
    Quantization { per_channel, percentile }
}

/// All but the artifacts' names and the times.
pub(crate) fn registered_model(facts: &ModelFacts) -> v1::RegisteredModel {
    v1::RegisteredModel {
        model_commitment: facts.model_commitment.to_vec(),
        program_digest: facts.program_digest.to_vec(),
        parameters_id: facts.parameters_id.to_vec(),
        inputs: facts.inputs.iter().map(tensor).collect(),
        outputs: facts.outputs.iter().map(tensor).collect(),
        layer_count: facts.layer_count,
        parameter_count: signed(facts.parameter_count),
        unit_cost: Some(cost(&facts.unit_cost)),
        ..Default::default()
    }
}

fn tensor(facts: &TensorFacts) -> v1::TensorSpec {
    v1::TensorSpec {
        name: facts.name.clone(),
        dtype: facts.dtype.to_owned(),
        shape: facts.shape.iter().map(|axis| signed(*axis)).collect(),
        scales: facts.scales.clone(),
        zero_point: facts.zero_point,
    }
}

pub(crate) fn cost(cost: &Cost) -> v1::CostEstimate {
    v1::CostEstimate {
        wall_time: (cost.wall_time > Duration::ZERO).then(|| duration(cost.wall_time)),
        peak_host_bytes: signed(cost.peak_host_bytes),
        peak_device_bytes: signed(cost.peak_device_bytes),
        proof_bytes: signed(cost.proof_bytes),
        task_count: cost.task_count,
        layer_count: cost.layer_count,
        multiply_accumulates: signed(cost.multiply_accumulates),
    }
}

/// The tasks of each job of a model: its steps, or a single one if all of them together are expected to take less than `fuse_below`.
pub(crate) fn task_graph(steps: &[StepPlan], fuse_below: Duration) -> v1::TaskGraph {
    let whole_ms: u64 = steps.iter().map(|step| step.estimated_ms).sum();
    if steps.is_empty() || u128::from(whole_ms) < fuse_below.as_millis() {
        let device_bytes = steps.iter().map(|step| step.device_bytes).max().unwrap_or(0);
        let mut graph = graph::single(graph::PROVE, signed(whole_ms), signed(device_bytes));
        let load_ms: u64 = steps.iter().map(|step| step.load_ms).sum();
        graph.nodes.iter_mut().for_each(|node| node.load_ms = signed(load_ms));
        return graph;
    }
    let node = |step: &StepPlan| v1::TaskNode {
        name: step.name.clone(),
        step: step.kind.to_owned(),
        needs: step.needs.clone(),
        estimated_ms: signed(step.estimated_ms),
        rank_ms: 0,
        device_bytes: signed(step.device_bytes),
        load_ms: signed(step.load_ms),
    };
    let mut graph = v1::TaskGraph { nodes: steps.iter().map(node).collect() };
    // Steps out of order are refused when a job with them is admitted.
    let _ = graph::set_ranks(&mut graph);
    graph
}

/// How the input of a job is to be read.
pub(crate) fn input_encoding(input: Option<&v1::Input>) -> InputEncoding {
    match input.map(v1::Input::encoding) {
        Some(v1::input::Encoding::Npy) => InputEncoding::Npy,
        Some(v1::input::Encoding::Uint8 | v1::input::Encoding::Unspecified) | None => InputEncoding::Uint8,
    }
}

pub(crate) fn statement(fields: &StatementFields) -> v1::Statement {
    v1::Statement {
        version: fields.version,
        parameters_id: fields.parameters_id.to_vec(),
        program_digest: fields.program_digest.to_vec(),
        model_commitment: fields.model_commitment.to_vec(),
        input_commitment: fields.input_commitment.to_vec(),
        output: Some(v1::statement::Output::OutputValues(v1::OutputValues { values: fields.output_values.clone() })),
        predicate: fields.predicate.to_vec(),
        context_nonce: fields.context_nonce.to_vec(),
    }
}

pub(crate) fn duration(time: Duration) -> prost_types::Duration {
    time.try_into().unwrap_or_default()
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_job_is_one_task_and_a_long_one_has_a_task_for_each_step() {
        let step = |name: &str, needs: &[u32], estimated_ms| StepPlan {
            name: name.to_owned(),
            kind: "layer",
            needs: needs.to_vec(),
            estimated_ms,
            device_bytes: estimated_ms,
            load_ms: estimated_ms / 10,
        };
        let steps = [step("witness", &[], 10), step("layer-0000", &[0], 700), step("outer", &[0, 1], 300)];
        let fused = task_graph(&steps, Duration::from_millis(1011));
        assert_eq!(fused.nodes.len(), 1);
        let node = &fused.nodes[0];
        assert_eq!((node.name.as_str(), node.estimated_ms, node.rank_ms, node.device_bytes), ("prove", 1010, 1010, 700));
        assert_eq!(node.load_ms, 101, "all weights");
        let split = task_graph(&steps, Duration::ZERO);
        assert_eq!(graph::check(&split), Ok(()));
        assert_eq!(split.nodes.iter().map(|node| node.rank_ms).collect::<Vec<_>>(), [1010, 1000, 300]);
        assert_eq!(split.nodes.iter().map(|node| node.load_ms).collect::<Vec<_>>(), [1, 70, 30]);
    }
}
