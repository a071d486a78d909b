"""Writes batches of device messages: one transaction, each message once; says what to ack."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol.messages import Event, Presence, Reported, TelemetryWindow
from fleet_server.clock import Clock, unix_ms
from fleet_server.commands import reported
from fleet_server.database import Database, take_turn
from fleet_server.devices import terms
from fleet_server.devices.tables import Device
from fleet_server.errors import MalformedError
from fleet_server.storable import storable
from fleet_server.telemetry.reception import Reception, StreamState, Verdict
from fleet_server.telemetry.tables import DeviceEvent, ModelCounts, Stream, Window
from fleet_server.telemetry.uplink import Uplink

logger = logging.getLogger(__name__)

MAX_STREAMS = 64
"""Streams kept per device; a wiped device starts a new one and the oldest go."""

_COMPLAINTS = {
    Verdict.OVERLAP: "telemetry_overlaps",
    Verdict.TOO_FAR: "telemetry_too_far_ahead",
}

StreamKey = tuple[str, str]


@dataclass(slots=True)
class Stored:
    """The outcome of a batch.

    Attributes:
        acks: for each stream that was heard of: the number to acknowledge.
        counts: how many messages ended how, for the log and the health page.
    """

    acks: dict[StreamKey, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Batch:
    session: AsyncSession
    now_ms: int
    known: set[str]
    numbers_only: bool
    streams: dict[StreamKey, StreamState] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    """Devices of which a stream was heard for the first time."""
    stored: Stored = field(default_factory=Stored)


class TelemetryStore:
    """The tables of telemetry, for writing."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def store(self, uplinks: Sequence[Uplink]) -> Stored:
        """Store a batch; when this returns it is committed.

        Raises:
            UnavailableError: the database failed; nothing of the batch was stored.
        """
        try:
            return await self._store(uplinks)
        except IntegrityError as error:
            if len(uplinks) > 1:
                return await self._store_singly(uplinks)
            # Its row exists, though its stream was forgotten: take the numbers, not the content.
            logger.warning(
                "uplink_stored_before",
                extra={"device": uplinks[0].device_id, "reason": str(error.orig)},
            )
            return await self._store(uplinks, numbers_only=True)
        except MalformedError as error:
            if len(uplinks) > 1:
                return await self._store_singly(uplinks)
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

    async def _store_singly(self, uplinks: Sequence[Uplink]) -> Stored:
        stored = Stored()
        for uplink in uplinks:
            single = await self.store([uplink])
            stored.acks.update(single.acks)
            stored.counts.update(single.counts)
        return stored

    async def _store(self, uplinks: Sequence[Uplink], *, numbers_only: bool = False) -> Stored:
        async with self._database.writing() as session:
            wanted = {uplink.device_id for uplink in uplinks}
            query = select(Device.id).where(
                Device.id.in_(wanted), Device.decommissioned_ms.is_(None)
            )
            known = set(await session.scalars(query))
            batch = _Batch(session, unix_ms(self._clock()), known, numbers_only)
            for uplink in uplinks:
                await self._take(batch, uplink)
            await self._finish(
                batch, {uplink.device_id for uplink in uplinks if not uplink.retained}
            )
        return batch.stored

    async def _take(self, batch: _Batch, uplink: Uplink) -> None:
        if uplink.device_id not in batch.known:
            batch.stored.counts["unknown_device"] += 1
            logger.warning("uplink_of_unknown_device", extra={"device": uplink.device_id})
            return
        content = uplink.content
        if isinstance(content, Presence):
            await self._set(batch, uplink.device_id, online=content.online)
        elif isinstance(content, Reported):
            await self._set(
                batch,
                uplink.device_id,
                reported=msgspec.json.encode(content).decode(),
                runtime_up=content.runtime_up,
            )
            await terms.take_report(batch.session, uplink.device_id, content)
            await reported.take(
                batch.session, uplink.device_id, content.configuration, batch.now_ms
            )
        else:
            await self._take_sequenced(batch, uplink.device_id, content)
        batch.stored.counts["taken"] += 1

    async def _take_sequenced(
        self, batch: _Batch, device_id: str, content: TelemetryWindow | Event
    ) -> None:
        state = await self._stream(batch, (device_id, content.stream))
        verdict, given_up = state.take(content.covers_from, content.sequence, now_ms=batch.now_ms)
        batch.stored.counts[verdict.name.lower()] += 1
        if given_up is not None:
            batch.stored.counts["gaps_given_up"] += 1
            logger.error(
                "telemetry_gap_given_up",
                extra={
                    "device": device_id,
                    "stream": content.stream,
                    "first": given_up[0],
                    "last": given_up[1],
                },
            )
        if verdict is Verdict.FRESH:
            if batch.numbers_only:
                return
            if isinstance(content, TelemetryWindow):
                await _add_window(batch, device_id, content)
            else:
                batch.session.add(_event_row(batch, device_id, content))
        elif verdict is not Verdict.DUPLICATE:
            logger.warning(
                _COMPLAINTS[verdict],
                extra={
                    "device": device_id,
                    "stream": content.stream,
                    "covers_from": content.covers_from,
                    "sequence": content.sequence,
                    "acked": state.reception.acked,
                },
            )

    async def _stream(self, batch: _Batch, key: StreamKey) -> StreamState:
        if key not in batch.streams:
            row = await batch.session.get(Stream, key, with_for_update=True)
            if row is None:  # another process may be about to begin it as well
                await take_turn(batch.session, f"stream {key}")
                row = await batch.session.get(Stream, key, with_for_update=True)
            if row is None:
                batch.begun.add(key[0])
                batch.streams[key] = StreamState()
            else:
                reception = Reception.decode(acked=row.acked, ahead=row.ahead)
                batch.streams[key] = StreamState(reception, row.heard_ms, row.stuck_since_ms)
        return batch.streams[key]

    async def _set(self, batch: _Batch, device_id: str, **values: object) -> None:
        await batch.session.execute(update(Device).where(Device.id == device_id).values(**values))

    async def _finish(self, batch: _Batch, alive: set[str]) -> None:
        for (device_id, stream), state in batch.streams.items():
            await batch.session.merge(
                Stream(
                    device_id=device_id,
                    stream=stream,
                    acked=state.reception.acked,
                    ahead=state.reception.encode_ahead(),
                    heard_ms=state.heard_ms,
                    stuck_since_ms=state.stuck_since_ms,
                )
            )
            batch.stored.acks[(device_id, stream)] = state.reception.acked
        seen = alive & batch.known
        if seen:
            await batch.session.execute(
                update(Device)
                .where(Device.id.in_(seen))
                .values(last_seen_ms=batch.now_ms, silent=False)
            )
        for device_id in batch.begun:
            await _bound_streams(batch.session, device_id)


async def _bound_streams(session: AsyncSession, device_id: str) -> None:
    count = await session.scalar(
        select(func.count()).select_from(Stream).where(Stream.device_id == device_id)
    )
    if (count or 0) <= MAX_STREAMS:
        return
    newest = (
        select(Stream.stream)
        .where(Stream.device_id == device_id)
        .order_by(Stream.heard_ms.desc(), Stream.stream)
        .limit(MAX_STREAMS)
    )
    await session.execute(
        delete(Stream).where(Stream.device_id == device_id, Stream.stream.not_in(newest))
    )


async def _add_window(batch: _Batch, device_id: str, window: TelemetryWindow) -> None:
    row = Window(
        device_id=device_id,
        stream=window.stream,
        sequence=window.sequence,
        covers_from=window.covers_from,
        start_ms=window.start_ms,
        end_ms=window.end_ms,
        received_ms=batch.now_ms,
        system=msgspec.json.encode(window.system).decode(),
    )
    batch.session.add(row)
    await batch.session.flush()
    batch.session.add_all(
        ModelCounts(
            window_id=row.id,
            device_id=device_id,
            start_ms=window.start_ms,
            family=model.family,
            version=model.version,
            variant=storable(model.variant),
            requests=model.requests,
            counts=msgspec.json.encode(model).decode(),
        )
        for model in window.models
    )


def _event_row(batch: _Batch, device_id: str, event: Event) -> DeviceEvent:
    return DeviceEvent(
        device_id=device_id,
        stream=event.stream,
        sequence=event.sequence,
        at_ms=event.at_ms,
        received_ms=batch.now_ms,
        kind=event.kind.value,
        detail=storable(event.detail),
        family=event.family,
        version=event.version,
        state=event.state.value if event.state else None,
    )
