"""LiteRT on the CPU, with models that are written here."""

import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from edge_agent.hardware import Hardware
from edge_agent.inference.backends.edge_tpu import EdgeTpu
from edge_agent.inference.backends.litert_backend import LitertBackend, LitertModel
from edge_agent.inference.errors import BackendError, LoadError
from edge_agent.inference.probe import Prober
from edge_agent.inference.tensors import Tensor
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype, TensorSpec
from tests.unit.edge_agent.inference.tflite_files import blob, edge_tpu, relu, tflite_release

NO_DEVICES = Hardware(machine="x", cpu="x", cpu_count=1, cpu_features=[], devices=[])


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path)


@pytest.fixture
def backend() -> LitertBackend:
    return LitertBackend(threads=1, edge_tpu=EdgeTpu(library=None, prober=Prober(), beside=list))


def rows(*values: float, name: str = "x", width: int = 3) -> Tensor:
    return Tensor(
        name=name,
        datatype=Datatype.FP32,
        shape=[len(values) // width, width],
        data=struct.pack(f"<{len(values)}f", *values),
    )


def numbers(tensor: Tensor) -> list[float]:
    return list(struct.unpack(f"<{len(tensor.data) // 4}f", tensor.data))


def test_a_batch_of_any_size_is_answered(backend: LitertBackend, state: StateDir) -> None:
    release = tflite_release(state, relu(), shape=[-1, 3])
    model = backend.load(blob(state, release), release)
    assert model.max_concurrent_runs == 1
    for batch in ([1.0, -2, 3], [1.0, -1, 1] * 4, [-1.0, 0, 5], [2.0, -2, 2] * 2):
        (answer,) = model.run([rows(*batch)])
        assert (answer.name, answer.shape) == ("y", [len(batch) // 3, 3])
        assert numbers(answer) == [max(value, 0) for value in batch]
    model.close()


def test_answers_are_not_changed_by_later_calls(backend: LitertBackend, state: StateDir) -> None:
    release = tflite_release(state, relu(), shape=[-1, 3])
    model = backend.load(blob(state, release), release)
    (first,) = model.run([rows(1, 2, 3)])
    model.run([rows(7, 8, 9)])
    assert numbers(first) == [1, 2, 3]


def test_callers_in_several_threads_get_their_own_answers(
    backend: LitertBackend, state: StateDir
) -> None:
    release = tflite_release(state, relu(), shape=[-1, 3])
    model = backend.load(blob(state, release), release)
    start = threading.Barrier(4)

    def call(number: int) -> bool:
        start.wait(10)
        return all(
            numbers(model.run([rows(*[float(number)] * 3 * (1 + at % 2))])[0])
            == [float(number)] * 3 * (1 + at % 2)
            for at in range(50)
        )

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(call, range(4)))


@pytest.mark.parametrize(
    ("names", "signature"),
    [
        (("serving_default_x:0", "StatefulPartitionedCall:0"), False),
        (("features", "scores"), True),
        (("anything", "at all"), True),
    ],
)
def test_tensors_are_found_by_name_or_by_order(
    backend: LitertBackend, state: StateDir, names: tuple[str, str], *, signature: bool
) -> None:
    release = tflite_release(
        state, relu(signature=signature), shape=[-1, 3], input_name=names[0], output_name=names[1]
    )
    model = backend.load(blob(state, release), release)
    assert numbers(model.run([rows(-1, 2, 3, name=names[0])])[0]) == [0, 2, 3]


SPEC = TensorSpec(name="x", datatype=Datatype.FP32, shape=[1, 3])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"inputs": [SPEC, SPEC]}, "the release declares"),
        ({"inputs": [msgspec.structs.replace(SPEC, shape=[1, 4])]}, r"FP32\[1,3\]"),
        ({"inputs": [msgspec.structs.replace(SPEC, shape=[-1, 3])]}, "any size"),
        ({"inputs": [msgspec.structs.replace(SPEC, datatype=Datatype.INT8)]}, "INT8"),
        ({"outputs": [msgspec.structs.replace(SPEC, shape=[3])]}, "output 'x'"),
        ({"accelerator": "cuda"}, "LiteRT serves cpu and edgetpu"),
    ],
)
def test_a_model_must_be_what_the_release_says(
    backend: LitertBackend, state: StateDir, changes: dict[str, object], complaint: str
) -> None:
    release = msgspec.structs.replace(
        tflite_release(state, relu(free_batch=False), shape=[1, 3]), **changes
    )
    with pytest.raises(LoadError, match=complaint):
        backend.load(blob(state, release), release)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\0" * 1000, os.urandom(5000)])
def test_a_broken_file_is_refused(backend: LitertBackend, state: StateDir, content: bytes) -> None:
    release = tflite_release(state, content, shape=[1, 3])
    with pytest.raises(LoadError, match=r"LiteRT cannot load rows 1\.0\.0"):
        backend.load(blob(state, release), release)


def test_a_model_for_the_edge_tpu_is_refused_on_the_cpu(
    backend: LitertBackend, state: StateDir
) -> None:
    release = tflite_release(state, edge_tpu(), shape=[1, 3])
    with pytest.raises(LoadError, match="compiled for the Edge TPU and cannot run on cpu"):
        backend.load(blob(state, release), release)


def test_without_the_library_of_the_edge_tpu_its_models_are_refused(
    state: StateDir, tmp_path: Path
) -> None:
    absent = EdgeTpu(library=tmp_path / "none.so", prober=Prober(), beside=list)
    release = tflite_release(state, edge_tpu(), shape=[1, 3], accelerator="edgetpu")
    with pytest.raises(LoadError, match="install Google's libedgetpu1-std"):
        LitertBackend(threads=1, edge_tpu=absent).load(blob(state, release), release)


def test_a_model_that_fails_says_so_and_goes_on(backend: LitertBackend, state: StateDir) -> None:
    release = tflite_release(state, relu(), shape=[-1, 3])
    model = backend.load(blob(state, release), release)
    with pytest.raises(BackendError, match="LiteRT failed"):
        model.run([msgspec.structs.replace(rows(1, 2, 3), datatype=Datatype.INT32)])
    assert isinstance(model, LitertModel)
    assert numbers(model.run([rows(1, 2, 3)])[0]) == [1, 2, 3]


def test_nothing_of_the_library_reaches_standard_error(
    backend: LitertBackend, state: StateDir, capfd: pytest.CaptureFixture[str]
) -> None:
    release = tflite_release(state, relu(), shape=[-1, 3])
    backend.load(blob(state, release), release)
    assert capfd.readouterr().err == ""


def test_what_it_can_do_here(backend: LitertBackend) -> None:
    assert backend.version()
    assert backend.files()
    assert backend.why_not("cpu", NO_DEVICES) is None
    assert backend.why_not("edgetpu", NO_DEVICES) == "no Coral Edge TPU is connected"
