"""The state of a tenant's fleet as Prometheus metrics, asked of the database when they are read.

Asking is remembered for some seconds, so that several scrapers cost no more than one.
"""

from collections.abc import Callable, Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import ColumnElement, case, func, literal, select

from fleet_server import tenancy
from fleet_server.clock import unix_ms
from fleet_server.components import Components
from fleet_server.database import Database
from fleet_server.devices import health
from fleet_server.devices.health import Health
from fleet_server.devices.tables import Device

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

    async def _by_health(self) -> Mapping[Health, int]:
        tenant, now_ms = tenancy.current(), unix_ms(self._clock())
        asked_ms, counted = self._devices.get(tenant, (-_REMEMBERED_MS, {}))
        if now_ms - asked_ms >= _REMEMBERED_MS:
            word = _word(now_ms)
            async with self._database.reading() as session:
                rows = await session.execute(select(word, func.count(Device.id)).group_by(word))
                counted = {Health(name): count for name, count in rows}
            self._devices[tenant] = (now_ms, counted)
        return counted


def _word(now_ms: int) -> ColumnElement[str]:
    """Return the health of a device as an expression."""
    return case(
        *((health.condition(word, now_ms=now_ms), literal(word.value)) for word in Health),
        else_=literal(Health.OFFLINE.value),
    )
