//! `zkinfer model`.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::json;
use zkinfer_circuits::compile::Compiled;
use zkinfer_circuits::encoding::Canonical;
use zkinfer_circuits::kind::Operator;
use zkinfer_circuits::layer::OutputRule;
use zkinfer_circuits::pipeline::{CommittedModel, ModelSecret, Unobserved};
use zkinfer_circuits::program::Program;
use zkinfer_circuits::recursion::prover::NoStore;
use zkinfer_circuits::recursion::salt::Salt;
use zkinfer_client::encoding::{digest_hex, parse_digest};
use zkinfer_client::key::{TensorInfo, VerifierKey};
use zkinfer_client::proto::model::Visibility;
use zkinfer_client::proto::{QuantizationOptions, quantization_options};
use zkinfer_client::{Client, MAX_DOCUMENT_BYTES, MediaType, ModelRequest, UploadSource};
use zkinfer_server::prover::select_backend;

use super::network::{compile_network, quantize};
use super::{connect, model_name, read, words, write};
use crate::arguments::{CommitArguments, DeleteArguments, Granularity, NetworkArguments, RegisterArguments};
use crate::output::Output;
use crate::progress::ProgressView;
use crate::table;

/// How a verifier key starts.
const KEY_MAGIC: &[u8] = b"ZKVK";

pub(super) fn import(arguments: &NetworkArguments, output: &Output) -> anyhow::Result<()> {
    let (graph, report) = quantize(arguments)?;
    output.say(report.to_string());
    output.say(format!(
        "input {} {:?}: real = {:e} * (byte - {}); output {} {:?}: real = {:e} * integer",
        graph.input.name,
        graph.input.shape,
        graph.input.scale,
        graph.input.offset,
        graph.output.name,
        graph.output.shape,
        graph.output.scale,
    ));
    output.json(&json!({ "ok": true, "report": report }));
    Ok(())
}

/// A layer of a public program.
#[derive(Debug, Serialize)]
struct LayerView {
    operator: &'static str,
    inputs: usize,
    outputs: usize,
    log_rows: usize,
    columns: usize,
    log_period: usize,
    output: String,
    bias_bits: u32,
    mult_bits: u32,
    edges_in: Vec<u32>,
    edge_out: u32,
    fan_out: u32,
}

fn layer_views(program: &Program) -> Vec<LayerView> {
    let view = |layer: &zkinfer_circuits::layer::LayerSpec| {
        let (operator, n_edges) = match layer.kind.operator {
            Operator::Dense => ("dense", 1),
            Operator::Add => ("add", 2),
        };
        LayerView {
            operator,
            inputs: layer.n_inputs,
            outputs: layer.n_outputs,
            log_rows: layer.kind.log_rows,
            columns: layer.kind.n_columns,
            log_period: layer.log_period,
            output: match layer.output {
                OutputRule::Raw => "raw".to_owned(),
                OutputRule::Requantize { shift, lo, hi } => format!(">> {shift}, {lo} to {hi}"),
            },
            bias_bits: layer.bias_bits,
            mult_bits: layer.mult_bits,
            edges_in: layer.edges_in.iter().copied().take(n_edges).collect(),
            edge_out: layer.edge_out,
            fan_out: layer.fan_out,
        }
    };
    program.layers.iter().map(view).collect()
}

fn show_program(program: &Program, input: &TensorInfo, result: &TensorInfo, output: &Output) {
    let header = ["layer", "operator", "inputs", "outputs", "rows", "columns", "period", "edges", "bias <", "mult <", "output"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for (index, layer) in layer_views(program).iter().enumerate() {
        let edges_in: Vec<String> = layer.edges_in.iter().map(u32::to_string).collect();
        rows.push(vec![
            index.to_string(),
            layer.operator.to_owned(),
            layer.inputs.to_string(),
            layer.outputs.to_string(),
            format!("2^{}", layer.log_rows),
            layer.columns.to_string(),
            format!("2^{}", layer.log_period),
            format!("{} -> {}+{}", edges_in.join(","), layer.edge_out, layer.fan_out),
            format!("2^{}", layer.bias_bits),
            format!("2^{}", layer.mult_bits),
            layer.output.clone(),
        ]);
    }
    output.say(table::align(&rows));
    output.say(format!("{} multiply-accumulates", program.n_macs()));
    for (what, tensor) in [("input ", input), ("output", result)] {
        output.say(format!("{what} {} {:?}: real = {:e} * (integer - {})", tensor.name, tensor.shape, tensor.scale, tensor.zero_point));
    }
}

pub(super) fn inspect(arguments: &NetworkArguments, output: &Output) -> anyhow::Result<()> {
    let bytes = read(&arguments.file)?;
    if !bytes.starts_with(KEY_MAGIC) {
        let Compiled { program, input, output: result, .. } = compile_network(arguments)?;
        show_program(&program, &input, &result, output);
        output.json(&json!({ "ok": true, "layers": layer_views(&program), "multiply_accumulates": program.n_macs() }));
        return Ok(());
    }
    let key = VerifierKey::from_bytes(&bytes).context("not a verifier key")?;
    show_program(&key.program, &key.input, &key.output, output);
    output.say(table::list(&[
        ("model commitment", digest_hex(key.model_commitment)),
        ("parameters", digest_hex(key.parameters_id)),
        ("registration proof", table::bytes(key.registration_proof.len() as u64)),
    ]));
    output.json(&json!({
        "ok": true,
        "layers": layer_views(&key.program),
        "multiply_accumulates": key.program.n_macs(),
        "model_commitment": digest_hex(key.model_commitment),
        "parameters_id": digest_hex(key.parameters_id),
        "registration_proof_bytes": key.registration_proof.len(),
    }));
    Ok(())
}

pub(super) fn commit(arguments: &CommitArguments, output: &Output) -> anyhow::Result<()> {
    let salt = match &arguments.salt {
        Some(digits) => Salt::from_stored(parse_digest(&words(digits).context("--salt")?)?),
        None => Salt::NONE,
    };
    let Compiled { program, constants, .. } = compile_network(&arguments.network)?;
    let secret = ModelSecret { profile: arguments.profile.name(), program, constants, salt };
    let (backend, _) = select_backend();
    let model = CommittedModel::commit(&backend, secret, &NoStore, &Unobserved)?;
    let (program, commitment) = (digest_hex(model.program_digest), digest_hex(model.commitment));
    output.say(table::list(&[("program digest", program.clone()), ("model commitment", commitment.clone())]));
    output.json(&json!({ "ok": true, "program_digest": program, "model_commitment": commitment }));
    Ok(())
}

pub(super) async fn register(arguments: &RegisterArguments, output: &Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let request = model_request(&client, arguments).await?;
    let model = client.create_model(&request).await?;
    output.say(format!("registering {}", model.name));
    let mut view = ProgressView::new(output);
    let registered = client.finish_model(&model.name, |event| view.update(event.progress.as_ref())).await;
    view.finish();
    let registered = registered?;
    let key = client.download(&registered.verifier_key_artifact, MAX_DOCUMENT_BYTES).await?;
    write(&arguments.key, &key)?;
    let [commitment, program] = [&registered.model_commitment, &registered.program_digest].map(hex::encode);
    output.say(table::list(&[
        ("model", model.name.clone()),
        ("commitment", commitment.clone()),
        ("program", program.clone()),
        ("layers", registered.layer_count.to_string()),
        ("verifier key", arguments.key.display().to_string()),
    ]));
    output.json(&json!({
        "ok": true,
        "model": model.name,
        "model_commitment": commitment,
        "program_digest": program,
        "layers": registered.layer_count,
        "verifier_key": arguments.key,
    }));
    Ok(())
}

pub(super) async fn delete(arguments: &DeleteArguments, output: &Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let name = model_name(&client, &arguments.model).await?;
    // To delete what is not there is no error to the service, and a wrong name is one to whoever typed it.
    client.model(&name).await?;
    client.delete_model(&name).await?;
    output.say(format!("deleted {name}"));
    output.json(&json!({ "ok": true, "model": name }));
    Ok(())
}

async fn model_request(client: &Client, arguments: &RegisterArguments) -> anyhow::Result<ModelRequest> {
    let network = &arguments.network;
    let source = client.upload(&UploadSource::from(network.file.as_path()), MediaType::Onnx).await?;
    let mut request = ModelRequest::new(&arguments.id, source.name);
    if let Some(path) = &network.calibration {
        request.calibration_artifact = client.upload(&UploadSource::from(path.as_path()), MediaType::Npy).await?.name;
    }
    let granularity = match network.granularity {
        Granularity::PerChannel => quantization_options::Granularity::PerChannel,
        Granularity::PerTensor => quantization_options::Granularity::PerTensor,
    };
    request.quantization = Some(QuantizationOptions { granularity: granularity.into(), ..QuantizationOptions::default() });
    request.parameter_set = arguments.profile.parameter_set().to_owned();
    if arguments.public_weights {
        request.weights_visibility = Visibility::Public;
    }
    Ok(request)
}
