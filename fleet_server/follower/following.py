"""Follows the fleet server for one Mosquitto: asks, judges, writes, and ends sessions.

What is held stays whatever goes wrong: without the server, or with a false one, the broker goes on
with what it was told last. The server's next list is asked for without naming the last one until
Mosquitto has been told of that, so the server knows how far its brokers are.
"""

import logging
import random
import re
import threading
from collections.abc import Callable
from datetime import datetime

import msgspec
from cryptography import x509

from fleet_protocol.errors import SkerryError
from fleet_server.broker import acceptance, client_authorities
from fleet_server.broker.acceptance import Held
from fleet_server.broker.hand import Hand
from fleet_server.broker.mosquitto_files import MosquittoFiles
from fleet_server.clock import Clock
from fleet_server.errors import SetupError
from fleet_server.follower.source import Fetched

logger = logging.getLogger(__name__)

LONGEST_S = 60.0
_JITTER = 0.2
_TOLD_AGAIN_AFTER = 60
"""Failures in a row until a failure of the same kind is logged again."""

_LIST = re.compile(b"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How far the broker is.

    Attributes:
        authorities: how many device CAs it trusts.
        numbers: of their revocation lists.
        refused: how many certificates are on them.
        valid_until: when the first of the lists ends: nobody is let in after it.
        sessions_ended: by this look.
    """

    authorities: int
    numbers: list[int]
    refused: int
    valid_until: datetime | None
    sessions_ended: int


class Following:
    """One Mosquitto, and the server that it follows."""

    def __init__(
        self,
        *,
        files: MosquittoFiles,
        fetch: Callable[[str | None], Fetched],
        clock: Clock,
    ) -> None:
        """Read what is held.

        Args:
            files: of the Mosquitto.
            fetch: asks the server for what is not named by an etag.
            clock: the wall clock.

        Raises:
            SetupError: the folder holds no device CA to begin with.
        """
        self._fetch = fetch
        self._clock = clock
        self._hand = Hand(files)
        self._held = held_in(files)
        self._shut_out: list[str] = []
        self._etag: str | None = None

    def look(self) -> Status:
        """Ask once and do what follows.

        Raises:
            FleetError, SigningKeyError: the server is away or refuses, what it says is refused, or
                Mosquitto is away; the next look does what is left.
            OSError: the disk refuses.
        """
        fetched = self._fetch(self._etag)
        if fetched.told is not None:
            self._etag = None
            told = fetched.told
            self._held = acceptance.accepted(self._held, told.authorities, now=self._clock())
            self._shut_out = told.shut_out
        self._hand.write(self._held)
        ended = self._hand.enforce(self._shut_out)
        self._etag = fetched.etag or None
        return self._status(ended)

    def run(self, stop: threading.Event, *, interval_s: float) -> None:
        """Look again and again, until told to stop."""
        failures, told = 0, ""
        while True:
            try:
                self.look()
            except (SkerryError, OSError) as error:
                kind = type(error).__name__
                if kind != told or failures % _TOLD_AGAIN_AFTER == 0:
                    logger.warning(
                        "broker_not_followed",
                        extra={"reason": str(error)[:500], "in_a_row": failures + 1},
                    )
                failures, told = failures + 1, kind
            else:
                if failures:
                    logger.info("broker_followed_again", extra={"failures": failures})
                failures, told = 0, ""
            if stop.wait(pause_s(interval_s, failures, random.uniform(-_JITTER, _JITTER))):  # noqa: S311 (no secret)
                return

    def _status(self, ended: int) -> Status:
        until = [each.next_update_utc for each in self._held.lists if each.next_update_utc]
        return Status(
            authorities=len(self._held.certificates),
            numbers=[acceptance.number_of(each) for each in self._held.lists],
            refused=len({one.serial_number for each in self._held.lists for one in each}),
            valid_until=min(until, default=None),
            sessions_ended=ended,
        )


def pause_s(interval_s: float, failures: int, jitter: float) -> float:
    """Return how long to wait: growing with failures in a row, and never all at the same time."""
    grown = interval_s * 2.0 ** min(failures, 8)
    return float(min(grown, max(LONGEST_S, interval_s)) * (1 + jitter))


def held_in(files: MosquittoFiles) -> Held:
    """Read what a broker goes by.

    Raises:
        SetupError: there is no device CA, or one cannot be read.
    """
    try:
        certificates = client_authorities.read(files.authorities)
    except (OSError, ValueError) as error:
        raise SetupError(_no_authority(files, str(error))) from error
    if not certificates:
        raise SetupError(_no_authority(files, "there is none"))
    try:
        content = files.revoked.read_bytes()
        lists = tuple(x509.load_pem_x509_crl(each) for each in _LIST.findall(content))
    except FileNotFoundError:
        lists = ()
    except (OSError, ValueError) as error:
        logger.warning("revocation_list_damaged", extra={"reason": str(error)})
        lists = ()
    return Held(tuple(certificates), lists)


def _no_authority(files: MosquittoFiles, reason: str) -> str:
    return (
        f"cannot read the device CAs in {files.authorities} ({reason}): name the file with "
        "`skerry server broker-config --folder ... --device-ca FILE`"
    )
