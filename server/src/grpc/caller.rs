//! What handlers work with, and the frame around every unary call.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Request, Response, Status};
use zkinfer_proto::name::{ArtifactName, parse_tenant};

use super::budget::ByteBudget;
use super::error::ApiError;
use super::fields::Fields;
use super::places::Places;
use super::rate::CreateRate;
use crate::artifacts::{PublicArtifacts, Uploads};
use crate::auth::Principal;
use crate::engine::{ArtifactFacts, Operations, Resources, Webhooks};
use crate::limits::Limits;
use crate::prover::Prover;
use crate::record_seal::RecordSeal;
use crate::scheduler::{CpuPool, Hub};
use crate::supervisor::Children;
use crate::webhooks::Reach;
use crate::worker::Running;

/// The service, as handlers see it. Internal artifacts and the queue are out of reach.
pub(crate) struct App {
    pub(crate) engine: Arc<dyn Resources>,
    pub(crate) webhooks: Arc<dyn Webhooks>,
    pub(crate) operations: Arc<dyn Operations>,
    /// Where webhooks may be sent.
    pub(crate) reach: Reach,
    pub(crate) webhook_ports: Vec<u16>,
    pub(crate) seal: RecordSeal,
    pub(crate) artifacts: PublicArtifacts,
    pub(crate) uploads: Uploads,
    pub(crate) prover: Arc<dyn Prover>,
    /// Who computes in its stead, if anybody does.
    pub(crate) children: Option<Arc<Children>>,
    /// For computations that clients wait for.
    pub(crate) cpu: CpuPool,
    /// For checks of workers' proofs, which clients that verify must not hold up, nor the other way round.
    pub(crate) checks: CpuPool,
    /// Of those who wait for them.
    pub(crate) computations: Places,
    /// For stored bytes that clients' computations read.
    pub(crate) computing: ByteBudget,
    /// Of those who wait for them.
    pub(crate) check_places: Arc<Semaphore>,
    /// For stored bytes that checks of workers' proofs read.
    pub(crate) checking: ByteBudget,
    /// For results of workers that are on their way here.
    pub(crate) task_writes: ByteBudget,
    pub(crate) hub: Arc<Hub>,
    pub(crate) running: Arc<Running>,
    pub(crate) limits: Limits,
    pub(crate) watchers: Places,
    pub(crate) downloads: Places,
    /// Those of workers.
    pub(crate) task_downloads: Arc<Semaphore>,
    pub(crate) creates: CreateRate,
    /// No new work is admitted.
    pub(crate) draining: CancellationToken,
    /// Streams end.
    pub(crate) closing: CancellationToken,
    /// Uploads and downloads end too.
    pub(crate) cutting: CancellationToken,
}

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) tenant: String,
}

impl App {
    /// Runs a unary handler for a known caller within the time limit.
    pub(crate) async fn unary<M, R, F>(&self, request: Request<M>, handler: impl FnOnce(Caller, M) -> F) -> Result<Response<R>, Status>
    where
        F: Future<Output = Result<R, ApiError>>,
    {
        let caller = caller(request.extensions())?;
        let answer = handler(caller, request.into_inner());
        match tokio::time::timeout(self.limits.unary, answer).await {
            Ok(answer) => Ok(Response::new(answer?)),
            Err(_) => Err(ApiError::Deadline.into()),
        }
    }

    /// Refuses new work while the service drains.
    pub(crate) fn check_admission(&self) -> Result<(), ApiError> {
        if self.draining.is_cancelled() {
            return Err(ApiError::Unavailable {
                reason: "DRAINING",
                message: "the service is shutting down; try again".into(),
                retry: Duration::from_secs(2),
            });
        }
        Ok(())
    }

    /// Refuses what would create something while the service drains, or faster than the tenant may.
    pub(crate) fn check_creation(&self, caller: &Caller) -> Result<(), ApiError> {
        self.check_creations(caller, 1)
    }

    /// As [`Self::check_creation`], for `n` at once.
    pub(crate) fn check_creations(&self, caller: &Caller, n: usize) -> Result<(), ApiError> {
        self.check_admission()?;
        self.creates.take(&caller.tenant, n)
    }

    /// Facts of an artifact of the caller's, at most `max_bytes` long.
    pub(crate) async fn artifact(
        &self,
        caller: &Caller,
        field: &str,
        name: &ArtifactName,
        max_bytes: u64,
    ) -> Result<ArtifactFacts, ApiError> {
        let facts = match caller.owns(&name.tenant) {
            true => self.artifacts.facts(&name.tenant, name.blake3).await?,
            false => None,
        };
        let facts = facts.ok_or_else(|| ApiError::NotFound { kind: "artifact", name: name.to_string() })?;
        if facts.size_bytes > max_bytes {
            let size_bytes = facts.size_bytes;
            return Err(ApiError::invalid(field, format!("has {size_bytes} bytes; at most {max_bytes} are taken here")));
        }
        Ok(facts)
    }
}

/// The caller, as the guard found it. Without a guard there is no caller.
pub(crate) fn caller(extensions: &Extensions) -> Result<Caller, ApiError> {
    extensions.get::<Principal>().map(|principal| Caller { tenant: principal.tenant.clone() }).ok_or(ApiError::Unauthenticated)
}

impl Caller {
    pub(crate) fn owns(&self, tenant: &str) -> bool {
        self.tenant == tenant
    }

    /// Checks a `parent` field: empty, or the caller's own tenant.
    pub(crate) fn check_parent(&self, parent: &str) -> Result<(), ApiError> {
        if parent.is_empty() {
            return Ok(());
        }
        let mut fields = Fields::default();
        let tenant = fields.parse("parent", parse_tenant(parent));
        fields.finish()?;
        match tenant {
            Some(tenant) if self.owns(tenant) => Ok(()),
            _ => Err(ApiError::NotFound { kind: "tenant", name: parent.into() }),
        }
    }
}
