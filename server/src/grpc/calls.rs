//! The layer behind the guard: a call takes a place before anything is done for it, and gives it back when its answer was sent or dropped. There are so
//! many in all, and so many of a tenant.
//!
//! Not counted are calls that have places of their own, which may be held for long, and health checks, which must be answered however busy the service is.
//! Workers call on another listener, which has no such layer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tower::{Layer, Service};

use super::places::{Place, Places};
use crate::auth::Principal;
use crate::limits::Limits;

/// Calls that take no place here.
const NOT_COUNTED: [&str; 7] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    // Watchers, downloads, and unfinished uploads, each of which one stream at a time writes.
    "/zkinfer.v1.ModelService/WatchModel",
    "/zkinfer.v1.ProofService/WatchJob",
    "/zkinfer.v1.ProofService/WatchBatch",
    "/zkinfer.v1.ArtifactService/ReadArtifact",
    "/zkinfer.v1.ArtifactService/WriteChunks",
];

/// Makes a [`Calls`] around a service.
#[derive(Clone)]
pub(crate) struct CallsLayer {
    places: Arc<Places>,
}

impl CallsLayer {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { places: Arc::new(Places::of_calls(limits)) }
    }
}

impl<S> Layer<S> for CallsLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls { inner, places: self.places.clone() }
    }
}

/// Lets so many calls at a time through to a service.
#[derive(Clone)]
pub(crate) struct Calls<S> {
    inner: S,
    places: Arc<Places>,
}

impl<S> Service<http::Request<Body>> for Calls<S>
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
        // Who is not known was refused before, except for health checks.
        let tenant = request.extensions().get::<Principal>().map(|principal| principal.tenant.as_str());
        let tenant = tenant.filter(|_| !NOT_COUNTED.contains(&request.uri().path()));
        let place = match tenant.map(|tenant| self.places.take(tenant)).transpose() {
            Ok(place) => place,
            Err(error) => return Box::pin(async { Ok(Status::from(error).into_http()) }),
        };
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Body::new(Held { body, _place: place }))) })
    }
}

/// The body of an answer, which holds the call's place: an answer that its client does not read takes memory.
struct Held {
    body: Body,
    _place: Option<Place>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::methods;

    #[test]
    fn only_methods_that_there_are_are_not_counted() {
        for path in NOT_COUNTED {
            assert!(methods::known(path).is_some(), "{path}");
        }
    }
}
