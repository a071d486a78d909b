"""Commands that were issued: lists, answers, logs; what nobody answered, and what is old."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from fleet_protocol.command_answers import Answer, LogResult, Outcome
from fleet_protocol.commands import Configure, decode_action
from fleet_server import keyset
from fleet_server.audit import trail
from fleet_server.clock import Clock, unix_ms
from fleet_server.commands.mailboxes import Mailboxes
from fleet_server.commands.states import CommandState, audited, by_id, locked, no_command
from fleet_server.commands.tables import CommandLog, DeviceCommand, DeviceConfiguration
from fleet_server.database import Database
from fleet_server.errors import ConflictError, NotFoundError
from fleet_server.keyset import Order
from fleet_server.storable import storable

KEPT = timedelta(days=90)
LOGS_KEPT = timedelta(days=14)
LOGS_OF_A_DEVICE = 20
_PAGE = 500
_UNANSWERED = frozenset({CommandState.OPEN, CommandState.EXPIRED, CommandState.CANCELED})
_LARGE = (DeviceCommand.document, DeviceCommand.result)
_STATES = {
    Outcome.DONE: CommandState.DONE,
    Outcome.FAILED: CommandState.FAILED,
    Outcome.REFUSED: CommandState.REFUSED,
    Outcome.INTERRUPTED: CommandState.INTERRUPTED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which commands a list shows; None for all."""

    device_id: str | None = None
    state: CommandState | None = None
    kind: str | None = None


class Archive:
    """The commands of one database."""

    def __init__(self, *, database: Database, mailboxes: Mailboxes, clock: Clock) -> None:
        self._database = database
        self._mailboxes = mailboxes
        self._clock = clock

    async def get(self, command_id: str) -> DeviceCommand:
        """Return a command.

        Raises:
            NotFoundError: there is no such command.
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            row = await session.scalar(by_id(command_id))
        if row is None:
            raise no_command(command_id)
        return row

    async def page(
        self, filters: Filters, *, after: int | None, limit: int
    ) -> Sequence[DeviceCommand]:
        """Return commands below a number, the newest first, without documents and results.

        Raises:
            UnavailableError: the database failed.
        """
        query = keyset.page(
            select(DeviceCommand).options(*(defer(column, raiseload=True) for column in _LARGE)),
            DeviceCommand.number,
            after=after,
            limit=limit,
            order=Order.DESCENDING,
        )
        if filters.device_id is not None:
            query = query.where(DeviceCommand.device_id == filters.device_id)
        if filters.state is not None:
            query = query.where(DeviceCommand.state == filters.state.value)
        if filters.kind is not None:
            query = query.where(DeviceCommand.kind == filters.kind)
        async with self._database.reading() as session:
            return (await session.scalars(query)).all()

    async def log(self, command_id: str) -> bytes:
        """Return the log that answers a command; that somebody read it is recorded.

        Raises:
            NotFoundError: there is no such command, or no log of it.
            UnavailableError: the database failed.
        """
        async with self._database.writing() as session:
            log = await session.scalar(
                select(CommandLog).where(CommandLog.command_id == command_id)
            )
            if log is None:
                raise NotFoundError(
                    f"there is no log of command {command_id[:40]!r}: an answered `logs` command "
                    f"has one, for {LOGS_KEPT.days} days"
                )
            after = {"command": command_id, "size_bytes": len(log.content)}
            await trail.record(session, "command.log.read", log.device_id, after=after)
            return log.content

    async def cancel(self, command_id: str) -> DeviceCommand:
        """Take a command back that no answer has come to.

        Raises:
            NotFoundError: there is no such command.
            ConflictError: it is not open.
            UnavailableError: the database failed.
        """
        async with self._database.writing() as session:
            row = await locked(session, command_id)
            if row.state != CommandState.OPEN:
                raise ConflictError(f"the command is {row.state}; only an open one is taken back")
            row.state = CommandState.CANCELED
            await trail.record(session, "command.cancel", row.device_id, after=audited(row))
        await self._mailboxes.publish([row.device_id])
        return row

    async def take(self, device_id: str, answer: Answer) -> None:
        """Store the answer of a device; the first one of a command counts.

        Raises:
            NotFoundError: there is no such command to the device.
            UnavailableError: the database failed.
        """
        async with self._database.writing() as session:
            row = await locked(session, answer.command_id)
            if row.device_id != device_id:
                raise no_command(answer.command_id)
            if row.state not in _UNANSWERED:
                return
            now_ms = unix_ms(self._clock())
            row.state = _STATES[answer.outcome]
            row.begun_ms, row.ended_ms, row.answered_ms = answer.begun_ms, answer.ended_ms, now_ms
            row.detail = storable(answer.detail)
            await _keep_result(session, row, answer, now_ms)
            await _note_configuration(session, row, answer, now_ms)
        await self._mailboxes.publish([device_id])

    async def tidy(self) -> int:
        """Close what nobody answered in time, forget what is old; return how many expired.

        Raises:
            UnavailableError: the database failed.
        """
        now = self._clock()
        overdue = (
            select(DeviceCommand)
            .where(
                DeviceCommand.state == CommandState.OPEN, DeviceCommand.expires_ms < unix_ms(now)
            )
            .limit(_PAGE)
            .with_for_update()
        )
        async with self._database.writing() as session:
            rows = (await session.scalars(overdue)).all()
            for row in rows:
                row.state = CommandState.EXPIRED
                row.detail = "no answer came before the command expired"
            await session.execute(
                delete(DeviceCommand).where(
                    DeviceCommand.state != CommandState.OPEN,
                    DeviceCommand.issued_ms < unix_ms(now - KEPT),
                )
            )
            await session.execute(
                delete(CommandLog).where(CommandLog.stored_ms < unix_ms(now - LOGS_KEPT))
            )
        await self._mailboxes.publish(sorted({row.device_id for row in rows}))
        return len(rows)


async def _keep_result(
    session: AsyncSession, row: DeviceCommand, answer: Answer, now_ms: int
) -> None:
    result = answer.result
    if isinstance(result, LogResult):
        session.add(
            CommandLog(
                command_id=row.id,
                device_id=row.device_id,
                stored_ms=now_ms,
                content=result.content,
            )
        )
        await session.flush()
        await _bound_logs(session, row.device_id)
        result = msgspec.structs.replace(result, content=b"")
    row.result = None if result is None else msgspec.json.encode(result).decode()


async def _bound_logs(session: AsyncSession, device_id: str) -> None:
    newest = (
        select(CommandLog.command_id)
        .where(CommandLog.device_id == device_id)
        .order_by(CommandLog.stored_ms.desc(), CommandLog.command_id)
        .limit(LOGS_OF_A_DEVICE)
    )
    await session.execute(
        delete(CommandLog).where(
            CommandLog.device_id == device_id, CommandLog.command_id.not_in(newest)
        )
    )


async def _note_configuration(
    session: AsyncSession, row: DeviceCommand, answer: Answer, now_ms: int
) -> None:
    action = decode_action(row.action.encode())
    if not isinstance(action, Configure):
        return
    known = await session.get(DeviceConfiguration, row.device_id)
    if known is None:
        known = DeviceConfiguration(
            device_id=row.device_id, name="", version=0, refused_version=0, problem=""
        )
        session.add(known)
    known.changed_ms = now_ms
    if answer.outcome is Outcome.DONE:
        known.name, known.version = action.name, action.version
        known.refused_version, known.problem = 0, ""
    elif answer.outcome is Outcome.FAILED:
        known.refused_version, known.problem = action.version, row.detail
