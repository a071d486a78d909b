"""10,000 calls over real sockets while releases are swapped underneath: none is dropped."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec

from edge_agent.runtime_api import Activation
from edge_agent.state_dir import StateDir
from tests.integration.runtime.raw_client import RawClient
from tests.integration.runtime.reference_calls import batch, golden, infer
from tests.integration.runtime.running_runtime import RunningRuntime, running
from tests.unit.edge_agent.inference.reference_release import commit, reference_release

_CLIENTS = 4
_CALLS = 10_000


def call(runtime: RunningRuntime, number: int) -> int:
    """Call on one connection, small and large in turns; return how many answers were right."""
    image, expected = golden("fp32")[number]
    right = 0
    with runtime.public() as client:
        for turn in range(_CALLS // _CLIENTS):
            if turn % 25 == 0:
                _, found = infer(client, batch(32))
                right += len(found) == 320
            else:
                _, found = infer(client, image)
                right += sum(
                    abs(one - other) < 1e-3 for one, other in zip(found, expected, strict=True)
                ) == len(expected)
    return right


def swap(admin: RawClient, state: StateDir, number: int) -> None:
    """Load the same model as a new version, activate it, unload the one before."""
    release = reference_release(state, version=f"2.0.{number}")
    assert admin.call("POST", "/admin/releases", msgspec.json.encode(release)).status == 200
    body = msgspec.json.encode(Activation(version=release.version))
    assert admin.call("POST", "/admin/families/fashion_mnist/activate", body).status == 200
    old = "1.0.0" if number == 0 else f"2.0.{number - 1}"
    path = f"/admin/families/fashion_mnist/versions/{old}"
    assert admin.call("DELETE", path).status == 200


def test_none_of_10_000_calls_is_dropped(state: StateDir) -> None:
    commit(state, reference_release(state))
    done = threading.Event()
    with running(state.root) as runtime, runtime.ready().admin() as admin:

        def keep_swapping() -> int:
            for number in itertools.count():
                swap(admin, state, number)
                if done.is_set():
                    return number
            raise AssertionError

        with ThreadPoolExecutor(_CLIENTS + 1) as threads:
            swaps = threads.submit(keep_swapping)
            try:
                counts = list(threads.map(lambda at: call(runtime, at), range(_CLIENTS)))
            finally:
                done.set()
        assert sum(counts) == _CALLS
        assert swaps.result() > 10
        assert runtime.events("internal_error") == []
