"""Reads telemetry: pages of windows and events, sums over time."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec
from sqlalchemy import ColumnElement, Select, case, func, select

from fleet_protocol.messages import MAX_COVERED, ModelWindow
from fleet_server import keyset
from fleet_server.database import Database
from fleet_server.devices.tables import Device
from fleet_server.errors import NotFoundError, RefusedError
from fleet_server.keyset import Order
from fleet_server.telemetry.reception import Reception
from fleet_server.telemetry.summary import Summary
from fleet_server.telemetry.tables import DeviceEvent, ModelCounts, Stream, Window

logger = logging.getLogger(__name__)

MAX_RANGE = timedelta(days=31)
_ROWS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Period:
    """Windows that started in [from_ms, to_ms)."""

    from_ms: int
    to_ms: int

    def check(self) -> None:
        """Accept it if it is not reversed and not longer than `MAX_RANGE`.

        Raises:
            RefusedError: it is.
        """
        if not 0 <= self.to_ms - self.from_ms <= MAX_RANGE.total_seconds() * 1000:
            raise RefusedError(
                f"`to` must lie after `from`, by {MAX_RANGE.days} days at most (milliseconds)"
            )


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums of a period.

    Attributes:
        windows: stored windows.
        covered: sequence numbers that they stand for.
    """

    summary: Summary
    windows: int
    covered: int


@dataclass(frozen=True, slots=True)
class StoredWindow:
    """A window with its models."""

    window: Window
    models: list[str]


class Telemetry:
    """The tables of telemetry, for reading."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def totals(
        self, period: Period, *, family: str | None = None, device_id: str | None = None
    ) -> Totals:
        """Sum windows up.

        Raises:
            RefusedError: the period is too long.
            NotFoundError: there is no such device.
            UnavailableError: the database failed.
        """
        period.check()
        if device_id is not None:
            await self._check_device(device_id)
        windows, covered = await self._count(period, device_id)
        summary = Summary()
        after = 0
        while True:
            query = _models_of(period, family, device_id).where(ModelCounts.id > after)
            async with self._database.reading() as session:
                rows = (await session.execute(query.limit(_ROWS_AT_ONCE))).all()
            await asyncio.to_thread(_add_rows, summary, [(row[1], row[2]) for row in rows])
            if len(rows) < _ROWS_AT_ONCE:
                return Totals(summary, windows, covered)
            after = rows[-1][0]

    async def windows(self, device_id: str, *, after: int | None, limit: int) -> list[StoredWindow]:
        """Return stored windows of a device after an id.

        Raises:
            NotFoundError: there is no such device.
            UnavailableError: the database failed.
        """
        await self._check_device(device_id)
        query = select(Window).where(Window.device_id == device_id)
        async with self._database.reading() as session:
            page = keyset.page(query, Window.id, after=after, limit=limit)
            rows = (await session.scalars(page)).all()
            models: dict[int, list[str]] = {row.id: [] for row in rows}
            counts = select(ModelCounts.window_id, ModelCounts.counts).where(
                ModelCounts.window_id.in_(models)
            )
            for window_id, text in await session.execute(counts.order_by(ModelCounts.id)):
                models[window_id].append(text)
        return [StoredWindow(row, models[row.id]) for row in rows]

    async def events(
        self,
        device_id: str,
        *,
        kind: str | None,
        after: int | None,
        limit: int,
        order: Order = Order.ASCENDING,
    ) -> Sequence[DeviceEvent]:
        """Return stored events of a device beyond an id, in the order of the ids or against it.

        Raises:
            NotFoundError: there is no such device.
            UnavailableError: the database failed.
        """
        await self._check_device(device_id)
        query = select(DeviceEvent).where(*_of_kind(device_id, kind))
        page = keyset.page(query, DeviceEvent.id, after=after, limit=limit, order=order)
        async with self._database.reading() as session:
            return (await session.scalars(page)).all()

    async def count_events(self, device_id: str, *, kind: str | None, most: int) -> int:
        """Return how many events of a device are stored, but no more than ``most``.

        Raises:
            NotFoundError: there is no such device.
            UnavailableError: the database failed.
        """
        await self._check_device(device_id)
        query = select(DeviceEvent.id).where(*_of_kind(device_id, kind))
        async with self._database.reading() as session:
            return await keyset.count(session, query, most=most)

    async def streams(self, device_id: str) -> list[tuple[str, Reception]]:
        """Return how far a device's streams have come.

        Raises:
            UnavailableError: the database failed.
        """
        query = select(Stream).where(Stream.device_id == device_id).order_by(Stream.stream)
        async with self._database.reading() as session:
            return [
                (row.stream, Reception.decode(acked=row.acked, ahead=row.ahead))
                for row in await session.scalars(query)
            ]

    async def _count(self, period: Period, device_id: str | None) -> tuple[int, int]:
        # What was stored before there was a bound counts as one: it must not overflow the sum.
        beyond = Window.sequence - Window.covers_from
        covered_by_one = case((beyond.between(0, MAX_COVERED - 1), beyond + 1), else_=1)
        query = select(func.count(), func.coalesce(func.sum(covered_by_one), 0)).where(
            Window.start_ms >= period.from_ms, Window.start_ms < period.to_ms
        )
        if device_id is not None:
            query = query.where(Window.device_id == device_id)
        async with self._database.reading() as session:
            windows, covered = (await session.execute(query)).one()
        return int(windows), int(covered)

    async def _check_device(self, device_id: str) -> None:
        async with self._database.reading() as session:
            if await session.get(Device, device_id) is None:
                raise NotFoundError(f"there is no device {device_id[:80]!r}")


def _of_kind(device_id: str, kind: str | None) -> Iterator[ColumnElement[bool]]:
    yield DeviceEvent.device_id == device_id
    if kind is not None:
        yield DeviceEvent.kind == kind


def _models_of(period: Period, family: str | None, device_id: str | None) -> Select[int, str, str]:
    query = select(ModelCounts.id, ModelCounts.device_id, ModelCounts.counts).where(
        ModelCounts.start_ms >= period.from_ms, ModelCounts.start_ms < period.to_ms
    )
    if family is not None:
        query = query.where(ModelCounts.family == family)
    if device_id is not None:
        query = query.where(ModelCounts.device_id == device_id)
    return query.order_by(ModelCounts.id)


def _add_rows(summary: Summary, rows: list[tuple[str, str]]) -> None:
    for device_id, text in rows:
        try:
            model = msgspec.json.decode(text, type=ModelWindow)
        except msgspec.ValidationError as error:
            logger.warning(
                "stored_counts_unreadable", extra={"device": device_id, "reason": str(error)}
            )
            continue
        summary.add([(device_id, model)])
