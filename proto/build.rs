//! Compiles the `.proto` files with a pure-Rust compiler: no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 9] = [
    "zkinfer/v1/admin.proto",
    "zkinfer/v1/artifact.proto",
    "zkinfer/v1/model.proto",
    "zkinfer/v1/progress.proto",
    "zkinfer/v1/proof.proto",
    "zkinfer/v1/statement.proto",
    "zkinfer/v1/system.proto",
    "zkinfer/v1/task.proto",
    "zkinfer/v1/webhook.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("zkinfer_descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Maps are ordered, so that equal messages have equal encodings.
        .btree_map(".")
        .bytes(".zkinfer.v1.WriteChunksRequest.data")
        .bytes(".zkinfer.v1.ReadArtifactResponse.data")
        .compile_fds(descriptors)?;
    Ok(())
}
