"""What ``/metrics`` says about the machine; the rest is scraped from a running runtime."""

import time
from pathlib import Path

from edge_agent.inference.backends.catalog import Catalog
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.http_messages import HttpRequest, HttpResponse
from edge_agent.inference.metrics import MetricsRoute
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.state_dir import StateDir


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
    route = MetricsRoute(plane, lambda _: HttpResponse(), clock=clock, thermal=tmp_path)
    request = HttpRequest(
        method="GET", path="/metrics", body=b"", keep_alive=True, received_at=clock()
    )
    answer = route(request)
    response = answer if isinstance(answer, HttpResponse) else await answer
    page = b"".join(bytes(part) for part in response.parts).decode()
    told = [line for line in page.splitlines() if line.startswith("skerry_temperature_celsius")]
    assert told == ['skerry_temperature_celsius{zone="0:cpu-thermal"} 48.25']
    assert await plane.close(10)
