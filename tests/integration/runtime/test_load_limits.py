"""What the real process does when there is too much to do: refusals with reasons, over HTTP."""

import threading
from concurrent.futures import ThreadPoolExecutor

from edge_agent.state_dir import StateDir
from tests.integration.runtime.raw_client import RawClient, RawResponse
from tests.integration.runtime.reference_calls import INFER, batch, golden, infer
from tests.integration.runtime.running_runtime import running
from tests.unit.edge_agent.inference import v2_request
from tests.unit.edge_agent.inference.reference_release import commit, reference_release


def call(client: RawClient, images: int, **parameters: int) -> RawResponse:
    body, length = v2_request.encode(
        [batch(images)], binary=[True], fields={"parameters": parameters}
    )
    return client.call("POST", INFER, body, header_length=length)


def test_a_connection_that_sends_too_much_is_told_when_to_come_back(state: StateDir) -> None:
    commit(state, reference_release(state))
    with running(state.root, SKERRY_AGENT_RUNTIME__RATE_LIMIT_PER_S="2") as runtime:
        with runtime.ready().public() as client:
            statuses = [client.call("GET", "/v2/health/live").status for _ in range(2)]
            refused = client.call("GET", "/v2/health/live")
            assert statuses == [200, 200]
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            assert "2 requests a second" in refused.error
            # The connection lives, and another one has its own allowance.
            assert client.call("GET", "/v2/health/live").status == 429
            with runtime.public() as other:
                infer(other, golden("fp32")[0][0])
        with runtime.admin() as admin:
            assert {admin.call("GET", "/v2/health/live").status for _ in range(9)} == {200}


def test_a_full_queue_and_a_deadline_that_cannot_be_met_are_503(state: StateDir) -> None:
    commit(state, reference_release(state))
    settings = {
        "SKERRY_AGENT_RUNTIME__INSTANCES": "1",
        "SKERRY_AGENT_RUNTIME__MODELS__FASHION_MNIST__MAX_QUEUE": "1",
    }
    with running(state.root, **settings) as runtime:
        with runtime.ready().public() as client:
            assert call(client, 500).status == 200
            late = call(client, 500, timeout=100)
            assert late.status == 503
            assert "timeout leaves" in late.error
            assert "retry-after" not in late.headers
            assert call(client, 500, timeout=60_000_000, priority=1).status == 200
            assert call(client, 1, timeout=-1).status == 400
        start = threading.Barrier(8)

        def hurry(_: int) -> list[RawResponse]:
            with runtime.public() as own:
                start.wait()
                return [call(own, 500) for _ in range(10)]

        with ThreadPoolExecutor(8) as threads:
            answers = [answer for several in threads.map(hurry, range(8)) for answer in several]
        refused = [answer for answer in answers if answer.status != 200]
        assert len(refused) < len(answers)
        assert {answer.status for answer in refused} == {503}
        assert "has 1 calls waiting, which is its limit" in refused[0].error
        assert int(refused[0].headers["retry-after"]) >= 1


def test_a_model_beyond_the_budget_is_reported_with_the_figures(state: StateDir) -> None:
    commit(state, reference_release(state))
    budget = {"SKERRY_AGENT_RUNTIME__MEMORY_BUDGET_BYTES": "1000000"}
    with running(state.root, **budget) as runtime, runtime.ready().public() as client:
        ready = client.call("GET", "/v2/health/ready")
        assert ready.status == 503
        response = client.call("POST", INFER, b"{}")
        assert response.status == 503
        assert "the budget for all models is 1.0 MiB" in response.error
