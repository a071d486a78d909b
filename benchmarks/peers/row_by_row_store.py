"""The same tables, written in one transaction but row by row: what batches of rows are against.

Each stream is read and each window inserted by a statement of its own, since the rows of its
models need the id of its row. The database sees what it sees of batches.
"""

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import insert, select, update

from fleet_protocol.messages import TelemetryWindow
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.devices.tables import Device
from fleet_server.telemetry import rows
from fleet_server.telemetry.reception import Reception, StreamState
from fleet_server.telemetry.store import Stored, TelemetryStore
from fleet_server.telemetry.tables import ModelCounts, Stream, Window
from fleet_server.telemetry.uplink import Uplink


class RowByRowStore(TelemetryStore):
    """Stores windows, and nothing else."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        super().__init__(database=database, clock=clock)
        self._windows_into = database
        self._now = clock

    async def store(self, uplinks: Sequence[Uplink]) -> Stored:
        """Store a batch of windows."""
        now_ms = unix_ms(self._now())
        states: dict[tuple[str, str], StreamState] = {}
        async with self._windows_into.writing() as session:
            devices = {uplink.device_id for uplink in uplinks}
            await session.scalars(select(Device.id).where(Device.id.in_(devices)))
            for uplink in uplinks:
                window, device_id = uplink.content, uplink.device_id
                if not isinstance(window, TelemetryWindow):
                    raise TypeError("it stores windows alone")
                key = (device_id, window.stream)
                if key not in states:
                    row = await session.get(Stream, key, with_for_update=True)
                    states[key] = StreamState(
                        Reception.decode(acked=row.acked, ahead=row.ahead) if row else Reception()
                    )
                states[key].take(window.covers_from, window.sequence, now_ms=now_ms)
                new = insert(Window).returning(Window.id)
                values = rows.of_window(device_id, window, received_ms=now_ms)
                window_id = (await session.execute(new, values)).scalar_one()
                await session.execute(
                    insert(ModelCounts), rows.of_models(window_id, device_id, window)
                )
            for (device_id, stream), state in states.items():
                await session.merge(
                    Stream(
                        device_id=device_id,
                        stream=stream,
                        acked=state.reception.acked,
                        ahead=state.reception.encode_ahead(),
                        heard_ms=now_ms,
                    )
                )
            await session.execute(
                update(Device)
                .where(Device.id.in_(devices))
                .values(last_seen_ms=now_ms, silent=False)
            )
        acks = {key: state.reception.acked for key, state in states.items()}
        return Stored(acks, Counter(taken=len(uplinks)))
