//! `zkinfer demo`: the whole line once, over real gRPC on loopback.

mod digit;
mod refusals;
mod report;
mod service;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use zkinfer_client::proto::{Job, QuantizationOptions, RegisteredModel, quantization_options};
use zkinfer_client::{
    Client, ContextNonce, Documents, JobRequest, MediaType, ModelRequest, ProfileName, UploadSource, Verified, verify_locally,
};

use crate::arguments::DemoArguments;
use crate::commands::{save, show};
use crate::output::Output;
use crate::progress::ProgressView;
use digit::Digit;
use report::Report;
use service::Service;

/// The bundled network: 784-128-64-10, float.
const NETWORK: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/mlp-mnist/model.onnx"));
/// The use that the demo's proof is made for.
const CONTEXT: &[u8] = b"zkinfer demo";

/// The parameter set that the demo uses.
const PROFILES: [ProfileName; 1] = [ProfileName::Default];

/// A registered model.
struct Registration {
    name: String,
    registered: RegisteredModel,
    elapsed: Duration,
}

/// A proof with all that its verifier needs.
struct Proof {
    job: Job,
    documents: Documents,
    elapsed: Duration,
}

pub(crate) async fn run(arguments: &DemoArguments, output: &Output) -> anyhow::Result<()> {
    let digit = Digit::bundled(arguments.image.into())?;
    let service = Service::start(arguments.cache_dir.as_deref()).await?;
    let client = Client::connect(&service.address).await?;
    let info = client.server_info().await?;
    output.say(format!("service     {}, on {} ({})", service.address, info.backend, info.backend_reason));
    output.say("\n1. Register the bundled network mlp-mnist: quantize, commit, prove that the weights are in range.");
    let first = register(&client, "mlp-mnist", quantization_options::Granularity::PerChannel, output).await?;
    output.say(format!("            commitment {}", hex::encode(&first.registered.model_commitment)));
    output.say("\n2. A handwritten digit. The service sees it; whoever verifies the proof does not.");
    output.say(digit.draw());
    output.say("3. Prove the inference.");
    let proof = prove(&client, &first.name, &digit, output).await?;
    output.say("\n   Another model for later: the same network, quantized another way.");
    let second = register(&client, "mlp-mnist-per-tensor", quantization_options::Granularity::PerTensor, output).await?;
    let other_key = client.download(&second.registered.verifier_key_artifact, zkinfer_client::MAX_DOCUMENT_BYTES).await?;
    drop(client);
    service.stop().await?;

    output.say("\n4. The service has ended. Verify with the verifier key alone.");
    let (verified, verify_time) = verify(&proof.documents)?;
    show(&verified, output);
    let predicted = largest(&verified.statement.outputs).context("the network has no outputs")?;
    output.say(format!(
        "            accepted in {}: the digit is a {predicted}, its label says {}",
        crate::table::time(verify_time),
        digit.label
    ));
    output.say("\n5. Three lies, each refused.");
    let refusals = refusals::all(&proof.documents, &other_key, &verified, nonce())?;
    for refusal in &refusals {
        output.say(format!("   {}\n            refused: {} [{}]", refusal.lie, refusal.message, refusal.reason));
    }
    if let Some(directory) = &arguments.out {
        let [proof, statement, key] = save(&proof.documents, directory)?;
        let context = String::from_utf8_lossy(CONTEXT);
        output.say(format!("\n   Saved. Try: zkinfer verify --proof {proof} --statement {statement} --key {key} --context '{context}'"));
    }
    let report = Report::new(&digit, predicted, &first, &proof, verify_time, refusals);
    output.say(format!("\n{}", report.table()));
    output.json(&report);
    Ok(())
}

fn nonce() -> ContextNonce {
    ContextNonce::of_context(CONTEXT)
}

async fn register(
    client: &Client,
    id: &str,
    granularity: quantization_options::Granularity,
    output: &Output,
) -> anyhow::Result<Registration> {
    let start = Instant::now();
    let source = client.upload(&UploadSource::Bytes(NETWORK.into()), MediaType::Onnx).await?;
    let calibration = client.upload(&UploadSource::from(digit::calibration()?), MediaType::Npy).await?;
    let request = ModelRequest {
        calibration_artifact: calibration.name,
        quantization: Some(QuantizationOptions { granularity: granularity.into(), ..QuantizationOptions::default() }),
        ..ModelRequest::new(id, source.name)
    };
    let model = client.create_model(&request).await?;
    let mut view = ProgressView::new(output);
    let registered = client.finish_model(&model.name, |event| view.update(event.progress.as_ref())).await;
    view.finish();
    Ok(Registration { name: model.name, registered: registered?, elapsed: start.elapsed() })
}

async fn prove(client: &Client, model: &str, digit: &Digit, output: &Output) -> anyhow::Result<Proof> {
    let start = Instant::now();
    let request = JobRequest::npy(model, digit.npy()).with_nonce(nonce()).with_private_input();
    let job = client.create_job(&request).await?;
    let mut view = ProgressView::new(output);
    let job = client.finish_job(&job.name, |event| view.update(event.progress.as_ref())).await;
    view.finish();
    let job = job?;
    let documents = client.documents(&job).await?;
    Ok(Proof { job, documents, elapsed: start.elapsed() })
}

fn verify(documents: &Documents) -> anyhow::Result<(Verified, Duration)> {
    let start = Instant::now();
    let verified = verify_locally(&documents.key, &documents.statement, &documents.proof, &PROFILES, nonce())?;
    Ok((verified, start.elapsed()))
}

/// Index of the largest value; the first of equals.
fn largest(values: &[i64]) -> Option<usize> {
    let largest = values.iter().max()?;
    values.iter().position(|value| value == largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_outputs_is_the_largest() {
        assert_eq!(largest(&[-3, 7, 7, 1]), Some(1));
        assert_eq!(largest(&[]), None);
    }
}
