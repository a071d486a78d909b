"""Says what devices run: complete signed lists, stored first, then published."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from sqlalchemy import Row, delete, insert, inspect, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from fleet_protocol import assignments as protocol
from fleet_protocol import delivery, names
from fleet_protocol.delivery import ANY_TIME, Terms
from fleet_protocol.errors import ProtocolError
from fleet_server.assignments import ahead, entries, history
from fleet_server.assignments.director import Director
from fleet_server.assignments.entries import Entry
from fleet_server.assignments.signer_client import VersionTakenError
from fleet_server.assignments.signing import MAX_BATCH, SignRequest, Target
from fleet_server.assignments.tables import Assignment
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.devices import changes
from fleet_server.devices.tables import Device
from fleet_server.errors import NotFoundError, RefusedError, UnavailableError
from fleet_server.releases.tables import Release

logger = logging.getLogger(__name__)

LIFETIME = timedelta(days=30)
_PAGE = 500
_LISTED = 5
_PUSHED = 2**30
"""No device was assigned to so often by its owner."""


class Signing(Protocol):
    """The signer."""

    async def sign(self, requests: list[SignRequest]) -> list[bytes]:
        """Sign assignments, all or none."""

    async def keyids(self) -> list[str]:
        """Return the ids of the keys that it holds."""

    async def answers(self) -> bool:
        """Say whether it listens."""


class Downlink(Protocol):
    """The way to the devices."""

    def publish_assignment(self, device_id: str, document: bytes) -> None:
        """Publish an assignment, retained; while the link is down it waits for the next one."""


class ReleaseIndex(Protocol):
    """Where releases are looked up."""

    async def installable(self, family: str, version: str) -> Release:
        """Return a release that devices do not refuse from the outset."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one device shall run next.

    Attributes:
        base: version of the assignment that it was made from; 0 for none.
    """

    device_id: str
    version: int
    entries: list[Entry]
    base: int
    claim: str
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What one device shall run of one family from now on; None for nothing."""

    device_id: str
    family: str
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of a change: version of the new assignment, release of the one before."""

    version: int
    before: Entry | None


Also = Callable[[AsyncSession, Mapping[str, Changed]], Awaitable[None]]
"""Writes, in the transaction that stores assignments, what follows from them."""

_Follow = Callable[[AsyncSession, Mapping[str, int]], Awaitable[None]]


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
        self._downlink = downlink
        self._director = director
        self._clock = clock
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

        Nothing changes unless all can be signed. The terms of the other families stay.

        Raises:
            NotFoundError: the release or a device does not exist.
            RefusedError: a device was decommissioned, there is no device, or the signer refuses.
            UnavailableError: signer or database do not answer.
        """
        entry = await self.entry(family, version, terms)
        async with self._turn:
            plans = await self._plans(entry, devices)
            assigned = await self._sign_and_store(plans)
        logger.info(
            "release_assigned",
            extra={"family": family, "version": version, "devices": len(assigned)},
        )
        return assigned

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
            UnavailableError: signer or database do not answer, or another server assigned first.
        """
        async with self._turn:
            rows = await self._known([change.device_id for change in ordered])
            plans, before = [], {}
            for change in ordered:
                known = rows[change.device_id]
                base, listed = known.version or 0, entries.decode(known.entries or "[]")
                family = change.family
                before[change.device_id] = next((e for e in listed if e.family == family), None)
                wanted = (
                    entries.with_release(listed, change.entry)
                    if change.entry is not None
                    else [entry for entry in listed if entry.family != family]
                )
                plans.append(
                    Plan(
                        change.device_id,
                        self._next(base, known.root_version or 1, known.reported),
                        wanted,
                        base,
                        known.claim,
                        removed=() if change.entry is not None else (family,),
                    )
                )

            async def follow(session: AsyncSession, versions: Mapping[str, int]) -> None:
                await also(
                    session, {name: Changed(versions[name], before[name]) for name in versions}
                )

            await self._sign_and_store(plans, follow)

    async def _known(
        self, device_ids: Sequence[str]
    ) -> Mapping[str, Row[str, str, int, int, str, str | None]]:
        query = (
            select(
                Device.id,
                Device.claim,
                Assignment.version,
                Assignment.root_version,
                Assignment.entries,
                Device.reported,
            )
            .outerjoin(Assignment, Assignment.device_id == Device.id)
            .where(Device.id.in_(device_ids))
        )
        async with self._database.reading() as session:
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
                async with self._database.reading() as session:
                    query = (
                        select(Assignment, Device.reported, Device.claim)
                        .join(Device, Device.id == Assignment.device_id)
                        .where(
                            or_(
                                Assignment.expires_ms < threshold,
                                Assignment.root_version < self._director.epoch,
                            ),
                            Assignment.device_id > after,
                        )
                        .where(Device.decommissioned_ms.is_(None))
                        .order_by(Assignment.device_id)
                        .limit(_PAGE)
                    )
                    rows = (await session.execute(query)).all()
                plans = [
                    Plan(
                        row.device_id,
                        self._next(row.version, row.root_version, None),
                        entries.decode(row.entries),
                        row.version,
                        claim,
                    )
                    for row, reported, claim in rows
                    if row.root_version < self._director.epoch or not _left_alone(row, reported)
                ]
                renewed += len(await self._sign_and_store(plans))
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

    async def _plans(self, entry: Entry, wanted: Sequence[str] | None) -> list[Plan]:
        async with self._database.reading() as session:
            rows = (
                await session.execute(
                    select(
                        Device.id,
                        Device.decommissioned_ms,
                        Device.claim,
                        Assignment.version,
                        Assignment.root_version,
                        Assignment.entries,
                        Device.reported,
                    )
                    .outerjoin(Assignment, Assignment.device_id == Device.id)
                    .order_by(Device.id)
                )
            ).all()
        known = {row[0]: row for row in rows}
        if wanted is not None and not wanted:
            raise RefusedError("`devices` is empty: name devices, or give null for all of them")
        if wanted is None:
            chosen = [row[0] for row in rows if row[1] is None]
        else:
            chosen = sorted(set(wanted))
            _check_known(chosen, {device_id: row[1] for device_id, row in known.items()})
        if not chosen:
            raise RefusedError("there is no device to assign to; enrol one first")
        return [
            Plan(
                device_id,
                self._next(row.version or 0, row.root_version or 1, row.reported),
                entries.with_release(entries.decode(row.entries or "[]"), entry),
                row.version or 0,
                row.claim,
            )
            for device_id in chosen
            for row in [known[device_id]]
        ]

    def _next(self, version: int, root_version: int, reported: str | None) -> int:
        """Return the version after one that was signed under a root, and after the device's own.

        Where a thief had pushed it, it begins anew with the key that replaced the stolen one.
        """
        begins_anew = root_version < self._director.epoch and version >= _PUSHED
        return 1 if begins_anew else ahead.next_version(version, reported)

    async def _sign_and_store(
        self, plans: list[Plan], also: _Follow | None = None
    ) -> list[Assignment]:
        signed: list[Assignment] = []
        for start in range(0, len(plans), MAX_BATCH):
            signed += await self._sign(plans[start : start + MAX_BATCH])
        await self._store(signed, {plan.device_id: plan.base for plan in plans}, also)
        for number, row in enumerate(signed, 1):
            self._downlink.publish_assignment(row.device_id, row.document)
            if number % MAX_BATCH == 0:
                await asyncio.sleep(0)  # let others have the loop
        return signed

    async def _store(
        self, signed: list[Assignment], bases: Mapping[str, int], also: _Follow | None
    ) -> None:
        """Replace assignments unless another server replaced one since the plans were made."""
        try:
            async with self._database.writing() as session:
                for start in range(0, len(signed), MAX_BATCH):
                    await history.record(session, signed[start : start + MAX_BATCH])
                    rows = [_values(row) for row in signed[start : start + MAX_BATCH]]
                    ids = [str(row["device_id"]) for row in rows]
                    await _check_bases(session, ids, bases)
                    await session.execute(delete(Assignment).where(Assignment.device_id.in_(ids)))
                    await session.execute(insert(Assignment), rows)
                await changes.record(session, [row.device_id for row in signed])
                if also is not None:
                    await also(session, {row.device_id: row.version for row in signed})
        except IntegrityError as error:
            raise _overtaken() from error

    async def _sign(self, plans: list[Plan]) -> list[Assignment]:
        now, root_version = self._clock(), self._director.root.version
        expires_s = int((now + LIFETIME).timestamp())
        try:
            documents = await self._signer.sign([_request(plan, expires_s) for plan in plans])
        except VersionTakenError as error:
            # The database is older than what was signed (a restored backup, or a crash between
            # signature and commit): go on above the highest version.
            plans = [
                replace(plan, version=max(plan.version, error.highest.get(plan.device_id, 0) + 1))
                for plan in plans
            ]
            documents = await self._signer.sign([_request(plan, expires_s) for plan in plans])
        await asyncio.to_thread(self._verify, plans, documents)
        return [
            Assignment(
                device_id=plan.device_id,
                version=plan.version,
                root_version=root_version,
                signed_ms=unix_ms(now),
                expires_ms=expires_s * 1000,
                entries=entries.encode(plan.entries),
                document=document,
            )
            for plan, document in zip(plans, documents, strict=True)
        ]

    def _verify(self, plans: list[Plan], documents: list[bytes]) -> None:
        for plan, document in zip(plans, documents, strict=True):
            verify_document(document, device_id=plan.device_id, director=self._director.root)


def _left_alone(row: Assignment, reported: str | None) -> bool:
    if not ahead.is_ahead(row.version, reported):
        return False
    logger.warning(
        "assignment_behind_its_device",
        extra={"device": row.device_id, "stored": row.version, "held": ahead.held(reported)},
    )
    return True


def verify_document(document: bytes, *, device_id: str, director: Root) -> None:
    """Check a signed document as the device will.

    Raises:
        UnavailableError: it does not verify, so the signer is not the one of this fleet.
    """
    try:
        metadata = Metadata[Targets].from_bytes(document)
        director.verify_delegate(Targets.type, metadata.signed_bytes, metadata.signatures)
        binding = protocol.binding_of(
            metadata.signed.unrecognized_fields, target_count=len(metadata.signed.targets)
        )
        families = {names.parse_target_path(path)[0] for path in metadata.signed.targets}
        delivery.terms_of(metadata.signed.unrecognized_fields, families=families)
    except (RepositoryError, ProtocolError, ValueError) as error:
        raise UnavailableError(f"what the signer signed does not verify: {error}") from error
    if binding.device_id != device_id or len(document) > protocol.MAX_ASSIGNMENT_BYTES:
        raise UnavailableError(f"the signer signed no assignment of {device_id}")


async def _check_bases(session: AsyncSession, ids: Sequence[str], bases: Mapping[str, int]) -> None:
    query = (
        select(Assignment.device_id, Assignment.version)
        .where(Assignment.device_id.in_(ids))
        .order_by(Assignment.device_id)
        .with_for_update()
    )
    stored = {row[0]: row[1] for row in await session.execute(query)}
    if any(stored.get(device_id, 0) != bases[device_id] for device_id in ids):
        raise _overtaken()


def _overtaken() -> UnavailableError:
    return UnavailableError(
        "another server assigned to one of these devices at the same time, so nothing was "
        "assigned; try again",
        retry_after_s=1,
    )


def _values(row: Assignment) -> dict[str, object]:
    return {column.key: getattr(row, column.key) for column in inspect(Assignment).column_attrs}


def _check_known(chosen: Sequence[str], decommissioned: dict[str, int | None]) -> None:
    for device_id in chosen:
        try:
            names.device_id(device_id)
        except ProtocolError as error:
            raise RefusedError(str(error)) from error
    unknown = [device_id for device_id in chosen if device_id not in decommissioned]
    if unknown:
        raise NotFoundError(f"there is no device {', '.join(unknown[:_LISTED])}")
    gone = [device_id for device_id in chosen if decommissioned[device_id] is not None]
    if gone:
        raise RefusedError(f"decommissioned: {', '.join(gone[:_LISTED])}")


def _request(plan: Plan, expires_s: int) -> SignRequest:
    return SignRequest(
        device_id=plan.device_id,
        version=plan.version,
        expires_s=expires_s,
        claim=plan.claim,
        removed=list(plan.removed),
        targets=[
            Target(path=entry.path, length=entry.length, sha256=entry.sha256)
            for entry in plan.entries
        ],
        run_nothing=not plan.entries,
        terms={entry.family: entry.terms for entry in plan.entries if entry.terms != ANY_TIME},
    )
