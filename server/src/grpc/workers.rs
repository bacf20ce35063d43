//! `WorkerService`: tasks to workers elsewhere, on a listener of its own. Handlers check what came, and pass it to the source that workers of this
//! process use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use zkinfer_proto::v1;
use zkinfer_proto::v1::worker_service_server::WorkerService;

use super::caller::App;
use super::error::ApiError;
use super::fields::is_printable;
use super::proof_check::Checked;
use super::status;
use crate::artifacts::{ArtifactReader, BytesError};
use crate::engine::{Lease, NewSession, Offer, TaskFlow, Usage};
use crate::secret::Growing;
use crate::worker::wire::{self, WireError};
use crate::worker::{Holding, LocalSource, SourceError, TaskSource as _};

/// Messages of a download on their way.
const IN_FLIGHT: usize = 2;
/// Leases that are known to be held, before all are looked up again.
const MAX_KNOWN: usize = 4096;

/// The service.
pub(crate) struct Workers {
    pub(crate) app: Arc<App>,
    pub(crate) source: LocalSource,
    /// They are children of this server.
    pub(crate) are_own: bool,
    /// Leases that a session was found to hold lately, so that not every artifact asks the database.
    pub(crate) known: Arc<Mutex<HashMap<(String, Lease), Instant>>>,
}

impl From<WireError> for ApiError {
    fn from(error: WireError) -> Self {
        Self::invalid(error.0, "is missing or malformed")
    }
}

impl From<SourceError> for ApiError {
    fn from(error: SourceError) -> Self {
        let precondition =
            |reason, error: SourceError| Self::Precondition { reason, subject: "worker".to_owned(), message: error.to_string() };
        match error {
            SourceError::Fenced => precondition("TASK_LOST", error),
            SourceError::NoSession => precondition("NO_SESSION", error),
            SourceError::Unavailable(message) => Self::Unavailable { reason: "NOT_NOW", message, retry: Duration::from_secs(1) },
            SourceError::Damaged(_) => Self::DataLoss { name: "of the task".to_owned() },
            SourceError::Refused(_) => Self::Internal { context: "a worker's call failed", source: error.into() },
        }
    }
}

/// A worker's text for people, cut and without control characters but for line ends.
fn told(mut text: String, max_bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(max_bytes));
    text.retain(|c| c == '\n' || !c.is_control());
    text
}

fn count(n: usize, limit: usize, field: &'static str) -> Result<(), ApiError> {
    if n <= limit { Ok(()) } else { Err(ApiError::invalid(field, format!("has {n} entries; at most {limit} are taken"))) }
}

fn message_duration(time: Duration) -> Option<prost_types::Duration> {
    Some(crate::convert::duration(time))
}

impl Workers {
    fn text(&self, value: &str, field: &'static str) -> Result<(), ApiError> {
        let max_bytes = self.app.limits.worker_text_bytes;
        if value.len() <= max_bytes && is_printable(value) {
            return Ok(());
        }
        Err(ApiError::invalid(field, format!("must have at most {max_bytes} bytes and no control characters")))
    }

    /// What an attempt took, as a worker tells it. Its texts are for people: what cannot be stored of them must not cost the outcome.
    fn usage(&self, message: Option<v1::TaskUsage>) -> Usage {
        let max_bytes = self.app.limits.worker_text_bytes;
        let mut usage = wire::usage(message);
        usage.device = told(usage.device, max_bytes);
        usage.fallback = told(usage.fallback, max_bytes);
        usage
    }

    async fn unary<R>(&self, answer: impl Future<Output = Result<R, ApiError>>) -> Result<Response<R>, Status> {
        match tokio::time::timeout(self.app.limits.unary, answer).await {
            Ok(answer) => Ok(Response::new(answer?)),
            Err(_) => Err(ApiError::Deadline.into()),
        }
    }

    async fn open(&self, request: v1::OpenSessionRequest) -> Result<v1::OpenSessionResponse, ApiError> {
        self.text(&request.worker, "worker")?;
        count(request.devices.len(), self.app.limits.worker_entries, "devices")?;
        request.devices.iter().try_for_each(|device| self.text(device, "devices"))?;
        let terms = self.source.open(NewSession { worker: request.worker, is_local: self.are_own, devices: request.devices }).await?;
        Ok(v1::OpenSessionResponse {
            session: terms.session,
            lease: message_duration(terms.lease),
            fuse_below: message_duration(terms.fuse_below),
            task_limit: message_duration(terms.task_limit),
            chunk_bytes: u32::try_from(self.app.limits.chunk_bytes).unwrap_or(u32::MAX),
        })
    }

    async fn lease(&self, request: v1::LeaseTasksRequest) -> Result<v1::LeaseTasksResponse, ApiError> {
        self.text(&request.session, "session")?;
        let limit = self.app.limits.tasks_per_worker;
        if request.max_tasks == 0 || request.max_tasks as usize > limit {
            return Err(ApiError::invalid("max_tasks", format!("must be from 1 to {limit}")));
        }
        count(request.cached_models.len(), self.app.limits.worker_entries, "cached_models")?;
        let models = request.cached_models.iter().map(|digest| wire::digest(digest, "cached_models"));
        let offer = Offer {
            max_tasks: request.max_tasks,
            n_slots: request.slots,
            device_bytes: request.device_bytes.unwrap_or(u64::MAX),
            host_bytes: request.host_bytes.unwrap_or(u64::MAX),
            cached_models: models.collect::<Result<_, _>>()?,
        };
        let leased = tokio::select! {
            leased = self.source.lease(&request.session, offer) => leased?,
            // The worker asks again, whoever answers then.
            () = self.app.closing.cancelled() => Vec::new(),
        };
        Ok(v1::LeaseTasksResponse { tasks: leased.into_iter().map(wire::leased_message).collect() })
    }

    async fn renew(&self, request: v1::RenewLeasesRequest) -> Result<v1::RenewLeasesResponse, ApiError> {
        self.text(&request.session, "session")?;
        let limit = self.app.limits.tasks_per_worker;
        count(request.held.len(), limit, "held")?;
        count(request.progress.len(), limit, "progress")?;
        let held = wire::leases(request.held)?;
        let mut renewal = self.source.renew(&request.session, held.clone()).await?;
        for told in request.progress {
            let lease = wire::lease(told.lease)?;
            let holding = Holding { session: &request.session, lease: &lease };
            if renewal.lost.contains(&lease) {
                continue;
            }
            if !held.contains(&lease) && !self.is_held(holding).await? {
                renewal.lost.push(lease);
                continue;
            }
            match self.source.progress(holding, told.progress.unwrap_or_default()).await {
                Ok(TaskFlow::Continue) => {}
                Ok(TaskFlow::Stop) => renewal.stop.push(lease),
                Err(SourceError::Fenced) => renewal.lost.push(lease),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(v1::RenewLeasesResponse { lost: wire::lease_messages(&renewal.lost), stop: wire::lease_messages(&renewal.stop) })
    }

    async fn complete(&self, request: v1::CompleteTaskRequest) -> Result<v1::SettleResponse, ApiError> {
        let lease = wire::lease(request.lease)?;
        let outcome = wire::outcome(request.outcome, &lease.task.subject.tenant)?;
        let usage = self.usage(request.usage);
        let holding = Holding { session: &request.session, lease: &lease };
        if !self.is_held(holding).await? {
            return Ok(NOT_ITS_OWN);
        }
        match self.check_proof(holding, &outcome).await? {
            Checked::Good => accepted(self.source.complete(holding, outcome, usage).await),
            Checked::Wrong(failed) => accepted(self.source.fail(holding, failed, usage).await),
            Checked::Lost => Ok(NOT_ITS_OWN),
        }
    }

    async fn fail(&self, request: v1::FailTaskRequest) -> Result<v1::SettleResponse, ApiError> {
        let lease = wire::lease(request.lease)?;
        self.text(&request.reason, "reason")?;
        let failed = wire::failed(
            &request.cause,
            request.reason,
            told(request.message, self.app.limits.worker_text_bytes),
            request.damaged_results,
        )?;
        let holding = Holding { session: &request.session, lease: &lease };
        if !self.is_held(holding).await? {
            return Ok(NOT_ITS_OWN);
        }
        accepted(self.source.fail(holding, failed, self.usage(request.usage)).await)
    }

    async fn release(&self, request: v1::ReleaseTaskRequest) -> Result<v1::SettleResponse, ApiError> {
        let lease = wire::lease(request.lease)?;
        let holding = Holding { session: &request.session, lease: &lease };
        if !self.is_held(holding).await? {
            return Ok(NOT_ITS_OWN);
        }
        accepted(self.source.release(holding, self.usage(request.usage)).await)
    }

    /// Whether a task is the session's to change. The engine knows a lease by its task and epoch, which another worker may guess: by its session, which
    /// only its own worker knows, it is found here.
    async fn is_held(&self, holding: Holding<'_>) -> Result<bool, ApiError> {
        self.text(holding.session, "session")?;
        match self.hold(holding).await {
            Ok(()) => Ok(true),
            Err(SourceError::Fenced | SourceError::NoSession) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the session holds the task, as far as the last look at the database goes.
    async fn hold(&self, holding: Holding<'_>) -> Result<(), SourceError> {
        let key = (holding.session.to_owned(), holding.lease.clone());
        let trusted = self.app.limits.lease / 3;
        let is_known = |at: &Instant| at.elapsed() < trusted;
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).is_some_and(is_known) {
            return Ok(());
        }
        if !self.source.renew(holding.session, vec![holding.lease.clone()]).await?.lost.is_empty() {
            return Err(SourceError::Fenced);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(key, Instant::now());
        Ok(())
    }

    async fn read(
        &self,
        request: v1::ReadTaskArtifactRequest,
    ) -> Result<ReceiverStream<Result<v1::ReadTaskArtifactResponse, Status>>, ApiError> {
        let lease = wire::lease(request.lease)?;
        let (class, digest) = (wire::class(request.class)?, wire::digest(&request.blake3, "blake3")?);
        let holding = Holding { session: &request.session, lease: &lease };
        self.text(&request.session, "session")?;
        self.hold(holding).await?;
        let place = self.place().await?;
        let reader = self.source.reader(holding, class, digest).await?;
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let (chunk_bytes, patience) = (self.app.limits.chunk_bytes, self.app.limits.unary);
        tokio::spawn(async move {
            // Who waits for the end waits no longer than for one message.
            if let Err(error) = send_parts(reader, chunk_bytes, patience, &sender).await {
                let status = ApiError::from(SourceError::from(error)).into();
                let _ = tokio::time::timeout(patience, sender.send(Err(status))).await;
            }
            drop(place);
        });
        Ok(ReceiverStream::new(receiver))
    }

    /// The right to read an artifact; workers wait for one rather than fail a task. Theirs are not those of clients, who could take them all.
    async fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let patience = self.app.limits.unary / 4;
        match tokio::time::timeout(patience, self.app.task_downloads.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(ApiError::too_many_downloads(self.app.limits.downloads)),
        }
    }

    async fn write(&self, mut stream: Streaming<v1::WriteTaskArtifactRequest>) -> Result<v1::TaskArtifact, Status> {
        let missing = || Status::from(ApiError::invalid("session", "is required in the first message"));
        let first = self.next_chunk(&mut stream).await?.ok_or_else(missing)?;
        let lease = wire::lease(first.lease).map_err(ApiError::from)?;
        let class = wire::class(first.class).map_err(ApiError::from)?;
        let media_type = wire::media_type(first.media_type).map_err(ApiError::from)?;
        let limit = self.app.limits.task_artifact_bytes;
        let size = usize::try_from(first.size_bytes).ok().filter(|_| first.size_bytes <= limit);
        let size = size.ok_or_else(|| ApiError::invalid("size_bytes", format!("must be at most {limit}")))?;
        self.text(&first.session, "session")?;
        let holding = Holding { session: &first.session, lease: &lease };
        self.hold(holding).await.map_err(ApiError::from)?;
        let memory = tokio::time::timeout(self.app.limits.unary, self.app.task_writes.take(first.size_bytes)).await;
        let _memory = memory.map_err(|_| ApiError::Deadline)??;
        // Grows with what comes, not with what is announced.
        let mut bytes = Growing::default();
        bytes.push(&first.data);
        while let Some(message) = self.next_chunk(&mut stream).await? {
            bytes.push(&message.data);
            if bytes.len() > size {
                break;
            }
        }
        if bytes.len() != size {
            return Err(ApiError::invalid("size_bytes", "is not the number of bytes that came").into());
        }
        let facts = self.source.write(holding, class, &media_type, bytes.freeze()).await.map_err(ApiError::from)?;
        Ok(wire::artifact_message(&facts))
    }

    async fn next_chunk(
        &self,
        stream: &mut Streaming<v1::WriteTaskArtifactRequest>,
    ) -> Result<Option<v1::WriteTaskArtifactRequest>, Status> {
        match tokio::time::timeout(self.app.limits.upload_idle, stream.message()).await {
            Ok(message) => message.map_err(|error| status::complete(&error)),
            Err(_) => Err(ApiError::Deadline.into()),
        }
    }
}

/// Sends an artifact until its end, or until nobody takes more of it.
async fn send_parts(
    mut reader: ArtifactReader,
    chunk_bytes: usize,
    patience: Duration,
    sender: &mpsc::Sender<Result<v1::ReadTaskArtifactResponse, Status>>,
) -> Result<(), BytesError> {
    while let Some(mut part) = reader.next().await? {
        while !part.is_empty() {
            let data = part.split_to(chunk_bytes.min(part.len()));
            // A worker that does not read holds nothing for longer than this.
            let sent = tokio::time::timeout(patience, sender.send(Ok(v1::ReadTaskArtifactResponse { data }))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What a session is told that wants to settle what it does not hold.
const NOT_ITS_OWN: v1::SettleResponse = v1::SettleResponse { accepted: false };

/// Whether the task was the session's to settle.
fn accepted(settled: Result<(), SourceError>) -> Result<v1::SettleResponse, ApiError> {
    match settled {
        Ok(()) => Ok(v1::SettleResponse { accepted: true }),
        Err(SourceError::Fenced) => Ok(NOT_ITS_OWN),
        Err(error) => Err(error.into()),
    }
}

#[tonic::async_trait]
impl WorkerService for Workers {
    async fn open_session(&self, request: Request<v1::OpenSessionRequest>) -> Result<Response<v1::OpenSessionResponse>, Status> {
        self.unary(self.open(request.into_inner())).await
    }

    async fn lease_tasks(&self, request: Request<v1::LeaseTasksRequest>) -> Result<Response<v1::LeaseTasksResponse>, Status> {
        self.unary(self.lease(request.into_inner())).await
    }

    async fn renew_leases(&self, request: Request<v1::RenewLeasesRequest>) -> Result<Response<v1::RenewLeasesResponse>, Status> {
        self.unary(self.renew(request.into_inner())).await
    }

    async fn complete_task(&self, request: Request<v1::CompleteTaskRequest>) -> Result<Response<v1::SettleResponse>, Status> {
        self.unary(self.complete(request.into_inner())).await
    }

    async fn fail_task(&self, request: Request<v1::FailTaskRequest>) -> Result<Response<v1::SettleResponse>, Status> {
        self.unary(self.fail(request.into_inner())).await
    }

    async fn release_task(&self, request: Request<v1::ReleaseTaskRequest>) -> Result<Response<v1::SettleResponse>, Status> {
        self.unary(self.release(request.into_inner())).await
    }

    async fn close_session(&self, request: Request<v1::CloseSessionRequest>) -> Result<Response<v1::CloseSessionResponse>, Status> {
        let (session, end) = wire::close(request.into_inner());
        self.unary(async {
            self.text(&session, "session")?;
            self.source.close(&session, end).await?;
            Ok(v1::CloseSessionResponse {})
        })
        .await
    }

    type ReadTaskArtifactStream = ReceiverStream<Result<v1::ReadTaskArtifactResponse, Status>>;

    async fn read_task_artifact(
        &self,
        request: Request<v1::ReadTaskArtifactRequest>,
    ) -> Result<Response<Self::ReadTaskArtifactStream>, Status> {
        self.unary(self.read(request.into_inner())).await
    }

    async fn write_task_artifact(
        &self,
        request: Request<Streaming<v1::WriteTaskArtifactRequest>>,
    ) -> Result<Response<v1::TaskArtifact>, Status> {
        self.write(request.into_inner()).await.map(Response::new)
    }
}
