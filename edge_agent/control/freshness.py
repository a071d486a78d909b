"""The alarm against a freeze: how long ago the device last learned the fleet's newest state.

Whoever holds the network, the broker or the server can keep news back: hand out yesterday's
metadata for ever, or no assignment. Nothing wrong is signed then, so nothing is refused; what tells
is time. Two things are watched:

1. The release repository, which `Freshness.run` asks for its newest state several times in the life
   of its timestamp role (a day): if what was verified last has expired, nothing newer could be
   verified since.
2. The assignment, which the fleet signs anew at half of its life.

Expiry is judged by the trusted time, which is never the server's word and cannot be turned back. A
clock that is held still would never reach it, so the life that was left is also counted down by the
monotonic clock, across restarts. An alarm is an event when it is raised and one when it is over,
and stands in the reported state and in `skerry agent status` meanwhile. It stops nothing that runs.
"""

import asyncio
import logging
import random
import sqlite3
from datetime import UTC, datetime
from functools import partial

import msgspec

from edge_agent.control import assignment, facts
from edge_agent.control.backoff import Backoff
from edge_agent.control.clock import Clock, TrustedClock
from edge_agent.control.database import Database
from edge_agent.control.outbox import EventDraft, Outbox
from edge_agent.control.refusals import Refusals
from edge_agent.control.release_repository import Releases
from edge_agent.control.server_client import ServerUnreachableError
from edge_agent.control.trust import TrustError
from edge_agent.control.withdrawn import Withdrawn
from fleet_protocol.messages import EventKind

logger = logging.getLogger(__name__)

_CONFIRMED = "release_repository_confirmed"
_RAISED = "freshness_alarms"
_FIRST_LIFE_MS = 24 * 3600 * 1000
"""A device that never reached the repository raises the alarm after this."""

_COUNT_EVERY_S = 900.0


class Confirmed(msgspec.Struct, frozen=True, kw_only=True):
    """The last time that the repository's state was verified.

    Attributes:
        at_ms: trusted time of that.
        until_ms: when the first of its roles expires.
        lived_s: what the monotonic clock has counted since, as far as it is on disk.
    """

    at_ms: int
    until_ms: int
    lived_s: float = 0.0

    def expired(self, now_ms: float, lived_s: float) -> bool:
        """Say whether its life is over by either clock."""
        return now_ms >= self.until_ms or lived_s * 1000 >= self.until_ms - self.at_ms


class Freshness:
    """Keeps the knowledge fresh and raises the alarms."""

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        database: Database,
        releases: Releases,
        outbox: Outbox,
        refusals: Refusals,
        withdrawn: Withdrawn,
        clock: Clock,
        trusted_clock: TrustedClock,
        interval_s: float,
        retry: Backoff,
        randomness: random.Random,
    ) -> None:
        """Take the parts; ``retry`` paces attempts after a failure."""
        self._database = database
        self._releases = releases
        self._outbox = outbox
        self._refusals = refusals
        self._withdrawn = withdrawn
        self._clock = clock
        self._trusted_clock = trusted_clock
        self._interval_s = interval_s
        self._retry = retry
        self._random = randomness
        self._made_s = clock.monotonic_s()
        self._life: tuple[int, float] | None = None

    async def run(self) -> None:
        """Ask the repository now and then until cancelled, spread over the fleet."""
        while True:
            if await self.check():
                self._retry.reset()
                await asyncio.sleep(self._interval_s * self._random.uniform(0.5, 1.0))
            else:
                await asyncio.sleep(self._retry.next_s())

    async def check(self) -> bool:
        """Verify the repository's newest state once and learn of what was withdrawn.

        Says whether there is no need to ask again soon.

        Raises:
            StoreError: the disk refused.
        """
        now = await self._database.transact(self._trusted_clock.now)
        try:
            snapshot = await asyncio.to_thread(self._releases.refresh, now)
        except TrustError as error:
            await self._refusals.tell(str(error))
            return False
        except ServerUnreachableError as error:
            logger.info("repository_not_confirmed", extra={"reason": str(error)})
            return False
        await self._database.transact(partial(self._confirm, now=now, until=snapshot.expires))
        try:
            for family in await self._withdrawn.families():
                said = await asyncio.to_thread(snapshot.withdrawals, family)
                await self._withdrawn.learn(family, said)
        except TrustError as error:
            await self._refusals.tell(str(error))
        except ServerUnreachableError as error:
            logger.info("withdrawals_not_read", extra={"reason": str(error)})
            return False
        else:
            await self._refusals.over()
        return True

    def _confirm(self, connection: sqlite3.Connection, *, now: datetime, until: datetime) -> None:
        self._life = _ms(now), self._clock.monotonic_s()
        self._trusted_clock.trust(connection, now)
        _keep(connection, Confirmed(at_ms=_ms(now), until_ms=_ms(until)))

    def look(self, connection: sqlite3.Connection) -> tuple[str, ...]:
        """Return the alarms of this moment as sentences; writes nothing."""
        return tuple(self._alarms(connection).values())

    def note(self, connection: sqlite3.Connection) -> None:
        """Make events of alarms that were raised or have ended, and keep count of time."""
        self._count(connection)
        alarms = self._alarms(connection)
        raised = set(msgspec.json.decode(facts.get(connection, _RAISED) or "[]", type=list[str]))
        if raised != alarms.keys():
            facts.put(connection, _RAISED, msgspec.json.encode(sorted(alarms)).decode())
            for name in alarms.keys() - raised:
                self._tell(connection, EventKind.METADATA_STALE, alarms[name])
            for name in raised - alarms.keys():
                self._tell(connection, EventKind.METADATA_FRESH, f"the {name} is up to date again")

    def _alarms(self, connection: sqlite3.Connection) -> dict[str, str]:
        now = self._trusted_clock.now(connection)
        sentences = (
            ("release repository", self._repository(connection, now)),
            ("assignment", _assignment(connection, now)),
        )
        return {name: sentence for name, sentence in sentences if sentence}

    def _repository(self, connection: sqlite3.Connection, now: datetime) -> str:
        confirmed = _confirmed(connection)
        if confirmed is None or not confirmed.expired(_ms(now), self._lived_s(confirmed)):
            return ""
        return (
            f"the release repository was last confirmed on {_words(confirmed.at_ms)}, what was "
            f"verified then expired on {_words(confirmed.until_ms)}, and nothing newer could be "
            "verified: somebody may be keeping releases back, or the server cannot be reached"
        )

    def _count(self, connection: sqlite3.Connection) -> None:
        """Write the monotonic age down now and then; begin to count on a new device."""
        confirmed = _confirmed(connection)
        if confirmed is None:
            now_ms = _ms(self._trusted_clock.now(connection))
            _keep(connection, Confirmed(at_ms=now_ms, until_ms=now_ms + _FIRST_LIFE_MS))
            return
        lived_s = self._lived_s(confirmed)
        if lived_s - confirmed.lived_s >= _COUNT_EVERY_S:
            _keep(connection, msgspec.structs.replace(confirmed, lived_s=lived_s))

    def _lived_s(self, confirmed: Confirmed) -> float:
        """Return the monotonic age: what is on disk of an earlier process, and this one's count."""
        if self._life is None or self._life[0] != confirmed.at_ms:
            since_s = self._made_s if self._life is None else self._clock.monotonic_s()
            self._life = confirmed.at_ms, since_s - confirmed.lived_s
        return self._clock.monotonic_s() - self._life[1]

    def _tell(self, connection: sqlite3.Connection, kind: EventKind, detail: str) -> None:
        logger.warning("freshness_changed", extra={"kind": str(kind), "detail": detail})
        draft = EventDraft(at_ms=self._clock.now_ms(), kind=kind, detail=detail)
        self._outbox.append_event(connection, draft)


def raised(connection: sqlite3.Connection) -> list[str]:
    """Return what the running alarms are about, for `skerry agent status`."""
    return msgspec.json.decode(facts.get(connection, _RAISED) or "[]", type=list[str])


def _assignment(connection: sqlite3.Connection, now: datetime) -> str:
    accepted = assignment.load(connection)
    if accepted is None or _ms(now) < accepted.assignment.expires_ms:
        return ""
    return (
        f"assignment {accepted.assignment.version} expired on "
        f"{_words(accepted.assignment.expires_ms)} and no newer one came: somebody may be keeping "
        "it back, or the broker cannot be reached; nothing new is installed"
    )


def _confirmed(connection: sqlite3.Connection) -> Confirmed | None:
    known = facts.get(connection, _CONFIRMED)
    return None if known is None else msgspec.json.decode(known, type=Confirmed)


def _keep(connection: sqlite3.Connection, confirmed: Confirmed) -> None:
    facts.put(connection, _CONFIRMED, msgspec.json.encode(confirmed).decode())


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _words(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
