"""What ``/metrics`` says about the machine; the rest is scraped from a running runtime."""

import time
from pathlib import Path

from edge_agent.inference.backends.catalog import Catalog
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.http_messages import HttpResponse
from edge_agent.inference.metrics import MetricsRoute
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.state_dir import StateDir
from tests.unit.edge_agent.inference.route_calls import scrape


async def test_temperatures_come_from_the_zones_that_can_be_read(tmp_path: Path) -> None:
    for zone, kind, value in [(0, "cpu-thermal", "48250"), (1, "gpu-thermal", "broken")]:
        folder = tmp_path / f"thermal_zone{zone}"
        folder.mkdir()
        (folder / "type").write_text(f"{kind}\n")
        (folder / "temp").write_text(f"{value}\n")
    clock = time.perf_counter
    plane = DataPlane(
        loader=ReleaseLoader(state=StateDir(tmp_path), epoch="e", catalog=Catalog([]), clock=clock),
        clock=clock,
        workers=1,
    )
    samples = await scrape(
        MetricsRoute(plane, lambda _: HttpResponse(), clock=clock, thermal=tmp_path)
    )
    assert [
        (sample.labels, sample.value)
        for sample in samples
        if sample.name == "skerry_temperature_celsius"
    ] == [({"zone": "0:cpu-thermal"}, 48.25)]
    assert await plane.close(10)
