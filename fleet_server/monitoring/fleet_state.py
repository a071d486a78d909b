"""The state of a tenant's fleet as Prometheus metrics, asked of the database when they are read.

Asking is remembered for some seconds, so that several scrapers cost no more than one.
"""

from collections.abc import Callable, Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import func, select

from fleet_server import tenancy
from fleet_server.clock import unix_ms
from fleet_server.components import Components
from fleet_server.database import Database
from fleet_server.devices import health
from fleet_server.devices.health import Health
from fleet_server.devices.selector import ID
from fleet_server.devices.tables import Device, DeviceTerm
from fleet_server.monitoring import storage

_REMEMBERED_MS = 10_000


class FleetState:
    """Asks for the state of the fleet."""

    def __init__(
        self, *, database: Database, components: Components, clock: Callable[[], datetime]
    ) -> None:
        """Remember nothing yet.

        Args:
            database: to ask.
            components: of this process.
            clock: the wall clock.
        """
        self._database = database
        self._components = components
        self._clock = clock
        self._devices: dict[str, tuple[int, Mapping[Health, int]]] = {}

    async def metrics(self) -> CollectorRegistry:
        """Return the metrics of the tenant that asks.

        Raises:
            UnavailableError: the database does not answer.
        """
        registry = CollectorRegistry()
        devices = Gauge(
            "skerry_fleet_devices", "Devices by health.", ("health",), registry=registry
        )
        counted = await self._by_health()
        for word in Health:
            devices.labels(word.value).set(counted.get(word, 0))
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

    async def _by_health(self) -> Mapping[Health, int]:
        tenant, now_ms = tenancy.current(), unix_ms(self._clock())
        asked_ms, counted = self._devices.get(tenant, (-_REMEMBERED_MS, {}))
        if now_ms - asked_ms >= _REMEMBERED_MS:
            counted = await self._counted(now_ms)
            self._devices[tenant] = (now_ms, counted)
        return counted

    async def _counted(self, now_ms: int) -> Mapping[Health, int]:
        """Count those that are not healthy by their indices, and take them from all there are."""
        async with self._database.reading() as session:
            everything = select(func.count()).where(DeviceTerm.name == ID)
            left = await session.scalar(everything) or 0
            counted: dict[Health, int] = {}
            for word in Health:
                if word is not Health.HEALTHY:
                    of_word = select(func.count(Device.id)).where(
                        health.condition(word, now_ms=now_ms)
                    )
                    counted[word] = await session.scalar(of_word) or 0
        return {**counted, Health.HEALTHY: max(0, left - sum(counted.values()))}
