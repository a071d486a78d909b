"""The data plane: what is served, how it switches, what is counted."""

import asyncio
import os
import struct
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest

from edge_agent import counters
from edge_agent.hardware import Hardware
from edge_agent.inference.backends.catalog import Catalog
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.errors import (
    BackendError,
    ConflictError,
    LoadError,
    RequestError,
    UnavailableError,
    UnknownModelError,
)
from edge_agent.inference.inference_request import InferenceRequest
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.tensors import Tensor
from edge_agent.inference.warm_up import WarmUp
from edge_agent.runtime_api import ActiveRelease
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype, Format, TensorSpec
from fleet_protocol.messages import ErrorKind

_WARM_UP_CALLS = 5


class GatedModel:
    """Gives each item's class as ``scores``; a batch of two waits at the gate, -1 fails."""

    max_concurrent_runs = None

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate
        self.calls = 0
        self.closed = False
        self.entered = threading.Event()

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        self.calls += 1
        assert not self.closed
        items = struct.unpack(f"<{inputs[0].shape[0]}f", inputs[0].data)
        if len(items) == 2:
            self.entered.set()
            self.gate.wait(30)
        if -1.0 in items:
            raise BackendError("the model broke")
        rows = [[float(index == item) for index in range(3)] for item in items]
        data = b"".join(struct.pack("<3f", *row) for row in rows)
        return [Tensor(name="scores", datatype=Datatype.FP32, shape=[len(items), 3], data=data)]

    def close(self) -> None:
        self.closed = True


class GatedBackend:
    """A backend whose files are empty and whose models wait when they are told to."""

    name = "gated"
    formats = frozenset({Format.ONNX})
    accelerators = ("cpu",)

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.models: list[GatedModel] = []

    def files(self) -> list[Path]:
        return [Path(__file__)]

    def version(self) -> str:
        return "1"

    def why_not(self, accelerator: str, hardware: Hardware) -> str | None:  # noqa: ARG002 (it always can)
        return None

    def load(self, path: Path, release: ActiveRelease) -> GatedModel:
        if path.read_bytes():
            raise LoadError(f"{release.family} is broken")
        self.models.append(GatedModel(self.gate))
        return self.models[-1]


def release(version: str = "1.0.0", *, sha256: str = "0" * 64, **changes: object) -> ActiveRelease:
    made = ActiveRelease(
        family="m",
        version=version,
        variant="v",
        format=Format.ONNX,
        accelerator="cpu",
        sha256=sha256,
        inputs=[TensorSpec(name="x", datatype=Datatype.FP32, shape=[-1])],
        outputs=[
            TensorSpec(name="scores", datatype=Datatype.FP32, shape=[-1, 3], labels=["a", "b", "c"])
        ],
    )
    return msgspec.structs.replace(made, **changes)


def request(*items: float, outputs: dict[str, bool] | None = None) -> InferenceRequest:
    data = struct.pack(f"<{len(items)}f", *items)
    tensor = Tensor(name="x", datatype=Datatype.FP32, shape=[len(items)], data=data)
    return InferenceRequest(id="", inputs=[tensor], outputs=outputs, binary_output=False)


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    made = StateDir(tmp_path)
    made.create()
    made.blob("0" * 64).touch()
    made.blob("1" * 64).write_bytes(b"broken")
    return made


@pytest.fixture
def backend() -> GatedBackend:
    return GatedBackend()


@pytest.fixture
async def plane(state: StateDir, backend: GatedBackend) -> AsyncIterator[DataPlane]:
    made = DataPlane(
        loader=ReleaseLoader(
            state=state,
            epoch="e1",
            catalog=Catalog([backend]),
            clock=time.perf_counter,
        ),
        clock=time.perf_counter,
        workers=2,
    )
    yield made
    backend.gate.set()
    assert await made.close(10)


async def infer(
    plane: DataPlane, served: ServedRelease, *items: float, counted: bool = True
) -> list[float]:
    """Call a release as the protocols do, always in a thread."""
    call = plane.begin(served, started=time.perf_counter(), counted=counted)
    with call:
        (output,) = await plane.run_in_thread(call, served.feed(request(*items)))
    return list(struct.unpack(f"<{len(items) * 3}f", output.data))


async def serve(plane: DataPlane, version: str = "1.0.0") -> ServedRelease:
    await plane.load(release(version))
    plane.activate("m", version)
    return plane.active("m")


async def test_only_the_active_release_is_found(plane: DataPlane) -> None:
    with pytest.raises(UnknownModelError, match="this device serves: no model yet"):
        plane.active("m")
    loaded = await plane.load(release())
    assert not loaded.active
    with pytest.raises(UnknownModelError):
        plane.active("m")
    assert plane.activate("m", "1.0.0").active
    assert plane.active("m", "1.0.0") is plane.active("m") is plane.held("m", "1.0.0")
    await plane.load(release("2.0.0"))
    with pytest.raises(UnknownModelError, match=r"active is 1\.0\.0"):
        plane.active("m", "2.0.0")
    assert plane.held("m", "2.0.0").release.version == "2.0.0"
    plane.activate("m", "2.0.0")
    assert plane.versions("m") == ["2.0.0", "1.0.0"]
    with pytest.raises(UnknownModelError, match="not loaded"):
        plane.activate("m", "3.0.0")
    assert plane.active("m").release.version == "2.0.0"


async def test_loading_is_idempotent_and_warms_up(plane: DataPlane, backend: GatedBackend) -> None:
    first, second = await asyncio.gather(plane.load(release()), plane.load(release()))
    assert first == second
    assert [model.calls for model in backend.models] == [_WARM_UP_CALLS]
    with pytest.raises(ConflictError, match="another variant or file"):
        await plane.load(release(variant="w"))


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (release(sha256="2" * 64), "not among the blobs"),
        (release(sha256="1" * 64), "m is broken"),
        (release(format=Format.TFLITE), "no backend for tflite files; it serves onnx"),
        (
            release(outputs=[TensorSpec(name="scores", datatype=Datatype.FP32, shape=[-1, 4])]),
            r"comes as FP32\[1,3\], the release declares FP32\[-1,4\]",
        ),
        (
            release(
                outputs=[
                    TensorSpec(
                        name="scores",
                        datatype=Datatype.FP32,
                        shape=[-1, 3],
                        labels=["l" * 200] * 1000,
                    )
                ]
            ),
            "cannot count",
        ),
    ],
)
async def test_what_cannot_be_loaded_changes_nothing(
    plane: DataPlane, state: StateDir, backend: GatedBackend, broken: ActiveRelease, complaint: str
) -> None:
    with pytest.raises(LoadError, match=complaint):
        await plane.load(broken)
    assert (await plane.status()).releases == []
    assert list(state.run.glob("counters-*")) == []
    assert all(model.closed for model in backend.models)
    await plane.load(release())


async def test_calls_in_flight_finish_on_the_release_that_they_began_on(
    plane: DataPlane, backend: GatedBackend, state: StateDir
) -> None:
    old = await serve(plane)
    in_flight = asyncio.create_task(infer(plane, old, 0.0, 1.0))
    await asyncio.to_thread(backend.models[0].entered.wait, 10)
    new = await serve(plane, "2.0.0")
    assert plane.active("m") is new
    unload = asyncio.create_task(plane.unload("m", "1.0.0"))
    assert await infer(plane, plane.active("m"), 2.0) == [0.0, 0.0, 1.0]
    assert not unload.done()
    with pytest.raises(UnknownModelError):
        plane.held("m", "1.0.0")
    assert not backend.models[0].closed
    backend.gate.set()
    assert await in_flight == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert await unload == 1
    assert [model.closed for model in backend.models] == [True, False]
    counted = counters.read(state.run / "counters-e1-1.bin")
    assert (counted.closed, counted.requests, counted.classes) == (
        True,
        1,
        {"a": 1, "b": 1, "c": 0},
    )


async def test_an_unload_waits_only_so_long(plane: DataPlane, backend: GatedBackend) -> None:
    old = await serve(plane)
    in_flight = asyncio.create_task(infer(plane, old, 0.0, 1.0))
    await asyncio.to_thread(backend.models[0].entered.wait, 10)
    with pytest.raises(UnavailableError, match=r"1 calls still run on m 1\.0\.0"):
        await plane.unload_family("m", timeout_s=0.01)
    again = await serve(plane)
    assert again is not old
    backend.gate.set()
    await in_flight
    assert await plane.unload_family("m") == 1


async def test_closing_gives_up_on_a_model_that_does_not_come_back(
    plane: DataPlane, backend: GatedBackend
) -> None:
    in_flight = asyncio.create_task(infer(plane, await serve(plane), 0.0, 1.0))
    await asyncio.to_thread(backend.models[0].entered.wait, 10)
    assert not await plane.close(0.01)
    # It takes no further call, and nobody frees what a thread still computes with.
    with pytest.raises(UnknownModelError):
        plane.active("m")
    assert not plane.ready
    assert not backend.models[0].closed
    backend.gate.set()
    assert len(await in_flight) == 6
    assert await plane.close(10)
    assert backend.models[0].closed


async def test_unloading(plane: DataPlane) -> None:
    assert await plane.unload("m", "1.0.0") == 0
    assert await plane.unload_family("m") == 0
    await serve(plane)
    with pytest.raises(ConflictError, match=r"m 1\.0\.0 is active"):
        await plane.unload("m", "1.0.0")
    await serve(plane, "2.0.0")
    assert await plane.unload("m", "1.0.0") == 1
    await plane.load(release("3.0.0"))
    assert await plane.unload_family("m") == 2
    with pytest.raises(UnknownModelError):
        plane.active("m")


async def test_each_call_is_counted_once_as_it_ended(
    plane: DataPlane, backend: GatedBackend, state: StateDir
) -> None:
    backend.gate.set()
    served = await serve(plane)
    await infer(plane, served, 0.0)
    await infer(plane, served, 2.0, 1.0, 2.0)
    await infer(plane, served, 1.0, counted=False)
    with pytest.raises(BackendError):
        await infer(plane, served, -1.0)
    with pytest.raises(BackendError):
        await infer(plane, served, -1.0, counted=False)
    with pytest.raises(RequestError):
        await infer(plane, served)
    counted = counters.read(state.run / "counters-e1-1.bin")
    assert counted.requests == 4
    assert counted.errors == {
        ErrorKind.BAD_REQUEST: 1,
        ErrorKind.BACKEND: 1,
        ErrorKind.REFUSED: 0,
    }
    assert counted.latency_us.count == 2
    assert counted.classes == {"a": 1, "b": 1, "c": 2}
    assert (counted.label.family, counted.label.version, counted.label.variant) == (
        "m",
        "1.0.0",
        "v",
    )
    assert served.in_flight == 0


def tensor(**changes: object) -> Tensor:
    made = Tensor(name="x", datatype=Datatype.FP32, shape=[1], data=bytes(4))
    return msgspec.structs.replace(made, **changes)


@pytest.mark.parametrize(
    ("inputs", "outputs", "complaint"),
    [
        ([], None, r"takes the inputs \['x'\], the request has \[\]"),
        ([tensor(name="y")], None, r"the request has \['y'\]"),
        ([tensor(), tensor(name="y")], None, r"the request has \['x', 'y'\]"),
        ([tensor(datatype=Datatype.INT32)], None, r"is INT32\[1\], the model takes FP32\[-1\]"),
        ([tensor(shape=[1, 1])], None, r"is FP32\[1,1\], the model takes"),
        ([tensor(shape=[0], data=b"")], None, "is empty"),
        ([tensor()], {"label": True}, r"gives the outputs \['scores'\], the request asks for"),
    ],
)
async def test_requests_are_held_against_the_release(
    plane: DataPlane, inputs: list[Tensor], outputs: dict[str, bool] | None, complaint: str
) -> None:
    served = await serve(plane)
    with pytest.raises(RequestError, match=complaint):
        served.feed(InferenceRequest(id="", inputs=inputs, outputs=outputs, binary_output=False))


async def test_inputs_agree_about_the_batch(plane: DataPlane) -> None:
    specs = [
        TensorSpec(name="y", datatype=Datatype.UINT8, shape=[-1, 2]),
        TensorSpec(name="x", datatype=Datatype.FP32, shape=[-1]),
    ]
    await plane.load(release())
    served = ServedRelease(
        release=release(inputs=specs),
        backend_name="gated",
        model=plane.held("m", "1.0.0").model,
        counters=plane.held("m", "1.0.0").counters,
        warmed=WarmUp(fastest_s=0.0, inline_bytes=0),
    )
    x = tensor(shape=[2], data=bytes(8))
    y = Tensor(name="y", datatype=Datatype.UINT8, shape=[2, 2], data=bytes(4))
    good = InferenceRequest(id="", inputs=[x, y], outputs=None, binary_output=False)
    assert [given.name for given in served.feed(good)] == ["y", "x"]
    with pytest.raises(RequestError, match="disagree about the batch"):
        served.feed(
            InferenceRequest(id="", inputs=[tensor(), y], outputs=None, binary_output=False)
        )


async def test_status_tells_the_truth(plane: DataPlane) -> None:
    await serve(plane)
    await plane.load(release("2.0.0"))
    plane.failed["other"] = "broken"
    status = await plane.status()
    assert [(r.version, r.active, r.backend) for r in status.releases] == [
        ("1.0.0", True, "gated"),
        ("2.0.0", False, "gated"),
    ]
    assert (status.epoch, status.backends, status.failed) == (
        "e1",
        {"gated": "1"},
        {"other": "broken"},
    )
    assert status.resident_bytes > 1024 * 1024
    assert not plane.ready
    with pytest.raises(UnavailableError, match="could not be loaded: broken"):
        plane.active("other")
    await plane.unload_family("other")
    assert plane.ready


async def test_a_full_disk_takes_the_telemetry_and_not_the_answers(
    plane: DataPlane,
    state: StateDir,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(_descriptor: int, _offset: int, _length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    await plane.load(release())
    plane.activate("m", "1.0.0")
    for _ in range(3):
        assert await infer(plane, plane.active("m"), 1.0) == [0.0, 1.0, 0.0]
    assert list(state.run.glob("counters-*")) == []
    assert [record.message for record in caplog.records] == ["calls_not_reported"]
