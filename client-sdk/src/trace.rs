//! The trace that a call belongs to, sent as W3C trace context (`traceparent`): the service's own spans, and the work of a job that the call
//! creates, become parts of it.
//!
//! With the feature `otel`, the caller's current span is the parent, if there is one. Else each call is a trace of its own, whose id the service
//! has in its log lines and errors, and this library in its log at `debug`.

use tonic::metadata::{Ascii, MetadataValue};

/// The header of the call that is about to be sent; none if it cannot be made.
pub(crate) fn trace_parent() -> Option<MetadataValue<Ascii>> {
    current().unwrap_or_else(random).parse().ok()
}

/// A trace of its own, sampled unless the service decides otherwise.
fn random() -> String {
    // Version and variant bits make a UUID a valid trace id: it is never all zero.
    let (trace, span) = (uuid::Uuid::new_v4().simple().to_string(), uuid::Uuid::new_v4().simple().to_string());
    // Of the half with the variant bits.
    let span_id = &span[16..];
    format!("00-{trace}-{span_id}-01")
}

#[cfg(feature = "otel")]
fn current() -> Option<String> {
    use opentelemetry::trace::TraceContextExt as _;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    let context = tracing::Span::current().context();
    let context = context.span().span_context().clone();
    let header = || format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8());
    context.is_valid().then(header)
}

#[cfg(not(feature = "otel"))]
fn current() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_without_a_span_is_a_trace_of_its_own() {
        let headers = [trace_parent().unwrap(), trace_parent().unwrap()];
        assert_ne!(headers[0], headers[1]);
        for header in headers {
            let parts: Vec<&str> = header.to_str().unwrap().split('-').collect();
            assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
            assert_eq!((parts[0], parts[3]), ("00", "01"));
            assert!(parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))));
        }
    }

    #[cfg(feature = "otel")]
    #[test]
    fn the_current_span_is_the_parent() {
        use opentelemetry::trace::TracerProvider as _;
        use tracing_subscriber::layer::SubscriberExt as _;
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("order").entered();
            let [first, second] = [trace_parent().unwrap(), trace_parent().unwrap()];
            assert_eq!(first, second);
            drop(span);
            assert_ne!(trace_parent().unwrap(), first);
        });
    }
}
