"""Traces of the real process, taken by an OTLP/HTTP receiver on this machine."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from edge_agent import InProcessRuntime
from edge_agent.settings import RuntimeSettings
from edge_agent.state_dir import StateDir
from tests.integration.runtime.raw_client import request_bytes
from tests.integration.runtime.reference_calls import BINARY_OUTPUT, INFER, batch, golden, infer
from tests.integration.runtime.running_runtime import running
from tests.unit.edge_agent.inference import v2_request
from tests.unit.edge_agent.inference.reference_release import commit, reference_release

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SETTING = "SKERRY_AGENT_RUNTIME__OTLP_ENDPOINT"


class Collector(http.server.ThreadingHTTPServer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Span] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/traces"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Collector)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the library's name)
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def traced_request() -> bytes:
    image = golden("fp32")[0][0]
    body, length = v2_request.encode([image], binary=[True], fields=BINARY_OUTPUT)
    head, _, rest = request_bytes("POST", INFER, body, header_length=length).partition(b"\r\n")
    return head + f"\r\ntraceparent: 00-{TRACE}-{CALLER}-01\r\n".encode() + rest


def children(spans: list[Span], parent: Span) -> dict[str, Span]:
    return {span.name: span for span in spans if span.parent_span_id == parent.span_id}


def test_a_call_leaves_spans_that_continue_the_callers_trace(
    state: StateDir, collector: Collector
) -> None:
    commit(state, reference_release(state))
    with running(state.root, **{SETTING: collector.endpoint}) as runtime:
        with runtime.ready().public() as client:
            client.socket.sendall(traced_request())
            assert client.receive().status == 200
            infer(client, batch(200))
            assert client.call("POST", INFER, b"{").status == 400
        runtime.stop()
        roots = [span for span in collector.spans if span.name == "infer fashion_mnist"]
    assert len(roots) == 3
    traced, untraced, failed = roots
    assert (traced.trace_id.hex(), traced.parent_span_id.hex()) == (TRACE, CALLER)
    assert untraced.trace_id.hex() != TRACE
    assert untraced.parent_span_id == b""
    for span in (traced, untraced):
        inner = children(collector.spans, span)
        assert set(inner) == {"queue", "compute"}
        assert span.start_time_unix_nano <= inner["queue"].start_time_unix_nano
        assert inner["queue"].end_time_unix_nano == inner["compute"].start_time_unix_nano
        assert inner["compute"].end_time_unix_nano <= span.end_time_unix_nano
        attributes = {entry.key: entry.value for entry in span.attributes}
        assert attributes["skerry.version"].string_value == "1.0.0"
    # The caller's fault: the error is named, and is not the runtime's.
    assert failed.status.code == Status.STATUS_CODE_UNSET
    named = {entry.key: entry.value.string_value for entry in failed.attributes}
    assert named["error.type"] == "RequestError"
    assert children(collector.spans, failed) == {}


def test_calls_in_the_own_process_leave_spans_too(state: StateDir, collector: Collector) -> None:
    commit(state, reference_release(state))
    settings = RuntimeSettings(otlp_endpoint=collector.endpoint)
    image = np.zeros((1, 1, 28, 28), np.float32)
    with InProcessRuntime(state.root, runtime=settings) as runtime:
        runtime.infer("fashion_mnist", {"image": image})
    assert {span.name for span in collector.spans} == {"infer fashion_mnist", "queue", "compute"}


def test_a_collector_that_is_away_costs_no_call(state: StateDir, port: int) -> None:
    commit(state, reference_release(state))
    with running(state.root, **{SETTING: f"http://127.0.0.1:{port}/v1/traces"}) as runtime:
        with runtime.ready().public() as client:
            for _ in range(50):
                infer(client, golden("fp32")[0][0])
        assert runtime.stop() == 0


def test_without_the_setting_opentelemetry_is_not_even_imported() -> None:
    program = (
        "import sys; import edge_agent.inference.process; "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
