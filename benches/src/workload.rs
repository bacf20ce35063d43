//! What the end-to-end benchmark runs on: a network, how it is calibrated, and inputs.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use zkinfer_client::{Client, ContextNonce, MediaType, ModelRequest, UploadSource};

use crate::dense_network;
use crate::digits::read_images;

/// A network to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// The bundled MNIST network: 784-128-64-10.
    Mnist,
    /// Five random layers 1024 wide on 4 inputs.
    Dense,
}

/// What commands that measure a network are told alike.
#[derive(Clone, Debug, Args)]
pub struct WorkloadArguments {
    /// The network.
    #[arg(long, value_enum, default_value_t = Network::Mnist)]
    pub network: Network,
    /// Folder of the bundled networks.
    #[arg(long, default_value = "models")]
    pub models: PathBuf,
    /// Folder of the result.
    #[arg(long, default_value = "benches/results")]
    pub results: PathBuf,
}

impl WorkloadArguments {
    /// The workload that was asked for.
    ///
    /// # Errors
    /// As [`Workload::new`].
    pub fn workload(&self) -> anyhow::Result<Workload> {
        Workload::new(self.network, &self.models)
    }
}

/// A network with all it needs.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Name of the benchmark: the result is `NAME.json`.
    pub benchmark: &'static str,
    /// What it is, for the record.
    pub description: &'static str,
    /// The ONNX file.
    pub network: UploadSource,
    /// Calibration inputs.
    pub calibration: Vec<Vec<f32>>,
    /// Inputs to prove.
    pub inputs: Vec<Vec<f32>>,
}

impl Workload {
    /// The workload of a network; `models` is the folder of the bundled ones.
    ///
    /// # Errors
    /// Bundled files that are missing.
    pub fn new(network: Network, models: &Path) -> anyhow::Result<Self> {
        Ok(match network {
            Network::Mnist => Self {
                benchmark: "end-to-end",
                description: "mlp-mnist, float, calibrated on 128 images; weights private, input private",
                network: UploadSource::File(models.join("mlp-mnist/model.onnx")),
                calibration: read_images(&models.join("mnist/calibration-images.npy"))?,
                inputs: read_images(&models.join("mnist/test-images.npy"))?,
            },
            Network::Dense => Self {
                benchmark: "end-to-end-dense",
                description: "five layers 1024 wide on 4 inputs, random, calibrated on 64 inputs; weights private, input private",
                network: UploadSource::from(dense_network::onnx()),
                calibration: dense_network::inputs(64),
                inputs: dense_network::inputs(128),
            },
        })
    }
}

impl Workload {
    /// Uploads the network and its calibration inputs, and registers it; the model's name, once it is ready.
    ///
    /// # Errors
    /// The service refuses it, or fails.
    pub async fn register(&self, client: &Client) -> anyhow::Result<String> {
        let network = client.upload(&self.network, MediaType::Onnx).await?;
        let calibration = client.upload(&to_npy(&self.calibration).into(), MediaType::Npy).await?;
        let request = ModelRequest { calibration_artifact: calibration.name, ..ModelRequest::new("network", network.name) };
        let model = client.create_model(&request).await?;
        client.finish_model(&model.name, |_| {}).await?;
        Ok(model.name)
    }
}

/// What the proofs of benchmarks are bound to.
pub fn nonce() -> ContextNonce {
    ContextNonce::of_context(b"benchmark")
}

/// A .npy file (version 1) of float32 rows of equal length.
pub fn to_npy(rows: &[Vec<f32>]) -> Vec<u8> {
    let length = rows.first().map_or(0, Vec::len);
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {length}), }}", rows.len());
    // Magic, version and length are 10 bytes; the header ends with a line end at a multiple of 64.
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend(u16::try_from(header.len()).unwrap_or(u16::MAX).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(rows.iter().flatten().flat_map(|value| value.to_le_bytes()));
    file
}

#[cfg(test)]
mod tests {
    use zkinfer_circuits::npy::{NpyLimits, read_npy};

    use super::*;

    #[test]
    fn files_that_are_written_can_be_read() {
        let rows = vec![vec![0.0; 5], vec![0.25; 5]];
        let file = to_npy(&rows);
        assert_eq!((file.len() - 2 * 4 * 5) % 64, 0);
        let array = read_npy(&file, &NpyLimits::default()).expect("an array");
        assert_eq!(array.to_samples(5), Some(rows));
    }
}
