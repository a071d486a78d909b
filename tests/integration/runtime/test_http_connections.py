"""HTTP itself against the running process: what a connection may do and what ends it."""

import contextlib
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.runtime.raw_client import RawClient, request_bytes
from tests.integration.runtime.reference_calls import BINARY_OUTPUT, INFER, batch, golden, logits
from tests.integration.runtime.running_runtime import RunningRuntime
from tests.unit.edge_agent.inference import v2_request


def call(images: int, number: str) -> bytes:
    """Return an inference request for so many images, with an id."""
    body, length = v2_request.encode(
        [batch(images)], binary=[True], fields={**BINARY_OUTPUT, "id": number}
    )
    return request_bytes("POST", INFER, body, header_length=length)


def test_pipelined_requests_are_answered_in_order(runtime: RunningRuntime) -> None:
    # Long calls (in threads) before short ones (on the loop): the answers must not overtake.
    sizes = [100, 1, 1, 60, 1, 100, 1]
    with runtime.public() as client:
        stream = b"".join(call(size, str(at)) for at, size in enumerate(sizes))
        sender = threading.Thread(target=client.socket.sendall, args=[stream])
        sender.start()
        for at, size in enumerate(sizes):
            response = client.receive()
            assert len(logits(response)) == size * 10
            length = int(response.headers["inference-header-content-length"])
            assert v2_request.decode(response.body, length)[0]["id"] == str(at)
        sender.join()
        assert client.call("GET", "/v2/health/live").status == 200


def test_a_request_may_come_byte_by_byte(runtime: RunningRuntime) -> None:
    _, expected = golden("fp32")[0]
    with runtime.public() as client:
        for at in range(len(data := call(1, ""))):
            client.socket.send(data[at : at + 1])
        assert logits(client.receive()) == pytest.approx(expected, abs=1e-3)


def test_chunked_requests(runtime: RunningRuntime) -> None:
    image, expected = golden("fp32")[0]
    body, length = v2_request.encode([image], binary=[True], fields=BINARY_OUTPUT)
    head = (
        f"POST {INFER} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
        f"Inference-Header-Content-Length: {length}\r\n\r\n"
    )
    with runtime.public() as client:
        for step in (1000, 7):
            chunks = [body[at : at + step] for at in range(0, len(body), step)]
            client.socket.sendall(head.encode())
            for chunk in chunks:
                client.socket.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            client.socket.sendall(b"0\r\n\r\n")
            assert logits(client.receive()) == pytest.approx(expected, abs=1e-3)


def test_the_body_may_wait_for_100_continue(runtime: RunningRuntime) -> None:
    head, _, body = call(1, "").partition(b"\r\n\r\n")
    with runtime.public() as client:
        client.socket.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert client.receive().status == 100
        client.socket.sendall(body)
        assert client.receive().status == 200


def test_too_large_is_refused_before_the_body_is_sent(runtime: RunningRuntime) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nContent-Length: 1000001\r\n"
    with runtime.public() as client:
        client.socket.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        response = client.receive()
        assert response.status == 413
        assert "larger than 1000000 bytes (setting runtime.max_request_bytes)" in response.error
        assert response.headers["connection"] == "close"
        assert client.closed_by_server()


def test_a_refusal_reaches_a_caller_who_is_still_sending(runtime: RunningRuntime) -> None:
    with runtime.public() as client:
        client.socket.sendall(f"POST {INFER} HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n".encode())
        client.socket.sendall(bytes(3_000_000))
        assert client.receive().status == 413


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 20000, 431),
    ],
)
def test_protocol_errors_are_answered_and_end_the_connection(
    runtime: RunningRuntime, data: bytes, status: int
) -> None:
    with runtime.public() as client:
        client.socket.sendall(request_bytes("GET", "/v2/health/live") + data)
        assert client.receive().status == 200
        response = client.receive()
        assert response.status == status
        assert response.error
        assert client.closed_by_server()


@pytest.mark.parametrize(
    "request_text",
    ["GET /v2/health/live HTTP/1.0\r\n\r\n", "GET /v2 HTTP/1.1\r\nConnection: close\r\n\r\n"],
)
def test_connections_close_when_asked_to(runtime: RunningRuntime, request_text: str) -> None:
    with runtime.public() as client:
        client.socket.sendall(request_text.encode())
        response = client.receive()
        assert (response.status, response.headers["connection"]) == (200, "close")
        assert client.closed_by_server()


@pytest.mark.parametrize("images", [1, 100])
def test_a_caller_may_close_its_half_first(runtime: RunningRuntime, images: int) -> None:
    with runtime.public() as client:
        # The first one is answered beside the loop, while the others and the end are here already.
        client.socket.sendall(request_bytes("GET", "/v2") * 3 + call(images, ""))
        client.socket.shutdown(socket.SHUT_WR)
        assert [client.receive().status for _ in range(4)] == [200] * 4
        assert client.closed_by_server()


def answers_to(client: RawClient, data: bytes) -> list[int]:
    """Send bytes and the end of them, and return the statuses of all answers."""
    client.socket.sendall(data)
    client.socket.shutdown(socket.SHUT_WR)
    statuses = []
    with contextlib.suppress(ConnectionError):
        while True:
            statuses.append(client.receive().status)
    return statuses


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=3)), max_size=4),
    st.integers(0, 4000),
)
def test_damaged_requests_never_break_the_server(
    runtime: RunningRuntime, damages: list[tuple[int, bytes]], length: int
) -> None:
    damaged = bytearray(call(1, "x") + call(1, "y"))
    for position, replacement in damages:
        # Mostly in the heads and the JSON: any change of a pixel is a good request.
        at = position % 400
        damaged[at : at + len(replacement)] = replacement
    with runtime.public() as client:
        statuses = answers_to(client, bytes(damaged) if length > 3000 else bytes(damaged[:length]))
        assert all(status in (200, 400, 404, 405, 413, 431, 501) for status in statuses)
    with runtime.public() as client:
        assert client.call("GET", "/v2/health/live").status == 200
    assert "traceback" not in runtime.log_text()


def test_callers_who_vanish_disturb_nobody(runtime: RunningRuntime) -> None:
    for size in (0, 10, 500, None):
        with runtime.public() as client:
            client.socket.sendall(call(100, "")[:size])
    with runtime.public() as client:
        client.socket.sendall(call(1, ""))
        assert client.receive().status == 200
    assert "traceback" not in runtime.log_text()
