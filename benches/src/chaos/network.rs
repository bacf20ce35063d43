//! The network that is proved, and what a proof of it must say.

use std::path::Path;

use anyhow::Context;
use zkinfer_circuits::model::{ImportLimits, QuantGraph, execute, import_onnx, quantize_qdq};
use zkinfer_client::proto::Job;
use zkinfer_client::{ALL_PROFILES, Client, MAX_DOCUMENT_BYTES, MediaType, ModelRequest, UploadSource, verify_locally};

use super::clients::Accepted;

/// The smallest bundled network, quantized: a proof takes less than a second.
pub const NETWORK: &str = "mlp-breast-cancer/model_uint8_per_channel_qdq.onnx";

/// A model of the service, and the network that its clients mean by it.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The model's name.
    pub model: String,
    /// What the service gave as its verifier key when it was registered.
    key: Vec<u8>,
    graph: QuantGraph,
}

impl Registered {
    /// Registers [`NETWORK`] and waits until it is ready; `models` is the folder of the bundled networks.
    ///
    /// # Errors
    /// No such file, or the service refuses it.
    pub async fn register(client: &Client, models: &Path) -> anyhow::Result<Self> {
        let path = models.join(NETWORK);
        let bytes = std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let (graph, _) = quantize_qdq(&import_onnx(&bytes, &ImportLimits::default())?, &[])?;
        let source = client.upload(&UploadSource::File(path), MediaType::Onnx).await?;
        let model = client.create_model(&ModelRequest::new("chaos", source.name)).await?;
        let registered = client.finish_model(&model.name, |_| {}).await?;
        let key = client.download(&registered.verifier_key_artifact, MAX_DOCUMENT_BYTES).await?;
        Ok(Self { model: model.name, key, graph })
    }

    /// Downloads the proof of a job that succeeded, verifies it with the key of the registration and the client's nonce, and compares the output with what
    /// the network computes of the client's input. Answers what does not hold.
    ///
    /// # Errors
    /// A download fails.
    pub async fn check(&self, client: &Client, job: &Job, accepted: &Accepted) -> anyhow::Result<Result<(), String>> {
        let documents = client.documents(job).await?;
        if documents.key != self.key {
            return Ok(Err("its key is not the registration's".to_owned()));
        }
        let verified = match verify_locally(&self.key, &documents.statement, &documents.proof, &ALL_PROFILES, accepted.nonce) {
            Ok(verified) => verified,
            Err(error) => return Ok(Err(format!("the proof is refused: {error}"))),
        };
        let activations = execute(&self.graph, &accepted.input)?;
        let expected = activations.tensor(self.graph.output.tensor);
        let proven = &verified.statement.outputs;
        Ok(if proven == expected { Ok(()) } else { Err(format!("proves the output {proven:?} of an input that gives {expected:?}")) })
    }
}
