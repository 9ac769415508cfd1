"""OpenTelemetry spans of calls and of their pictures' stages: ``--otlp``.

Which traces are kept: the client decides, by the sampled flag of its ``traceparent``; for calls without one the
environment of OpenTelemetry, ``OTEL_TRACES_SAMPLER``, which has all other details too (``OTEL_SERVICE_NAME``, ...).
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import grpc

from regraft.errors import MissingPackageError

_SEND_S: Final = 2
"""For one batch of spans, trying again included: as long as a server that stops waits for a collector that is gone."""

_SERVERS_FAULT: Final = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
"""What OpenTelemetry's conventions for RPCs call an error of the server."""


class Tracing:
    """A tracer with a thread that sends spans; close it when done."""

    def __init__(self, endpoint: str) -> None:
        """Send to ``endpoint``, as in ``http://127.0.0.1:4317``.

        Raises:
            MissingPackageError: the packages of the extra are not installed.
        """
        try:
            from opentelemetry import trace  # noqa: PLC0415 - optional, and a server without --otlp spares it
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
            from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415
        except ImportError as error:
            raise MissingPackageError("--otlp needs more packages: pip install 'regraft[otlp]'") from error
        resource = Resource({SERVICE_NAME: "regraft"}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=_SEND_S)))
        self._tracer = self._provider.get_tracer("regraft")
        self._extract = TraceContextTextMapPropagator().extract
        self._trace = trace

    def start(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> "CallSpan":
        """Begin the span of a call, as a child of the client's.

        Args:
            method: ``/package.Service/Method``.
            metadata: of the client.
        """
        service, _, name = method.strip("/").rpartition("/")
        parent = self._extract({key: str(value) for key, value in metadata if key.startswith("trace")})
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        kind = self._trace.SpanKind.SERVER
        span = self._tracer.start_span(method.strip("/"), parent, kind, attributes)
        return CallSpan(self._trace, self._tracer, span)

    def close(self) -> None:
        """Send the last spans, for some seconds at most."""
        self._provider.shutdown()


class CallSpan:
    """The span of one call."""

    def __init__(self, trace: Any, tracer: Any, span: Any) -> None:  # noqa: ANN401 - optional packages
        """See `Tracing.start`."""
        self._trace, self._tracer, self._span = trace, tracer, span
        context = span.get_span_context()
        self.trace_id: str = f"{context.trace_id:032x}" if context.trace_flags.sampled else ""

    def picture(self, seconds: Mapping[str, float]) -> None:
        """Add the stages of a picture that has just been answered.

        Only their lengths are known. The picture waited first, and the network came last; in a batch, the decoding of
        the others lies between.
        """
        if not self.trace_id:
            return
        end_ns = time.time_ns()
        length_ns = {stage: round(1e9 * value) for stage, value in seconds.items()}
        queued_ns = end_ns - length_ns["total"]
        decoding_ns = queued_ns + length_ns["queue"]
        starts_ns = {"queue": queued_ns, "decode": decoding_ns, "inference": end_ns - length_ns["inference"]}
        parent = self._trace.set_span_in_context(self._span)
        for stage, start_ns in starts_ns.items():
            self._tracer.start_span(stage, parent, start_time=start_ns).end(start_ns + length_ns[stage])

    def end(self, code: grpc.StatusCode, model: str) -> None:
        """End it with the call's status."""
        self._span.set_attribute("rpc.grpc.status_code", code.value[0])
        if model:
            self._span.set_attribute("regraft.model", model)
        if code in _SERVERS_FAULT:
            self._span.set_status(self._trace.StatusCode.ERROR)
        self._span.end()
