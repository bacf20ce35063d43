//! The wire contract of zkinfer: the messages, clients and servers generated from `zkinfer/v1/*.proto`.
//!
//! The `.proto` files are the documentation of every message; their comments appear here on the generated items.

/// Package `zkinfer.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines, reason = "generated; documented where the source has comments")]
pub mod v1 {
    tonic::include_proto!("zkinfer.v1");
}

/// The encoded `FileDescriptorSet` of the package and its imports, for server reflection; without what workers
/// speak.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/zkinfer_descriptor.bin"));

pub mod name;
mod secret;
