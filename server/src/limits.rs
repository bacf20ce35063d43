//! Every limit of the service in one place, with its default.

use std::time::Duration;

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
    /// Jobs of one batch.
    pub batch_jobs: usize,
    /// Queued jobs and registrations of a tenant.
    pub queued_per_tenant: u32,
    /// Unfinished uploads on the disk of a process, all together. At least as much as the largest upload.
    pub upload_disk_bytes: u64,
    /// Unfinished uploads of a tenant.
    pub uploads_per_tenant: u32,
    /// What a tenant may create a second: uploads, models, jobs, each job of a batch.
    pub creates_per_second: u32,
    /// As many at once, after a time without any. A batch has no more jobs.
    pub creates_burst: u32,
    /// Watching streams at a time.
    pub watchers: usize,
    /// Downloads at a time, and as many again by workers. Each holds a few MiB of memory while its client does not read.
    pub downloads: usize,
    /// Verifications and estimates waiting for a thread, and as many checks of workers' proofs.
    pub cpu_queue: usize,
    /// Header list of a request.
    pub header_list_bytes: u32,
    /// Streams of a connection.
    pub streams_per_connection: u32,
    /// Connections.
    pub connections: usize,
    /// Connections of the HTTP port.
    pub http_connections: usize,
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
    /// A connection is asked to go away after this.
    #[serde(rename = "connection_age_seconds", with = "seconds")]
    pub connection_age: Duration,
    /// And closed after this much more.
    #[serde(rename = "connection_age_grace_seconds", with = "seconds")]
    pub connection_age_grace: Duration,
    /// How long request ids and unfinished uploads are kept.
    #[serde(rename = "retention_seconds", with = "seconds")]
    pub retention: Duration,
    /// How long an artifact is kept after it was stored, though nothing refers to it. At least two hours.
    #[serde(rename = "artifact_grace_seconds", with = "seconds")]
    pub artifact_grace: Duration,
    /// Attempts at a task, at most, whatever spoils them; causes have smaller budgets of their own.
    pub attempts: u32,
    /// A task that so many workers died with is not given to another.
    pub worker_deaths: u32,
    /// A task whose worker gave no sign of life for so long is given to another.
    #[serde(rename = "lease_seconds", with = "seconds")]
    pub lease: Duration,
    /// Wait before the second attempt; doubles each time.
    #[serde(rename = "retry_backoff_seconds", with = "seconds")]
    pub retry_backoff: Duration,
    /// A job that is expected to take less on the CPU is not split into tasks; 0: all are.
    #[serde(rename = "fuse_below_seconds", with = "seconds")]
    pub fuse_below: Duration,
    /// A task that runs longer has failed, and its worker is ended.
    #[serde(rename = "task_seconds", with = "seconds")]
    pub task: Duration,
    /// A result of a worker elsewhere, and all together that are on their way here at a time.
    pub task_artifact_bytes: u64,
    /// Tasks that a worker elsewhere asks for, or holds, at a time.
    pub tasks_per_worker: usize,
}

/// Bytes of a chunk's message beside its data.
const CHUNK_OVERHEAD_BYTES: usize = 1024;

/// A limit that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// It would refuse everything.
    #[error("{0} is 0: nothing would be accepted")]
    Zero(&'static str),
    /// Messages of that size are refused.
    #[error("{field} is {got}: with its frame it exceeds message_bytes, {message_bytes}")]
    AboveMessage {
        /// Which limit.
        field: &'static str,
        /// Its value.
        got: usize,
        /// The limit of messages.
        message_bytes: usize,
    },
    /// Proof, statement and key of one verification would be more than all may be.
    #[error("computation_bytes is {got}: it must be at least three times proof_bytes, {proof_bytes}")]
    Computation {
        /// Its value.
        got: u64,
        /// The limit of each.
        proof_bytes: u64,
    },
    /// The largest upload would never have room.
    #[error("upload_disk_bytes is {got}: it must be at least {largest}, the larger of model_bytes and input_bytes")]
    Uploads {
        /// Its value.
        got: u64,
        /// The largest upload.
        largest: u64,
    },
    /// What is being stored could be deleted before anything refers to it.
    #[error("artifact_grace_seconds is {0}: it must be at least {min}, so that a slow put ends before", min = MIN_ARTIFACT_GRACE.as_secs())]
    Grace(u64),
}

/// Longer than the longest time from an artifact's hold to what refers to it; `artifacts/held.rs` adds it up.
const MIN_ARTIFACT_GRACE: Duration = Duration::from_secs(2 * 3600);

impl Limits {
    /// Jobs of one batch: as many as may be created at once.
    pub fn jobs_at_once(&self) -> usize {
        self.batch_jobs.min(usize::try_from(self.creates_burst).unwrap_or(usize::MAX))
    }

    /// The largest upload that is taken.
    pub fn largest_upload_bytes(&self) -> u64 {
        self.model_bytes.max(self.input_bytes)
    }

    /// Checks that the limits leave something to accept and agree with each other.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), LimitsError> {
        let counts = [
            ("message_bytes", self.message_bytes as u64),
            ("chunk_bytes", self.chunk_bytes as u64),
            ("model_bytes", self.model_bytes),
            ("input_bytes", self.input_bytes),
            ("computation_bytes", self.computation_bytes),
            ("proof_bytes", self.proof_bytes),
            ("page_size", self.page_size.into()),
            ("default_page_size", self.default_page_size.into()),
            ("batch_jobs", self.batch_jobs as u64),
            ("queued_per_tenant", self.queued_per_tenant.into()),
            ("upload_disk_bytes", self.upload_disk_bytes),
            ("uploads_per_tenant", self.uploads_per_tenant.into()),
            ("creates_per_second", self.creates_per_second.into()),
            ("creates_burst", self.creates_burst.into()),
            ("watchers", self.watchers as u64),
            ("downloads", self.downloads as u64),
            ("cpu_queue", self.cpu_queue as u64),
            ("header_list_bytes", self.header_list_bytes.into()),
            ("streams_per_connection", self.streams_per_connection.into()),
            ("connections", self.connections as u64),
            ("http_connections", self.http_connections as u64),
            ("attempts", self.attempts.into()),
            ("worker_deaths", self.worker_deaths.into()),
            ("task_artifact_bytes", self.task_artifact_bytes),
            ("tasks_per_worker", self.tasks_per_worker as u64),
        ];
        let times = [
            ("first_byte_seconds", self.first_byte),
            ("unary_seconds", self.unary),
            ("upload_idle_seconds", self.upload_idle),
            ("upload_file_seconds", self.upload_file),
            ("http_head_seconds", self.http_head),
            ("http_stall_seconds", self.http_stall),
            ("watch_seconds", self.watch),
            ("heartbeat_seconds", self.heartbeat),
            ("keepalive_interval_seconds", self.keepalive_interval),
            ("keepalive_timeout_seconds", self.keepalive_timeout),
            ("connection_age_seconds", self.connection_age),
            ("lease_seconds", self.lease),
            ("task_seconds", self.task),
        ];
        let zero_count = counts.iter().find(|(_, value)| *value == 0).map(|(field, _)| *field);
        let zero_time = times.iter().find(|(_, value)| value.is_zero()).map(|(field, _)| *field);
        if let Some(field) = zero_count.or(zero_time) {
            return Err(LimitsError::Zero(field));
        }
        if self.artifact_grace < MIN_ARTIFACT_GRACE {
            return Err(LimitsError::Grace(self.artifact_grace.as_secs()));
        }
        let (got, proof_bytes) = (self.computation_bytes, self.proof_bytes);
        if got / 3 < proof_bytes {
            return Err(LimitsError::Computation { got, proof_bytes });
        }
        let (got, largest) = (self.upload_disk_bytes, self.largest_upload_bytes());
        if got < largest {
            return Err(LimitsError::Uploads { got, largest });
        }
        let room = self.message_bytes.saturating_sub(CHUNK_OVERHEAD_BYTES);
        for (field, got) in [("chunk_bytes", self.chunk_bytes), ("inline_input_bytes", self.inline_input_bytes)] {
            if got > room {
                return Err(LimitsError::AboveMessage { field, got, message_bytes: self.message_bytes });
            }
        }
        Ok(())
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
            inline_input_bytes: 1 << 20,
            proof_bytes: 64 << 20,
            page_size: 1000,
            default_page_size: 50,
            labels: 64,
            batch_jobs: 256,
            queued_per_tenant: 1000,
            upload_disk_bytes: 8 << 30,
            uploads_per_tenant: 100,
            creates_per_second: 50,
            creates_burst: 500,
            watchers: 1000,
            downloads: 64,
            cpu_queue: 64,
            header_list_bytes: 16 << 10,
            streams_per_connection: 100,
            connections: 10_000,
            http_connections: 256,
            http_head: Duration::from_secs(10),
            http_stall: Duration::from_secs(30),
            first_byte: Duration::from_secs(10),
            unary: Duration::from_secs(60),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_work_and_come_back_from_json() {
        let limits = Limits::default();
        assert_eq!(limits.check(), Ok(()));
        let text = serde_json::to_string(&limits).unwrap();
        assert_eq!(serde_json::from_str::<Limits>(&text).unwrap(), limits);
        let some: Limits = serde_json::from_str(r#"{"unary_seconds": 0.5, "labels": 3}"#).unwrap();
        assert_eq!((some.unary, some.labels, some.page_size), (Duration::from_millis(500), 3, 1000));
    }

    #[test]
    fn refuses_unknown_and_unworkable_limits() {
        assert!(serde_json::from_str::<Limits>(r#"{"labelz": 3}"#).unwrap_err().to_string().contains("labelz"));
        assert!(serde_json::from_str::<Limits>(r#"{"unary_seconds": -1}"#).is_err());
        let zero = Limits { connections: 0, ..Limits::default() };
        assert_eq!(zero.check(), Err(LimitsError::Zero("connections")));
        let grace = Limits { artifact_grace: Duration::from_secs(7199), ..Limits::default() };
        assert_eq!(grace.check(), Err(LimitsError::Grace(7199)));
        let computation = Limits { computation_bytes: 3 * (64 << 20) - 1, ..Limits::default() };
        assert!(matches!(computation.check(), Err(LimitsError::Computation { proof_bytes, .. }) if proof_bytes == 64 << 20));
        let uploads = Limits { upload_disk_bytes: (2 << 30) - 1, ..Limits::default() };
        assert_eq!(uploads.check(), Err(LimitsError::Uploads { got: (2 << 30) - 1, largest: 2 << 30 }));
        let chunk = Limits { chunk_bytes: 4 << 20, ..Limits::default() };
        assert!(matches!(chunk.check(), Err(LimitsError::AboveMessage { field: "chunk_bytes", .. })));
    }
}
