"""How far the streams of devices were received, read and written for a whole batch at once.

Whoever comes here holds the rows of the devices (`TelemetryStore`), so nobody else changes or
begins a stream of theirs meanwhile.
"""

from collections.abc import Collection, Mapping

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.telemetry.intake import StreamKey
from fleet_server.telemetry.reception import Reception, StreamState
from fleet_server.telemetry.tables import Stream
from fleet_server.telemetry.upsert import insert_into

MAX_STREAMS = 64
"""Streams kept per device; a wiped device starts a new one and the oldest go."""

_CHANGES = ("acked", "ahead", "heard_ms", "stuck_since_ms")


async def read(session: AsyncSession, keys: Collection[StreamKey]) -> dict[StreamKey, StreamState]:
    """Return those of some streams that exist."""
    if not keys:
        return {}
    query = select(Stream.device_id, Stream.stream, *(getattr(Stream, name) for name in _CHANGES))
    named = query.where(
        Stream.device_id.in_({device_id for device_id, _ in keys}),
        # As an expression, which no index has: with both columns PostgreSQL would look for every
        # name at every device. A device may have many streams, so the names are needed.
        Stream.stream.concat("").in_({stream for _, stream in keys}),
    )
    return {
        (row.device_id, row.stream): StreamState(
            Reception.decode(acked=row.acked, ahead=row.ahead), row.heard_ms, row.stuck_since_ms
        )
        for row in await session.execute(named)
        if (row.device_id, row.stream) in keys
    }


async def write(
    session: AsyncSession, states: Mapping[StreamKey, StreamState], begun: Collection[StreamKey]
) -> None:
    """Store streams as they are now.

    Args:
        session: of the caller's transaction.
        states: the streams.
        begun: those of them that did not exist; older ones of their devices may go.
    """
    if not states:
        return
    rows = [
        {
            "device_id": device_id,
            "stream": stream,
            "acked": state.reception.acked,
            "ahead": state.reception.encode_ahead(),
            "heard_ms": state.heard_ms,
            "stuck_since_ms": state.stuck_since_ms,
        }
        for (device_id, stream), state in states.items()
    ]
    new = insert_into(session, Stream)
    await session.execute(
        new.on_conflict_do_update(
            index_elements=[Stream.device_id, Stream.stream],
            set_={name: new.excluded[name] for name in _CHANGES},
        ),
        rows,
    )
    await _bound(session, {device_id for device_id, _ in begun})


async def _bound(session: AsyncSession, devices: Collection[str]) -> None:
    if not devices:
        return
    too_many = (
        select(Stream.device_id)
        .where(Stream.device_id.in_(devices))
        .group_by(Stream.device_id)
        .having(func.count() > MAX_STREAMS)
    )
    for device_id in await session.scalars(too_many):
        newest = (
            select(Stream.stream)
            .where(Stream.device_id == device_id)
            .order_by(Stream.heard_ms.desc(), Stream.stream)
            .limit(MAX_STREAMS)
        )
        await session.execute(
            delete(Stream).where(Stream.device_id == device_id, Stream.stream.not_in(newest))
        )
