"""The runtime under mixed load for a long time: nothing fails, and its memory stays flat.

``make soak`` runs it for ten minutes (``SOAK_S=3600 make soak`` for an hour); as part of all tests
it is short.
"""

import itertools
import os
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest

from edge_agent import counters
from edge_agent.runtime_api import Activation, ActiveRelease
from edge_agent.state_dir import StateDir
from tests.integration.runtime.raw_client import RawClient
from tests.integration.runtime.reference_calls import INFER, batch, golden, infer
from tests.integration.runtime.running_runtime import RunningRuntime, running
from tests.unit.edge_agent.inference import v2_request
from tests.unit.edge_agent.inference.reference_release import commit, reference_release

pytestmark = pytest.mark.timeout(0)

SOAK_S = float(os.environ.get("SOAK_S", "20"))
_SAMPLES = 200
_MEBIBYTE = 1024 * 1024
_LONG_S = 100.0
_ALLOWED_GROWTH = (3 if SOAK_S >= _LONG_S else 8) * _MEBIBYTE
"""From the second quarter to the last one; within seconds the allocator has not settled yet."""


class Load:
    """Threads that repeat what they are given until the time is over, or one of them fails."""

    def __init__(self) -> None:
        self.rounds = 0
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def repeat(self, work: Callable[[int], None], *, pause_s: float = 0.0) -> None:
        """Start a thread."""
        thread = threading.Thread(target=self._run, args=(work, pause_s))
        self._threads.append(thread)
        thread.start()

    def watch(self, sample: Callable[[], int], seconds: float) -> list[int]:
        """Take samples, evenly over the time, then stop everything."""
        samples: list[int] = []
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and not self._stop.wait(seconds / _SAMPLES):
            samples.append(sample())
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        if self._failures:
            raise self._failures[0]
        return samples

    def _run(self, work: Callable[[int], None], pause_s: float) -> None:
        try:
            for number in itertools.count():
                if self._stop.wait(pause_s) if pause_s else self._stop.is_set():
                    return
                work(number)
                self.rounds += 1
        except BaseException as error:  # noqa: BLE001 (raised again by `watch`)
            self._failures.append(error)
            self._stop.set()


def resident(runtime: RunningRuntime) -> int:
    """Return the resident memory of the process without mapped files, such as its counters."""
    status = Path(f"/proc/{runtime.process.pid}/status").read_text()
    anonymous = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(anonymous.split()[1]) * 1024


class Swapper:
    """Replaces the active release by another variant, each time as a new version."""

    def __init__(self, admin: RawClient, state: StateDir, variants: list[ActiveRelease]) -> None:
        self._admin = admin
        self._run = state.run
        self._variants = variants

    def __call__(self, number: int) -> None:
        """Load, activate, unload the one before, and read its counters as control does."""
        variant = self._variants[number % len(self._variants)]
        release = msgspec.structs.replace(variant, version=f"2.0.{number}")
        self._expect("POST", "/admin/releases", msgspec.json.encode(release))
        body = msgspec.json.encode(Activation(version=release.version))
        self._expect("POST", "/admin/families/fashion_mnist/activate", body)
        if number:
            self._expect("DELETE", f"/admin/families/fashion_mnist/versions/2.0.{number - 1}")
        for path in self._run.glob("counters-*.bin"):
            if counters.read(path).closed:
                path.unlink()

    def _expect(self, method: str, path: str, body: bytes = b"") -> None:
        answer = self._admin.call(method, path, body)
        assert answer.status == 200, answer.body


def test_memory_stays_flat_and_nothing_fails(state: StateDir) -> None:
    variants = [reference_release(state, precision=name) for name in ("fp32", "int8")]
    commit(state, variants[0])
    settings = {
        "SKERRY_AGENT_RUNTIME__MAX_BATCH": "64",
        "SKERRY_AGENT_RUNTIME__RESPONSE_CACHE_BYTES": "1000000",
    }
    load = Load()
    with (
        running(state.root, **settings) as runtime,
        runtime.ready().public() as inline,
        runtime.public() as large,
        runtime.public() as other_large,
        runtime.public() as json_only,
        runtime.public() as scraper,
        runtime.admin() as admin,
    ):
        image = golden("fp32")[0][0]
        as_json = v2_request.encode([image], binary=[False])[0]

        def one_by_one(number: int) -> None:
            infer(inline, batch(1 + number % 3))

        def briefly(number: int) -> None:
            with runtime.public() as client:
                infer(client, image)
                broken = as_json[: number % len(as_json)]
                assert client.call("POST", INFER, broken).status == 400

        def as_text(number: int) -> None:
            assert json_only.call("POST", INFER, as_json).status == 200
            late = json_only.call("POST", f"/v2/models/none-{number}/infer", as_json)
            assert late.status == 404

        load.repeat(one_by_one, pause_s=0.001)
        for client in (large, other_large):
            load.repeat(partial(_infer_many, client), pause_s=0.002)
        load.repeat(briefly, pause_s=0.005)
        load.repeat(as_text, pause_s=0.005)
        load.repeat(partial(_scrape, scraper), pause_s=0.25)
        load.repeat(Swapper(admin, state, variants), pause_s=0.2)
        samples = load.watch(lambda: resident(runtime), SOAK_S)
        assert runtime.stop() == 0
        assert "traceback" not in runtime.log_text()
    quarter = len(samples) // 4
    early, late = (
        statistics.median(part) for part in (samples[quarter : 2 * quarter], samples[-quarter:])
    )
    print(  # noqa: T201 (a long soak says what it saw)
        f"{SOAK_S:g} s, {load.rounds} rounds: {early / _MEBIBYTE:.1f} MiB, then "
        f"{late / _MEBIBYTE:.1f} MiB"
    )
    assert load.rounds > SOAK_S * 50
    assert late - early < _ALLOWED_GROWTH


def _infer_many(client: RawClient, number: int) -> None:
    infer(client, batch(40 + number % 2))


def _scrape(client: RawClient, _: int) -> None:
    assert client.call("GET", "/metrics").status == 200
