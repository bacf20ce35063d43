//! The layer around every call: its span, its trace, its time and its code.
//!
//! A call ends with the trailers of its answer, or with its headers if they are all; a stream is one call, however long it is. An answer that is
//! dropped before its end counts as CANCELLED: the client has gone.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span};

use super::metrics::{Metrics, RpcLabels};
use super::spans::rpc_span;
use super::trace::TraceParent;
use crate::auth::methods;

/// Makes an [`Rpc`] around a service.
#[derive(Clone)]
pub(crate) struct RpcLayer {
    metrics: Arc<Metrics>,
}

impl RpcLayer {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl<S> Layer<S> for RpcLayer {
    type Service = Rpc<S>;

    fn layer(&self, inner: S) -> Rpc<S> {
        Rpc { inner, metrics: self.metrics.clone() }
    }
}

/// Observes the calls of a service.
#[derive(Clone)]
pub(crate) struct Rpc<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Service<http::Request<Body>> for Rpc<S>
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

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The one that is ready answers; the other takes its place.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let method = methods::known(request.uri().path()).unwrap_or("unknown");
        let (span, trace) = rpc_span(method, TraceParent::of_headers(request.headers()));
        let call = Call::begin(self.metrics.clone(), method);
        let of_body = span.clone();
        let answer = async move {
            let response = inner.call(request).await?;
            Ok(observed(response, call, of_body))
        };
        Box::pin(trace.scope(answer).instrument(span))
    }
}

fn observed(response: http::Response<Body>, mut call: Call, span: Span) -> http::Response<Body> {
    if let Some(code) = code_of(response.headers()) {
        call.code = code;
    }
    response.map(|body| Body::new(Observed { body, call, span }))
}

fn code_of(headers: &http::HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|status| Code::from_bytes(status.as_bytes()))
}

/// A running call. It is counted when it is dropped.
struct Call {
    metrics: Arc<Metrics>,
    method: &'static str,
    began: Instant,
    code: Code,
}

impl Call {
    fn begin(metrics: Arc<Metrics>, method: &'static str) -> Self {
        metrics.rpcs.inc();
        Self { metrics, method, began: Instant::now(), code: Code::Cancelled }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let labels = RpcLabels { method: self.method, code: code_name(self.code) };
        self.metrics.rpc_seconds.get_or_create(&labels).observe(self.began.elapsed().as_secs_f64());
        self.metrics.rpcs.dec();
    }
}

/// The body of an answer.
struct Observed {
    body: Body,
    call: Call,
    span: Span,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let _entered = this.span.enter();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(code) = frame.trailers_ref().and_then(code_of)
        {
            this.call.code = code;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// As the gRPC specification names it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
