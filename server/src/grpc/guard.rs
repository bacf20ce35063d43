//! The layer before every service: who calls, whether they may, and errors that are complete.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tower::{Layer, Service};

use super::connection::Peer;
use super::error::ApiError;
use super::status;
use crate::auth::methods::{self, Access};
use crate::auth::{Authentication, Presented, Principal};
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
        let principal = self.principal(&request);
        // No handler, and nothing that a handler may log, sees the key.
        request.headers_mut().remove(http::header::AUTHORIZATION);
        match check(request.uri().path(), principal) {
            Ok(Some(principal)) => {
                observe::is_of_tenant(&principal.tenant);
                request.extensions_mut().insert(principal);
            }
            Ok(None) => {}
            Err(error) => {
                let response = Status::from(error).into_http();
                return Box::pin(async move { Ok(response) });
            }
        }
        let patience = self.patience.of(request.uri().path());
        let answer = self.inner.call(request);
        Box::pin(async move {
            match tokio::time::timeout(patience, answer).await {
                Ok(answer) => Ok(completed(answer?)),
                Err(_) => Ok(Status::from(ApiError::Deadline).into_http()),
            }
        })
    }
}

impl<S> Guard<S> {
    fn principal(&self, request: &http::Request<Body>) -> Option<Principal> {
        let mut headers = request.headers().get_all(http::header::AUTHORIZATION).iter();
        let presented = match (headers.next(), headers.next()) {
            (None, _) => Presented::Nothing,
            (Some(value), None) => Presented::Header(value.as_bytes()),
            (Some(_), Some(_)) => Presented::Several,
        };
        let certificate = request.extensions().get::<Peer>().and_then(|peer| peer.identity.as_deref());
        self.authentication.authenticate(presented, certificate)
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
