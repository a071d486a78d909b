"""Enrolment against a simulated fleet: the good way, resumption, and every refusal."""

import json
import socket
import stat
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest

from edge_agent import enroll as enrolment
from edge_agent import identity
from edge_agent.enroll import Answer, EnrollError, enroll, https_post, read_claim
from edge_agent.identity_files import IdentityError, IdentityFiles, NotEnrolledError
from edge_agent.state_dir import StateDir
from fleet_protocol import claims
from fleet_protocol.claims import ClaimBundle
from fleet_protocol.messages import EnrollRequest, EnrollResponse, decode, encode
from tests.simulators import https_server
from tests.simulators.fleet_authority import Authority

URL = "https://fleet.example:8443"


class Fleet:
    """The server's side of enrolment: one token, for one key."""

    def __init__(self) -> None:
        self.authority = Authority()
        self.requests: list[EnrollRequest] = []
        self.name: str | None = None
        self.other_key: str | None = None

    def claim(self, device_id: str = "cam-01", *, token: str = "t") -> ClaimBundle:  # noqa: S107 (a test token)
        return ClaimBundle(
            device_id=device_id,
            token=token,
            expires_at_ms=2**50,
            fleet_ca_pem=self.authority.pem,
            release_root="{}",
            director_root="{}",
        )

    def post(self, url: str, body: bytes, claim: ClaimBundle) -> Answer:
        assert url == URL + "/device/v1/enroll"
        return Answer(200, self.answer(body, claim.device_id))

    def answer(self, body: bytes, device_id: str = "cam-01") -> bytes:
        request = decode(body, EnrollRequest)
        self.requests.append(request)
        certificate = self.authority.device_certificate(
            self.other_key or request.csr_pem, self.name
        )
        return encode(
            EnrollResponse(
                device_id=device_id,
                certificate_pem=certificate,
                mqtt_host="broker.example",
                mqtt_port=8883,
            )
        )


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "state")


def files_in(state: StateDir) -> set[str]:
    return {path.name for path in state.identity.iterdir()}


def test_a_claim_becomes_an_identity(fleet: Fleet, state: StateDir) -> None:
    done = enroll(state=state, server_url=URL + "/", claim=fleet.claim(), post=fleet.post)
    assert (done.device_id, done.server_url) == ("cam-01", URL)
    who = identity.load(state)
    assert who.enrollment == done
    assert who.claim == fleet.claim()
    assert files_in(state) == {
        "key.pem",
        "csr.pem",
        "certificate.pem",
        "claim.json",
        "enrollment.json",
    }
    for path in state.identity.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    who.tls_context(client_certificate=True)


def test_enrolling_again_changes_nothing_and_asks_nobody(fleet: Fleet, state: StateDir) -> None:
    enroll(state=state, server_url=URL, claim=fleet.claim(), post=fleet.post)
    before = {path.name: path.read_bytes() for path in state.identity.iterdir()}
    enroll(state=state, server_url=URL, claim=fleet.claim(), post=fleet.post)
    assert len(fleet.requests) == 1
    assert {path.name: path.read_bytes() for path in state.identity.iterdir()} == before


def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_key(
    fleet: Fleet, state: StateDir
) -> None:
    def lost(url: str, body: bytes, claim: ClaimBundle) -> Answer:
        fleet.post(url, body, claim)
        raise EnrollError("the connection broke")

    with pytest.raises(EnrollError):
        enroll(state=state, server_url=URL, claim=fleet.claim(), post=lost)
    with pytest.raises(NotEnrolledError, match="skerry agent enroll"):
        identity.load(state)
    key = IdentityFiles(state.identity).key.read_bytes()
    enroll(state=state, server_url=URL, claim=fleet.claim(), post=fleet.post)
    assert IdentityFiles(state.identity).key.read_bytes() == key


@pytest.mark.parametrize(
    ("device_id", "url"), [("cam-02", URL), ("cam-01", "https://other.example")]
)
def test_an_enrolled_device_does_not_change_sides(
    fleet: Fleet, state: StateDir, device_id: str, url: str
) -> None:
    enroll(state=state, server_url=URL, claim=fleet.claim(), post=fleet.post)
    with pytest.raises(EnrollError, match="already enrolled as cam-01"):
        enroll(state=state, server_url=url, claim=fleet.claim(device_id), post=fleet.post)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (401, b'{"detail": "the token has expired"}', "refused .* 401: the token has expired"),
        (409, b'{"detail": "the token was used"}', "refused .* 409: the token was used"),
        (422, b'{"detail": [{"loc": 1}]}', "refused this claim with status 422"),
        (404, b"<html>", "refused this claim with status 404"),
        (503, b'{"detail": "starting"}', "failed with status 503: starting"),
        (200, b"<html>", "is that a Skerry fleet server"),
        (200, b"{}", "is that a Skerry fleet server"),
        (200, b"x" * 300_000, "is that a Skerry fleet server"),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_only_the_key(
    fleet: Fleet, state: StateDir, status: int, body: bytes, reason: str
) -> None:
    def refuse(_url: str, _body: bytes, _claim: ClaimBundle) -> Answer:
        return Answer(status, body)

    with pytest.raises(EnrollError, match=reason) as caught:
        enroll(state=state, server_url=URL, claim=fleet.claim(), post=refuse)
    assert "\n" not in str(caught.value)
    assert files_in(state) <= {"key.pem", "csr.pem"}


def test_a_certificate_that_is_not_ours_is_not_taken(fleet: Fleet, state: StateDir) -> None:
    fleet.name = "cam-99"
    with pytest.raises(EnrollError, match="cam-99"):
        enroll(state=state, server_url=URL, claim=fleet.claim(), post=fleet.post)
    fleet.name = None
    stranger = identity.ensure_key(state.root / "other.pem")
    fleet.other_key = identity.certificate_request(stranger, "cam-01")
    with pytest.raises(EnrollError, match="another key"):
        enroll(state=state, server_url=URL, claim=fleet.claim(), post=fleet.post)
    assert files_in(state) <= {"key.pem", "csr.pem"}


def test_an_answer_for_another_device_is_not_taken(fleet: Fleet, state: StateDir) -> None:
    def other(_url: str, body: bytes, _claim: ClaimBundle) -> Answer:
        return Answer(200, fleet.answer(body, "cam-02"))

    with pytest.raises(EnrollError, match="cam-02"):
        enroll(state=state, server_url=URL, claim=fleet.claim(), post=other)


@pytest.mark.parametrize(
    "url", ["http://fleet", "fleet:8443", "https://", "https://h:x", "https://u@h", "https://h?q"]
)
def test_an_address_that_is_none_is_refused_before_anything(
    fleet: Fleet, state: StateDir, url: str
) -> None:
    with pytest.raises(EnrollError, match="https://HOST"):
        enroll(state=state, server_url=url, claim=fleet.claim(), post=fleet.post)
    assert not state.root.exists()


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"x" * 300_000, b"\xff"])
def test_a_claim_file_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "claim"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EnrollError, match="claim"):
        read_claim(path)


def test_a_claim_file_is_read(tmp_path: Path, fleet: Fleet) -> None:
    (tmp_path / "claim").write_bytes(claims.encode(fleet.claim()))
    assert read_claim(tmp_path / "claim") == fleet.claim()


def over_tls(
    tmp_path: Path, authority: Authority, answer: Callable[[https_server.Request], bytes]
) -> AbstractContextManager[str]:
    return https_server.serving(
        authority.server_context(tmp_path),
        lambda request: https_server.Answer(body=answer(request)),
    )


def test_over_tls_the_fleet_is_known_by_its_authority(
    tmp_path: Path, fleet: Fleet, state: StateDir
) -> None:
    with over_tls(tmp_path, fleet.authority, lambda request: fleet.answer(request.body)) as url:
        enroll(state=state, server_url=url, claim=fleet.claim(), post=https_post)
    assert identity.load(state).enrollment.server_url == url


def test_over_tls_another_fleet_is_refused(tmp_path: Path, fleet: Fleet, state: StateDir) -> None:
    seen: list[https_server.Request] = []

    def answer(request: https_server.Request) -> bytes:
        seen.append(request)
        return b""

    with (
        over_tls(tmp_path, Authority(), answer) as url,
        pytest.raises(EnrollError, match="does not belong to the fleet"),
    ):
        enroll(state=state, server_url=url, claim=fleet.claim(), post=https_post)
    assert seen == []


def test_an_unreachable_server_is_said_to_be(fleet: Fleet, state: StateDir) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"https://localhost:{reserved.getsockname()[1]}"
        with pytest.raises(EnrollError, match=r"cannot reach .*Connection refused"):
            enroll(state=state, server_url=url, claim=fleet.claim(), post=https_post)


def test_a_claim_without_an_authority_is_refused(fleet: Fleet, state: StateDir) -> None:
    claim = msgspec.structs.replace(fleet.claim(), fleet_ca_pem="nothing")
    with pytest.raises(IdentityError, match="ask for a new claim"):
        enroll(state=state, server_url="https://localhost:1", claim=claim, post=https_post)


@pytest.mark.parametrize("name", ["enrollment.json", "claim.json", "key.pem", "certificate.pem"])
def test_a_damaged_identity_is_said_to_be(fleet: Fleet, state: StateDir, name: str) -> None:
    enroll(state=state, server_url=URL, claim=fleet.claim(), post=fleet.post)
    (state.identity / name).write_bytes(b"junk")
    with pytest.raises(IdentityError, match=name):
        identity.load(state).tls_context(client_certificate=True)


def test_files_of_two_enrolments_do_not_mix(fleet: Fleet, state: StateDir) -> None:
    enroll(state=state, server_url=URL, claim=fleet.claim(), post=fleet.post)
    (state.identity / "claim.json").write_bytes(claims.encode(fleet.claim("cam-02")))
    with pytest.raises(IdentityError, match="cam-02"):
        identity.load(state)


def test_the_request_names_the_device(fleet: Fleet, state: StateDir) -> None:
    enroll(state=state, server_url=URL, claim=fleet.claim(token="one-time"), post=fleet.post)
    assert fleet.requests[0].token == "one-time"
    assert json.loads((state.identity / "enrollment.json").read_bytes())["device_id"] == "cam-01"
    assert enrolment.ROUTE == "/device/v1/enroll"


def token_of(subject: object) -> str:
    parts = [b'{"alg":"ES256"}', json.dumps({"sub": subject}).encode(), b"s" * 64]
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize("subject", ["cam-02", None, 7])
def test_a_token_of_another_device_is_not_sent(
    fleet: Fleet, state: StateDir, subject: object
) -> None:
    with pytest.raises(EnrollError, match="the token in it for"):
        enroll(
            state=state,
            server_url=URL,
            claim=fleet.claim("cam-01", token=token_of(subject)),
            post=fleet.post,
        )
    assert fleet.requests == []


@pytest.mark.parametrize("token", [token_of("cam-01"), "a.b.c", "a.!.c", "ä.ö.ü", "..", "t"])
def test_what_the_device_cannot_judge_is_left_to_the_server(
    fleet: Fleet, state: StateDir, token: str
) -> None:
    claim = fleet.claim("cam-01", token=token)
    enroll(state=state, server_url=URL, claim=claim, post=fleet.post)
    assert [request.token for request in fleet.requests] == [token]
