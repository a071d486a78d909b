"""What one server process counts, as Prometheus metrics; the fleet's state is `fleet_state`'s.

Each process counts for itself and is scraped for itself: sums are Prometheus' work. Names follow
https://prometheus.io/docs/practices/naming/.
"""

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ServerMetrics:
    """The counters of one process."""

    def __init__(
        self,
        *,
        logins: Mapping[tuple[str, str], int],
        uplinks: Callable[[], Mapping[str, int]],
        backlog: Callable[[], int],
        connections: Callable[[], int | None],
    ) -> None:
        """Begin at zero.

        Args:
            logins: how many there were so far, by way and outcome.
            uplinks: messages of devices so far, by what became of them.
            backlog: messages that wait for the database now.
            connections: MQTT connections of this process now; None if the broker is another one.
        """
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "skerry_server_requests",
            "HTTP requests that were answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "skerry_server_request_seconds",
            "From the head of a request to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        Info("skerry_server", "The server.", registry=self.registry).info(
            {"version": version("skerry")}
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(_Read(logins, uplinks, backlog, connections))

    def answered(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            method: of HTTP.
            route: its pattern, not its path: there are few of them.
            status: of the answer.
            seconds: that it took.
        """
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


class _Read(Collector):
    """Numbers that other parts keep anyway, read when they are asked for."""

    def __init__(
        self,
        logins: Mapping[tuple[str, str], int],
        uplinks: Callable[[], Mapping[str, int]],
        backlog: Callable[[], int],
        connections: Callable[[], int | None],
    ) -> None:
        self._logins = logins
        self._uplinks = uplinks
        self._backlog = backlog
        self._connections = connections

    def collect(self) -> Iterable[Metric]:
        """Return the metrics; see `Collector`."""
        logins = CounterMetricFamily(
            "skerry_server_logins",
            "Logins of people, by the way in and what became of them.",
            labels=["way", "outcome"],
        )
        for (way, outcome), count in self._logins.items():
            logins.add_metric([way, outcome], count)
        yield logins
        uplinks = CounterMetricFamily(
            "skerry_server_uplinks",
            "Messages of devices, by what became of them.",
            labels=["outcome"],
        )
        for outcome, count in sorted(self._uplinks().items()):
            uplinks.add_metric([outcome], count)
        yield uplinks
        yield GaugeMetricFamily(
            "skerry_server_uplink_backlog",
            "Messages of devices that wait for the database.",
            self._backlog(),
        )
        connections = self._connections()
        if connections is not None:
            yield GaugeMetricFamily(
                "skerry_server_mqtt_connections", "MQTT connections.", connections
            )
