"""HTTP requests to the routes of a plane, without sockets."""

import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.http_errors import answering
from edge_agent.inference.http_messages import Answer, HttpRequest, HttpResponse
from edge_agent.inference.metrics import PATH
from edge_agent.inference.shared_memory import Regions
from edge_agent.inference.v2_routes import V2Routes


def ask(plane: DataPlane, method: str, path: str, *, admin: Path | None = None) -> HttpResponse:
    """Ask for what is answered at once, as an application or as control."""
    routes = answering(V2Routes(plane, max_request_bytes=1024, admin=admin))
    request = HttpRequest(
        method=method, path=path, body=b"", keep_alive=True, received_at=time.perf_counter()
    )
    response = routes(request)
    assert isinstance(response, HttpResponse)
    return response


BODY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}'


async def infer(
    plane: DataPlane,
    family: str,
    *,
    body: bytes = BODY,
    received_at: float | None = None,
    regions: Regions | None = None,
) -> HttpResponse:
    """Call a model over HTTP."""
    request = HttpRequest(
        method="POST",
        path=f"/v2/models/{family}/infer",
        body=body,
        keep_alive=True,
        received_at=time.perf_counter() if received_at is None else received_at,
    )
    answer = answering(V2Routes(plane, max_request_bytes=1024, regions=regions))(request)
    return answer if isinstance(answer, HttpResponse) else await answer


async def scrape(route: Callable[[HttpRequest], Answer]) -> list[Sample]:
    """Return what ``/metrics`` says, read by the parser of Prometheus' own client library."""
    request = HttpRequest(
        method="GET", path=PATH, body=b"", keep_alive=True, received_at=time.perf_counter()
    )
    answer = route(request)
    response = answer if isinstance(answer, HttpResponse) else await answer
    page = b"".join(map(bytes, response.parts)).decode()
    return [sample for each in text_string_to_metric_families(page) for sample in each.samples]
