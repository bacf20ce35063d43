//! Stored bytes of a task, read through the source when they are asked for.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;
use zkinfer_proto::name::ArtifactName;
use zkinfer_proto::v1;

use super::source::{Holding, SourceError, TaskSource};
use crate::artifacts::Class;
use crate::engine::Digest;
use crate::prover::{DigestBytes, ModelMaterial, ProverError, StepResults};

/// Reads and writes for one task.
#[derive(Clone, Copy)]
pub(super) struct Desk<'a> {
    pub(super) runtime: &'a tokio::runtime::Handle,
    pub(super) source: &'a Arc<dyn TaskSource>,
    pub(super) holding: Holding<'a>,
}

impl<'a> Desk<'a> {
    pub(super) fn read(&self, class: Class, digest: Digest) -> Result<bytes::Bytes, ProverError> {
        self.try_read(class, digest).map_err(unread)
    }

    fn try_read(&self, class: Class, digest: Digest) -> Result<bytes::Bytes, SourceError> {
        self.runtime.block_on(self.source.read(self.holding, class, digest))
    }

    /// A public artifact of the task's tenant.
    pub(super) fn read_named(&self, name: &str) -> Result<bytes::Bytes, ProverError> {
        let name = ArtifactName::parse(name).map_err(|_| ProverError::Internal("a stored artifact name is invalid".into()))?;
        if name.tenant != self.holding.lease.task.subject.tenant {
            return Err(ProverError::Internal("a task names an artifact of another tenant".into()));
        }
        self.read(Class::Public, name.blake3)
    }

    pub(super) fn material(self, model: &v1::Model, private_digest: Digest) -> Result<Material<'a>, ProverError> {
        let registered = model.registered.as_ref().ok_or_else(|| ProverError::Internal("the stored model is incomplete".into()))?;
        Ok(Material { desk: self, private_digest, key: registered.verifier_key_artifact.clone(), key_bytes: OnceLock::new() })
    }

    /// All results that a step reads. All that are damaged are found at once: each attempt that finds some is one of few.
    pub(super) fn results(&self, results: &[(String, Digest)]) -> Result<TaskResults, ProverError> {
        let (mut read, mut damaged) = (HashMap::new(), Vec::new());
        for (name, digest) in results {
            match self.try_read(Class::Internal, *digest) {
                Ok(bytes) => drop(read.insert(name.clone(), Zeroizing::new(bytes.to_vec()))),
                Err(SourceError::Damaged(_)) => damaged.push(name.clone()),
                Err(error) => return Err(unread(error)),
            }
        }
        if damaged.is_empty() { Ok(TaskResults(read)) } else { Err(ProverError::ResultsDamaged(damaged)) }
    }
}

fn unread(error: SourceError) -> ProverError {
    match error {
        // The heartbeat learns of it too, and knows what to do.
        SourceError::Fenced | SourceError::NoSession => ProverError::Stopped(crate::prover::Stopped),
        other => ProverError::Storage(other.to_string()),
    }
}

/// A model's stored bytes.
pub(super) struct Material<'a> {
    desk: Desk<'a>,
    private_digest: Digest,
    key: String,
    /// Read once: the prover and who checks its proof want it.
    key_bytes: OnceLock<bytes::Bytes>,
}

impl ModelMaterial for Material<'_> {
    fn id(&self) -> DigestBytes {
        self.private_digest
    }

    fn private(&self) -> Result<Zeroizing<Vec<u8>>, ProverError> {
        Ok(Zeroizing::new(self.desk.read(Class::Internal, self.private_digest)?.to_vec()))
    }

    fn verifier_key(&self) -> Result<Vec<u8>, ProverError> {
        let bytes = match self.key_bytes.get() {
            Some(bytes) => bytes.clone(),
            None => {
                let bytes = self.desk.read_named(&self.key)?;
                self.key_bytes.get_or_init(|| bytes).clone()
            }
        };
        Ok(bytes.to_vec())
    }
}

/// Results of other tasks, by their names.
pub(super) struct TaskResults(HashMap<String, Zeroizing<Vec<u8>>>);

impl StepResults for TaskResults {
    fn result(&self, step: &str) -> Option<&[u8]> {
        self.0.get(step).map(|bytes| bytes.as_slice())
    }
}
