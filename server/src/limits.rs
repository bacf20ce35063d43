//! Every limit of the service in one place, with its default. What each refuses, and how: docs/LIMITS.md, which a test compares with this file.

mod check;

use std::time::Duration;

pub use check::LimitsError;
use serde::{Deserialize, Serialize};

/// What the service accepts and how long it waits. All are configurable; none can be switched off.
///
/// As JSON, times are numbers of seconds under names that end in `_seconds`; what is left out has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// A gRPC message, in and out.
    pub message_bytes: usize,
    /// A chunk of an upload or a download.
    pub chunk_bytes: usize,
    /// A model file, and any other upload.
    pub model_bytes: u64,
    /// An input or a calibration set, as an artifact.
    pub input_bytes: u64,
    /// Stored bytes that verifications and estimates have in memory, all together; EstimateJob takes no larger source. At least three times `proof_bytes`.
    pub computation_bytes: u64,
    /// Stored bytes that checks of workers' proofs have in memory, all together. At least an input and three times `proof_bytes`.
    pub checking_bytes: u64,
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
    /// Bytes of a label's key.
    pub label_key_bytes: usize,
    /// Bytes of a label's value.
    pub label_value_bytes: usize,
    /// Bytes of a short text: a display name, a media type, the reason of a cancellation.
    pub text_bytes: usize,
    /// Bytes of a signed token.
    pub token_bytes: usize,
    /// Jobs of one batch.
    pub batch_jobs: usize,
    /// Queued jobs and registrations of a tenant.
    pub queued_per_tenant: u32,
    /// Unfinished uploads on the disk of a process, all together. At least as much as the largest upload.
    pub upload_disk_bytes: u64,
    /// And of a tenant, so that none can take it all. At least as much as the largest upload.
    pub upload_disk_per_tenant_bytes: u64,
    /// Unfinished uploads of a tenant.
    pub uploads_per_tenant: u32,
    /// Webhooks of a tenant.
    pub webhooks_per_tenant: u32,
    /// Bytes of a webhook's URL.
    pub webhook_url_bytes: usize,
    /// What a tenant may create a second: uploads, models, jobs, each job of a batch.
    pub creates_per_second: u32,
    /// As many at once, after a time without any. A batch has no more jobs.
    pub creates_burst: u32,
    /// Watching streams at a time.
    pub watchers: usize,
    /// And of a tenant, so that none can take them all.
    pub watchers_per_tenant: usize,
    /// Downloads at a time, and as many again by workers. Each holds a few MiB of memory while its client does not read.
    pub downloads: usize,
    /// And of a tenant, so that none can take them all.
    pub downloads_per_tenant: usize,
    /// Verifications and estimates that wait while another is computed, and as many checks of workers' proofs.
    pub cpu_queue: usize,
    /// Verifications and estimates of a tenant, the one that is computed included, so that none can take all places.
    pub cpu_queue_per_tenant: usize,
    /// Calls at a time that have no places of their own: all but streams and health checks.
    pub calls: usize,
    /// And of a tenant, so that none can take them all.
    pub calls_per_tenant: usize,
    /// Header list of a request.
    pub header_list_bytes: u32,
    /// Streams of a connection.
    pub streams_per_connection: u32,
    /// Streams of a connection that its client reset before the service had a look at them, at a time.
    pub pending_accept_reset_streams: usize,
    /// Streams of a connection that the service had to reset because its client broke the rules of HTTP/2, over its whole life.
    pub local_error_reset_streams: usize,
    /// Connections.
    pub connections: usize,
    /// Connections of the HTTP port.
    pub http_connections: usize,
    /// Requests of the HTTP port that are answered at a time: so many for metrics, and as many by the dashboard.
    pub http_requests: usize,
    /// Pages of the dashboard that follow something at a time.
    pub dashboard_streams: usize,
    /// Entries of a page of the dashboard, at most.
    pub dashboard_page_size: u32,
    /// A connection of the HTTP port that has not sent the head of its next request within this is closed.
    #[serde(rename = "http_head_seconds", with = "seconds")]
    pub http_head: Duration,
    /// A connection of the HTTP port that takes nothing of an answer for so long is closed.
    #[serde(rename = "http_stall_seconds", with = "seconds")]
    pub http_stall: Duration,
    /// A connection that has not finished its TLS handshake within this, or then not sent the HTTP/2 preface within this, is closed.
    #[serde(rename = "first_byte_seconds", with = "seconds")]
    pub first_byte: Duration,
    /// A unary call.
    #[serde(rename = "unary_seconds", with = "seconds")]
    pub unary: Duration,
    /// How long WaitJob waits, at most.
    #[serde(rename = "wait_seconds", with = "seconds")]
    pub wait: Duration,
    /// How long WaitJob waits, if the client does not say.
    #[serde(rename = "default_wait_seconds", with = "seconds")]
    pub default_wait: Duration,
    /// Between two messages of an upload.
    #[serde(rename = "upload_idle_seconds", with = "seconds")]
    pub upload_idle: Duration,
    /// Bytes of an unfinished upload that got no more for so long are removed from the disk of the process that has them; it starts again at 0.
    #[serde(rename = "upload_file_seconds", with = "seconds")]
    pub upload_file: Duration,
    /// A watching stream ends after this; the client resumes.
    #[serde(rename = "watch_seconds", with = "seconds")]
    pub watch: Duration,
    /// Between two messages of a watching stream.
    #[serde(rename = "heartbeat_seconds", with = "seconds")]
    pub heartbeat: Duration,
    /// HTTP/2 pings.
    #[serde(rename = "keepalive_interval_seconds", with = "seconds")]
    pub keepalive_interval: Duration,
    /// Answer to a ping.
    #[serde(rename = "keepalive_timeout_seconds", with = "seconds")]
    pub keepalive_timeout: Duration,
    /// A connection is told to go away (GOAWAY) after this: what runs on it goes on, what comes next takes another.
    #[serde(rename = "connection_age_seconds", with = "seconds")]
    pub connection_age: Duration,
    /// And cut after this much more.
    #[serde(rename = "connection_age_grace_seconds", with = "seconds")]
    pub connection_age_grace: Duration,
    /// How long request ids and unfinished uploads are kept. At least a day.
    #[serde(rename = "retention_seconds", with = "seconds")]
    pub retention: Duration,
    /// How long an artifact is kept after it was stored, though nothing refers to it. At least two hours.
    #[serde(rename = "artifact_grace_seconds", with = "seconds")]
    pub artifact_grace: Duration,
    /// Failed attempts at a task of one kind of cause, at most; most kinds have a smaller budget of their own.
    pub attempts: u32,
    /// A task that so many workers died with is not given to another.
    pub worker_deaths: u32,
    /// A task whose worker gave no sign of life for so long is given to another.
    #[serde(rename = "lease_seconds", with = "seconds")]
    pub lease: Duration,
    /// Wait before the second attempt, drawn from 0 to this; doubles each time, up to a minute.
    #[serde(rename = "retry_backoff_seconds", with = "seconds")]
    pub retry_backoff: Duration,
    /// A job that is expected to take less on the CPU is not split into tasks; 0: all are.
    #[serde(rename = "fuse_below_seconds", with = "seconds")]
    pub fuse_below: Duration,
    /// A task that runs longer has failed; a child process that hangs in it is ended.
    #[serde(rename = "task_seconds", with = "seconds")]
    pub task: Duration,
    /// A result of a worker elsewhere, and all together that are on their way here at a time.
    pub task_artifact_bytes: u64,
    /// Tasks that a worker elsewhere asks for, or holds, at a time.
    pub tasks_per_worker: usize,
    /// Bytes of a name or text that a worker elsewhere gives.
    pub worker_text_bytes: usize,
    /// Devices that a worker elsewhere names, and models that it says it holds.
    pub worker_entries: usize,
}

impl Limits {
    /// Jobs of one batch: as many as may be created at once.
    pub fn jobs_at_once(&self) -> usize {
        self.batch_jobs.min(usize::try_from(self.creates_burst).unwrap_or(usize::MAX))
    }

    /// The largest upload that is taken.
    pub fn largest_upload_bytes(&self) -> u64 {
        self.model_bytes.max(self.input_bytes)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 4 << 20,
            chunk_bytes: 1 << 20,
            model_bytes: 2 << 30,
            input_bytes: 64 << 20,
            computation_bytes: 512 << 20,
            checking_bytes: 512 << 20,
            inline_input_bytes: 1 << 20,
            proof_bytes: 64 << 20,
            page_size: 1000,
            default_page_size: 50,
            labels: 64,
            label_key_bytes: 63,
            label_value_bytes: 255,
            text_bytes: 255,
            token_bytes: 8 << 10,
            batch_jobs: 256,
            queued_per_tenant: 1000,
            upload_disk_bytes: 8 << 30,
            upload_disk_per_tenant_bytes: 4 << 30,
            uploads_per_tenant: 100,
            webhooks_per_tenant: 16,
            webhook_url_bytes: 2048,
            creates_per_second: 50,
            creates_burst: 500,
            watchers: 1000,
            watchers_per_tenant: 500,
            downloads: 64,
            downloads_per_tenant: 32,
            cpu_queue: 64,
            cpu_queue_per_tenant: 32,
            calls: 1000,
            calls_per_tenant: 500,
            header_list_bytes: 16 << 10,
            streams_per_connection: 100,
            pending_accept_reset_streams: 20,
            local_error_reset_streams: 1024,
            connections: 10_000,
            http_connections: 256,
            http_requests: 16,
            dashboard_streams: 64,
            dashboard_page_size: 200,
            http_head: Duration::from_secs(10),
            http_stall: Duration::from_secs(30),
            first_byte: Duration::from_secs(10),
            unary: Duration::from_secs(60),
            wait: Duration::from_secs(60),
            default_wait: Duration::from_secs(30),
            upload_idle: Duration::from_secs(30),
            upload_file: Duration::from_secs(6 * 3600),
            watch: Duration::from_secs(3600),
            heartbeat: Duration::from_secs(15),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            connection_age: Duration::from_secs(30 * 60),
            connection_age_grace: Duration::from_secs(60),
            retention: Duration::from_secs(24 * 3600),
            attempts: 8,
            worker_deaths: 2,
            lease: Duration::from_secs(30),
            artifact_grace: Duration::from_secs(24 * 3600),
            retry_backoff: Duration::from_secs(1),
            fuse_below: Duration::from_secs(20),
            task: Duration::from_secs(3600),
            task_artifact_bytes: 2 << 30,
            tasks_per_worker: 256,
            worker_text_bytes: 4096,
            worker_entries: 1024,
        }
    }
}

/// Times as numbers of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(time.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        // Bounded, so that a time can always be added to now.
        match Duration::try_from_secs_f64(seconds) {
            Ok(time) if seconds <= 1e9 => Ok(time),
            _ => Err(D::Error::custom("must be from 0 to 1e9 seconds")),
        }
    }
}
