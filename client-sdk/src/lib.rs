//! The client of zkinfer: connect, register models, prove, follow the work, and verify proofs without trusting anybody.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use zkinfer_client::{ALL_PROFILES, Client, ContextNonce, JobRequest, verify_locally};
//!
//! let client = Client::connect("http://127.0.0.1:50061").await?;
//! let nonce = ContextNonce::of_context(b"order 4711");
//! let input = std::fs::read("input.npy")?;
//! let job = client.create_job(&JobRequest::npy("tenants/default/models/digits", input).with_nonce(nonce)).await?;
//! let job = client.finish_job(&job.name, |event| println!("{:?}", event.progress)).await?;
//! let documents = client.documents(&job).await?;
//! let verified = verify_locally(&documents.key, &documents.statement, &documents.proof, &ALL_PROFILES, nonce)?;
//! println!("{:?}", verified.statement.outputs);
//! # Ok(())
//! # }
//! ```
//! [`verify_locally`] needs no server and contains no prover; [`Client::verify_remotely`] asks the service instead. [`Client::jobs`] and [`Client::models`] list
//! what there is; [`Client::wait_job`] waits where no progress is wanted. Calls that may be repeated without harm are: reads, and creations, which
//! carry a request id; how often and how soon, [`RetryPolicy`] says, after which errors, docs/CLIENTS.md. The Python client has the same rules.

mod answer;
mod artifacts;
mod batches;
mod client;
mod jobs;
mod listing;
mod models;
mod operations;
mod remote;
mod retry;
mod salt;
mod status;
mod trace;
mod verify;
mod wait;
mod watch;
mod webhooks;

pub use answer::OtherAnswer;
pub use artifacts::{MAX_DOCUMENT_BYTES, MediaType, UploadSource};
pub use client::{Client, ClientCertificate, ClientOptions, Secret, TlsOptions};
pub use jobs::{Documents, JobInput, JobRequest};
pub use listing::{JobFilter, Listed, Listing, Page};
pub use models::ModelRequest;
pub use remote::{RemoteKey, RemoteVerifyError};
pub use retry::RetryPolicy;
pub use salt::{InputSalt, SaltError};
pub use status::{ClientError, FieldProblem, Refusal, RefusalKind};
pub use verify::{ALL_PROFILES, Acceptance, LocalVerifyError, Verified, parameter_sets, verify_accepting, verify_locally};
pub use watch::{JobWatch, ModelWatch, Subject, Watch, is_final_job, is_final_model};
pub use webhooks::{WEBHOOK_TOLERANCE, WebhookCall, WebhookError, WebhookEvent, WebhookKey};

pub use prost_types::{Duration as WireDuration, Timestamp as WireTimestamp};
pub use zkinfer_circuits::security::{ProfileName, SecurityFloor};
pub use zkinfer_circuits::statement::{ContextNonce, Statement, StatementInput};
pub use zkinfer_circuits::verify::VerifyError;
pub use zkinfer_circuits::{encoding, key, program};
pub use zkinfer_proto::name;
pub use zkinfer_proto::v1 as proto;
