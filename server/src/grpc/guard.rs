//! The layer before every service: who calls, and errors that are complete.

use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tower::{Layer, Service};

use super::error::ApiError;
use super::status;
use crate::auth::Authentication;

/// Methods that anybody may call: probes have no key.
const OPEN: &str = "/grpc.health.v1.Health/";

/// Makes a [`Guard`] around a service.
#[derive(Clone)]
pub(crate) struct GuardLayer {
    authentication: Arc<Authentication>,
}

impl GuardLayer {
    pub(crate) fn new(authentication: Authentication) -> Self {
        Self { authentication: Arc::new(authentication) }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, authentication: self.authentication.clone() }
    }
}

/// Refuses who is not known, tells handlers who calls, completes the library's own errors.
#[derive(Clone)]
pub(crate) struct Guard<S> {
    inner: S,
    authentication: Arc<Authentication>,
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
        let header = request.headers().get(http::header::AUTHORIZATION);
        let principal = self.authentication.authenticate(header.map(|value| value.as_bytes()));
        // No handler, and nothing that a handler may log, sees the key.
        request.headers_mut().remove(http::header::AUTHORIZATION);
        match principal {
            Some(principal) => {
                request.extensions_mut().insert(principal);
            }
            None if request.uri().path().starts_with(OPEN) => {}
            None => {
                let response = Status::from(ApiError::Unauthenticated).into_http();
                return Box::pin(async move { Ok(response) });
            }
        }
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(completed(answer.await?)) })
    }
}

/// An error without a body is in the headers; errors in the middle of a stream are the handlers' own.
fn completed(response: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(error) if error.code() != tonic::Code::Ok && !status::is_complete(&error) => status::complete(&error).into_http(),
        _ => response,
    }
}
