"""``/metrics`` of the real process, read by the parser of Prometheus' own client library."""

from collections.abc import Iterator

import msgspec
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from edge_agent.state_dir import StateDir
from tests.integration.runtime.raw_client import RawClient
from tests.integration.runtime.reference_calls import INFER, batch, golden, infer
from tests.integration.runtime.running_runtime import RunningRuntime, eventually, running
from tests.unit.edge_agent.inference.reference_release import commit, reference_release


@pytest.fixture
def device(state: StateDir) -> Iterator[RunningRuntime]:
    commit(state, reference_release(state))
    with running(state.root, SKERRY_AGENT_RUNTIME__RESPONSE_CACHE_BYTES="100000") as runtime:
        yield runtime.ready()


def scrape(client: RawClient) -> dict[str, Metric]:
    response = client.call("GET", "/metrics")
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        metric.name: metric for metric in text_string_to_metric_families(response.body.decode())
    }


def value(metrics: dict[str, Metric], sample: str, **labels: str) -> float:
    (found,) = [
        each.value
        for metric in metrics.values()
        for each in metric.samples
        if each.name == sample and labels.items() <= each.labels.items()
    ]
    return found


def test_the_metrics_tell_what_happened(device: RunningRuntime, state: StateDir) -> None:
    image = golden("fp32")[0][0]
    with device.public() as client, device.admin() as admin:
        before = scrape(client)
        assert value(before, "skerry_requests_total", version="1.0.0") == 0
        infer(client, image)
        infer(client, image)
        infer(client, batch(40))
        assert client.call("POST", INFER, b"{").status == 400
        assert client.call("GET", "/v2/nowhere").status == 404
        assert admin.call("GET", "/admin/nowhere").status == 404
        candidate = reference_release(state, version="2.0.0", precision="int8")
        admin.call("POST", "/admin/releases", msgspec.json.encode(candidate))
        metrics: dict[str, Metric] = {}

        def both_are_told() -> bool:
            metrics.update(scrape(client))
            samples = metrics["skerry_model_active"].samples
            return {sample.labels["version"] for sample in samples} == {"1.0.0", "2.0.0"}

        eventually(both_are_told)
    one = {"family": "fashion_mnist", "version": "1.0.0", "variant": "fp32"}
    assert value(metrics, "skerry_requests_total", **one) == 4
    assert value(metrics, "skerry_errors_total", kind="bad_request", **one) == 1
    assert value(metrics, "skerry_errors_total", kind="backend", **one) == 0
    for kind, protocol, count in [
        ("bad_request", "http", 1),
        ("unknown_path", "http", 1),
        ("unknown_path", "admin", 1),
        ("unknown_path", "grpc", 0),
    ]:
        answers = value(metrics, "skerry_error_answers_total", protocol=protocol, kind=kind)
        assert answers == count
    assert value(metrics, "skerry_cache_lookups_total", result="hit", **one) == 1
    assert value(metrics, "skerry_cache_lookups_total", result="miss", **one) == 1
    assert value(metrics, "skerry_items_total", **one) == 41
    assert value(metrics, "skerry_compute_seconds_count", **one) == 2
    assert value(metrics, "skerry_compute_seconds_sum", **one) > 0
    assert value(metrics, "skerry_queue_seconds_count", **one) == 2
    assert value(metrics, "skerry_batch_size_sum", **one) == 41
    assert value(metrics, "skerry_queue_depth", **one) == 0
    assert value(metrics, "skerry_model_active", version="1.0.0") == 1
    assert value(metrics, "skerry_model_active", version="2.0.0") == 0
    assert value(metrics, "skerry_model_info", accelerator="cpu", **one) == 1
    assert 0 < value(metrics, "skerry_model_memory_bytes", **one) < 1 << 30
    assert value(metrics, "skerry_memory_budget_bytes") > 1 << 20
    assert value(metrics, "process_resident_memory_bytes") > 1 << 20
    assert value(metrics, "skerry_ready") == 1
    assert value(metrics, "skerry_cache_bytes") > 0
