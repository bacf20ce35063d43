"""The trace that a call belongs to, sent as W3C trace context (`traceparent`): the work of a job that it creates becomes part of it."""

from __future__ import annotations

try:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    # The program has no OpenTelemetry, hence no span: the service begins a trace.
    _propagator = None
else:
    _propagator = TraceContextTextMapPropagator()


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """What tells the service of the caller's current span; nothing if there is none."""
    carrier: dict[str, str] = {}
    if _propagator is not None:
        _propagator.inject(carrier)
    return tuple(carrier.items())
