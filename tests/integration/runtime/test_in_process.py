"""The runtime inside the caller's process: the same answers, refusals and swaps, and no socket."""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent import InProcessRuntime
from edge_agent.inference import in_process
from edge_agent.inference.backends import catalog
from edge_agent.inference.backends.catalog import Catalog
from edge_agent.inference.errors import (
    DeadlineError,
    InferenceError,
    RequestError,
    UnavailableError,
    UnknownModelError,
)
from edge_agent.settings import RuntimeSettings
from edge_agent.state_dir import StateDir, StateDirError
from fleet_protocol.manifest import Datatype
from tests.integration.runtime.reference_calls import golden
from tests.simulators.onnx_files import identity_release
from tests.unit.edge_agent.inference.gated_backend import GatedBackend, gated_release
from tests.unit.edge_agent.inference.reference_release import FAMILY, commit, reference_release

ECHOES = {
    Datatype.FP16: np.array([[1.5, -2.0, 0.0, 65504.0]], np.float16),
    Datatype.BOOL: np.array([[True, False, False, True]]),
    Datatype.BYTES: np.array([["a", "", "é", "long text"]], dtype=object),
    Datatype.INT8: np.array([[-128, 0, 1, 127]], np.int8),
}


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> StateDir:
    state = StateDir(tmp_path_factory.mktemp("in_process"))
    commit(
        state,
        reference_release(state),
        *(identity_release(state, f"echo_{each.lower()}", each, [-1, 4]) for each in ECHOES),
    )
    return state


@pytest.fixture(scope="module")
def runtime(device: StateDir) -> Iterator[InProcessRuntime]:
    with InProcessRuntime(device.root, runtime=RuntimeSettings()) as made:
        assert made.ready
        yield made


def image() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.frombuffer(golden("fp32")[0][0].data, np.float32).reshape(1, 1, 28, 28)


def test_it_answers_as_the_protocol_does(runtime: InProcessRuntime, device: StateDir) -> None:
    _, expected = golden("fp32")[0]
    found = runtime.infer(FAMILY, {"image": image()}, version="1.0.0", outputs=["logits"])
    assert found["logits"].shape == (1, 10)
    assert found["logits"].ravel() == pytest.approx(expected, abs=1e-3)
    with pytest.raises(ValueError, match="read-only"):
        found["logits"][0] = 0
    assert runtime.models == [*sorted(f"echo_{each.lower()}" for each in ECHOES), FAMILY]
    assert runtime.metadata(FAMILY).parameters["variant"] == "fp32"
    assert not list(device.run.glob("*.sock"))
    assert not list(device.run.glob("counters-*"))


@pytest.mark.parametrize("datatype", ECHOES)
def test_datatypes_come_back_as_they_went(runtime: InProcessRuntime, datatype: Datatype) -> None:
    sent = ECHOES[datatype]
    for array in (sent, np.vstack([sent, sent])[::-1]):
        (found,) = runtime.infer(f"echo_{datatype.lower()}", {"x": array}).values()
        assert found.dtype == sent.dtype
        assert np.array_equal(found, array)


@pytest.mark.parametrize(
    ("given", "options", "error", "complaint"),
    [
        (("other", {"image": image()}), {}, UnknownModelError, "no model 'other' here"),
        ((FAMILY, {"image": image()}), {"version": "9.0.0"}, UnknownModelError, "active is 1.0.0"),
        ((FAMILY, {"picture": image()}), {}, RequestError, "takes the inputs"),
        ((FAMILY, {"image": image().astype(np.float64)}), {}, RequestError, "is FP64"),
        ((FAMILY, {"image": image()[0]}), {}, RequestError, r"is FP32\[1,28,28\]"),
        ((FAMILY, {"image": image().astype(complex)}), {}, RequestError, "array of complex128"),
        ((FAMILY, {"image": image()}), {"outputs": ["q"]}, RequestError, "asks for"),
        ((FAMILY, {"image": image()}), {"timeout_s": 1e-6}, DeadlineError, "would answer in about"),
        ((FAMILY, {"image": image()}), {"timeout_s": -1.0}, RequestError, "timeout_s is -1.0"),
        (("echo_bytes", {"x": np.array([[1, 2, 3, None]], object)}), {}, RequestError, "strings"),
        (("echo_bytes", {"x": np.array([["\ud800"] * 4])}), {}, RequestError, "is not UTF-8"),
    ],
)
def test_refusals(
    runtime: InProcessRuntime,
    given: tuple[str, dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]],
    options: dict[str, object],
    error: type[InferenceError],
    complaint: str,
) -> None:
    with pytest.raises(error, match=complaint):
        runtime.infer(*given, **options)  # type: ignore[arg-type] # a table's values


def test_a_new_release_is_served_without_a_dropped_call(device: StateDir) -> None:
    state = device
    with InProcessRuntime(str(state.root), runtime=RuntimeSettings()) as runtime:

        def call(_: int) -> int:
            return len(runtime.infer(FAMILY, {"image": image()})["logits"])

        with ThreadPoolExecutor(4) as threads:
            calls = threads.map(call, range(400))
            commit(state, reference_release(state, version="2.0.0", precision="int8"))
            runtime.refresh()
            assert sum(calls) == 400
        assert runtime.models == [FAMILY]
        assert runtime.metadata(FAMILY).versions == ["2.0.0"]
        broken = msgspec.structs.replace(reference_release(state), version="3.0.0", sha256="0" * 64)
        commit(state, broken)
        with pytest.raises(InferenceError, match="not among the blobs"):
            runtime.refresh()
        assert runtime.metadata(FAMILY).versions == ["2.0.0"]
    runtime.close()
    with pytest.raises(UnavailableError, match="has been closed"):
        runtime.infer(FAMILY, {"image": image()})


def test_calls_beside_a_close_are_answered_or_told_so(device: StateDir) -> None:
    commit(device, reference_release(device))
    runtime = InProcessRuntime(device.root, runtime=RuntimeSettings())
    started = threading.Barrier(6)

    def call_until_closed(_: int) -> str:
        started.wait(10)
        while True:
            try:
                runtime.infer(FAMILY, {"image": image()})
            except UnavailableError as error:
                return str(error)

    def close(_: int) -> str:
        started.wait(10)
        runtime.close()
        return "closed"

    with ThreadPoolExecutor(6) as threads:
        callers = threads.map(call_until_closed, range(4))
        closers = threads.map(close, range(2))
        assert list(closers) == ["closed"] * 2
        assert set(callers) == {"this runtime has been closed"}


def test_closing_gives_up_on_a_model_that_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = GatedBackend(max_concurrent_runs=1)
    monkeypatch.setattr(catalog, "installed", lambda **_: Catalog([backend]))
    monkeypatch.setattr(in_process, "_STOP_S", 0.1)
    state = StateDir(tmp_path)
    commit(state, gated_release())
    state.blob("0" * 64).touch()
    runtime = InProcessRuntime(state.root, runtime=RuntimeSettings())
    large = np.ones(200_000, np.float32)  # too large to run on the loop
    backend.shut()
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(runtime.infer, "m", {"x": large})]
        backend.wait_for_runs(1)
        calls.append(threads.submit(runtime.infer, "m", {"x": large}))
        runtime.close()
        for call in calls:
            with pytest.raises(UnavailableError, match="closed"):
                call.result(30)
    # Nobody frees what a thread still computes with.
    assert [model.closed for model in backend.models] == [False]
    assert len(backend.runs) == 1
    backend.let_pass()


def test_a_release_that_cannot_be_loaded_keeps_no_other_from_its_place(device: StateDir) -> None:
    plain = identity_release(device, "plain", Datatype.FP32, [-1, 4])
    gone = msgspec.structs.replace(plain, family="gone", sha256="0" * 64)
    commit(device, plain, reference_release(device))
    with InProcessRuntime(device.root, runtime=RuntimeSettings()) as runtime:
        commit(device, gone, plain)
        with pytest.raises(InferenceError, match="not among the blobs"):
            runtime.refresh()
        assert (runtime.models, runtime.ready) == (["plain"], False)
        with pytest.raises(UnavailableError, match="not among the blobs"):
            runtime.infer("gone", {})
        commit(device, plain)
        runtime.refresh()
        assert runtime.ready
    device.active_set.write_text("broken")
    with InProcessRuntime(device.root, runtime=RuntimeSettings()) as runtime:
        assert not runtime.ready
        commit(device)
        runtime.refresh()
        assert runtime.ready


def test_a_refresh_wakes_nobody(device: StateDir, caplog: pytest.LogCaptureFixture) -> None:
    releases = [
        msgspec.structs.replace(
            identity_release(device, family, Datatype.FP32, [-1, 4]), memory_bytes=3 << 20
        )
        for family in ("one", "two")
    ]
    commit(device, *releases)
    settings = RuntimeSettings(evict_idle=True, memory_budget_bytes=4 << 20)
    caplog.set_level(logging.INFO)
    with InProcessRuntime(device.root, runtime=settings) as runtime:
        assert "release_asleep" in caplog.messages
        caplog.clear()
        runtime.refresh()
        assert runtime.models == ["one", "two"]
        assert "release_loaded" not in caplog.messages


def test_a_process_that_was_forked_is_told_so(runtime: InProcessRuntime) -> None:
    def ask() -> str:
        try:
            runtime.infer(FAMILY, {"image": image()})
        except UnavailableError as error:
            runtime.close()
            return str(error)
        return "answered"

    reader, writer = os.pipe()
    if not (child := os.fork()):
        signal.alarm(10)
        os.write(writer, ask().encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert b"make one here, after the fork" in os.read(reader, 1000)
    assert runtime.ready


def test_a_misspelt_directory_is_an_error(device: StateDir) -> None:
    with pytest.raises(StateDirError, match="there is no state directory"):
        InProcessRuntime(device.root / "misspelt")


def test_the_agents_package_loads_without_numpy() -> None:
    program = (
        "import sys, edge_agent; assert 'numpy' not in sys.modules; "
        "from edge_agent import InProcessRuntime; assert 'numpy' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
