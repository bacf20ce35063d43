//! The spans of a call and of work, and how they hang together. Their fields are in every log line below them, and in exported traces.
//!
//! Fields name: tenant, job or model, task, attempt, trace. Never inputs, weights, salts or keys.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::trace::TraceParent;
use crate::engine::{Subject, SubjectKind};

/// The span of a call, and what its work hangs on: the span itself if it is exported, else what the caller sent, else a trace of its own.
pub(super) fn rpc_span(method: &'static str, sent: Option<TraceParent>) -> (Span, TraceParent) {
    let span = tracing::info_span!("rpc", otel.name = method, otel.kind = "server", rpc.method = method, tenant = Empty, trace_id = Empty);
    let parent = hang_on(&span, sent).or(sent).unwrap_or_else(TraceParent::random);
    span.record("trace_id", parent.trace_id());
    (span, parent)
}

/// Notes in the span of the running call whose it is.
pub(crate) fn is_of_tenant(tenant: &str) {
    Span::current().record("tenant", tenant);
}

/// The span of one attempt at a task, a part of the trace that its job was created in.
///
/// `task` names it within its job, such as `prove` or `layer-0007`.
pub(crate) fn work_span(subject: &Subject, task: &str, attempt: u32, trace_parent: &str) -> Span {
    let Subject { tenant, id, .. } = subject;
    let (job, model) = match subject.kind {
        SubjectKind::Job => (Some(id.as_str()), None),
        SubjectKind::Model => (None, Some(id.as_str())),
    };
    let span = tracing::info_span!("work", otel.name = task, otel.kind = "consumer", tenant, job, model, task, attempt, trace_id = Empty);
    let sent = TraceParent::parse(trace_parent);
    if let Some(trace) = hang_on(&span, sent).or(sent) {
        span.record("trace_id", trace.trace_id());
    }
    span
}

/// Makes `parent` the parent of a span that has just been made; answers the span's own place in the trace, if it is exported.
fn hang_on(span: &Span, parent: Option<TraceParent>) -> Option<TraceParent> {
    if let Some(parent) = parent {
        let (trace_id, span_id, flags) = parent.ids();
        let remote = SpanContext::new(
            TraceId::from_bytes(trace_id),
            SpanId::from_bytes(span_id),
            TraceFlags::new(flags),
            true,
            TraceState::default(),
        );
        // Fails if spans are not exported: then there is nothing to hang.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
    }
    let context = span.context();
    let own = context.span().span_context().clone();
    own.is_valid().then(|| TraceParent::new(own.trace_id().to_bytes(), own.span_id().to_bytes(), own.trace_flags().to_u8()))
}
