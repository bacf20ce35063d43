//! Compiles the `.proto` files with a pure-Rust compiler: no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 10] = [
    "zkinfer/v1/admin.proto",
    "zkinfer/v1/artifact.proto",
    "zkinfer/v1/model.proto",
    "zkinfer/v1/progress.proto",
    "zkinfer/v1/proof.proto",
    "zkinfer/v1/statement.proto",
    "zkinfer/v1/system.proto",
    "zkinfer/v1/task.proto",
    "zkinfer/v1/webhook.proto",
    WORKER,
];
/// Not for clients: what workers speak, on a listener of its own.
const WORKER: &str = "zkinfer/v1/worker.proto";
/// Messages with secrets, inputs or weights: `src/secret.rs` prints the rest of them.
const SECRET: [&str; 9] = [
    "zkinfer.v1.RegisterWork",
    "zkinfer.v1.ProofWork",
    "zkinfer.v1.Input",
    "zkinfer.v1.CreateJobRequest",
    "zkinfer.v1.CreateWebhookResponse",
    "zkinfer.v1.WriteChunksRequest",
    "zkinfer.v1.ReadArtifactResponse",
    "zkinfer.v1.ReadTaskArtifactResponse",
    "zkinfer.v1.WriteTaskArtifactRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let mut public = descriptors.clone();
    public.file.retain(|file| file.name() != WORKER);
    fs::write(out.join("zkinfer_descriptor.bin"), public.encode_to_vec())?;
    tonic_prost_build::configure()
        // Maps are ordered, so that equal messages have equal encodings.
        .btree_map(".")
        .bytes(".zkinfer.v1.WriteChunksRequest.data")
        .bytes(".zkinfer.v1.ReadArtifactResponse.data")
        .bytes(".zkinfer.v1.ReadTaskArtifactResponse.data")
        .bytes(".zkinfer.v1.WriteTaskArtifactRequest.data")
        .skip_debug(SECRET)
        .compile_fds(descriptors)?;
    Ok(())
}
