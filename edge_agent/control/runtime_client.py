"""The runtime process as control sees it: its admin socket, HTTP/1.1 over a Unix socket.

Each call opens a connection, blocks its thread and is bounded in time and size. Two failures are
told apart: the runtime is not there (it starts, it died, it hangs) or the device failed it, or it
answered and refused.
"""

import http.client
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote

import msgspec

from edge_agent.control.v2_binary import HEADER_LENGTH, Tensor, decode_answer, encode_request
from edge_agent.errors import AgentError
from edge_agent.runtime_api import (
    DEVICE_FAULT_STATUS,
    Activation,
    ActiveRelease,
    RaceResult,
    RuntimeStatus,
    ShadowOrder,
    ShadowReport,
)
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import GoldenTensor

_MAX_ANSWER_BYTES = 256 * 1024 * 1024
_STATUS_TIMEOUT_S = 5.0
_CALL_TIMEOUT_S = 30.0
_LOAD_TIMEOUT_S = 300.0
_RACE_TIMEOUT_S = 120.0
_CLIENT_ERROR = 400
_NOT_FOUND = 404
_UNAVAILABLE = 503


class RuntimeUnavailableError(AgentError):
    """The runtime did not answer: it is starting, dead or hanging."""


class RuntimeFaultError(RuntimeUnavailableError):
    """The runtime could not because the disk or the memory of this device failed."""


class RuntimeRefusedError(AgentError):
    """The runtime answered and said no.

    Attributes:
        status: HTTP status of the answer.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Runtime(Protocol):
    """What control asks of the runtime; every method blocks its thread."""

    def status(self) -> RuntimeStatus:
        """Return what the runtime holds."""

    def load(self, release: ActiveRelease) -> None:
        """Load and warm a release beside the active one; idempotent."""

    def activate(self, family: str, version: str) -> None:
        """Let a loaded release serve its family."""

    def shadow(self, family: str, order: ShadowOrder) -> ShadowReport:
        """Let a loaded release answer live requests unseen; idempotent, says how far it is."""

    def unload(self, family: str, version: str) -> None:
        """Drop a release that is not active; one that is gone already is fine."""

    def stop_family(self, family: str) -> None:
        """Stop serving a family; one that is gone already is fine."""

    def infer(
        self, family: str, version: str, inputs: Sequence[GoldenTensor], outputs: Sequence[str]
    ) -> dict[str, Tensor]:
        """Call one loaded release, active or not."""

    def race(
        self, family: str, versions: Sequence[str], inputs: Sequence[GoldenTensor]
    ) -> dict[str, float]:
        """Run loaded releases of a family in turns; return the shortest run of each in seconds."""


class AdminSocket:
    """The runtime behind ``run/admin.sock``.

    Every method raises `RuntimeUnavailableError` or `RuntimeRefusedError`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def status(self) -> RuntimeStatus:
        """Return what the runtime holds.

        Raises:
            RuntimeUnavailableError: no answer, or none that this agent understands.
        """
        body, _ = self._request("GET", "/admin/status", timeout_s=_STATUS_TIMEOUT_S)
        return _decoded(body, RuntimeStatus)

    def load(self, release: ActiveRelease) -> None:
        """Load and warm a release beside the active one; idempotent."""
        self._request(
            "POST", "/admin/releases", msgspec.json.encode(release), timeout_s=_LOAD_TIMEOUT_S
        )

    def activate(self, family: str, version: str) -> None:
        """Let a loaded release serve its family: requests in flight finish on the old one."""
        body = msgspec.json.encode(Activation(version=version))
        self._request("POST", f"/admin/families/{quote(family)}/activate", body)

    def shadow(self, family: str, order: ShadowOrder) -> ShadowReport:
        """Let a loaded release answer live requests unseen; idempotent, says how far it is.

        Raises:
            RuntimeUnavailableError: no answer, or none that this agent understands.
            RuntimeRefusedError: there is nothing to compare it with.
        """
        path = f"/admin/families/{quote(family)}/shadow"
        body, _ = self._request("POST", path, msgspec.json.encode(order))
        return _decoded(body, ShadowReport)

    def unload(self, family: str, version: str) -> None:
        """Drop a release that is not active; one that is gone already is fine."""
        self._delete(f"/admin/families/{quote(family)}/versions/{quote(version)}")

    def stop_family(self, family: str) -> None:
        """Stop serving a family; one that is gone already is fine."""
        self._delete(f"/admin/families/{quote(family)}")

    def infer(
        self, family: str, version: str, inputs: Sequence[GoldenTensor], outputs: Sequence[str]
    ) -> dict[str, Tensor]:
        """Call one loaded release, active or not; the call is not counted.

        Raises:
            RuntimeUnavailableError: no answer.
            RuntimeRefusedError: an error, or an answer that is not V2.
        """
        body, headers = encode_request(inputs, outputs)
        path = f"/v2/models/{quote(family)}/versions/{quote(version)}/infer"
        answer, header_length = self._request("POST", path, body, headers)
        try:
            return decode_answer(answer, header_length)
        except ProtocolError as error:
            raise RuntimeRefusedError(str(error), status=200) from error

    def race(
        self, family: str, versions: Sequence[str], inputs: Sequence[GoldenTensor]
    ) -> dict[str, float]:
        """Run loaded releases of a family in turns; return the shortest run of each in seconds.

        Raises:
            RuntimeUnavailableError: no answer.
            RuntimeRefusedError: a release failed, or the answer is none.
        """
        body, headers = encode_request(inputs, [])
        path = f"/admin/families/{quote(family)}/race/{quote(','.join(versions))}"
        answer, _ = self._request("POST", path, body, headers, timeout_s=_RACE_TIMEOUT_S)
        try:
            seconds = msgspec.json.decode(answer, type=RaceResult).seconds
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RuntimeRefusedError(f"no result of a race: {error}", status=200) from error
        if seconds.keys() != set(versions):
            raise RuntimeRefusedError(
                f"a race of {sorted(versions)} ended with {sorted(seconds)}", status=200
            )
        return seconds

    def _delete(self, path: str) -> None:
        try:
            self._request("DELETE", path)
        except RuntimeRefusedError as error:
            if error.status != _NOT_FOUND:
                raise

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = _CALL_TIMEOUT_S,
    ) -> tuple[bytes, str | None]:
        connection = _UnixConnection(self._path, timeout_s)
        sent = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, body, {**sent, **(headers or {})})
            response = connection.getresponse()
            answer = response.read(_MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise RuntimeUnavailableError(
                f"the runtime does not answer on {self._path} ({error or type(error).__name__})"
            ) from error
        finally:
            connection.close()
        if len(answer) > _MAX_ANSWER_BYTES:
            raise RuntimeRefusedError(
                f"the runtime's answer has more than {_MAX_ANSWER_BYTES} bytes", status=413
            )
        if response.status == DEVICE_FAULT_STATUS:
            raise RuntimeFaultError(_reason(response.status, answer))
        if response.status == _UNAVAILABLE:
            raise RuntimeUnavailableError(_reason(response.status, answer))
        if response.status >= _CLIENT_ERROR:
            raise RuntimeRefusedError(_reason(response.status, answer), status=response.status)
        return answer, response.getheader(HEADER_LENGTH)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("runtime", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


_Decoded = TypeVar("_Decoded")


def _decoded(body: bytes, kind: type[_Decoded]) -> _Decoded:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RuntimeUnavailableError(f"the runtime's answer is unreadable: {error}") from error


def _reason(status: int, body: bytes) -> str:
    try:
        message = msgspec.json.decode(body, type=dict[str, object]).get("error")
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = None
    return str(message)[:1000] if message else f"the runtime answered with status {status}"
