"""Enrolment: turns a claim file into an identity, once, against a server that may fail midway.

The key is durable before the request leaves, and the server answers the same token with the same
key the same way, so an enrolment that was cut short anywhere is finished by running it again.
``enrollment.json`` is written last: without it the device is not enrolled.

A device that is enrolled already takes another claim for the same name and server (its certificate
expired, its key was revoked): it gets a new key pair beside the old one, which holds until the new
one is complete. Everything else in the state directory stays.
"""

import re
from base64 import urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import urllib3

from edge_agent import identity, store
from edge_agent.errors import AgentError
from edge_agent.identity import Enrollment
from edge_agent.identity_files import IdentityError, IdentityFiles
from edge_agent.pid_file import PidFile
from edge_agent.state_dir import StateDir
from fleet_protocol import claims
from fleet_protocol.claims import ClaimBundle
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import EnrollRequest, EnrollResponse, decode, encode

ROUTE = "/device/v1/enroll"
_MAX_ANSWER_BYTES = 256 * 1024
_TIMEOUT = urllib3.Timeout(connect=10.0, read=30.0)
_OK = 200
_SERVER_ERRORS = 500


class EnrollError(AgentError):
    """The device was not enrolled; nothing but the device's own key was stored."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said to an enrolment request."""

    status: int
    body: bytes


Post = Callable[[str, bytes, ClaimBundle], Answer]
"""Sends a body to a URL, trusting the claim's fleet CA only."""


def read_claim(path: Path) -> ClaimBundle:
    """Read a claim file.

    Raises:
        EnrollError: it cannot be read or is not a claim.
    """
    try:
        with path.open("rb") as file:
            return claims.decode(file.read(claims.MAX_CLAIM_BYTES + 1))
    except OSError as error:
        raise EnrollError(f"cannot read the claim {path}: {error.strerror or error}") from error
    except ProtocolError as error:
        raise EnrollError(
            f"{path} is {error}. A claim is what `skerry provision claim` writes"
        ) from error


def checked_server_url(url: str) -> str:
    """Return the address of a fleet server without a trailing slash.

    Raises:
        EnrollError: it is not ``https://HOST[:PORT]``.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or parts.username is not None:
        raise EnrollError(f"{url!r} is not the address of a fleet server: use https://HOST:PORT")
    return url.rstrip("/")


def enroll(*, state: StateDir, server_url: str, claim: ClaimBundle, post: Post) -> Enrollment:
    """Enrol the device, or finish or confirm an enrolment with the same server.

    Raises:
        EnrollError: the claim contradicts itself; the server cannot be reached, is not of this
            fleet, or refuses the claim; or the state directory belongs to another enrolment.
        AgentError: the state directory cannot be used.
    """
    url = checked_server_url(server_url)
    _check_token(claim)
    state.create()
    lock = PidFile(state.pid_file("enroll"))
    try:
        files = IdentityFiles(state.identity)
        before = _before(files, url, claim)
        if before is not None and files.claim.exists() and _holds(files, claim):
            return before
        return _enroll(files, url, claim, post, again=before is not None)
    finally:
        lock.release()


def https_post(url: str, body: bytes, claim: ClaimBundle) -> Answer:
    """Send an enrolment request.

    Raises:
        EnrollError: no connection, or the server's certificate is not of the claim's fleet.
    """
    http = urllib3.PoolManager(ssl_context=identity.pinned_tls_context(claim), retries=False)
    try:
        response = http.request(
            "POST",
            url,
            body=body,
            headers={"Content-Type": "application/json"},
            timeout=_TIMEOUT,
            redirect=False,
            preload_content=False,
        )
        with response:
            return Answer(response.status, response.read(_MAX_ANSWER_BYTES + 1))
    except urllib3.exceptions.SSLError as error:
        raise EnrollError(
            f"the server at {url.removesuffix(ROUTE)} does not belong to the fleet of this claim "
            f"({error}). Check the address, or ask for a claim of that fleet"
        ) from error
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise EnrollError(
            f"cannot reach the fleet server at {url.removesuffix(ROUTE)} ({_reason(error)}). Check "
            "the address and that the server runs, then enrol again with the same claim"
        ) from error
    finally:
        http.clear()


def _reason(error: Exception) -> str:
    text = str(error).rsplit(": ", maxsplit=1)[-1]
    return re.sub(r"^\[Errno \d+\] ", "", text) or type(error).__name__


def _check_token(claim: ClaimBundle) -> None:
    """Refuse a token of another device before it is used up; its signature is the server's matter.

    Raises:
        EnrollError: the token names another device than the claim.
    """
    try:
        _, payload, _ = claim.token.split(".")
        padded = payload + "=" * (-len(payload) % 4)
        subject = msgspec.json.decode(urlsafe_b64decode(padded), type=dict[str, object]).get("sub")
    except (ValueError, msgspec.DecodeError):
        return  # not a token that can be read here: the server says what is wrong with it
    if subject != claim.device_id:
        raise EnrollError(
            f"the claim is for {claim.device_id} and the token in it for {str(subject)[:100]}: the "
            "file was edited or mixed up. Use it as `skerry provision claim` wrote it"
        )


def _holds(files: IdentityFiles, claim: ClaimBundle) -> bool:
    """Say whether the pair that holds came with this claim."""
    return identity.load_claim(files) == claim


def _before(files: IdentityFiles, url: str, claim: ClaimBundle) -> Enrollment | None:
    enrollment = identity.load_enrollment(files)
    if enrollment is None:
        return None
    if enrollment.device_id == claim.device_id and enrollment.server_url == url:
        return enrollment
    raise EnrollError(
        f"this state directory is already enrolled as {enrollment.device_id} at "
        f"{enrollment.server_url}. Use another --state for {claim.device_id}; to give the old "
        f"device up, remove its state directory first"
    )


def _enroll(
    files: IdentityFiles, url: str, claim: ClaimBundle, post: Post, *, again: bool
) -> Enrollment:
    pair = files.next_pair() if again else files.pair(files.generation)
    key = identity.ensure_key(pair.key)
    csr = identity.certificate_request(key, claim.device_id)
    store.write_file(pair.csr, csr.encode())
    request = encode(EnrollRequest(token=claim.token, csr_pem=csr))
    response = _accepted(post(url + ROUTE, request, claim))
    if response.device_id != claim.device_id:
        raise EnrollError(
            f"the server enrolled {response.device_id} where the claim is for {claim.device_id}; "
            "tell its operator"
        )
    try:
        identity.check_certificate(response.certificate_pem, key, claim.device_id)
    except IdentityError as error:
        raise EnrollError(f"{error}; tell the operator of the server") from error
    enrollment = Enrollment(
        device_id=claim.device_id,
        server_url=url,
        mqtt_host=response.mqtt_host,
        mqtt_port=response.mqtt_port,
    )
    store.write_file(pair.claim, claims.encode(claim))
    store.write_file(pair.certificate, response.certificate_pem.encode())
    if again:
        files.advance()
    store.write_file(files.enrollment, msgspec.json.format(msgspec.json.encode(enrollment)))
    return enrollment


def _accepted(answer: Answer) -> EnrollResponse:
    if answer.status == _OK:
        try:
            return decode(answer.body, EnrollResponse)
        except ProtocolError as error:
            raise EnrollError(
                f"the server's answer is no enrolment ({error}): is that a Skerry fleet server?"
            ) from error
    detail = _detail(answer.body)
    if answer.status >= _SERVER_ERRORS:
        raise EnrollError(
            f"the fleet server failed with status {answer.status}{detail}. "
            "Enrol again with the same claim when it works"
        )
    raise EnrollError(f"the fleet server refused this claim with status {answer.status}{detail}")


def _detail(body: bytes) -> str:
    try:
        detail = msgspec.json.decode(body, type=dict[str, object]).get("detail")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return f": {detail[:500]}" if isinstance(detail, str) else ""
