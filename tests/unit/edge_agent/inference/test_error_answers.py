"""Every request that is answered with an error is counted by its kind, wherever it was refused."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.inference import errors
from edge_agent.inference.body_memory import BodyMemory
from edge_agent.inference.error_answers import ErrorAnswers, Kind, kind_of
from edge_agent.inference.http_connection import Limits
from edge_agent.inference.http_errors import answering
from edge_agent.inference.http_messages import HttpError
from edge_agent.inference.http_server import HttpServer, listen_unix
from edge_agent.inference.metrics import MetricsRoute
from edge_agent.inference.v2_routes import V2Routes
from tests.unit.edge_agent.inference.route_calls import scrape
from tests.unit.edge_agent.inference.sized_releases import MakePlane, serve, sized

_MAX_BODY = 1024
_ONCE = b"Connection: close\r\n"


def get(path: bytes, headers: bytes = _ONCE, method: bytes = b"GET") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\n" + headers + b"\r\n"


def post(path: bytes, body: bytes, headers: bytes = b"") -> bytes:
    return get(path, b"Content-Length: %d\r\n" % len(body) + headers + _ONCE, b"POST") + body


INFER = b"/v2/models/m/infer"


@pytest.mark.parametrize(
    ("sent", "status", "kind"),
    [
        (b"nonsense\r\n\r\n", 400, Kind.MALFORMED),
        (get(b"/v2", b"Inference-Header-Content-Length: x\r\n"), 400, Kind.MALFORMED),
        (get(b"/" + b"x" * 20_000), 431, Kind.TOO_LARGE),
        (post(INFER, bytes(_MAX_BODY + 1)), 413, Kind.TOO_LARGE),
        (post(INFER, b"", b"Transfer-Encoding: gzip\r\n"), 400, Kind.MALFORMED),
        (get(b"/v2/nowhere/label%0A"), 404, Kind.UNKNOWN_PATH),
        (get(b"/v2", method=b"DELETE"), 405, Kind.WRONG_METHOD),
        (get(b"/v2/models/other"), 404, Kind.UNKNOWN_NAME),
        (post(b"/v2/models/other/infer", b"{}"), 404, Kind.UNKNOWN_NAME),
        (post(INFER, b"{"), 400, Kind.BAD_REQUEST),
        (post(INFER, b"{}", b"Content-Encoding: br\r\n"), 415, Kind.UNKNOWN_ENCODING),
        (post(INFER, b"{", b"Content-Encoding: gzip\r\n"), 400, Kind.BAD_REQUEST),
        (post(b"/v2/systemsharedmemory/region/r/register", b"{}"), 501, Kind.NOT_OFFERED),
        (get(b"/v2", b"") + get(b"/v2"), 429, Kind.RATE_LIMIT),
    ],
)
async def test_http_counts_what_it_refuses(
    make_plane: MakePlane, tmp_path: Path, sent: bytes, status: int, kind: Kind
) -> None:
    plane = make_plane()
    await serve(plane, sized("m", 1))
    answers = ErrorAnswers()
    route = MetricsRoute(
        plane,
        V2Routes(plane, max_request_bytes=_MAX_BODY),
        clock=time.perf_counter,
        error_answers={"http": answers},
    )
    server = HttpServer(
        handler=answering(route, answers),
        limits=Limits(max_body_bytes=_MAX_BODY, requests_per_s=1.0),
        max_connections=1,
        clock=time.perf_counter,
        error_answers=answers,
    )
    server.serve(listen_unix(tmp_path / "socket", 0o600))
    reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
    writer.write(sent)
    answered = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert b"HTTP/1.1 %d " % status in answered
    samples = [each for each in await scrape(route) if each.name == "skerry_error_answers_total"]
    assert {each.labels["kind"] for each in samples} == set(Kind)
    counted = [each for each in samples if each.value]
    assert [(each.labels, each.value) for each in counted] == [
        ({"protocol": "http", "kind": kind}, 1)
    ]
    await server.close(1.0)


def raised(root: type[Exception]) -> Iterator[type[Exception]]:
    for kind in root.__subclasses__():
        yield kind
        yield from raised(kind)


def test_every_error_of_the_runtime_has_a_kind() -> None:
    ours = [kind for kind in raised(errors.InferenceError) if kind.__module__ == errors.__name__]
    assert len(ours) > 15
    assert {kind for kind in ours if kind_of(kind("why")) is Kind.INTERNAL} == set()
    assert kind_of(errors.NoRoomError("why")) is Kind.NOT_LOADED
    assert kind_of(KeyError("unforeseen")) is Kind.INTERNAL


def test_requests_that_are_late_or_find_no_room_have_a_kind() -> None:
    assert kind_of(HttpError(408, "why")) is kind_of(errors.NotSentError("why")) is Kind.TOO_SLOW
    with pytest.raises(HttpError) as refused:
        BodyMemory(1).take(2)
    assert kind_of(refused.value) is kind_of(errors.RefusedError("why")) is Kind.BUSY
