"""``GET /metrics``: the state of the runtime for a Prometheus server.

Rendered release by release, with a turn of the event loop between two, so that a scrape keeps no
call waiting; scrapes that follow each other closely get the same text.
"""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from pathlib import Path

from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.error_answers import ErrorAnswers
from edge_agent.inference.exposition import CONTENT_TYPE, Distribution, Exposition, label_text
from edge_agent.inference.http_messages import Answer, HttpRequest, HttpResponse
from edge_agent.inference.process_memory import resident_bytes
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.statistics import BOUNDS_S, DurationHistogram
from edge_agent.runtime_api import ActiveRelease

PATH = "/metrics"

_THERMAL = Path("/sys/class/thermal")
_MAX_ZONES = 64
_FRESH_S = 0.2
_BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class MetricsRoute:
    """Answers ``/metrics`` and hands everything else on."""

    def __init__(
        self,
        plane: DataPlane,
        others: Callable[[HttpRequest], Answer],
        *,
        clock: Callable[[], float],
        error_answers: Mapping[str, ErrorAnswers] | None = None,
        thermal: Path = _THERMAL,
    ) -> None:
        """Render nothing yet.

        Args:
            plane: is described.
            others: answers the other paths.
            clock: in seconds, monotonic.
            error_answers: of each way in, by its name.
            thermal: the kernel's thermal zones.
        """
        self._plane = plane
        self._others = others
        self._clock = clock
        self._error_answers = error_answers or {}
        self._thermal = thermal
        self._rendering: asyncio.Task[bytes] | None = None
        self._rendered_at = 0.0

    def __call__(self, request: HttpRequest) -> Answer:
        """Answer a request; see `http_messages.Handler`."""
        if request.path != PATH or request.method not in ("GET", "HEAD"):
            return self._others(request)
        return self._answer()

    async def _answer(self) -> HttpResponse:
        task = self._rendering
        now = self._clock()
        if task is None or (task.done() and now - self._rendered_at > _FRESH_S):
            task = asyncio.get_running_loop().create_task(self._render())
            self._rendering = task
            self._rendered_at = now
        text = await asyncio.shield(task)
        return HttpResponse(parts=[text], content_type=CONTENT_TYPE)

    async def _render(self) -> bytes:
        page = Exposition()
        # The kernel may ask a slow bus for a temperature.
        zones = await asyncio.get_running_loop().run_in_executor(None, _temperatures, self._thermal)
        _of_process(page, self._plane)
        _of_error_answers(page, self._error_answers)
        for zone, celsius in zones.items():
            page.gauge(
                "skerry_temperature_celsius",
                "Temperature of a thermal zone.",
                celsius,
                label_text({"zone": zone}),
            )
        _sleep(page, self._plane)
        for served in self._plane.resident:
            await asyncio.sleep(0)
            active = self._plane.is_active(served)
            _of_release(page, served, active=active)
        return page.text()


def _of_process(page: Exposition, plane: DataPlane) -> None:
    page.gauge("skerry_ready", "1 while everything committed is served.", int(plane.ready))
    page.gauge(
        "skerry_memory_budget_bytes", "Memory that all models may take.", plane.memory_budget_bytes
    )
    page.gauge("process_resident_memory_bytes", "Resident memory of the runtime.", resident_bytes())
    page.counter("process_cpu_seconds_total", "Processor time of the runtime.", time.process_time())
    if plane.cache is not None:
        page.gauge(
            "skerry_cache_bytes", "Memory taken by the response cache.", plane.cache.size_bytes
        )


def _of_error_answers(page: Exposition, error_answers: Mapping[str, ErrorAnswers]) -> None:
    for way_in, answers in error_answers.items():
        for kind, count in answers.counts.items():
            page.counter(
                "skerry_error_answers_total",
                "Requests answered with an error, whether they reached a model or not.",
                count,
                f'protocol="{way_in}",kind="{kind.value}"',
            )


def _sleep(page: Exposition, plane: DataPlane) -> None:
    """Say of each release that answers for its family whether it is in memory."""
    for family in plane.families:
        served = plane.described(family)
        page.gauge(
            "skerry_model_asleep",
            "1 while a model that is served is out of memory; its next call loads it.",
            int(served.asleep),
            label_text(_names(served.release)),
        )


def _names(release: ActiveRelease) -> dict[str, str]:
    return {"family": release.family, "version": release.version, "variant": release.variant}


def _of_release(page: Exposition, served: ServedRelease, *, active: bool) -> None:
    release, stats, scheduler = served.release, served.statistics, served.scheduler
    names = _names(release)
    labels = label_text(names)
    failed = sum(stats.errors.values())
    page.gauge(
        "skerry_model_info",
        "1 for each loaded release.",
        1,
        label_text({**names, "backend": served.backend_name, "accelerator": release.accelerator}),
    )
    page.gauge("skerry_model_active", "1 for the release that answers.", int(active), labels)
    page.gauge("skerry_model_memory_bytes", "Memory of the model.", served.memory_bytes, labels)
    page.gauge("skerry_queue_depth", "Calls that wait.", scheduler.depth, labels)
    page.gauge("skerry_running", "Runs under way in threads.", scheduler.running, labels)
    page.counter("skerry_requests_total", "Calls answered.", stats.successes + failed, labels)
    for kind, count in stats.errors.items():
        page.counter(
            "skerry_errors_total",
            "Calls answered with an error.",
            count,
            f'{labels},kind="{kind.value}"',
        )
    page.counter("skerry_items_total", "Items inferred.", stats.items, labels)
    for result, count in (("hit", stats.cache_hits), ("miss", stats.cache_misses)):
        page.counter(
            "skerry_cache_lookups_total",
            "Lookups in the response cache.",
            count,
            f'{labels},result="{result}"',
        )
    page.histogram(
        "skerry_queue_seconds",
        "Until a sleeping model was loaded, and from ready to run to the run.",
        _durations(stats.queue),
        labels,
    )
    page.histogram(
        "skerry_compute_seconds", "Time in the model.", _durations(stats.compute), labels
    )
    page.histogram(
        "skerry_batch_size", "Items in one run.", _batch_sizes(stats.batch_sizes()), labels
    )


def _durations(histogram: DurationHistogram) -> Distribution:
    return Distribution(BOUNDS_S, histogram.counts, histogram.total_s)


def _batch_sizes(sizes: dict[int, int]) -> Distribution:
    counts = [0] * (len(_BATCH_BOUNDS) + 1)
    for size, count in sizes.items():
        counts[bisect_left(_BATCH_BOUNDS, size)] += count
    return Distribution(_BATCH_BOUNDS, counts, sum(size * count for size, count in sizes.items()))


def _temperatures(thermal: Path) -> dict[str, float]:
    """Return what the thermal zones say, by their names; those that cannot be read are left out."""
    found: dict[str, float] = {}
    for zone in sorted(thermal.glob("thermal_zone*"))[:_MAX_ZONES]:
        try:
            celsius = int((zone / "temp").read_text()) / 1000
            kind = (zone / "type").read_text().strip()
        except (OSError, ValueError):
            continue
        found[f"{zone.name.removeprefix('thermal_zone')}:{kind}"] = celsius
    return found
