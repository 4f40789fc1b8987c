"""OpenTelemetry traces across ingress, router and expert; off unless an exporter's endpoint is configured.

`OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) switches it on and the other standard variables
configure it, as for every OpenTelemetry program: engines read the same ones. Knows no request; a span that
is off still propagates the client's own context.
"""

import logging
import os
from typing import Any, Literal, Protocol

from deployments.contracts.messages import TraceContext

logger = logging.getLogger("ray.serve")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
CONTEXT_HEADERS = ("traceparent", "tracestate")
"""W3C Trace Context."""


class Span(Protocol):
    """One piece of work of one process."""

    context: TraceContext
    """Trace context to propagate to the next call, so that it becomes a child of this span."""

    def tell(self, **attributes: str | int | float | bool) -> None:
        """Add attributes; no query text, no keys."""
        ...

    def end(self, error: str | None = None) -> None:
        """End the span; a second call does nothing."""
        ...


class Tracer(Protocol):
    """Begins spans."""

    def begin(self, name: str, parent: TraceContext, kind: Literal["server", "internal"] = "server") -> Span:
        """Begin a span under the context of the caller."""
        ...


class NoSpan:
    """Traces are off: the client's context passes through."""

    def __init__(self, parent: TraceContext) -> None:
        self.context = parent

    def tell(self, **attributes: str | int | float | bool) -> None:
        """Nothing is kept."""

    def end(self, error: str | None = None) -> None:
        """Nothing is sent."""


class NoTracer:
    """Traces are off."""

    def begin(self, name: str, parent: TraceContext, kind: Literal["server", "internal"] = "server") -> Span:
        return NoSpan(parent)


class OtelSpan:
    """A span of OpenTelemetry's SDK."""

    def __init__(self, span: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._span = span
        self._ended = False
        context: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(context, trace.set_span_in_context(span))
        self.context: TraceContext = context

    def tell(self, **attributes: str | int | float | bool) -> None:
        self._span.set_attributes({name.replace("__", "."): value for name, value in attributes.items()})

    def end(self, error: str | None = None) -> None:
        from opentelemetry.trace import Status, StatusCode

        if self._ended:
            return
        self._ended = True
        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


class OtelTracer:
    """Spans of one process, sent in batches by a thread of the SDK with a bounded queue.

    Args:
        processor: where finished spans go.
    """

    def __init__(self, service: str, processor: Any) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
        # A provider of our own: Ray and vLLM may set the global one.
        self._provider = TracerProvider(resource=Resource.create(named))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("to_router")

    def begin(self, name: str, parent: TraceContext, kind: Literal["server", "internal"] = "server") -> Span:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        context = TraceContextTextMapPropagator().extract(dict(parent))
        kinds = {"server": SpanKind.SERVER, "internal": SpanKind.INTERNAL}
        return OtelSpan(self._tracer.start_span(name, context=context, kind=kinds[kind]))

    def close(self) -> None:
        """Send what waits, and end the thread."""
        self._provider.shutdown()


def tracer(service: str) -> Tracer:
    """The process' tracer: one that sends where an endpoint is configured, else one that does nothing."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return NoTracer()
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return NoTracer()
    try:
        return OtelTracer(service, _batches())
    except ImportError as error:
        logger.error("traces are off: %s; install to-router[traces]", error)
        return NoTracer()


def _batches() -> Any:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    protocol = next(filter(None, map(os.environ.get, PROTOCOLS)), "http/protobuf")
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return BatchSpanProcessor(Grpc())
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    return BatchSpanProcessor(Http())
