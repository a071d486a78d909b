"""No request breaks the runtime: each is answered or refused, and the next one is served."""

import json
import zlib
from collections.abc import Sequence

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.triton_http.conftest import Served
from tests.integration.runtime.raw_client import RawClient
from tests.unit.edge_agent.inference import v2_request
from tests.unit.edge_agent.inference.drawn_tensors import JSON_VALUES, tensors

_ANSWERED = {200, 400, 404, 405, 409, 413, 415, 501}

_CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.floats(0, 1), st.integers(0, 255)),
        st.tuples(st.just("insert"), st.floats(0, 1), st.binary(max_size=8)),
        st.tuples(st.just("cut"), st.floats(0, 1), st.integers(1, 40)),
    ),
    max_size=4,
)


def damaged(
    body: bytes, changes: Sequence[tuple[str, float, int] | tuple[str, float, bytes]]
) -> bytes:
    """Return the body with changes at places given as shares of its length."""
    for kind, share, what in changes:
        at = int(share * len(body))
        if isinstance(what, bytes):
            body = body[:at] + what + body[at:]
        elif kind == "cut":
            body = body[:at] + body[at + what :]
        elif at < len(body):
            body = body[:at] + bytes([body[at] ^ what]) + body[at + 1 :]
    return body


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, dict[str, str], bytes]:
    """Draw path, headers and body of an inference request with a few things wrong."""
    tensor = draw(tensors(finite=False))
    parameters = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "binary_data_output": st.booleans() | JSON_VALUES,
                "timeout": st.integers(-1, 2**60) | JSON_VALUES,
                "classification": st.integers(-1, 99),
            },
        )
    )
    outputs = st.lists(
        st.fixed_dictionaries(
            {"name": st.sampled_from(["y", "x"])},
            optional={
                "parameters": st.fixed_dictionaries(
                    {},
                    optional={
                        "binary_data": st.booleans(),
                        "classification": st.integers(0, 5),
                        "shared_memory_region": st.just("r"),
                        "shared_memory_byte_size": st.integers(0, 2**41),
                    },
                )
            },
        ),
        max_size=2,
    )
    fields = {"parameters": parameters, "outputs": draw(outputs)}
    sent = msgspec.structs.replace(tensor, name="x")
    body, length = v2_request.encode([sent], binary=[True], fields=fields)
    headers = {}
    length = draw(st.sampled_from([length, length, length, 0, None, 10**6]))
    if length is not None:
        headers["Inference-Header-Content-Length"] = str(length)
    body = damaged(body, draw(_CHANGES))
    encoding = draw(st.sampled_from(["", "", "", "deflate", "gzip", "br"]))
    if encoding:
        headers["Content-Encoding"] = encoding
        if draw(st.booleans()):
            body = damaged(zlib.compress(body), draw(_CHANGES))
    family = draw(st.sampled_from([f"echo_{sent.datatype.lower()}", "echo_bytes", "adder"]))
    return f"/v2/models/{family}/infer", headers, body


@given(request=requests())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_requests_with_something_wrong(
    served: Served, request: tuple[str, dict[str, str], bytes]
) -> None:
    path, headers, body = request
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with RawClient(served.port) as client:
        client.socket.sendall(
            f"POST {path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        )
        response = client.receive()
        assert response.status in _ANSWERED, (response.status, response.body)
        if response.status != 200:
            assert response.error
        assert client.call("GET", "/v2/health/live").status == 200


@given(
    path=st.sampled_from(
        [
            "/v2/systemsharedmemory/region/r/register",
            "/v2/systemsharedmemory/region/r/status",
            "/v2/cudasharedmemory/region/r/register",
            "/v2/repository/index",
            "/v2/repository/models/adder/load",
            "/v2/models/adder/config",
            "/v2/models/adder/stats",
        ]
    ),
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD"]),
    body=st.binary(max_size=60)
    | JSON_VALUES.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {"key": st.text(max_size=20), "byte_size": st.integers(-(2**70), 2**70)}
    ).map(lambda value: json.dumps(value).encode()),
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_other_requests_with_anything_in_them(
    served: Served, path: str, method: str, body: bytes
) -> None:
    with RawClient(served.port) as client:
        response = client.call(method, path, body)
        assert response.status in _ANSWERED, (response.status, response.body)
        assert client.call("GET", "/v2/health/live").status == 200
