"""The state of a tenant's fleet as Prometheus metrics, asked of the database when they are read.

Asking is remembered for some seconds, so that several scrapers cost no more than one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server import tenancy
from fleet_server.broker.followers import Followers
from fleet_server.clock import unix_ms
from fleet_server.components import Components
from fleet_server.database import Database
from fleet_server.devices import health
from fleet_server.devices.health import Health
from fleet_server.devices.selector import ID
from fleet_server.devices.tables import Device, DeviceTerm
from fleet_server.monitoring import storage
from fleet_server.rollouts.state import Status
from fleet_server.rollouts.tables import Rollout

_REMEMBERED_MS = 10_000


@dataclass(frozen=True, slots=True)
class _Fleet:
    """A tenant's fleet as it was when it was asked for."""

    asked_ms: int
    devices: Mapping[Health, int]
    rollouts: Mapping[str, int]


class FleetState:
    """Asks for the state of the fleet."""

    def __init__(
        self,
        *,
        database: Database,
        components: Components,
        followers: Followers,
        clock: Callable[[], datetime],
    ) -> None:
        """Remember nothing yet.

        Args:
            database: to ask.
            components: of this process.
            followers: of brokers on other machines.
            clock: the wall clock.
        """
        self._database = database
        self._components = components
        self._followers = followers
        self._clock = clock
        self._fleets: dict[str, _Fleet] = {}

    async def metrics(self) -> CollectorRegistry:
        """Return the metrics of the tenant that asks.

        Raises:
            UnavailableError: the database does not answer.
        """
        registry = CollectorRegistry()
        devices = Gauge(
            "skerry_fleet_devices", "Devices by health.", ("health",), registry=registry
        )
        rollouts = Gauge(
            "skerry_fleet_rollouts", "Rollouts by status.", ("status",), registry=registry
        )
        fleet = await self._fleet()
        for word in Health:
            devices.labels(word.value).set(fleet.devices.get(word, 0))
        for status in Status:
            rollouts.labels(status.value).set(fleet.rollouts.get(status.value, 0))
        return registry

    async def components(self) -> CollectorRegistry:
        """Return what works in this process now."""
        registry = CollectorRegistry()
        up = Gauge(
            "skerry_server_component_up",
            "1 while a part of the server works.",
            ("component",),
            registry=registry,
        )
        for name, works in (await self._components.states()).items():
            up.labels(name).set(works)
        return registry

    async def brokers(self) -> CollectorRegistry:
        """Return how brokers on other machines are told whom to refuse.

        Raises:
            UnavailableError: the database does not answer.
        """
        registry = CollectorRegistry()
        fetched = Gauge(
            "skerry_broker_follower_last_fetch_timestamp_seconds",
            "When what tells a broker on another machine asked last.",
            ("follower",),
            registry=registry,
        )
        behind = Gauge(
            "skerry_broker_follower_behind_seconds",
            "For how long a broker on another machine lacks what it was told; 0 if it does not.",
            ("follower",),
            registry=registry,
        )
        for each in await self._followers.all():
            fetched.labels(each.name).set(each.fetched.timestamp())
            since = each.behind_since
            lacks = (self._clock() - since).total_seconds() if since else 0
            behind.labels(each.name).set(max(0, lacks))
        return registry

    async def storage(self) -> CollectorRegistry:
        """Return how much the database holds, of all tenants.

        Raises:
            UnavailableError: the database does not answer.
        """
        registry = CollectorRegistry()
        size = Gauge("skerry_database_bytes", "Size of the database.", registry=registry)
        number = Gauge(
            "skerry_telemetry_rows", "Stored telemetry, about.", ("kind",), registry=registry
        )
        age = Gauge(
            "skerry_telemetry_oldest_age_seconds",
            "Age of the oldest telemetry that is stored.",
            ("kind",),
            registry=registry,
        )
        stored = await storage.read(self._database)
        size.set(stored.database_bytes)
        for kind, rows in stored.telemetry.items():
            number.labels(kind).set(rows.number)
            since_ms = rows.oldest_ms
            age.labels(kind).set(
                0 if since_ms is None else (unix_ms(self._clock()) - since_ms) / 1000
            )
        return registry

    async def _fleet(self) -> _Fleet:
        tenant, now_ms = tenancy.current(), unix_ms(self._clock())
        fleet = self._fleets.get(tenant)
        if fleet is None or now_ms - fleet.asked_ms >= _REMEMBERED_MS:
            async with self._database.reading() as session:
                fleet = _Fleet(now_ms, await _by_health(session, now_ms), await _by_status(session))
            self._fleets[tenant] = fleet
        return fleet


async def _by_health(session: AsyncSession, now_ms: int) -> dict[Health, int]:
    """Count those that are not healthy by their indices, and take them from all there are."""
    left = await session.scalar(select(func.count()).where(DeviceTerm.name == ID)) or 0
    counted: dict[Health, int] = {}
    for word in Health:
        if word is not Health.HEALTHY:
            of_word = select(func.count(Device.id)).where(health.condition(word, now_ms=now_ms))
            counted[word] = await session.scalar(of_word) or 0
    return {**counted, Health.HEALTHY: max(0, left - sum(counted.values()))}


async def _by_status(session: AsyncSession) -> dict[str, int]:
    query = select(Rollout.status, func.count(Rollout.id)).group_by(Rollout.status)
    return {status: count for status, count in await session.execute(query)}  # noqa: C416 (rows are typed)
