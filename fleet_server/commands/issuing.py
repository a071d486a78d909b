"""Issues commands: signed first, stored second, published last.

What the signer has signed and nobody stored does nothing. A command is stored only if no higher
sequence of its device is, whichever server signed that, because a device passes over what comes
after a higher one. Database and signer may both come from a backup: the sequence that a device
reports counts as well.
"""

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol import commands as protocol
from fleet_protocol.commands import MAX_OPEN, Action
from fleet_server.assignments import ahead
from fleet_server.assignments.signer_client import VersionTakenError
from fleet_server.assignments.signing import MAX_BATCH
from fleet_server.audit import trail
from fleet_server.clock import Clock, unix_ms
from fleet_server.commands.mailboxes import Mailboxes
from fleet_server.commands.signing import SignCommand
from fleet_server.commands.states import CommandState, Standing, audited, standings
from fleet_server.commands.tables import DeviceCommand
from fleet_server.database import Database, take_turn
from fleet_server.devices.tables import Device
from fleet_server.errors import (
    ConflictError,
    NotFoundError,
    RefusedError,
    ThrottledError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

MAX_PER_MINUTE = 600
"""Commands that the people of one tenant may issue; configuration by the server is not counted."""

_ATTEMPTS = 8
"""To be first on devices that other servers command too; each that fails, another one has won."""

_LISTED = 5
_AUDITED = 200


class Signing(Protocol):
    """The signer."""

    async def sign_commands(self, requests: list[SignCommand]) -> list[bytes]:
        """Sign commands, all or none."""


@dataclass(frozen=True, slots=True)
class _Draft:
    device_id: str
    standing: Standing
    action: Action
    sequence: int = 0

    def above(self, highest: int) -> "_Draft":
        """Return it with a sequence above one, and above that which the device has taken."""
        following = ahead.next_sequence(highest, self.standing.reported)
        return replace(self, sequence=max(self.sequence, following))


@dataclass(frozen=True, slots=True)
class _Order:
    """Attributes common to the commands of one call; ``limited`` if people asked for them."""

    who: str
    lifetime_s: int
    limited: bool


class Issuing:
    """Issues the commands of one database."""

    def __init__(
        self, *, database: Database, signer: Signing, mailboxes: Mailboxes, clock: Clock
    ) -> None:
        self._database = database
        self._signer = signer
        self._mailboxes = mailboxes
        self._clock = clock
        self._turn = asyncio.Lock()

    async def issue(
        self, *, devices: Sequence[str], action: Action, lifetime_s: int, who: str
    ) -> list[DeviceCommand]:
        """Command some devices to do the same thing: all of them or none.

        Raises:
            NotFoundError: a device does not exist.
            RefusedError: a device was decommissioned, or the signer refuses.
            ConflictError: a device has as many open commands as it may have.
            ThrottledError: the tenant has issued too many.
            UnavailableError: signer or database do not answer, or other servers were first every
                time.
        """
        chosen = sorted(set(devices))
        async with self._database.reading() as session:
            await _check_known(session, chosen)
            found = await standings(session, chosen)
        drafts = [_draft(device_id, standing, action) for device_id, standing in found.items()]
        rows = await self._carry_out(drafts, _Order(who, lifetime_s, limited=True))
        logger.info(
            "commands_issued",
            extra={"kind": protocol.kind_of(action), "devices": len(rows), "by": who},
        )
        return rows

    async def issue_each(
        self, actions: Mapping[str, Action], *, lifetime_s: int, who: str
    ) -> list[DeviceCommand]:
        """Command devices each their own, as the server itself does; those that may be commanded.

        Raises:
            UnavailableError: signer or database do not answer.
        """
        async with self._database.reading() as session:
            found = await standings(session, list(actions))
        drafts = [
            _draft(device_id, standing, actions[device_id]) for device_id, standing in found.items()
        ]
        order = _Order(who, lifetime_s, limited=False)
        try:
            return await self._carry_out(drafts, order)
        except RefusedError:
            return await self._carry_out_each(drafts, order)

    async def _carry_out_each(self, drafts: list[_Draft], order: _Order) -> list[DeviceCommand]:
        """Carry out one by one, so that a device which is refused keeps nothing from others."""
        rows: list[DeviceCommand] = []
        for draft in drafts:
            try:
                rows += await self._carry_out([draft], order)
            except RefusedError as error:
                extra = {"device": draft.device_id, "reason": str(error)}
                logger.warning("device_not_commanded", extra=extra)
        return rows

    async def _carry_out(self, drafts: list[_Draft], order: _Order) -> list[DeviceCommand]:
        rows: list[DeviceCommand] = []
        async with self._turn:
            for _attempt in range(_ATTEMPTS):
                try:
                    rows = await self._signed(drafts, order, self._clock())
                except VersionTakenError as error:  # by another server, twice while this one asked
                    drafts = _above(drafts, error)
                    continue
                drafts = await self._store(rows, drafts, order)
                if not drafts:
                    break
            else:
                raise UnavailableError(
                    "other servers commanded the same devices at the same time, so nothing was "
                    "commanded; try again",
                    retry_after_s=1,
                )
        await self._mailboxes.publish([row.device_id for row in rows])
        return rows

    async def _signed(
        self, drafts: list[_Draft], order: _Order, now: datetime
    ) -> list[DeviceCommand]:
        rows: list[DeviceCommand] = []
        issued_ms = unix_ms(now)
        expires_ms = unix_ms(now + timedelta(seconds=order.lifetime_s))
        for start in range(0, len(drafts), MAX_BATCH):
            some = drafts[start : start + MAX_BATCH]
            batch = [_request(draft, issued_ms, expires_ms) for draft in some]
            try:
                documents = await self._signer.sign_commands(batch)
            except VersionTakenError as error:
                # Signed and never stored, or stored in a database that was restored since.
                batch = [_request(draft, issued_ms, expires_ms) for draft in _above(some, error)]
                documents = await self._signer.sign_commands(batch)
            rows += [
                _row(request, document, order.who)
                for request, document in zip(batch, documents, strict=True)
            ]
        return rows

    async def _store(
        self, rows: list[DeviceCommand], drafts: list[_Draft], order: _Order
    ) -> list[_Draft]:
        """Store commands; or none, and return drafts with sequences above those of others."""
        ids = [row.device_id for row in rows]
        async with self._database.writing() as session:
            await take_turn(session, "commands")
            found = await standings(session, ids)
            gone = [device_id for device_id in ids if device_id not in found]
            if gone:
                raise RefusedError(f"decommissioned meanwhile: {', '.join(gone[:_LISTED])}")
            if any(found[row.device_id].last >= row.sequence for row in rows):
                return [draft.above(found[draft.device_id].last) for draft in drafts]
            if order.limited:
                await self._check_limits(session, ids)
            session.add_all(rows)
            await session.flush()
            if order.limited:
                after = {**audited(rows[0]), "devices": ids[:_AUDITED]}
                await trail.record(session, "command.issue", rows[0].kind, after=after)
        return []

    async def _check_limits(self, session: AsyncSession, ids: list[str]) -> None:
        crowded = (
            select(DeviceCommand.device_id)
            .where(DeviceCommand.device_id.in_(ids), DeviceCommand.state == CommandState.OPEN)
            .group_by(DeviceCommand.device_id)
            .having(func.count() >= MAX_OPEN)
            .limit(_LISTED)
        )
        full = list(await session.scalars(crowded))
        if full:
            raise ConflictError(
                f"{', '.join(full)}: there are {MAX_OPEN} open commands already; wait for their "
                "answers or cancel some"
            )
        recent = await session.scalar(
            select(func.count())
            .select_from(DeviceCommand)
            .where(
                DeviceCommand.issued_ms > unix_ms(self._clock()) - 60_000,
                DeviceCommand.kind != "configure",
            )
        )
        if (recent or 0) + len(ids) > MAX_PER_MINUTE:
            raise ThrottledError(
                f"more than {MAX_PER_MINUTE} commands in a minute; wait and try again",
                retry_after_s=60,
            )


async def _check_known(session: AsyncSession, chosen: Sequence[str]) -> None:
    rows = await session.execute(
        select(Device.id, Device.decommissioned_ms).where(Device.id.in_(chosen))
    )
    known = {row.id: row.decommissioned_ms for row in rows}
    unknown = [device_id for device_id in chosen if device_id not in known]
    if unknown:
        raise NotFoundError(f"there is no device {', '.join(unknown[:_LISTED])}")
    gone = [device_id for device_id in chosen if known[device_id] is not None]
    if gone:
        raise RefusedError(f"decommissioned: {', '.join(gone[:_LISTED])}")


def _draft(device_id: str, standing: Standing, action: Action) -> _Draft:
    return _Draft(device_id, standing, action).above(standing.last)


def _above(drafts: Sequence[_Draft], taken: VersionTakenError) -> list[_Draft]:
    return [draft.above(taken.highest.get(draft.device_id, 0)) for draft in drafts]


def _request(draft: _Draft, issued_ms: int, expires_ms: int) -> SignCommand:
    return SignCommand(
        id=secrets.token_hex(16),
        device_id=draft.device_id,
        sequence=draft.sequence,
        issued_ms=issued_ms,
        expires_ms=expires_ms,
        action=draft.action,
        claim=draft.standing.claim,
    )


def _row(request: SignCommand, document: bytes, who: str) -> DeviceCommand:
    return DeviceCommand(
        id=request.id,
        device_id=request.device_id,
        sequence=request.sequence,
        kind=protocol.kind_of(request.action),
        action=msgspec.json.encode(request.action).decode(),
        state=CommandState.OPEN,
        issued_ms=request.issued_ms,
        expires_ms=request.expires_ms,
        requested_by=who,
        document=document.decode(),
        detail="",
    )
