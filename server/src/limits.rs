//! Every limit of the service in one place, with its default.

use std::time::Duration;

/// What the service accepts and how long it waits. All are configurable; none can be switched off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A gRPC message, in and out.
    pub message_bytes: usize,
    /// A chunk of an upload or a download.
    pub chunk_bytes: usize,
    /// A model file, and any other upload.
    pub model_bytes: u64,
    /// An input or a calibration set, as an artifact.
    pub input_bytes: u64,
    /// An input inside a request.
    pub inline_input_bytes: usize,
    /// A proof, statement or key given to VerifyProof.
    pub proof_bytes: u64,
    /// Entries of a page, at most.
    pub page_size: u32,
    /// Entries of a page, if the client does not say.
    pub default_page_size: u32,
    /// Labels of a resource.
    pub labels: usize,
    /// Queued jobs and registrations of a tenant.
    pub queued_per_tenant: u32,
    /// Unfinished uploads of a tenant.
    pub uploads_per_tenant: u32,
    /// Watching streams at a time.
    pub watchers: usize,
    /// Verifications and estimates waiting for a thread.
    pub cpu_queue: usize,
    /// Header list of a request.
    pub header_list_bytes: u32,
    /// Streams of a connection.
    pub streams_per_connection: u32,
    /// Connections.
    pub connections: usize,
    /// A connection that has not sent this within [`Limits::first_byte`] is closed.
    pub first_byte: Duration,
    /// A unary call.
    pub unary: Duration,
    /// Between two messages of an upload.
    pub upload_idle: Duration,
    /// A watching stream ends after this; the client resumes.
    pub watch: Duration,
    /// Between two messages of a watching stream.
    pub heartbeat: Duration,
    /// HTTP/2 pings.
    pub keepalive_interval: Duration,
    /// Answer to a ping.
    pub keepalive_timeout: Duration,
    /// A connection is asked to go away after this.
    pub connection_age: Duration,
    /// And closed after this much more.
    pub connection_age_grace: Duration,
    /// How long request ids and unfinished uploads are kept.
    pub retention: Duration,
    /// Attempts at a job or a registration.
    pub attempts: u32,
    /// Wait before the second attempt; doubles each time.
    pub retry_backoff: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 4 << 20,
            chunk_bytes: 1 << 20,
            model_bytes: 2 << 30,
            input_bytes: 64 << 20,
            inline_input_bytes: 1 << 20,
            proof_bytes: 64 << 20,
            page_size: 1000,
            default_page_size: 50,
            labels: 64,
            queued_per_tenant: 1000,
            uploads_per_tenant: 100,
            watchers: 1000,
            cpu_queue: 64,
            header_list_bytes: 16 << 10,
            streams_per_connection: 100,
            connections: 10_000,
            first_byte: Duration::from_secs(10),
            unary: Duration::from_secs(60),
            upload_idle: Duration::from_secs(30),
            watch: Duration::from_secs(3600),
            heartbeat: Duration::from_secs(15),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            connection_age: Duration::from_secs(30 * 60),
            connection_age_grace: Duration::from_secs(60),
            retention: Duration::from_secs(24 * 3600),
            attempts: 3,
            retry_backoff: Duration::from_secs(1),
        }
    }
}
