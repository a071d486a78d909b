"""The trained models of MLPerf Tiny answer through the protocol as they do in bare LiteRT.

They lie in ``../shared/data`` where the project's shared data is laid out; elsewhere these tests
are skipped and say so.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edge_agent.inference.backends.arrays import DTYPES
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Format, TensorSpec
from tests.integration.runtime.running_runtime import RunningRuntime, running
from tests.unit.edge_agent.inference import v2_request
from tests.unit.edge_agent.inference.reference_release import commit

MODELS = Path(__file__).parents[4] / "shared" / "data" / "mlperf_tiny"
FILES = sorted(MODELS.glob("*.tflite"))
NAMES = [f"{task}_{kind}" for task in ("ad", "ic", "kws", "vww") for kind in ("fp32", "int8")]

pytestmark = pytest.mark.skipif(
    not FILES, reason=f"no MLPerf Tiny models in {MODELS}: the shared data is not laid out here"
)

DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}
CALLS = 8


def spec(name: str, details: dict[str, Any]) -> TensorSpec:
    shape = [int(size) for size in details["shape"]]
    return TensorSpec(name=name, datatype=DATATYPES[np.dtype(details["dtype"])], shape=shape)


def bare(path: Path) -> Interpreter:
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def release(state: StateDir, path: Path) -> ActiveRelease:
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    state.create()
    state.blob(sha256).write_bytes(content)
    interpreter = bare(path)
    return ActiveRelease(
        family=path.stem,
        version="1.0.0",
        variant=path.stem.rpartition("_")[2],
        format=Format.TFLITE,
        accelerator="cpu",
        sha256=sha256,
        inputs=[spec("x", found) for found in interpreter.get_input_details()],
        outputs=[spec("y", found) for found in interpreter.get_output_details()],
    )


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRuntime]:
    """A runtime that serves all eight."""
    root = tmp_path_factory.mktemp("tiny")
    state = StateDir(root)
    commit(state, *(release(state, path) for path in FILES))
    with running(root) as started:
        yield started.ready()


def an_input(found: TensorSpec, seed: int) -> NDArray[np.generic]:
    generator = np.random.default_rng(seed)
    dtype = DTYPES[found.datatype]
    if dtype.kind == "f":
        return generator.standard_normal(found.shape, dtype=np.float32)
    return generator.integers(0, 256, found.shape, dtype=np.uint8).view(dtype)


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_bit_equal_to_the_bare_interpreter(name: str, device: RunningRuntime) -> None:
    path = MODELS / f"{name}.tflite"
    interpreter = bare(path)
    (given,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    declared = spec("x", given)
    with device.public() as client:
        for seed in range(CALLS):
            values = an_input(declared, seed)
            tensor = Tensor(
                name="x",
                datatype=declared.datatype,
                shape=declared.shape,
                data=values.tobytes(),
            )
            body, header_length = v2_request.encode(
                [tensor], binary=[True], fields={"parameters": {"binary_data_output": True}}
            )
            answer = client.call(
                "POST", f"/v2/models/{name}/infer", body, header_length=header_length
            )
            assert answer.status == 200, answer.body
            raw = answer.body[int(answer.headers["inference-header-content-length"]) :]
            interpreter.set_tensor(given["index"], values)
            interpreter.invoke()
            assert raw == interpreter.get_tensor(gives["index"]).tobytes()


def test_the_log_stays_json(device: RunningRuntime) -> None:
    loaded = {event["family"] for event in device.events("release_loaded")}
    assert loaded == {path.stem for path in FILES}
