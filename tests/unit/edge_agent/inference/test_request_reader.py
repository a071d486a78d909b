"""Framing: requests come out of the bytes however they are cut, and nonsense is refused."""

import contextlib
import itertools
import json
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent.inference.body_memory import BodyMemory
from edge_agent.inference.http_messages import HttpError, HttpRequest
from edge_agent.inference.request_reader import MAX_HEAD_BYTES, Phase, RequestReader

LIMIT = 200_000
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def pour(reader: RequestReader, data: bytes) -> Iterator[HttpRequest]:
    """Put bytes in as a transport does, taking requests out whenever there are some."""
    while data:
        room = reader.buffer()
        count = min(len(room), len(data))
        assert count
        room[:count] = data[:count]
        reader.received(count)
        data = data[count:]
        while (request := reader.next_request()) is not None:
            yield request


def read(*pieces: bytes, limit: int = LIMIT) -> list[HttpRequest]:
    reader = RequestReader(max_body_bytes=limit, memory=BodyMemory(1 << 40), clock=lambda: 5.0)
    found: list[HttpRequest] = []
    for piece in pieces:
        for request in pour(reader, piece):
            found.append(request)
            if not request.keep_alive:  # the connection closes; whatever follows is lost
                return found
    return found


BODIES = st.binary(max_size=100) | st.integers(0, LIMIT).map(
    lambda size: b"\r\n\r\n7" * (size // 5)
)


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, bytes, str]:
    """Return a request as bytes, its body and its path."""
    body = draw(BODIES)
    path = draw(st.sampled_from(["/", "/v2", "/v2/models/m/infer"]))
    blank_lines = draw(st.integers(0, 2)) * b"\r\n"
    head = f"POST {path}?q=1 HTTP/1.1\r\nHost: a\r\n".encode()
    if draw(st.booleans()):
        return blank_lines + head + b"Content-Length: %d\r\n\r\n" % len(body) + body, body, path
    return blank_lines + head + b"content-length:%d \r\n\r\n" % len(body) + body, body, path


@given(st.lists(messages(), min_size=1, max_size=4), st.lists(st.integers(0, 10**6), max_size=8))
def test_pipelined_requests_come_out_whole_however_they_are_cut(
    sent: list[tuple[bytes, bytes, str]], cuts: list[int]
) -> None:
    stream = b"".join(message for message, _, _ in sent)
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    found = read(*pieces)
    assert [(request.path, bytes(request.body)) for request in found] == [
        (path, body) for _, body, path in sent
    ]
    assert all(request.keep_alive and request.received_at == 5.0 for request in found)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=20), st.integers(1, 60))
def test_chunked_bodies_come_out_whole(chunks: list[bytes], step: int) -> None:
    framed = b"".join(b"%x;x=y\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    stream = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    stream += b"GET /b HTTP/1.1\r\n\r\n"
    pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
    first, *rest = read(*pieces)
    assert (first.path, bytes(first.body)) == ("/a", b"".join(chunks))
    # Either the next request is understood or the caller is told to come again.
    assert [request.path for request in rest] == ["/b"] or not first.keep_alive


def test_tensor_data_is_aligned_behind_the_json() -> None:
    for size in range(1, 40):
        header = json.dumps({"x": "y" * size}).encode()
        (request,) = read(
            b"POST / HTTP/1.1\r\nInference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n"
            % (len(header), len(header) + 16)
            + header
            + bytes(16)
        )
        memory = memoryview(request.body)
        assert request.header_length == len(header)
        assert (len(memory.obj) - 16) % 16 == 0  # type: ignore[arg-type] # a bytearray


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab", False),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab", True),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", True),
        (
            b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\na",
            True,
        ),
    ],
)
def test_connections_stay_open_as_http_says(head: bytes, keep_alive: bool) -> None:  # noqa: FBT001 (parametrized)
    (request,) = read(head)
    assert request.keep_alive is keep_alive


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/v2/models/a%20b/infer?x=%20", "/v2/models/a b/infer"),
        (b"http://host:1/v2/x?y", "/v2/x"),
        (b"http://host", ""),
        (b"*", ""),
    ],
)
def test_targets_become_paths(target: bytes, path: str) -> None:
    (request,) = read(b"GET " + target + b" HTTP/1.1\r\n\r\n")
    assert request.path == path


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/3.7\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nUpgrade: a\r\nConnection: upgrade\r\n" + CHUNKED,
            400,
        ),
        (b"POST / HTTP/1.1\r\nInference-Header-Content-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nInference-Header-Content-Length: 1e3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nInference-Header-Content-Length: 1234567890123\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (LIMIT + 1), 413),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (LIMIT + 1)
            + bytes(LIMIT + 1),
            413,
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 3 * MAX_HEAD_BYTES,
            400,
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: "
            + b"x" * 3 * MAX_HEAD_BYTES,
            400,
        ),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * MAX_HEAD_BYTES, 431),
        (b"\r\n" * MAX_HEAD_BYTES, 431),
    ],
)
def test_what_is_not_a_request_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(HttpError) as refusal:
        read(data)
    assert refusal.value.status == status
    with pytest.raises(HttpError):
        read(*(data[at : at + 1000] for at in range(0, len(data), 1000)))


@given(st.binary(max_size=200))
@example(b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n")
def test_arbitrary_bytes_raise_nothing_else(data: bytes) -> None:
    with contextlib.suppress(HttpError):
        read(data)
    with contextlib.suppress(HttpError):
        read(b"POST / HTTP/1.1\r\n" + data)
    with contextlib.suppress(HttpError):
        read(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + data)


def phase(reader: RequestReader) -> Phase:
    return reader.phase


def test_phases_tell_what_is_awaited() -> None:
    reader = RequestReader(max_body_bytes=LIMIT, memory=BodyMemory(1 << 40), clock=lambda: 0.0)
    assert phase(reader) is Phase.IDLE
    assert not list(pour(reader, b"POST / HTTP/1.1\r\nExpect: 100-continue\r\n"))
    assert phase(reader) is Phase.HEAD
    assert not reader.wants_continue()
    assert not list(pour(reader, b"Content-Length: 4\r\n\r\na"))
    assert (phase(reader), reader.body_bytes_missing) == (Phase.BODY, 3)
    assert reader.wants_continue()
    assert not reader.wants_continue()
    (request,) = pour(reader, b"bcd")
    assert bytes(request.body) == b"abcd"
    assert phase(reader) is Phase.IDLE


def test_a_head_that_comes_again_is_understood_as_the_first_time() -> None:
    first = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\nInference-Header-Content-Length: 1\r\n\r\n"
    other = b"POST /b HTTP/1.1\r\nContent-Length: 2\r\nInference-Header-Content-Length: 0\r\n\r\n"
    stream = first + b"one" + first + b"two" + other + b"xy" + b"\r\n\r\n" + first + b"six"
    assert [
        (request.path, bytes(request.body), request.header_length) for request in read(stream)
    ] == [("/a", b"one", 1), ("/a", b"two", 1), ("/b", b"xy", 0), ("/a", b"six", 1)]


def test_a_head_of_a_chunked_body_is_never_taken_for_known() -> None:
    chunked = b"POST /a HTTP/1.1\r\n" + CHUNKED + b"3\r\none\r\n0\r\n\r\n"
    assert [bytes(request.body) for request in read(*[chunked] * 3)] == [b"one"] * 3


def test_bodies_share_memory_that_they_take_as_they_come() -> None:
    memory = BodyMemory(100)
    slow, other = (
        RequestReader(max_body_bytes=90, memory=memory, clock=lambda: 0.0) for _ in range(2)
    )
    head = b"POST / HTTP/1.1\r\nContent-Length: 90\r\n\r\n"
    assert not [*pour(slow, head + bytes(60))], "it announces 90 and takes 60"
    with pytest.raises(
        HttpError, match=r"take 60 bytes.*more than 100 .*request_memory"
    ) as refused:
        [*pour(other, head + bytes(41))]
    assert refused.value.status == 503
    slow.leave()
    other = RequestReader(max_body_bytes=90, memory=memory, clock=lambda: 0.0)
    assert len([*pour(other, head + bytes(90))]) == 1
    with pytest.raises(HttpError, match="request_memory"):
        memory.take(11)  # until whoever has the request gives it back
    memory.give_back(90)
    memory.take(100)
