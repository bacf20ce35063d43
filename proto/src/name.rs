//! Resource names: `tenants/{tenant}/models/{model id}`, `tenants/{tenant}/artifacts/{blake3 in hex}`,
//! `tenants/{tenant}/uploads/{uuid}`, `tenants/{tenant}/jobs/{uuid}`, `tenants/{tenant}/batches/{uuid}`, `tenants/{tenant}/webhooks/{uuid}`.
//!
//! Parsing accepts exactly what formatting writes, so a name can be compared as a string, and no segment can hold
//! a `/`, a `.` or anything else that means something to a file system.

use std::fmt;

/// A string that is not the name of a resource of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a name of the form {expected}")]
pub struct NameError {
    /// The form that was expected.
    pub expected: &'static str,
}

/// Whether `id` is `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`: the form of tenants' and models' identifiers.
pub fn is_resource_id(id: &str) -> bool {
    let bytes = id.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    bytes.len() <= 63
        && first.is_ascii_lowercase()
        && *last != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// Whether `id` is a UUID in its lower-case hyphenated form.
pub fn is_uuid(id: &str) -> bool {
    id.len() == 36
        && id.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
        })
}

fn segments<'a>(name: &'a str, collection: &str) -> Option<(&'a str, &'a str)> {
    let (tenant, rest) = name.strip_prefix("tenants/")?.split_once('/')?;
    let id = rest.strip_prefix(collection)?.strip_prefix('/')?;
    is_resource_id(tenant).then_some((tenant, id))
}

/// Parses `tenants/{tenant}`.
///
/// # Errors
/// Anything else.
pub fn parse_tenant(name: &str) -> Result<&str, NameError> {
    name.strip_prefix("tenants/").filter(|tenant| is_resource_id(tenant)).ok_or(NameError { expected: "tenants/{tenant}" })
}

/// Name of a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelName {
    /// Owner.
    pub tenant: String,
    /// Chosen by the client.
    pub model_id: String,
}

impl ModelName {
    /// Parses `tenants/{tenant}/models/{model id}`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        segments(name, "models")
            .filter(|(_, id)| is_resource_id(id))
            .map(|(tenant, id)| Self { tenant: tenant.into(), model_id: id.into() })
            .ok_or(NameError { expected: "tenants/{tenant}/models/{model id}" })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenants/{}/models/{}", self.tenant, self.model_id)
    }
}

/// Name of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ArtifactName {
    /// Owner.
    pub tenant: String,
    /// BLAKE3 hash of the bytes.
    pub blake3: [u8; 32],
}

impl ArtifactName {
    /// Parses `tenants/{tenant}/artifacts/{64 lower-case hex digits}`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        segments(name, "artifacts")
            .and_then(|(tenant, id)| {
                let mut blake3 = [0; 32];
                hex::decode_to_slice(id, &mut blake3).ok()?;
                (hex::encode(blake3) == id).then(|| Self { tenant: tenant.into(), blake3 })
            })
            .ok_or(NameError { expected: "tenants/{tenant}/artifacts/{blake3 in lower-case hex}" })
    }
}

impl fmt::Display for ArtifactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenants/{}/artifacts/{}", self.tenant, hex::encode(self.blake3))
    }
}

/// Name of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BatchName {
    /// Owner.
    pub tenant: String,
    /// UUID.
    pub batch_id: String,
}

impl BatchName {
    /// Parses `tenants/{tenant}/batches/{uuid}`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        segments(name, "batches")
            .filter(|(_, id)| is_uuid(id))
            .map(|(tenant, id)| Self { tenant: tenant.into(), batch_id: id.into() })
            .ok_or(NameError { expected: "tenants/{tenant}/batches/{uuid}" })
    }
}

impl fmt::Display for BatchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenants/{}/batches/{}", self.tenant, self.batch_id)
    }
}

/// Name of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WebhookName {
    /// Owner.
    pub tenant: String,
    /// UUID.
    pub webhook_id: String,
}

impl WebhookName {
    /// Parses `tenants/{tenant}/webhooks/{uuid}`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        segments(name, "webhooks")
            .filter(|(_, id)| is_uuid(id))
            .map(|(tenant, id)| Self { tenant: tenant.into(), webhook_id: id.into() })
            .ok_or(NameError { expected: "tenants/{tenant}/webhooks/{uuid}" })
    }
}

impl fmt::Display for WebhookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenants/{}/webhooks/{}", self.tenant, self.webhook_id)
    }
}

/// Name of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UploadName {
    /// Owner.
    pub tenant: String,
    /// UUID.
    pub upload_id: String,
}

impl UploadName {
    /// Parses `tenants/{tenant}/uploads/{uuid}`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        segments(name, "uploads")
            .filter(|(_, id)| is_uuid(id))
            .map(|(tenant, id)| Self { tenant: tenant.into(), upload_id: id.into() })
            .ok_or(NameError { expected: "tenants/{tenant}/uploads/{uuid}" })
    }
}

impl fmt::Display for UploadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenants/{}/uploads/{}", self.tenant, self.upload_id)
    }
}

/// Name of a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobName {
    /// Owner.
    pub tenant: String,
    /// UUID.
    pub job_id: String,
}

impl JobName {
    /// Parses `tenants/{tenant}/jobs/{uuid}`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        segments(name, "jobs")
            .filter(|(_, id)| is_uuid(id))
            .map(|(tenant, id)| Self { tenant: tenant.into(), job_id: id.into() })
            .ok_or(NameError { expected: "tenants/{tenant}/jobs/{uuid}" })
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenants/{}/jobs/{}", self.tenant, self.job_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let hash = "ab".repeat(32);
        let artifact = format!("tenants/default/artifacts/{hash}");
        assert_eq!(ArtifactName::parse(&artifact).unwrap().to_string(), artifact);
        let model = "tenants/default/models/mlp-mnist";
        assert_eq!(ModelName::parse(model).unwrap().to_string(), model);
        let job = "tenants/a/jobs/01923c5e-7b1c-7d3a-9a55-0123456789ab";
        assert_eq!(JobName::parse(job).unwrap().to_string(), job);
        let upload = "tenants/a/uploads/01923c5e-7b1c-7d3a-9a55-0123456789ab";
        assert_eq!(UploadName::parse(upload).unwrap().to_string(), upload);
    }

    #[test]
    fn refuses_what_formatting_would_not_write() {
        for name in [
            "",
            "tenants//models/a",
            "tenants/a/models/",
            "tenants/a/models/A",
            "tenants/a/models/a-",
            "tenants/a/models/a/b",
            "tenants/a/models/..",
            "tenants/../models/a",
            "tenants/a/jobs/a",
            "/tenants/a/models/a",
            "tenants/a/models/a\0",
        ] {
            assert!(ModelName::parse(name).is_err(), "{name:?}");
        }
        let upper = format!("tenants/a/artifacts/{}", "AB".repeat(32));
        assert!(ArtifactName::parse(&upper).is_err());
        assert!(JobName::parse("tenants/a/jobs/01923C5E-7b1c-7d3a-9a55-0123456789ab").is_err());
        assert!(!is_resource_id(&"a".repeat(64)));
        assert!(is_resource_id(&"a".repeat(63)));
    }
}
