"""Writes batches of device messages: one transaction, each message once; says what to ack.

The rows of the devices of a batch are locked first, in the order of their ids: so servers that hear
of the same devices take turns, and none of them waits for one that waits for it. What follows is
one statement for each table, however many messages there are.
"""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol.messages import Event, TelemetryWindow
from fleet_server.clock import Clock, unix_ms
from fleet_server.commands import reported
from fleet_server.database import Database
from fleet_server.devices import terms
from fleet_server.devices.tables import Device
from fleet_server.errors import MalformedError
from fleet_server.telemetry import rows, streams
from fleet_server.telemetry.intake import Intake, StreamKey
from fleet_server.telemetry.tables import DeviceEvent, ModelCounts, Window
from fleet_server.telemetry.uplink import Uplink
from fleet_server.telemetry.upsert import insert_into

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Stored:
    """The outcome of a batch.

    Attributes:
        acks: for each stream that was heard of: the number to acknowledge.
        counts: how many messages ended how, for the log and the health page.
    """

    acks: dict[StreamKey, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


class TelemetryStore:
    """The tables of telemetry, for writing."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def store(self, uplinks: Sequence[Uplink]) -> Stored:
        """Store a batch; when this returns it is committed.

        A message that the database refuses is left out; it is found by halving the batch.

        Raises:
            UnavailableError: the database failed. Of a batch with such a message, a part may be
                stored; the rest is as if it had not come.
        """
        try:
            return await self._store(uplinks)
        except MalformedError as error:
            if len(uplinks) > 1:
                middle = len(uplinks) // 2
                first, second = (
                    await self.store(uplinks[:middle]),
                    await self.store(uplinks[middle:]),
                )
                return Stored(first.acks | second.acks, first.counts + second.counts)
            # What is checked on its way in never comes here; it would hold up all devices for ever.
            logger.error(  # noqa: TRY400 (the database says what it refuses)
                "uplink_not_storable",
                extra={"device": uplinks[0].device_id, "reason": str(error)[:500]},
            )
            return Stored(counts=Counter({"not_storable": 1}))

    async def forget_presence(self) -> None:
        """Call every device offline: until it says otherwise nothing is known of it.

        Raises:
            UnavailableError: the database failed.
        """
        async with self._database.writing() as session:
            await session.execute(update(Device).where(Device.online).values(online=False))

    async def _store(self, uplinks: Sequence[Uplink]) -> Stored:
        async with self._database.writing() as session:
            known = await _locked(session, {uplink.device_id for uplink in uplinks})
            stored_before = await streams.read(
                session,
                {
                    (uplink.device_id, uplink.content.stream)
                    for uplink in uplinks
                    if isinstance(uplink.content, TelemetryWindow | Event)
                },
            )
            intake = Intake(now_ms=unix_ms(self._clock()), known=known, streams=dict(stored_before))
            for uplink in uplinks:
                intake.take(uplink)
            await _write_contents(session, intake)
            await streams.write(session, intake.streams, intake.streams.keys() - stored_before)
            await _write_devices(session, intake)
        acks = {key: state.reception.acked for key, state in intake.streams.items()}
        return Stored(acks, intake.counts)


async def _locked(session: AsyncSession, wanted: Collection[str]) -> set[str]:
    """Return those of some devices that belong to the fleet, and hold them to the end."""
    query = (
        select(Device.id)
        .where(Device.id.in_(wanted), Device.decommissioned_ms.is_(None))
        .order_by(Device.id)
        # Not against rows that refer to devices: a new rollout locks those in another order.
        .with_for_update(key_share=True)
    )
    return set(await session.scalars(query))


async def _write_contents(session: AsyncSession, intake: Intake) -> None:
    now_ms = intake.now_ms
    windows = {
        (device_id, window.stream, window.sequence): (device_id, window)
        for device_id, window in intake.windows
    }
    ids = await _insert_new(
        session, Window, [rows.of_window(*each, received_ms=now_ms) for each in intake.windows]
    )
    models = [row for key, id_ in ids.items() for row in rows.of_models(id_, *windows[key])]
    if models:
        await session.execute(insert_into(session, ModelCounts).returning(ModelCounts.id), models)
    await _insert_new(
        session, DeviceEvent, [rows.of_event(*each, received_ms=now_ms) for each in intake.events]
    )


async def _insert_new(
    session: AsyncSession, table: type[Window | DeviceEvent], contents: Sequence[rows.Row]
) -> dict[tuple[str, str, int], int]:
    """Insert rows, and return the ids of those that were not there, by (device, stream, sequence).

    A row that is there belongs to a stream that was forgotten: it counts as it was stored.
    """
    if not contents:
        return {}
    key = (table.device_id, table.stream, table.sequence)
    new = insert_into(session, table).on_conflict_do_nothing(index_elements=key)
    inserted = await session.execute(new.returning(*key, table.id), contents)
    ids = {(row.device_id, row.stream, row.sequence): row.id for row in inserted}
    if len(ids) < len(contents):
        logger.warning(
            "uplinks_stored_before",
            extra={"table": table.__tablename__, "count": len(contents) - len(ids)},
        )
    return ids


async def _write_devices(session: AsyncSession, intake: Intake) -> None:
    for online in (False, True):
        those = [device_id for device_id, said in intake.online.items() if said is online]
        if those:
            await session.execute(update(Device).where(Device.id.in_(those)).values(online=online))
    if intake.reports:
        await session.execute(
            update(Device),
            [
                {
                    "id": device_id,
                    "reported": msgspec.json.encode(report).decode(),
                    "runtime_up": report.runtime_up,
                }
                for device_id, report in intake.reports.items()
            ],
        )
        for device_id, report in intake.reports.items():
            await terms.take_report(session, device_id, report)
        said = {device_id: each.configuration for device_id, each in intake.reports.items()}
        await reported.take(session, said, intake.now_ms)
    if intake.alive:
        await session.execute(
            update(Device)
            .where(Device.id.in_(intake.alive))
            .values(last_seen_ms=intake.now_ms, silent=False)
        )
