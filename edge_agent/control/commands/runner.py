"""Runs what was taken, one command at a time, and writes down how it ended.

A command that has expired meanwhile, whose kind this agent does not know or which comes too soon
after the last of its kind is answered without being begun. One that was under way when the process
ended is answered as interrupted: nobody knows how far it came, and it is not tried again.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType

from edge_agent.control.backoff import Backoff
from edge_agent.control.clock import TrustedClock
from edge_agent.control.commands import book
from edge_agent.control.commands.book import Taken
from edge_agent.control.commands.desk import CommandDesk
from edge_agent.control.database import Database
from edge_agent.control.pulse import Pulse, first_change
from edge_agent.errors import AgentError
from fleet_protocol.command_answers import Answer, Outcome, Result, fits
from fleet_protocol.commands import Action, Command, action_of, kind_of
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import MAX_DETAIL

logger = logging.getLogger(__name__)

MIN_PAUSE_S: Mapping[str, float] = MappingProxyType(
    {"diagnostics": 5, "logs": 15, "bench": 60, "restart_runtime": 600, "configure": 10}
)
"""Between two commands of a kind: whoever signs cannot keep a device busy, nor its runtime down."""

_LONGEST_S = 300.0


class CommandRefusedError(AgentError):
    """The command cannot be begun now; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a command achieved.

    Attributes:
        detail: a sentence for the operator.
        result: what was found out.
    """

    detail: str
    result: Result | None = None


class Later:
    """The answer of a command will be given by the next life of this process."""


LATER = Later()

Carry = Callable[[Action, Command], Awaitable[Done | Later]]
"""Carries an action out; raises an `AgentError` that says why it failed."""


class CommandRunner:
    """The task that runs commands.

    Attributes:
        answered: bumped when an answer is to be sent.
    """

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        desk: CommandDesk,
        database: Database,
        trusted_clock: TrustedClock,
        carry: Mapping[type[Action], Carry],
        fate: Callable[[Command], tuple[Outcome, str] | None],
        backoff: Backoff,
        min_pause_s: Mapping[str, float] = MIN_PAUSE_S,
    ) -> None:
        """Take the parts.

        Args:
            desk: judges mailboxes.
            database: holds the book.
            trusted_clock: by which commands expire.
            carry: what carries out each kind.
            fate: says what became of a command that was begun by an earlier process, if that is
                known.
            backoff: between looks at a mailbox that could not be judged.
            min_pause_s: between two commands of a kind.
        """
        self.answered = Pulse()
        self._desk = desk
        self._database = database
        self._trusted_clock = trusted_clock
        self._carry = carry
        self._fate = fate
        self._backoff = backoff
        self._min_pause_s = min_pause_s

    async def run(self) -> None:
        """Run commands until cancelled.

        Raises:
            StoreError: the database refused.
        """
        await self.interrupt()
        while True:
            offered, sent = self._desk.offered.count, self.answered.count
            again = await self.work()
            if not again:
                self._backoff.reset()
            await first_change(
                (self._desk.offered, offered),
                (self.answered, sent),
                timeout_s=self._backoff.next_s() if again else None,
            )

    async def interrupt(self) -> None:
        """Answer what an earlier life of this process has begun and not answered.

        Only before this life begins anything itself.
        """
        for taken in await self._database.transact(book.running):
            fate = self._fate(taken.command)
            if fate is None:
                fate = Outcome.INTERRUPTED, "the agent ended while the command ran"
            await self._answer(taken, *fate)

    async def work(self) -> bool:
        """Take and run all that is there now; says whether the mailbox is worth another look."""
        again = await self._desk.judge()
        while True:
            taken = await self._database.transact(book.next_waiting)
            if taken is None:
                return again
            if not await self._run(taken):
                return False

    async def _run(self, taken: Taken) -> bool:
        """Run a command; says whether this process goes on to the next one."""
        try:
            action = action_of(taken.command)
        except ProtocolError as error:
            await self._answer(taken, Outcome.REFUSED, str(error))
            return True
        begun = await self._database.transact(partial(self._begin, taken=taken, action=action))
        if isinstance(begun, str):
            await self._answer(taken, Outcome.REFUSED, begun)
            return True
        try:
            async with asyncio.timeout(_LONGEST_S):
                done = await self._carry[type(action)](action, begun.command)
        except CommandRefusedError as error:
            await self._answer(begun, Outcome.REFUSED, str(error))
        except TimeoutError:
            await self._answer(begun, Outcome.FAILED, f"it took more than {_LONGEST_S:.0f} s")
        except AgentError as error:
            await self._answer(begun, Outcome.FAILED, str(error))
        else:
            if isinstance(done, Later):
                return False
            await self._answer(begun, Outcome.DONE, done.detail, done.result)
        return True

    def _begin(
        self, connection: sqlite3.Connection, *, taken: Taken, action: Action
    ) -> Taken | str:
        """Mark a command as running, or say why it may not begin."""
        kind = kind_of(action)
        now_ms = int(self._trusted_clock.now(connection).timestamp() * 1000)
        if taken.command.expires_ms <= now_ms:
            return f"it expired at {_time(taken.command.expires_ms)}, before it could begin"
        last_ms = book.last_ran_ms(connection, kind)
        again_ms = last_ms + int(self._min_pause_s.get(kind, 0) * 1000)
        if last_ms <= now_ms < again_ms:  # else the clock, ahead at that time, was set right
            return (
                f"the last {kind} began at {_time(last_ms)}; this device begins another one "
                f"from {_time(again_ms)} on"
            )
        return book.begin(connection, taken, kind=kind, now_ms=now_ms)

    async def _answer(
        self, taken: Taken, outcome: Outcome, detail: str, result: Result | None = None
    ) -> None:
        if result is not None and not fits(result):
            result, detail = None, f"{detail}; what was found out is too long to be sent"

        def write(connection: sqlite3.Connection) -> None:
            now_ms = int(self._trusted_clock.now(connection).timestamp() * 1000)
            given = Answer(
                command_id=taken.command.id,
                outcome=outcome,
                detail=detail[:MAX_DETAIL],
                begun_ms=taken.begun_ms,
                ended_ms=now_ms,
                result=result,
            )
            book.answer(connection, given)

        await self._database.transact(write)
        logger.info(
            "command_ended",
            extra={"id": taken.command.id, "outcome": outcome.value, "reason": detail[:500]},
        )
        self.answered.bump()


def _time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
