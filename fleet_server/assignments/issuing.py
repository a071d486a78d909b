"""Issues planned assignments: has them signed, verifies, stores and then publishes them.

What is to be assigned is decided in `plans`; the key is the signer's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from sqlalchemy import delete, insert, inspect, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from fleet_protocol import assignments as protocol
from fleet_protocol import delivery, names
from fleet_protocol.delivery import ANY_TIME
from fleet_protocol.errors import ProtocolError
from fleet_server.assignments import entries, history
from fleet_server.assignments.director import Director
from fleet_server.assignments.plans import Plan
from fleet_server.assignments.signer_client import VersionTakenError
from fleet_server.assignments.signing import MAX_BATCH, SignRequest, Target
from fleet_server.assignments.tables import Assignment
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.devices import changes
from fleet_server.errors import RefusedError, UnavailableError

LIFETIME = timedelta(days=30)


class OvertakenError(UnavailableError):
    """Another server assigned to one of the devices first: nothing was done, plan anew."""


class RefusedAheadError(RefusedError):
    """The signer refuses, and has signed what the database does not know.

    Either another server is about to store that, so that planning anew helps soon, or the database
    comes from a backup.
    """


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


Also = Callable[[AsyncSession, Mapping[str, int]], Awaitable[None]]
"""Writes, in the transaction that stores assignments, what follows from their versions."""


class Issuing:
    """The way of an assignment from its plan to its device."""

    def __init__(
        self,
        *,
        database: Database,
        signer: Signing,
        downlink: Downlink,
        director: Director,
        clock: Clock,
    ) -> None:
        self._database = database
        self._signer = signer
        self._downlink = downlink
        self._director = director
        self._clock = clock

    async def issue(self, plans: Sequence[Plan], also: Also | None = None) -> list[Assignment]:
        """Sign and store all or none of the plans, then publish what was stored.

        Raises:
            RefusedError: the signer refuses.
            OvertakenError: another server assigned to one of the devices since the plans were made.
            UnavailableError: signer or database do not answer.
        """
        signed: list[Assignment] = []
        for start in range(0, len(plans), MAX_BATCH):
            signed += await self._sign(plans[start : start + MAX_BATCH])
        await self._store(signed, {plan.device_id: plan.base for plan in plans}, also)
        for number, row in enumerate(signed, 1):
            self._downlink.publish_assignment(row.device_id, row.document)
            if number % MAX_BATCH == 0:
                await asyncio.sleep(0)  # let others have the loop
        return signed

    async def _sign(self, plans: Sequence[Plan]) -> list[Assignment]:
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
            documents = await self._sign_above([_request(plan, expires_s) for plan in plans])
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

    async def _sign_above(self, requests: list[SignRequest]) -> list[bytes]:
        try:
            return await self._signer.sign(requests)
        except VersionTakenError as error:  # it signs for another server at the same time
            raise _overtaken() from error
        except RefusedError as error:
            raise RefusedAheadError(str(error)) from error

    def _verify(self, plans: Sequence[Plan], documents: Sequence[bytes]) -> None:
        for plan, document in zip(plans, documents, strict=True):
            _verify_document(document, device_id=plan.device_id, director=self._director.root)

    async def _store(
        self, signed: list[Assignment], bases: Mapping[str, int], also: Also | None
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


def _verify_document(document: bytes, *, device_id: str, director: Root) -> None:
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


def _overtaken() -> OvertakenError:
    return OvertakenError(
        "other servers assigned to some of these devices at the same time, so nothing was "
        "assigned; try again",
        retry_after_s=1,
    )


def _values(row: Assignment) -> dict[str, object]:
    return {column.key: getattr(row, column.key) for column in inspect(Assignment).column_attrs}


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
