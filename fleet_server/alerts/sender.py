"""Makes one attempt to hand a notice to its receiver: bounded in time and in what is read."""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Self

import httpcore

from fleet_server.alerts import notices, targets
from fleet_server.alerts.targets import Target, TargetPolicy
from fleet_server.clock import Clock
from fleet_server.errors import FleetError, SettingsError

TIMEOUT_S = 15.0
"""For the whole of an attempt; Standard Webhooks recommends 15 to 30 s."""

_MAX_CONNECTIONS = 256
_OK, _REDIRECT, _REFUSAL, _GONE = 200, 300, 400, 410
_MAX_RETRY_AFTER_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A notice and where it goes.

    Attributes:
        whsec: the secrets with which it is signed.
    """

    url: str
    event_id: str
    body: str
    whsec: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        problem: "" if the receiver took the notice.
        gone: the receiver wants no more of them.
        retry_after_s: how long it asked to be left alone.
    """

    problem: str = ""
    gone: bool = False
    retry_after_s: float = 0.0


class Sender:
    """Sends over connections of its own, without the proxies of the environment."""

    def __init__(
        self,
        *,
        policy: TargetPolicy,
        clock: Clock,
        ca: Path | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Prepare.

        Args:
            policy: which addresses are allowed.
            clock: for the time that is signed.
            ca: certificates of authorities that are trusted beside those of the system.
            timeout_s: for the whole of an attempt.

        Raises:
            SettingsError: the file of authorities cannot be read.
        """
        self._policy = policy
        self._clock = clock
        self._timeout_s = timeout_s
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_trust(ca), max_connections=_MAX_CONNECTIONS, max_keepalive_connections=0
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.aclose()

    async def attempt(self, letter: Letter) -> Outcome:
        """Send a notice once; whatever goes wrong is in the outcome."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(letter)
        except (TimeoutError, httpcore.TimeoutException):
            return Outcome(problem=f"no answer within {self._timeout_s:g} s")
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError, FleetError) as error:
            return Outcome(problem=f"{str(error) or type(error).__name__}"[:500])

    async def _post(self, letter: Letter) -> Outcome:
        target = targets.checked(letter.url, self._policy)
        addresses = await targets.resolved(target, self._policy)
        for address in addresses[:-1]:
            with contextlib.suppress(httpcore.ConnectError):
                return await self._post_to(address, target, letter)
        return await self._post_to(addresses[-1], target, letter)

    async def _post_to(self, address: str, target: Target, letter: Letter) -> Outcome:
        body = letter.body.encode()
        signed = notices.headers(
            event_id=letter.event_id,
            at_s=int(self._clock().timestamp()),
            body=body,
            whsec=letter.whsec,
        )
        fields = {**signed, "host": target.authority, "user-agent": "skerry-alerts"}
        url = httpcore.URL(scheme=target.scheme, host=address, port=target.port, target=target.path)
        async with self._pool.stream(
            "POST",
            url,
            content=body,
            headers=list(fields.items()),
            extensions={"sni_hostname": target.host},
        ) as response:  # nothing of the answer's body is read
            said = {name.lower(): value for name, value in response.headers}
            return self._judged(response.status, said)

    def _judged(self, status: int, fields: Mapping[bytes, bytes]) -> Outcome:
        if _OK <= status < _REDIRECT:
            return Outcome()
        problem = f"it answered {status}"
        if _REDIRECT <= status < _REFUSAL:
            problem += "; redirects are not followed, change the URL of the webhook"
        wait = fields.get(b"retry-after", b"").decode("ascii", "replace")
        return Outcome(
            problem=problem, gone=status == _GONE, retry_after_s=self._retry_after_s(wait)
        )

    def _retry_after_s(self, text: str) -> float:
        """Read ``Retry-After`` (RFC 9110, 10.2.3); what makes no sense asks for nothing."""
        try:
            if text.isascii() and text.isdecimal():
                seconds = float(text)
            else:
                seconds = (parsedate_to_datetime(text) - self._clock()).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0.0
        return min(max(seconds, 0.0), _MAX_RETRY_AFTER_S)


def _trust(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca is not None:
        try:
            context.load_verify_locations(cafile=ca)
        except OSError as error:
            raise SettingsError(f"webhook_ca: cannot use {ca}: {error}") from error
    return context
