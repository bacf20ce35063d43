//! The layer before every service: who calls, whether they may, and errors that are complete.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::HeaderValue;
use tonic::codegen::{BoxFuture, http};
use tower::{Layer, Service};

use super::connection::Peer;
use super::error::ApiError;
use super::status;
use crate::auth::methods::{self, Access};
use crate::auth::{Authentication, ClientIdentity, Presented, Principal};
use crate::limits::Limits;
use crate::observe;

/// Calls in which the client sends as long as it likes; their handlers wait for each message for a time of their own.
const STREAMING: [&str; 2] = ["/zkinfer.v1.ArtifactService/WriteChunks", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"];
/// A call that compares all bytes of an artifact with its hash before it sends the first.
const CHECKING: &str = "/zkinfer.v1.ArtifactService/ReadArtifact";
/// A call that waits for as long as its message says, at most `wait` of the limits.
const WAITING: &str = "/zkinfer.v1.ProofService/WaitJob";

/// Makes a [`Guard`] around a service.
#[derive(Clone)]
pub(crate) struct GuardLayer {
    authentication: Arc<Authentication>,
    patience: Patience,
}

impl GuardLayer {
    pub(crate) fn new(authentication: Authentication, limits: &Limits) -> Self {
        Self { authentication: Arc::new(authentication), patience: Patience { unary: limits.unary, wait: limits.wait } }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, authentication: self.authentication.clone(), patience: self.patience }
    }
}

/// Refuses who is not known or may not, tells handlers who calls, completes the library's own errors, and ends calls whose message does not arrive.
#[derive(Clone)]
pub(crate) struct Guard<S> {
    inner: S,
    authentication: Arc<Authentication>,
    patience: Patience,
}

impl<S> Service<http::Request<Body>> for Guard<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let shown = Shown::of(&request);
        // No handler, and nothing that a handler may log, sees the key.
        request.headers_mut().remove(http::header::AUTHORIZATION);
        // The one that is ready answers; the other takes its place.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let (authentication, patience) = (self.authentication.clone(), self.patience.of(request.uri().path()));
        Box::pin(async move {
            let principal = authentication.authenticate(shown.presented(), shown.identity.as_deref()).await;
            drop(shown);
            match check(request.uri().path(), principal) {
                Ok(Some(principal)) => {
                    observe::is_of_tenant(&principal.tenant);
                    request.extensions_mut().insert(principal);
                }
                Ok(None) => {}
                Err(error) => return Ok(Status::from(error).into_http()),
            }
            match tokio::time::timeout(patience, inner.call(request)).await {
                Ok(answer) => Ok(completed(answer?)),
                Err(_) => Ok(Status::from(ApiError::Deadline).into_http()),
            }
        })
    }
}

/// What a call shows of who makes it.
struct Shown {
    authorization: Option<HeaderValue>,
    is_several: bool,
    identity: Option<Arc<ClientIdentity>>,
}

impl Shown {
    fn of(request: &http::Request<Body>) -> Self {
        let mut headers = request.headers().get_all(http::header::AUTHORIZATION).iter().cloned();
        let (authorization, is_several) = (headers.next(), headers.next().is_some());
        let identity = request.extensions().get::<Peer>().and_then(|peer| peer.identity.clone());
        Self { authorization, is_several, identity }
    }

    fn presented(&self) -> Presented<'_> {
        match &self.authorization {
            None => Presented::Nothing,
            Some(_) if self.is_several => Presented::Several,
            Some(value) => Presented::Header(value.as_bytes()),
        }
    }
}

/// How long calls may take.
#[derive(Clone, Copy)]
struct Patience {
    unary: Duration,
    wait: Duration,
}

impl Patience {
    /// How long a call may take until its answer begins, from the first byte of its headers: its message must arrive within that, too.
    fn of(self, path: &str) -> Duration {
        match path {
            WAITING => self.unary.saturating_add(self.wait),
            CHECKING => self.unary.saturating_mul(10),
            path if STREAMING.contains(&path) => Duration::MAX,
            _ => self.unary,
        }
    }
}

/// Whether the method at `path` may be called, and by whom it is. Who is not known learns no more than that.
fn check(path: &str, principal: Option<Principal>) -> Result<Option<Principal>, ApiError> {
    let access = methods::access(path);
    if access == Some(Access::Anybody) {
        return Ok(principal);
    }
    let principal = principal.ok_or(ApiError::Unauthenticated)?;
    match access {
        Some(Access::Scope(scope)) if !principal.scopes.contains(scope) => Err(ApiError::ScopeMissing { scope }),
        Some(Access::Anybody | Access::Known | Access::Scope(_)) => Ok(Some(principal)),
        None => Err(ApiError::NoMethod),
    }
}

/// An error without a body is in the headers; errors in the middle of a stream are the handlers' own.
fn completed(response: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(error) if error.code() != tonic::Code::Ok && !status::is_complete(&error) => status::complete(&error).into_http(),
        _ => response,
    }
}
