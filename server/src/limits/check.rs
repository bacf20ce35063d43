//! Which limits work, and work together.

use std::time::Duration;

use super::Limits;

/// Bytes of a chunk's message beside its data.
const CHUNK_OVERHEAD_BYTES: usize = 1024;

/// A limit that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// It would refuse everything.
    #[error("{0} is 0: nothing would be accepted")]
    Zero(&'static str),
    /// No memory would hold them.
    #[error("{field} is {got}: at most {MAX_PLACES} are served at a time")]
    TooMany {
        /// Which limit.
        field: &'static str,
        /// Its value.
        got: usize,
    },
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
    /// Input, proof, statement and key of one check would be more than all may be.
    #[error("checking_bytes is {got}: it must be at least input_bytes and three times proof_bytes, together {needed}")]
    Checking {
        /// Its value.
        got: u64,
        /// The least that it may be.
        needed: u64,
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
    #[error("{field} is {got}: it must be at least {largest}, the larger of model_bytes and input_bytes")]
    Uploads {
        /// Which limit.
        field: &'static str,
        /// Its value.
        got: u64,
        /// The largest upload.
        largest: u64,
    },
    /// What is being stored could be deleted before anything refers to it.
    #[error("artifact_grace_seconds is {0}: it must be at least {min}, so that a slow put ends before", min = MIN_ARTIFACT_GRACE.as_secs())]
    Grace(u64),
    /// A creation that is repeated could be done twice, and an upload forgotten while it goes on.
    #[error("retention_seconds is {0}: it must be at least {min}, for which request ids are promised to count", min = MIN_RETENTION.as_secs())]
    Retention(u64),
}

/// Longer than the longest time from an artifact's hold to what refers to it; `artifacts/held.rs` adds it up.
const MIN_ARTIFACT_GRACE: Duration = Duration::from_secs(2 * 3600);

/// Clients are told that a request id counts for so long.
const MIN_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Places are kept in memory: more than any machine has clients.
const MAX_PLACES: usize = 1 << 24;

impl Limits {
    /// Checks that the limits leave something to accept and agree with each other.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), LimitsError> {
        let zero_count = self.counts().into_iter().find(|(_, value)| *value == 0).map(|(field, _)| field);
        let zero_time = self.times().into_iter().find(|(_, value)| value.is_zero()).map(|(field, _)| field);
        if let Some(field) = zero_count.or(zero_time) {
            return Err(LimitsError::Zero(field));
        }
        if let Some((field, got)) = self.places().into_iter().find(|(_, value)| *value > MAX_PLACES) {
            return Err(LimitsError::TooMany { field, got });
        }
        if self.artifact_grace < MIN_ARTIFACT_GRACE {
            return Err(LimitsError::Grace(self.artifact_grace.as_secs()));
        }
        if self.retention < MIN_RETENTION {
            return Err(LimitsError::Retention(self.retention.as_secs()));
        }
        self.check_sizes()
    }

    fn check_sizes(&self) -> Result<(), LimitsError> {
        let (got, proof_bytes) = (self.computation_bytes, self.proof_bytes);
        if got / 3 < proof_bytes {
            return Err(LimitsError::Computation { got, proof_bytes });
        }
        let needed = self.proof_bytes.saturating_mul(3).saturating_add(self.input_bytes);
        if self.checking_bytes < needed {
            return Err(LimitsError::Checking { got: self.checking_bytes, needed });
        }
        let largest = self.largest_upload_bytes();
        let disks = [("upload_disk_bytes", self.upload_disk_bytes), ("upload_disk_per_tenant_bytes", self.upload_disk_per_tenant_bytes)];
        if let Some((field, got)) = disks.into_iter().find(|(_, got)| *got < largest) {
            return Err(LimitsError::Uploads { field, got, largest });
        }
        let room = self.message_bytes.saturating_sub(CHUNK_OVERHEAD_BYTES);
        for (field, got) in [("chunk_bytes", self.chunk_bytes), ("inline_input_bytes", self.inline_input_bytes)] {
            if got > room {
                return Err(LimitsError::AboveMessage { field, got, message_bytes: self.message_bytes });
            }
        }
        Ok(())
    }

    /// Sizes and numbers of which 0 would refuse everything. Of the others, 0 refuses only what one can do without: labels, inputs inside requests, webhooks.
    fn counts(&self) -> Vec<(&'static str, u64)> {
        let sizes = [
            ("message_bytes", self.message_bytes as u64),
            ("chunk_bytes", self.chunk_bytes as u64),
            ("model_bytes", self.model_bytes),
            ("input_bytes", self.input_bytes),
            ("computation_bytes", self.computation_bytes),
            ("checking_bytes", self.checking_bytes),
            ("proof_bytes", self.proof_bytes),
            ("page_size", self.page_size.into()),
            ("default_page_size", self.default_page_size.into()),
            ("text_bytes", self.text_bytes as u64),
            ("token_bytes", self.token_bytes as u64),
            ("batch_jobs", self.batch_jobs as u64),
            ("queued_per_tenant", self.queued_per_tenant.into()),
            ("upload_disk_bytes", self.upload_disk_bytes),
            ("upload_disk_per_tenant_bytes", self.upload_disk_per_tenant_bytes),
            ("uploads_per_tenant", self.uploads_per_tenant.into()),
            ("creates_per_second", self.creates_per_second.into()),
            ("creates_burst", self.creates_burst.into()),
            ("header_list_bytes", self.header_list_bytes.into()),
            ("streams_per_connection", self.streams_per_connection.into()),
            ("pending_accept_reset_streams", self.pending_accept_reset_streams as u64),
            ("local_error_reset_streams", self.local_error_reset_streams as u64),
            ("dashboard_page_size", self.dashboard_page_size.into()),
            ("attempts", self.attempts.into()),
            ("worker_deaths", self.worker_deaths.into()),
            ("task_artifact_bytes", self.task_artifact_bytes),
            ("tasks_per_worker", self.tasks_per_worker as u64),
            ("worker_text_bytes", self.worker_text_bytes as u64),
            ("worker_entries", self.worker_entries as u64),
        ];
        sizes.into_iter().chain(self.places().map(|(field, value)| (field, value as u64))).collect()
    }

    /// Numbers of those who are served at a time.
    fn places(&self) -> [(&'static str, usize); 12] {
        [
            ("watchers", self.watchers),
            ("watchers_per_tenant", self.watchers_per_tenant),
            ("downloads", self.downloads),
            ("downloads_per_tenant", self.downloads_per_tenant),
            ("cpu_queue", self.cpu_queue),
            ("cpu_queue_per_tenant", self.cpu_queue_per_tenant),
            ("calls", self.calls),
            ("calls_per_tenant", self.calls_per_tenant),
            ("connections", self.connections),
            ("http_connections", self.http_connections),
            ("http_requests", self.http_requests),
            ("dashboard_streams", self.dashboard_streams),
        ]
    }

    /// Times of which 0 would end everything at once.
    fn times(&self) -> [(&'static str, Duration); 15] {
        [
            ("first_byte_seconds", self.first_byte),
            ("unary_seconds", self.unary),
            ("wait_seconds", self.wait),
            ("default_wait_seconds", self.default_wait),
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
        ]
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
        let many = Limits { watchers: usize::MAX, ..Limits::default() };
        assert_eq!(many.check(), Err(LimitsError::TooMany { field: "watchers", got: usize::MAX }));
        let grace = Limits { artifact_grace: Duration::from_secs(7199), ..Limits::default() };
        assert_eq!(grace.check(), Err(LimitsError::Grace(7199)));
        let [short, enough] = [86_399, 86_400].map(|seconds| Limits { retention: Duration::from_secs(seconds), ..Limits::default() });
        assert_eq!((short.check(), enough.check()), (Err(LimitsError::Retention(86_399)), Ok(())));
        let computation = Limits { computation_bytes: 3 * (64 << 20) - 1, ..Limits::default() };
        assert!(matches!(computation.check(), Err(LimitsError::Computation { proof_bytes, .. }) if proof_bytes == 64 << 20));
        let needed = 4 * (64 << 20);
        let checking = Limits { checking_bytes: needed - 1, ..Limits::default() };
        assert_eq!(checking.check(), Err(LimitsError::Checking { got: needed - 1, needed }));
        let too_few = (2 << 30) - 1;
        let uploads = Limits { upload_disk_bytes: too_few, ..Limits::default() };
        assert!(matches!(uploads.check(), Err(LimitsError::Uploads { field: "upload_disk_bytes", .. })));
        let uploads = Limits { upload_disk_per_tenant_bytes: too_few, ..Limits::default() };
        let field = "upload_disk_per_tenant_bytes";
        assert_eq!(uploads.check(), Err(LimitsError::Uploads { field, got: too_few, largest: 2 << 30 }));
        let chunk = Limits { chunk_bytes: 4 << 20, ..Limits::default() };
        assert!(matches!(chunk.check(), Err(LimitsError::AboveMessage { field: "chunk_bytes", .. })));
    }

    /// Limits of which 0 refuses or shortens only what one can do without.
    const MAY_BE_ZERO: [&str; 9] = [
        "labels",
        "label_key_bytes",
        "label_value_bytes",
        "inline_input_bytes",
        "webhooks_per_tenant",
        "webhook_url_bytes",
        "connection_age_grace_seconds",
        "retry_backoff_seconds",
        "fuse_below_seconds",
    ];

    fn defaults() -> serde_json::Map<String, serde_json::Value> {
        let serde_json::Value::Object(limits) = serde_json::to_value(Limits::default()).unwrap() else { panic!("an object") };
        limits
    }

    #[test]
    fn each_limit_is_set_by_the_file_and_none_is_0_that_would_refuse_everything() {
        for (name, default) in defaults() {
            // Any other value: none of them is 7.
            let set: Limits = serde_json::from_value(serde_json::json!({ &name: 7 })).unwrap();
            let mut expected = defaults();
            let number = if default.is_f64() { serde_json::json!(7.0) } else { serde_json::json!(7) };
            assert_ne!(expected.insert(name.clone(), number.clone()), Some(number), "{name}");
            assert_eq!(serde_json::to_value(set).unwrap(), serde_json::Value::Object(expected), "{name} alone is changed");
            let zero: Limits = serde_json::from_value(serde_json::json!({ &name: 0 })).unwrap();
            match zero.check() {
                Ok(()) => assert!(MAY_BE_ZERO.contains(&name.as_str()), "{name} is 0"),
                Err(LimitsError::Zero(refused)) => assert_eq!(refused, name),
                Err(error) => assert!(["artifact_grace_seconds", "retention_seconds"].contains(&name.as_str()), "{name}: {error}"),
            }
        }
    }

    /// What docs/LIMITS.md says of a limit before it says what is beyond: name, default as JSON has it, unit.
    fn row(name: &str, default: &serde_json::Value) -> String {
        let unit = match name {
            name if name.ends_with("_bytes") => "bytes",
            name if name.ends_with("_seconds") => "seconds",
            _ => "",
        };
        let number = default.as_f64().map(|number| number.to_string()).unwrap();
        format!("| `{name}` | {number} | {unit} | ")
    }

    #[test]
    fn the_table_of_the_documents_names_every_limit_with_its_default_and_no_other() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/LIMITS.md");
        let text = std::fs::read_to_string(path).unwrap();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `") && line.matches(" | ").count() == 4).collect();
        for (name, default) in defaults() {
            let expected = row(&name, &default);
            let named: Vec<&&str> = rows.iter().filter(|line| line.starts_with(&format!("| `{name}` |"))).collect();
            let [line] = named[..] else { panic!("docs/LIMITS.md has {} rows of {name}, and needs one: {expected}", named.len()) };
            assert!(line.starts_with(&expected), "docs/LIMITS.md has {line}, and needs {expected}");
            let said: Vec<&str> = line[expected.len()..].trim_end_matches(" |").split(" | ").collect();
            assert!(said.len() == 2 && said.iter().all(|text| !text.trim().is_empty()), "{name}: what it bounds, and what is beyond it");
        }
        assert_eq!(rows.len(), defaults().len(), "docs/LIMITS.md names limits that there are not");
    }
}
