"""OpenTelemetry traces of calls, for those who configure a collector (extra ``otel``).

A call leaves one small record; a thread of ours makes spans of it, and the exporter of the SDK
sends them from a thread of its own. OpenTelemetry is not imported while `otlp_endpoint` is empty,
and a collector that is slow or away costs records, never calls.
"""

import asyncio
import importlib
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.errors import AgentError
from edge_agent.inference.errors import RequestError, TooLargeError
from edge_agent.inference.statistics import Timeline

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger(__name__)

_MAX_WAITING = 4096
_EXPORT_TIMEOUT_S = 5.0
_FLUSH_S = 2.0
_CALLERS_FAULT = frozenset({RequestError.__name__, TooLargeError.__name__})
"""They leave a server's span without a status, as the semantic conventions ask (HTTP 4xx)."""


class TracingError(AgentError):
    """Traces are configured and cannot be made."""


class TracedCall(NamedTuple):
    """What a call leaves behind.

    Attributes:
        traceparent: as the caller sent it (W3C Trace Context), empty if it sent none.
        answered: on the clock of the line.
        error: name of the error's class, empty for a success.
    """

    family: str
    version: str
    variant: str
    line: Timeline
    answered: float
    traceparent: str
    error: str


class Traces:
    """Takes the records of calls and turns them into spans, elsewhere."""

    def __init__(self, provider: "TracerProvider", *, clock: Callable[[], float]) -> None:
        """Start the thread.

        Args:
            provider: makes and exports the spans; ours to shut down.
            clock: the one that the records' times are on.
        """
        self._provider = provider
        self._tracer = provider.get_tracer("skerry.runtime")
        self._epoch_s = time.time() - clock()
        self._records: SimpleQueue[TracedCall | None] = SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
        self._thread.start()

    def record(self, call: TracedCall) -> None:
        """Take the record of a call that is about to be answered."""
        if self._records.qsize() >= _MAX_WAITING:
            self._dropped += 1
            return
        self._records.put(call)

    def close(self) -> None:
        """Send what is there, for a short time; blocks."""
        self._records.put(None)
        # In a thread that may be left behind: the exporter waits long for a collector that is away.
        stopping = threading.Thread(target=self._stop, name="traces-stop", daemon=True)
        stopping.start()
        stopping.join(_FLUSH_S)
        if self._dropped:
            logger.warning("traces_dropped", extra={"calls": self._dropped})

    def _stop(self) -> None:
        self._thread.join()
        self._provider.shutdown()

    def _work(self) -> None:
        from opentelemetry import trace  # noqa: PLC0415 (only where traces are configured)
        from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415 (only where traces are configured)

        propagator = tracecontext.TraceContextTextMapPropagator()
        while (call := self._records.get()) is not None:
            line = call.line
            parent = (
                propagator.extract({"traceparent": call.traceparent}) if call.traceparent else None
            )
            span = self._tracer.start_span(
                f"infer {call.family}",
                context=parent,
                kind=trace.SpanKind.SERVER,
                start_time=self._unix_ns(line.started),
                attributes={
                    "skerry.family": call.family,
                    "skerry.version": call.version,
                    "skerry.variant": call.variant,
                    "skerry.cached": line.cached,
                },
            )
            if call.error:
                span.set_attribute("error.type", call.error)
                if call.error not in _CALLERS_FAULT:
                    span.set_status(trace.StatusCode.ERROR)
            if line.began:
                within = trace.set_span_in_context(span)
                if line.loaded > line.started:
                    self._child(within, "load", line.started, line.loaded)
                self._child(within, "queue", line.queued, line.began)
                self._child(within, "compute", line.began, line.ended, batch=line.batch_items)
            span.end(self._unix_ns(call.answered))

    def _child(self, within: object, name: str, began: float, ended: float, batch: int = 0) -> None:
        span = self._tracer.start_span(
            name,
            context=within,  # type: ignore[arg-type] # the library's Context, imported late
            start_time=self._unix_ns(began),
            attributes={"skerry.batch_items": batch} if batch else None,
        )
        span.end(self._unix_ns(ended))

    def _unix_ns(self, at: float) -> int:
        return int((at + self._epoch_s) * 1e9)


async def start_tracing(endpoint: str, *, clock: Callable[[], float]) -> Traces | None:
    """Return traces where an endpoint is configured; None where none is, or they cannot be made.

    Args:
        endpoint: see `traces_to`; empty for no traces.
        clock: times calls.
    """
    if not endpoint:
        return None
    make = partial(traces_to, endpoint, clock=clock)
    try:
        return await asyncio.get_running_loop().run_in_executor(None, make)
    except TracingError as error:
        # A device without traces still serves.
        logger.error("tracing_not_started", extra={"reason": str(error)})  # noqa: TRY400 (expected, and said in one sentence)
        return None


def traces_to(endpoint: str, *, clock: Callable[[], float]) -> Traces:
    """Return traces that are sent to a collector over OTLP/HTTP; blocks while libraries load.

    Args:
        endpoint: such as ``http://127.0.0.1:4318/v1/traces``.
        clock: times calls.

    Raises:
        TracingError: the extra ``otel`` is not installed.
    """
    try:
        sdk = importlib.import_module("opentelemetry.sdk.trace")
        export = importlib.import_module("opentelemetry.sdk.trace.export")
        resources = importlib.import_module("opentelemetry.sdk.resources")
        otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError as error:
        raise TracingError(
            f"traces are configured (setting runtime.otlp_endpoint) but OpenTelemetry is not "
            f"usable here ({error}): install it with pip install 'skerry[otel]'; until then calls "
            "are served without traces"
        ) from error
    provider = sdk.TracerProvider(
        resource=resources.Resource.create({"service.name": "skerry-runtime"}),
        shutdown_on_exit=False,
    )
    exporter = otlp.OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S)
    provider.add_span_processor(export.BatchSpanProcessor(exporter))
    return Traces(provider, clock=clock)
