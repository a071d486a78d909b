"""Shadowing in the real runtime: an INT8 candidate agrees, one with other labels does not."""

import hashlib

import msgspec
import pytest

from edge_agent.runtime_api import ActiveRelease, ShadowOrder, ShadowReport
from edge_agent.state_dir import StateDir
from tests.integration.runtime.raw_client import RawClient
from tests.integration.runtime.reference_calls import batch, golden, infer
from tests.integration.runtime.running_runtime import eventually, running
from tests.unit.edge_agent.inference.reference_release import MODELS, commit, reference_release

_FAMILY = "fashion_mnist"


def candidate(state: StateDir, file: str, version: str) -> ActiveRelease:
    """Return a release of a built file."""
    made = reference_release(state, precision="int8", version=version)
    content = (MODELS / file).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    state.blob(digest).write_bytes(content)
    return msgspec.structs.replace(made, sha256=digest)


def shadow(admin: RawClient, order: ShadowOrder) -> ShadowReport:
    answer = admin.call("POST", f"/admin/families/{_FAMILY}/shadow", msgspec.json.encode(order))
    assert answer.status == 200, answer.body
    return msgspec.json.decode(answer.body, type=ShadowReport)


@pytest.mark.parametrize(
    ("file", "least", "most"),
    [("fashion_mnist-int8.onnx", 0.9, 1.0), ("fashion_mnist-int8-wrong-labels.onnx", 0.0, 0.2)],
)
def test_agreement_on_live_requests(state: StateDir, file: str, least: float, most: float) -> None:
    commit(state, reference_release(state))
    order = ShadowOrder(version="1.1.0", requests=20)
    with (
        running(state.root) as runtime,
        runtime.ready().admin() as admin,
        runtime.public() as client,
    ):
        body = msgspec.json.encode(candidate(state, file, "1.1.0"))
        assert admin.call("POST", "/admin/releases", body).status == 200
        assert shadow(admin, order).compared == 0
        images = golden("fp32")

        def enough() -> bool:
            for image, expected in images:
                _, found = infer(client, image)
                assert found == pytest.approx(expected, abs=1e-3)
            infer(client, batch(32))  # too large for the event loop: through the threads
            return shadow(admin, order).compared == order.requests

        eventually(enough)
        found = shadow(admin, order)
        assert least <= found.agreed / found.compared <= most
        assert found.problem == ""


def test_what_nobody_can_compare_is_refused(state: StateDir) -> None:
    commit(state, reference_release(state))
    order = msgspec.json.encode(ShadowOrder(version="1.0.0", requests=1))
    with running(state.root) as runtime, runtime.ready().admin() as admin:
        itself = admin.call("POST", f"/admin/families/{_FAMILY}/shadow", order)
        nobody = admin.call("POST", "/admin/families/nobody/shadow", order)
        broken = admin.call("POST", f"/admin/families/{_FAMILY}/shadow", b"{}")
    assert [answer.status for answer in (itself, nobody, broken)] == [409, 404, 400]
