"""The admin socket: load beside, switch, unload, count, with calls going on."""

import itertools
import threading
from collections.abc import Iterator

import msgspec
import pytest

from edge_agent import counters
from edge_agent.runtime_api import (
    DEVICE_FAULT_STATUS,
    Activation,
    ActiveRelease,
    RuntimeStatus,
)
from edge_agent.state_dir import StateDir
from fleet_protocol.messages import ErrorKind
from tests.integration.runtime.raw_client import RawClient, RawResponse
from tests.integration.runtime.reference_calls import INFER, batch, golden, infer
from tests.integration.runtime.running_runtime import RunningRuntime, running
from tests.unit.edge_agent.inference.reference_release import commit, reference_release

ACTIVATE = "/admin/families/fashion_mnist/activate"


@pytest.fixture
def device(state: StateDir) -> Iterator[RunningRuntime]:
    commit(state, reference_release(state))
    with running(state.root) as started:
        yield started.ready()


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRuntime]:
    """A runtime for the tests that change nothing."""
    state = StateDir(tmp_path_factory.mktemp("unchanged"))
    commit(state, reference_release(state))
    with running(state.root) as started:
        yield started.ready()


def load(admin: RawClient, release: ActiveRelease) -> RawResponse:
    return admin.call("POST", "/admin/releases", msgspec.json.encode(release))


def activate(admin: RawClient, version: str) -> RawResponse:
    return admin.call("POST", ACTIVATE, msgspec.json.encode(Activation(version=version)))


def unload(admin: RawClient, version: str) -> RawResponse:
    return admin.call("DELETE", f"/admin/families/fashion_mnist/versions/{version}")


def status(admin: RawClient) -> RuntimeStatus:
    response = admin.call("GET", "/admin/status")
    assert response.status == 200
    return msgspec.json.decode(response.body, type=RuntimeStatus)


def test_the_life_of_a_release(device: RunningRuntime, state: StateDir) -> None:
    candidate = reference_release(state, version="2.0.0", precision="int8")
    image, expected = golden("int8")[0]
    path = "/v2/models/fashion_mnist/versions/2.0.0/infer"
    with device.admin() as admin, device.public() as public:
        before = status(admin)
        assert before.pid == device.process.pid
        assert "onnxruntime" in before.backends
        loaded = load(admin, candidate)
        assert (loaded.status, loaded.json) == (
            200,
            {
                "family": "fashion_mnist",
                "version": "2.0.0",
                "variant": "int8",
                "backend": "onnxruntime",
                "accelerator": "cpu",
                "active": False,
                "choice": "",
            },
        )
        assert load(admin, candidate).body == loaded.body
        assert infer(admin, image, path)[1] == pytest.approx(expected, abs=1e-3)
        assert public.call("POST", path, b"{}").status == 404
        assert admin.call("GET", "/v2/models/fashion_mnist").json["versions"] == ["1.0.0", "2.0.0"]
        assert public.call("GET", "/v2/models/fashion_mnist").json["versions"] == ["1.0.0"]

        assert unload(admin, "1.0.0").status == 409
        assert activate(admin, "2.0.0").json["active"] is True
        assert infer(public, image)[0].status == 200
        assert public.call("GET", "/v2/models/fashion_mnist").json["versions"] == ["2.0.0"]
        assert unload(admin, "1.0.0").json == {"unloaded": 1}
        assert unload(admin, "1.0.0").json == {"unloaded": 0}
        after = status(admin)
        assert [(r.version, r.active) for r in after.releases] == [("2.0.0", True)]
        assert after.epoch == before.epoch

        assert admin.call("DELETE", "/admin/families/fashion_mnist").json == {"unloaded": 1}
        assert public.call("POST", INFER, b"{}").status == 404
        assert public.call("GET", "/v2/health/ready").status == 200


def test_calls_are_counted_before_they_are_answered(
    device: RunningRuntime, state: StateDir
) -> None:
    def count() -> counters.Counts:
        (path,) = state.run.glob("counters-*.bin")
        return counters.read(path)

    images = golden("fp32")
    with device.admin() as admin, device.public() as public:
        for number, (image, _) in enumerate(images, start=1):
            infer(public, image)
            assert count().requests == number
        infer(public, batch(100))
        infer(admin, images[0][0], "/v2/models/fashion_mnist/versions/1.0.0/infer")
        assert public.call("POST", INFER, b"{}").status == 400
        assert public.call("POST", "/v2/models/other/infer", b"{}").status == 404
        counted = count()
        assert counted.label.epoch == status(admin).epoch
    assert counted.requests == len(images) + 2
    assert counted.errors == {
        ErrorKind.BAD_REQUEST: 1,
        ErrorKind.BACKEND: 0,
        ErrorKind.REFUSED: 0,
    }
    assert counted.latency_us.count == len(images) + 1
    assert sum(counted.classes.values()) == len(images) + 100
    winners = [max(range(10), key=logits.__getitem__) for _, logits in images]
    seen = {name for name, number in counted.classes.items() if number}
    assert {f"class-{winner}" for winner in winners} <= seen


@pytest.mark.parametrize(
    ("method", "path", "body", "status_code"),
    [
        ("POST", "/admin/releases", b"{}", 400),
        ("POST", "/admin/releases", b"\xff", 400),
        ("POST", "/admin/releases", b"[" * 100_000, 400),
        ("GET", "/admin/releases", b"", 405),
        ("POST", "/admin/status", b"", 405),
        ("POST", ACTIVATE, b'{"version": "../../etc"}', 400),
        ("POST", ACTIVATE, b'{"version": "9.9.9"}', 404),
        ("POST", "/admin/families/other/activate", b'{"version": "1.0.0"}', 404),
        ("GET", "/admin/nothing", b"", 404),
    ],
)
def test_what_control_gets_wrong_changes_nothing(
    unchanged: RunningRuntime, method: str, path: str, body: bytes, status_code: int
) -> None:
    with unchanged.admin() as admin:
        response = admin.call(method, path, body)
        assert (response.status, bool(response.error)) == (status_code, True)
        assert [(r.version, r.active) for r in status(admin).releases] == [("1.0.0", True)]
        assert infer(admin, golden("fp32")[0][0])[0].status == 200
    assert "traceback" not in unchanged.log_text()


def test_a_release_that_cannot_be_loaded_is_refused_and_the_active_one_serves(
    device: RunningRuntime, state: StateDir
) -> None:
    missing = msgspec.structs.replace(reference_release(state, version="2.0.0"), sha256="0" * 64)
    broken = msgspec.structs.replace(missing, sha256="1" * 64)
    state.blob(broken.sha256).write_bytes(b"not a model")
    with device.admin() as admin:
        for release, status, complaint in (
            (missing, DEVICE_FAULT_STATUS, "not among the blobs"),
            (broken, 422, "cannot load"),
        ):
            response = load(admin, release)
            assert response.status == status
            assert complaint in response.error
        assert len(list(state.run.glob("counters-*"))) == 1
        assert infer(admin, golden("fp32")[0][0])[0].status == 200


def test_no_call_is_dropped_while_releases_are_swapped(
    device: RunningRuntime, state: StateDir
) -> None:
    """Callers with short and long calls run through 12 swaps with load, warm-up and unload."""
    stop = threading.Event()
    answered: list[int] = []
    failures: list[object] = []

    def caller(images: int) -> None:
        try:
            with device.public() as client:
                while not stop.is_set():
                    infer(client, batch(images))
                    answered.append(images)
        except Exception as error:  # noqa: BLE001 (a thread's error is the test's to report)
            failures.append(error)

    callers = [threading.Thread(target=caller, args=[images]) for images in (1, 1, 1, 64)]
    for thread in callers:
        thread.start()
    previous = "1.0.0"
    with device.admin() as admin:
        for number, precision in zip(range(12), itertools.cycle(["int8", "fp32"]), strict=False):
            version = f"2.{number}.0"
            assert (
                load(admin, reference_release(state, version=version, precision=precision)).status
                == 200
            )
            assert activate(admin, version).status == 200
            assert unload(admin, previous).json == {"unloaded": 1}
            previous = version
    stop.set()
    for thread in callers:
        thread.join(30)
    assert failures == []
    assert {1, 64} == set(answered)
    counted = [counters.read(path) for path in state.run.glob("counters-*.bin")]
    assert sum(count.requests for count in counted) == len(answered)
    assert sum(count.closed for count in counted) == 12
