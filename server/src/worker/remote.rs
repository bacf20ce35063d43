//! Tasks from a service elsewhere, over gRPC.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use zkinfer_proto::v1;

use super::link::{Client, Link, RemoteError, RemoteOptions};
use super::source::{Holding, SourceError, SourceFuture, TaskSource, Terms};
use super::wire;
use crate::artifacts::Class;
use crate::engine::{
    ArtifactFacts, Digest, FailedAttempt, Lease, Leased, NewSession, Offer, Outcome, Renewal, SessionEnd, TaskFlow, Usage, now_ms,
};
use crate::secret::Growing;

/// Progress is sent at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// A call is answered within this, and the next message of a stream there.
const ANSWER: Duration = Duration::from_secs(20);
/// The service waits for tasks for a while of its own.
const TASKS: Duration = Duration::from_secs(30);
/// Large artifacts take their time.
const UPLOAD: Duration = Duration::from_secs(600);
/// Bytes of data in a message until the service says how many.
const FIRST_CHUNK_BYTES: usize = 64 << 10;
/// Largest artifact that is accepted.
const MAX_ARTIFACT_BYTES: usize = 4 << 30;

/// The tasks of a service elsewhere. It connects when it is asked for something, and again when the connection is lost or its certificates have changed.
pub struct RemoteSource {
    link: Arc<Link>,
    connected: Mutex<Connected>,
    chunk_bytes: Arc<AtomicUsize>,
}

/// A client, and how it was connected.
struct Connected {
    endpoint: Arc<Endpoint>,
    client: Client,
}

impl RemoteSource {
    /// Connects later. Called on the runtime that the source is used on.
    ///
    /// # Errors
    /// An address or certificates that make no sense.
    pub fn new(options: &RemoteOptions) -> Result<Self, RemoteError> {
        let link = Arc::new(Link::open(options)?);
        link.keep_reloaded(options.reload);
        Ok(Self::over(link, Arc::new(AtomicUsize::new(FIRST_CHUNK_BYTES))))
    }

    fn over(link: Arc<Link>, chunk_bytes: Arc<AtomicUsize>) -> Self {
        let endpoint = link.endpoint();
        let client = link.connect(&endpoint);
        Self { link, connected: Mutex::new(Connected { endpoint, client }), chunk_bytes }
    }

    /// Reads the certificates again that have changed. Files that are wrong now change nothing, and the log says why.
    pub fn reload_changed(&self) {
        self.link.reload_changed();
    }

    /// For one call. Called on the runtime that the source is used on: a new connection becomes one of that.
    fn client(&self) -> Client {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoint = self.link.endpoint();
        if !Arc::ptr_eq(&endpoint, &connected.endpoint) {
            let client = self.link.connect(&endpoint);
            *connected = Connected { endpoint, client };
        }
        connected.client.clone()
    }

    async fn read_all(&self, request: v1::ReadTaskArtifactRequest, digest: Digest) -> Result<Bytes, SourceError> {
        let mut client = self.client();
        let mut stream = answer(ANSWER, client.read_task_artifact(request)).await?;
        let mut all = Growing::default();
        while let Some(message) = within(ANSWER, stream.message()).await? {
            all.push(&message.data);
            if all.len() > MAX_ARTIFACT_BYTES {
                return Err(SourceError::Refused(format!("an artifact has more than {MAX_ARTIFACT_BYTES} bytes")));
            }
        }
        if *blake3::hash(all.as_slice()).as_bytes() == digest {
            Ok(all.freeze())
        } else {
            Err(SourceError::Unavailable("an artifact arrived damaged".to_owned()))
        }
    }

    async fn settle(&self, accepted: impl Future<Output = Result<tonic::Response<v1::SettleResponse>, Status>>) -> Result<(), SourceError> {
        if answer(ANSWER, accepted).await?.accepted { Ok(()) } else { Err(SourceError::Fenced) }
    }

    async fn renewed(&self, request: v1::RenewLeasesRequest) -> Result<Renewal, SourceError> {
        let answer = answer(ANSWER, self.client().renew_leases(request)).await?;
        Ok(Renewal { lost: wire::leases(answer.lost)?, stop: wire::leases(answer.stop)? })
    }
}

/// A call's answer, in time.
async fn answer<T>(patience: Duration, call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, SourceError> {
    within(patience, call).await.map(tonic::Response::into_inner)
}

async fn within<T>(patience: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, SourceError> {
    match tokio::time::timeout(patience, call).await {
        Ok(answer) => answer.map_err(|status| failure(&status)),
        Err(_) => Err(SourceError::Unavailable(format!("no answer within {} s", patience.as_secs()))),
    }
}

/// What a status says. One without details was made by the library: the connection failed, or the service is not there.
fn failure(status: &Status) -> SourceError {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    let text = || format!("{}: {}", status.code(), status.message());
    match (status.code(), reason) {
        (_, Some("TASK_LOST")) => SourceError::Fenced,
        (_, Some("NO_SESSION")) => SourceError::NoSession,
        (Code::DataLoss, Some("STORED_BYTES_DAMAGED")) => SourceError::Damaged(text()),
        (Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled, _) | (_, None) => {
            SourceError::Unavailable(text())
        }
        _ => SourceError::Refused(text()),
    }
}

impl From<wire::WireError> for SourceError {
    fn from(error: wire::WireError) -> Self {
        Self::Refused(format!("the answer cannot be read: {error}"))
    }
}

fn duration(time: Option<prost_types::Duration>, field: &'static str) -> Result<Duration, wire::WireError> {
    time.and_then(|time| Duration::try_from(time).ok()).ok_or(wire::WireError(field))
}

impl TaskSource for RemoteSource {
    fn open(&self, new: NewSession) -> SourceFuture<'_, Terms> {
        Box::pin(async move {
            let request = v1::OpenSessionRequest { worker: new.worker, devices: new.devices };
            let opened = answer(ANSWER, self.client().open_session(request)).await?;
            self.chunk_bytes.store((opened.chunk_bytes as usize).max(1), Ordering::Relaxed);
            Ok(Terms {
                session: opened.session,
                lease: duration(opened.lease, "lease")?,
                fuse_below: duration(opened.fuse_below, "fuse_below")?,
                task_limit: duration(opened.task_limit, "task_limit")?,
            })
        })
    }

    fn lease<'a>(&'a self, session: &'a str, offer: Offer) -> SourceFuture<'a, Vec<Leased>> {
        Box::pin(async move {
            let request = v1::LeaseTasksRequest {
                session: session.to_owned(),
                max_tasks: offer.max_tasks,
                slots: offer.n_slots,
                device_bytes: (offer.device_bytes != u64::MAX).then_some(offer.device_bytes),
                host_bytes: (offer.host_bytes != u64::MAX).then_some(offer.host_bytes),
                cached_models: offer.cached_models.iter().map(|digest| digest.to_vec()).collect(),
            };
            let answer = answer(TASKS, self.client().lease_tasks(request)).await?;
            Ok(answer.tasks.into_iter().map(wire::leased).collect::<Result<_, _>>()?)
        })
    }

    fn renew<'a>(&'a self, session: &'a str, held: Vec<Lease>) -> SourceFuture<'a, Renewal> {
        let request = v1::RenewLeasesRequest { session: session.to_owned(), held: wire::lease_messages(&held), progress: Vec::new() };
        Box::pin(self.renewed(request))
    }

    fn progress<'a>(&'a self, holding: Holding<'a>, progress: v1::Progress) -> SourceFuture<'a, TaskFlow> {
        let lease = wire::lease_message(holding.lease);
        let request = v1::RenewLeasesRequest {
            session: holding.session.to_owned(),
            held: vec![lease.clone()],
            progress: vec![v1::TaskProgress { lease: Some(lease), progress: Some(progress) }],
        };
        Box::pin(async move {
            let renewal = self.renewed(request).await?;
            match (renewal.lost.is_empty(), renewal.stop.is_empty()) {
                (false, _) => Err(SourceError::Fenced),
                (true, false) => Ok(TaskFlow::Stop),
                (true, true) => Ok(TaskFlow::Continue),
            }
        })
    }

    fn progress_interval(&self) -> Duration {
        PROGRESS_EVERY
    }

    fn complete<'a>(&'a self, holding: Holding<'a>, outcome: Outcome, usage: Usage) -> SourceFuture<'a, ()> {
        let request = v1::CompleteTaskRequest {
            session: holding.session.to_owned(),
            lease: Some(wire::lease_message(holding.lease)),
            outcome: Some(wire::outcome_message(outcome)),
            usage: Some(wire::usage_message(usage)),
        };
        Box::pin(async move { self.settle(self.client().complete_task(request)).await })
    }

    fn fail<'a>(&'a self, holding: Holding<'a>, failed: FailedAttempt, usage: Usage) -> SourceFuture<'a, ()> {
        let request = v1::FailTaskRequest {
            session: holding.session.to_owned(),
            lease: Some(wire::lease_message(holding.lease)),
            cause: failed.cause.as_str().to_owned(),
            reason: failed.reason,
            message: failed.message,
            usage: Some(wire::usage_message(usage)),
            damaged_results: failed.damaged.into_iter().take(wire::MAX_DAMAGED).collect(),
        };
        Box::pin(async move { self.settle(self.client().fail_task(request)).await })
    }

    fn release<'a>(&'a self, holding: Holding<'a>, usage: Usage) -> SourceFuture<'a, ()> {
        let request = v1::ReleaseTaskRequest {
            session: holding.session.to_owned(),
            lease: Some(wire::lease_message(holding.lease)),
            usage: Some(wire::usage_message(usage)),
        };
        Box::pin(async move { self.settle(self.client().release_task(request)).await })
    }

    fn close<'a>(&'a self, session: &'a str, end: SessionEnd) -> SourceFuture<'a, ()> {
        let request = wire::close_message(session, end);
        Box::pin(async move { answer(ANSWER, self.client().close_session(request)).await.map(drop) })
    }

    fn read<'a>(&'a self, holding: Holding<'a>, class: Class, digest: Digest) -> SourceFuture<'a, Bytes> {
        let request = v1::ReadTaskArtifactRequest {
            session: holding.session.to_owned(),
            lease: Some(wire::lease_message(holding.lease)),
            class: wire::class_message(class),
            blake3: digest.to_vec(),
        };
        Box::pin(self.read_all(request, digest))
    }

    fn write<'a>(&'a self, holding: Holding<'a>, class: Class, media_type: &'a str, bytes: Bytes) -> SourceFuture<'a, ArtifactFacts> {
        Box::pin(async move {
            let digest = *blake3::hash(&bytes).as_bytes();
            let size_bytes = bytes.len() as u64;
            let first = v1::WriteTaskArtifactRequest {
                session: holding.session.to_owned(),
                lease: Some(wire::lease_message(holding.lease)),
                class: wire::class_message(class),
                media_type: media_type.to_owned(),
                size_bytes,
                data: Bytes::new(),
            };
            let chunk_bytes = self.chunk_bytes.load(Ordering::Relaxed);
            let starts = (0..bytes.len()).step_by(chunk_bytes);
            let rest = starts.map(move |start| v1::WriteTaskArtifactRequest {
                data: bytes.slice(start..(start + chunk_bytes).min(bytes.len())),
                ..Default::default()
            });
            let messages = tokio_stream::iter(std::iter::once(first).chain(rest));
            let stored = answer(UPLOAD, self.client().write_task_artifact(messages)).await?;
            if stored.blake3 != digest {
                return Err(SourceError::Unavailable("an artifact arrived damaged".to_owned()));
            }
            let tenant = holding.lease.task.subject.tenant.clone();
            Ok(ArtifactFacts { class, tenant, digest, size_bytes, media_type: media_type.to_owned(), created_ms: now_ms() })
        })
    }

    fn beside(&self) -> Arc<dyn TaskSource> {
        Arc::new(Self::over(self.link.clone(), self.chunk_bytes.clone()))
    }
}
