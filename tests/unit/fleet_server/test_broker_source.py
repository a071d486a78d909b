"""What a follower of the fleet server takes as an answer at all."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from fleet_protocol.errors import SkerryError
from fleet_server.broker.told import Authority, Told
from fleet_server.errors import (
    MalformedError,
    NotPermittedError,
    SetupError,
    TooLargeError,
    UnavailableError,
)
from fleet_server.follower import source as source_module
from fleet_server.follower.following import pause_s
from fleet_server.follower.source import Source
from tests.simulators.https_server import Answer, Request, serving
from tests.unit.fleet_server.authority import Fleet

TOLD = msgspec.json.encode(
    Told(authorities=[Authority(certificate_pem="c", list_pem="l")], shut_out=["cam-1"])
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet.provision(tmp_path_factory.mktemp("source") / "a")


@contextmanager
def asked(authority: Fleet, folder: Path, answer: Answer) -> Iterator[tuple[Source, list[Request]]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    online = authority.data.online
    context.load_cert_chain(online / "tls.crt", online / "tls.pem")
    token, seen = folder / "token", list[Request]()
    token.touch(mode=0o600)
    token.write_text("skerry_x\n")

    def answered(request: Request) -> Answer:
        seen.append(request)
        return answer

    with serving(context, answered) as url:
        ca = authority.authority.fleet_ca
        yield Source(server=url.replace("127.0.0.1", "localhost"), token_file=token, ca=ca), seen


def test_an_answer_and_one_that_is_known_already(authority: Fleet, tmp_path: Path) -> None:
    with asked(authority, tmp_path, Answer(200, TOLD, {"ETag": '"a"'})) as (source, seen):
        fetched = source.fetch(None)
        assert fetched.told is not None
        assert (fetched.told.shut_out, fetched.etag) == (["cam-1"], '"a"')
        assert seen[0].headers["Authorization"] == "Bearer skerry_x"
    with asked(authority, tmp_path, Answer(304)) as (source, seen):
        assert source.fetch('"a"').told is None
        assert seen[0].headers["If-None-Match"] == '"a"'
        with pytest.raises(UnavailableError):
            source.fetch(None)  # nothing was held that could be unchanged


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (Answer(401, b'{"detail": "the token is not known"}'), NotPermittedError, "is not known"),
        (Answer(403, b'{"detail": "the role viewer"}'), NotPermittedError, "--role broker"),
        (Answer(503, b"\xff"), UnavailableError, "status 503"),
        (Answer(302, headers={"Location": "https://localhost:1/"}), UnavailableError, "302"),
        (Answer(200, b"x" * 2001), TooLargeError, "longer than 2000"),
        (Answer(500, b'{"detail": "' + b"x" * 100_000), UnavailableError, "status 500"),
        (Answer(200, TOLD, length=len(TOLD) + 100), UnavailableError, "does not answer"),
        (Answer(200, TOLD[:-10]), MalformedError, "does not speak"),
        (Answer(200, b"[" * 2000), MalformedError, "does not speak"),
        (Answer(200, TOLD.replace(b"cam-1", b"_ingest")), MalformedError, "shut_out"),
    ],
)
def test_other_answers_are_refused(  # noqa: PLR0913, PLR0917 (a table and its fixtures)
    authority: Fleet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    kind: type[SkerryError],
    sentence: str,
) -> None:
    monkeypatch.setattr(source_module, "MAX_TOLD_BYTES", 2000)
    with asked(authority, tmp_path, answer) as (source, _), pytest.raises(kind, match=sentence):
        source.fetch(None)


def test_a_server_that_is_away_or_another_one(authority: Fleet, tmp_path: Path) -> None:
    with asked(authority, tmp_path, Answer(200, TOLD)) as (source, seen):
        other = tmp_path / "other.crt"
        other.write_bytes((authority.data.online / "device-ca.crt").read_bytes())
        source._ca = other
        with pytest.raises(UnavailableError, match="not trusted"):
            source.fetch(None)
        assert not seen  # so it got no token
    with pytest.raises(UnavailableError, match="does not answer"):
        source.fetch(None)
    with pytest.raises(SetupError, match="https://"):
        Source(server="http://localhost", token_file=tmp_path / "token", ca=other)


def test_pauses_grow_and_are_bounded() -> None:
    assert [pause_s(15, failures, 0) for failures in range(5)] == [15, 30, 60, 60, 60]
    assert pause_s(15, 1000, 0.2) == 72
    assert pause_s(0.5, 0, -0.2) == 0.4
