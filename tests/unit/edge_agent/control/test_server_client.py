"""HTTPS to the fleet server: token, pinned authority, bounds, breaking off."""

import gzip
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey

from edge_agent.control import server_client
from edge_agent.control.clock import SystemClock
from edge_agent.control.server_client import (
    DeviceTokens,
    FleetServer,
    ServerRefusedError,
    ServerTooSlowError,
    ServerUnreachableError,
    UnfitAnswerError,
)
from edge_agent.identity import pinned_tls_context
from fleet_protocol.claims import ClaimBundle
from tests.simulators.fleet_authority import Authority, key_pem
from tests.simulators.https_server import Answer, Request, endless_head, serving

KEY = ec.generate_private_key(ec.SECP256R1())


def client(
    url: str, authority: Authority, *, head_timeout_s: float = 30.0, min_bytes_per_s: int = 4096
) -> FleetServer:
    claim = ClaimBundle(
        device_id="cam-01",
        token="t",
        expires_at_ms=0,
        fleet_ca_pem=authority.pem,
        release_root="{}",
        director_root="{}",
    )
    return FleetServer(
        url=url,
        tls=pinned_tls_context(claim),
        tokens=DeviceTokens(device_id="cam-01", key=KEY, clock=SystemClock()),
        head_timeout_s=head_timeout_s,
        min_bytes_per_s=min_bytes_per_s,
    )


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def serve(
    tmp_path: Path, authority: Authority
) -> Callable[[Callable[[Request], Answer]], AbstractContextManager[str]]:
    return lambda answer: serving(authority.server_context(tmp_path), answer)


Serve = Callable[[Callable[[Request], Answer]], AbstractContextManager[str]]


def read(server: FleetServer, path: str = "/x", headers: dict[str, str] | None = None) -> bytes:
    with server.open(path, headers or {}) as body:
        return b"".join(body.chunks())


def test_each_request_carries_a_fresh_token_of_the_device(
    serve: Serve, authority: Authority
) -> None:
    seen: list[Request] = []

    def answer(request: Request) -> Answer:
        seen.append(request)
        return Answer(body=b"content")

    with serve(answer) as url:
        assert read(client(url, authority), "/a b/c", {"Range": "bytes=5-"}) == b"content"
    assert seen[0].path == "/a%20b/c"
    assert seen[0].headers["Range"] == "bytes=5-"
    token = jwt.decode(
        seen[0].headers["Authorization"].removeprefix("Bearer "),
        ECKey.import_key(key_pem(KEY)),
        algorithms=["ES256"],
    )
    assert token.claims["sub"] == "cam-01"
    assert token.claims["aud"] == "skerry-fleet-server"
    assert token.claims["exp"] - token.claims["iat"] == 120


def test_a_redirect_is_not_followed(serve: Serve, authority: Authority) -> None:
    with (
        serve(lambda _: Answer(302, headers={"Location": "https://evil.example/"})) as url,
        pytest.raises(ServerRefusedError) as caught,
    ):
        read(client(url, authority))
    assert caught.value.status == 302


@pytest.mark.parametrize("status", [204, 401, 404, 416, 500])
def test_any_other_status_is_a_refusal(serve: Serve, authority: Authority, status: int) -> None:
    with (
        serve(lambda _: Answer(status)) as url,
        pytest.raises(ServerRefusedError) as caught,
    ):
        read(client(url, authority))
    assert caught.value.status == status


def test_a_body_that_is_cut_short_is_noticed(serve: Serve, authority: Authority) -> None:
    with (
        serve(lambda _: Answer(body=b"abc", length=100)) as url,
        pytest.raises(ServerUnreachableError, match="broke off"),
    ):
        read(client(url, authority))


@pytest.mark.parametrize(
    ("asked", "answer", "problem"),
    [
        ("", Answer(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}), "encoding 'gzip'"),
        ("bytes=5-", Answer(206, headers={"Content-Range": "bytes 0-9/10"}), "part 'bytes 0-9/10'"),
    ],
)
def test_what_was_not_asked_for_is_not_taken(
    serve: Serve, authority: Authority, asked: str, answer: Answer, problem: str
) -> None:
    """A bomb is not decompressed, another part not put behind what is there."""
    headers = {"Range": asked} if asked else {}
    with (
        serve(lambda _: answer) as url,
        pytest.raises(UnfitAnswerError, match=f"the answer to /x is .*{problem}"),
    ):
        read(client(url, authority), headers=headers)


def test_an_answer_states_the_size_of_the_file(serve: Serve, authority: Authority) -> None:
    part = Answer(206, b"56789", {"Content-Range": "bytes 5-9/10"})
    with (
        serve(lambda _: part) as url,
        client(url, authority).open("/x", {"Range": "bytes=5-"}) as body,
    ):
        assert (body.status, body.file_bytes, b"".join(body.chunks())) == (206, 10, b"56789")


def test_the_answer_to_a_post_is_not_unpacked(serve: Serve, authority: Authority) -> None:
    bomb = gzip.compress(bytes(1_000_000))
    with serve(lambda _: Answer(body=bomb, headers={"Content-Encoding": "gzip"})) as url:
        assert client(url, authority).post("/x", b"{}") == bomb


def test_a_server_of_another_authority_gets_no_token(serve: Serve) -> None:
    seen: list[Request] = []

    def answer(request: Request) -> Answer:
        seen.append(request)
        return Answer()

    with serve(answer) as url, pytest.raises(ServerUnreachableError):
        read(client(url, Authority()))
    assert seen == []


def test_a_server_whose_head_never_ends_is_left(tmp_path: Path, authority: Authority) -> None:
    """Each header comes in time, and there is always another one."""
    with endless_head(authority.server_context(tmp_path)) as url:
        server = client(url, authority, head_timeout_s=0.3)
        with pytest.raises(ServerUnreachableError, match="did not come within"):
            read(server)


def test_what_is_read_slowly_is_not_taken_in_ahead(serve: Serve, authority: Authority) -> None:
    """The kernel's buffers would swallow a whole model, whatever rate was allowed."""
    with serve(lambda _: Answer(body=b"x" * 1000)) as url:
        server = client(url, authority)
        with server.open("/x", {}, slowly=True) as body:
            assert b"".join(body.chunks()) == b"x" * 1000
        pool = server._slow.connection_from_url(url)
        assert any(option[1] == socket.SO_RCVBUF for option in pool.conn_kw["socket_options"])


def test_an_answer_that_is_being_read_can_be_broken_off(serve: Serve, authority: Authority) -> None:
    never = threading.Event()
    with serve(lambda _: Answer(body=b"x", wait=never)) as url:
        server = client(url, authority)
        opened = threading.Event()
        ended: list[BaseException] = []

        def reader() -> None:
            try:
                with server.open("/x", {}) as body:
                    opened.set()
                    list(body.chunks())
            except ServerUnreachableError as error:
                ended.append(error)

        thread = threading.Thread(target=reader)
        thread.start()
        assert opened.wait(5)
        server.abort()
        thread.join(5)
        never.set()
        assert not thread.is_alive()
        assert len(ended) == 1


def test_a_server_that_trickles_is_left(
    serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow retrieval: a byte now and then would hold the device up for ever."""
    monkeypatch.setattr(server_client, "_PACE_S", 0.2)
    with (
        serve(lambda _: Answer(body=b"x" * 5000, pause_s=0.02)) as url,
        pytest.raises(ServerTooSlowError, match=r"the server sent \d+ bytes in 0 s; less than"),
    ):
        read(client(url, authority))


def test_a_link_that_is_as_slow_as_its_operator_says_is_waited_for(
    serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_client, "_PACE_S", 0.1)
    with serve(lambda _: Answer(body=b"x" * 20, pause_s=0.02)) as url:
        assert read(client(url, authority, min_bytes_per_s=1)) == b"x" * 20
        with pytest.raises(ServerTooSlowError, match="less than 4096 a second is not waited for"):
            read(client(url, authority))
