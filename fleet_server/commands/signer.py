"""The signer's rules for commands: well-formed, short-lived, in order, to invited devices.

It works inside the signer process (`fleet_server.assignments.signer`), with its key and database:

1. the kind and its arguments are of the fixed list (nothing else can be commanded, whoever asks);
2. a command lives for a day at most (none lies in wait);
3. its sequence is higher than any that this key signed for the device, and not by much (no
   repetition, and one request cannot use up the numbers);
4. the device was invited: the claim token is shown with which it enrolled.
"""

import sqlite3
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import msgspec
from securesystemslib.dsse import Envelope
from securesystemslib.signer import Signer

from fleet_protocol import commands
from fleet_protocol.commands import Command
from fleet_server.clock import Clock, unix_ms
from fleet_server.commands.signing import SignCommand
from fleet_server.errors import NotAuthenticatedError, RefusedError

MAX_STEP = 10_000
_CLOCKS_DIFFER_MS = 60_000

SCHEMA = """
CREATE TABLE IF NOT EXISTS commands (
    device_id TEXT PRIMARY KEY,
    keyid TEXT NOT NULL,
    sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID
"""


class Invitations(Protocol):
    """Knows the claim key's signature."""

    def invited(self, token: str) -> str:
        """Return the device that a claim token invited, whenever it was valid."""


class SequenceNotHigherError(RefusedError):
    """A sequence was asked for that is not the next.

    Attributes:
        highest: the highest signed sequence of each device of the batch.
    """

    def __init__(self, message: str, *, highest: dict[str, int]) -> None:
        super().__init__(message)
        self.highest = highest


class CommandSigner:
    """Checks, remembers, signs. Blocks; one batch at a time."""

    def __init__(
        self,
        *,
        database: sqlite3.Connection,
        signer: Callable[[], Signer],
        claims: Invitations,
        clock: Clock,
    ) -> None:
        self._database = database
        self._signer = signer
        self._claims = claims
        self._clock = clock
        self._database.execute(SCHEMA)

    def sign(self, requests: list[SignCommand]) -> list[str]:
        """Sign a batch; the sequences are on disk before the first signature exists.

        Raises:
            RefusedError: a request breaks a rule; nothing was signed.
            SetupError: the director's newest root names a key that is not here.
            sqlite3.Error: the database failed; nothing was signed.
        """
        signer = self._signer()
        now = self._clock()
        for request in requests:
            self._check(request, now)
        self._remember(requests, signer.public_key.keyid)
        return [_signed(request, signer) for request in requests]

    def _check(self, request: SignCommand, now: datetime) -> None:
        now_ms = unix_ms(now)
        if not abs(request.issued_ms - now_ms) <= _CLOCKS_DIFFER_MS:
            raise RefusedError("a command is signed when it is issued, not before or after")
        lifetime_ms = request.expires_ms - request.issued_ms
        if not 0 < lifetime_ms <= commands.MAX_LIFETIME_S * 1000:  # (2)
            raise RefusedError(
                f"a command may live for {commands.MAX_LIFETIME_S // 3600} hours at most"
            )
        try:
            invited = self._claims.invited(request.claim)  # (4)
        except NotAuthenticatedError as error:
            raise RefusedError(
                f"nothing shows that the device {request.device_id} was invited: {error}"
            ) from error
        if invited != request.device_id:
            raise RefusedError(f"the claim of {request.device_id} is one of {invited}")

    def _remember(self, requests: list[SignCommand], keyid: str) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            known = {request.device_id: self._last(request.device_id) for request in requests}
            for device_id, sequence in _raised(known, requests, keyid).items():
                self._database.execute(
                    "INSERT INTO commands VALUES (?, ?, ?) ON CONFLICT (device_id) DO UPDATE SET "
                    "keyid = excluded.keyid, sequence = excluded.sequence",
                    (device_id, keyid, sequence),
                )
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # SQLite rolls back itself when the disk is full
                self._database.execute("ROLLBACK")
            raise

    def _last(self, device_id: str) -> tuple[str, int]:
        row = self._database.execute(
            "SELECT keyid, sequence FROM commands WHERE device_id = ?", (device_id,)
        ).fetchone()
        return ("", 0) if row is None else (str(row[0]), int(row[1]))


def _raised(
    known: dict[str, tuple[str, int]], requests: list[SignCommand], keyid: str
) -> dict[str, int]:
    """Return the sequences after a batch."""
    highest = {device: last for device, (_, last) in known.items()}
    floors = {device: last if key == keyid else 0 for device, (key, last) in known.items()}
    raised = dict(floors)
    for request in requests:
        before = raised[request.device_id]
        most = max(before, highest[request.device_id]) + MAX_STEP
        if not before < request.sequence <= most:  # (3)
            raise SequenceNotHigherError(
                f"command {request.sequence} of {request.device_id} does not follow {before}",
                highest=floors,
            )
        raised[request.device_id] = request.sequence
    return raised


def _signed(request: SignCommand, signer: Signer) -> str:
    command = Command(
        id=request.id,
        device_id=request.device_id,
        sequence=request.sequence,
        issued_ms=request.issued_ms,
        expires_ms=request.expires_ms,
        action=msgspec.Raw(msgspec.json.encode(request.action)),
    )
    payload = msgspec.json.encode(command)
    if len(payload) > commands.MAX_PAYLOAD_BYTES:
        raise RefusedError(f"a command may have {commands.MAX_PAYLOAD_BYTES} bytes at most")
    envelope = Envelope(payload, commands.PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return msgspec.json.encode(envelope.to_dict()).decode()
