"""Says what devices run: complete signed lists, stored first, then published.

One change at a time in this process: `plans` says what each device shall run next, `issuing` has
it signed, stores it and sends it out.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from tuf.api.metadata import Targets

from fleet_protocol.delivery import ANY_TIME, Terms
from fleet_server.assignments import ahead, plans
from fleet_server.assignments.director import Director
from fleet_server.assignments.entries import Entry
from fleet_server.assignments.issuing import (
    LIFETIME,
    Downlink,
    Issuing,
    OvertakenError,
    RefusedAheadError,
    Signing,
)
from fleet_server.assignments.plans import Change, Changed
from fleet_server.assignments.tables import Assignment
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.devices.tables import Device
from fleet_server.errors import RefusedError
from fleet_server.releases.tables import Release

logger = logging.getLogger(__name__)

_PAGE = 500
_PAUSES_S = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Before another attempt to be first on devices that other servers assign to as well."""


class ReleaseIndex(Protocol):
    """Where releases are looked up."""

    async def installable(self, family: str, version: str) -> Release:
        """Return a release that devices do not refuse from the outset."""


Also = Callable[[AsyncSession, Mapping[str, Changed]], Awaitable[None]]
"""Writes, in the transaction that stores assignments, what follows from them."""


class Assignments:
    """Assigns releases to devices."""

    def __init__(  # noqa: PLR0913 (the seams of one service)
        self,
        *,
        database: Database,
        releases: ReleaseIndex,
        signer: Signing,
        downlink: Downlink,
        director: Director,
        clock: Clock,
    ) -> None:
        self._database = database
        self._releases = releases
        self._signer = signer
        self._director = director
        self._clock = clock
        self._issuing = Issuing(
            database=database, signer=signer, downlink=downlink, director=director, clock=clock
        )
        self._turn = asyncio.Lock()
        self.outdated = asyncio.Event()
        """Set when assignments have to be signed anew at once."""

    async def assign(
        self,
        *,
        family: str,
        version: str,
        devices: Sequence[str] | None,
        terms: Terms = ANY_TIME,
    ) -> list[Assignment]:
        """Set one family's release for some devices (None: for all that are not decommissioned).

        Nothing changes unless all can be signed. The terms of the other families stay. Where
        another server assigns at the same time, this one's assignment is planned anew upon it.

        Raises:
            NotFoundError: the release or a device does not exist.
            RefusedError: a device was decommissioned, there is no device, or the signer refuses.
            UnavailableError: signer or database do not answer, or other servers were first every
                time.
        """
        entry = await self.entry(family, version, terms)
        async with self._turn:
            for pause_s in _PAUSES_S:
                with contextlib.suppress(OvertakenError, RefusedAheadError):
                    assigned = await self._assigned(entry, devices)
                    break
                await asyncio.sleep(pause_s)
            else:
                assigned = await self._assigned(entry, devices)
        logger.info(
            "release_assigned",
            extra={"family": family, "version": version, "devices": len(assigned)},
        )
        return assigned

    async def _assigned(self, entry: Entry, devices: Sequence[str] | None) -> list[Assignment]:
        epoch = await self._epoch()
        async with self._database.reading() as session:
            rows = (await session.execute(plans.known())).all()
        planned = plans.with_release(rows, entry, devices, epoch=epoch)
        return await self._issuing.issue(planned)

    async def entry(self, family: str, version: str, terms: Terms = ANY_TIME) -> Entry:
        """Return what an assignment says of a release.

        Raises:
            NotFoundError: there is no such release, or its publisher has withdrawn it.
            RefusedError: its security counter is below the floor of its publisher.
            UnavailableError: the database does not answer.
        """
        release = await self._releases.installable(family, version)
        return Entry(
            family=release.family,
            version=release.version,
            path=release.manifest_path,
            length=release.manifest_length,
            sha256=release.manifest_sha256,
            terms=terms,
        )

    async def carry_out(self, ordered: Sequence[Change], also: Also) -> None:
        """Change one family on each of some devices, and write what follows in one transaction.

        Raises:
            RefusedError: the signer refuses.
            OvertakenError: another server assigned first, so what was ordered has to be looked at.
            UnavailableError: signer or database do not answer.
        """
        async with self._turn:
            rows = await self._known([change.device_id for change in ordered])
            epoch, planned, before = await self._epoch(), [], {}
            for change in ordered:
                plan, had = plans.changed(rows[change.device_id], change, epoch=epoch)
                planned.append(plan)
                before[change.device_id] = had

            async def follow(session: AsyncSession, versions: Mapping[str, int]) -> None:
                await also(
                    session, {name: Changed(versions[name], before[name]) for name in versions}
                )

            await self._issuing.issue(planned, follow)

    async def _epoch(self) -> int:
        await asyncio.to_thread(self._director.follow)
        return self._director.epoch

    async def _known(self, device_ids: Sequence[str]) -> Mapping[str, plans.Known]:
        async with self._database.reading() as session:
            query = plans.known().where(Device.id.in_(device_ids))
            return {row.id: row for row in await session.execute(query)}

    async def renew(self) -> int:
        """Sign some of those anew whose lifetime is half gone or whose key was replaced.

        Returns:
            How many; call it again until there are none.

        A device that holds a newer one than is stored (a restored backup) is left with it: what is
        stored would take the device back in time. Somebody has to assign anew.

        Raises:
            RefusedError: the signer refuses.
            UnavailableError: signer or database do not answer.
        """
        threshold = unix_ms(self._clock() + LIFETIME / 2)
        renewed, after = 0, ""
        while True:
            async with self._turn:
                epoch = await self._epoch()
                query = plans.outdated(epoch, threshold, after=after, limit=_PAGE)
                async with self._database.reading() as session:
                    rows = (await session.execute(query)).all()
                planned = [
                    plans.renewed(row, claim, epoch=epoch)
                    for row, reported, claim in rows
                    if row.root_version < epoch or not _left_alone(row, reported)
                ]
                renewed += len(await self._issuing.issue(planned))
            if len(rows) < _PAGE:
                return renewed
            after = rows[-1][0].device_id

    async def adopt_root(self, payload: bytes) -> bool:
        """Follow a new root of the director; says whether it was new.

        All assignments are signed anew afterwards if it replaces their key (`outdated`).

        Raises:
            MalformedError, ConflictError, RefusedError: it may not follow.
            UnavailableError: the signer does not answer.
            StorageFullError: the disk refuses.
        """
        async with self._turn:
            await asyncio.to_thread(self._director.follow)
            if await asyncio.to_thread(self._director.has, payload):
                return False
            root = self._director.check(payload, now=self._clock())
            wanted = root.roles[Targets.type].keyids
            held = await self._signer.keyids()
            if not set(wanted) & set(held):
                raise RefusedError(
                    f"the signer does not hold the assignment key of director root {root.version} "
                    f"({', '.join(keyid[:16] for keyid in wanted)}); make it there first: "
                    "`skerry server new-key assignment`"
                )
            await asyncio.to_thread(self._director.adopt, payload, root)
        logger.info("director_root_adopted", extra={"version": root.version})
        self.outdated.set()
        return True

    async def documents(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield device id and newest document of every device that may connect.

        Raises:
            UnavailableError: the database failed.
        """
        after = ""
        while True:
            async with self._database.reading() as session:
                rows = (
                    await session.execute(
                        select(Assignment.device_id, Assignment.document)
                        .join(Device, Device.id == Assignment.device_id)
                        .where(Assignment.device_id > after, Device.decommissioned_ms.is_(None))
                        .order_by(Assignment.device_id)
                        .limit(_PAGE)
                    )
                ).all()
            for device_id, document in rows:
                yield device_id, document
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    async def signer_answers(self) -> bool:
        """Say whether new assignments can be signed now."""
        return await self._signer.answers()


def _left_alone(row: Assignment, reported: str | None) -> bool:
    if not ahead.is_ahead(row.version, reported):
        return False
    logger.warning(
        "assignment_behind_its_device",
        extra={"device": row.device_id, "stored": row.version, "held": ahead.held(reported)},
    )
    return True
