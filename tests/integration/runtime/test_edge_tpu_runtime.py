"""The runtime with a library for the Edge TPU that works, and with one that crashes."""

import shutil
import struct
from pathlib import Path

import msgspec
import pytest

from edge_agent.control.runtime_client import AdminSocket, RuntimeRefusedError
from edge_agent.inference.tensors import Tensor
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype
from tests.integration.runtime.running_runtime import running
from tests.unit.edge_agent.inference import v2_request
from tests.unit.edge_agent.inference.reference_release import commit, reference_release
from tests.unit.edge_agent.inference.test_edge_tpu import compiled
from tests.unit.edge_agent.inference.tflite_files import edge_tpu, tflite_release

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def test_a_committed_model_answers_from_the_edge_tpu(tmp_path: Path, state: StateDir) -> None:
    commit(state, tflite_release(state, edge_tpu(), shape=[1, 3], accelerator="edgetpu"))
    library = str(compiled(tmp_path))
    tensor = Tensor(
        name="x", datatype=Datatype.FP32, shape=[1, 3], data=struct.pack("<3f", 1, 2, 3)
    )
    body, header_length = v2_request.encode([tensor], binary=[True])
    with running(state.root, SKERRY_AGENT_RUNTIME__EDGETPU_LIBRARY=library) as device:
        device.surveyed()
        with device.public() as client:
            answer = client.call("POST", "/v2/models/rows/infer", body, header_length=header_length)
        assert answer.status == 200, answer.body
        (output,) = msgspec.convert(answer.json["outputs"], list[dict[str, object]])
        assert output["data"] == [2, 4, 6]
        status = AdminSocket(state.admin_socket).status()
        assert [(found.backend, found.accelerator) for found in status.releases] == [
            ("litert", "edgetpu")
        ]
        assert not device.events("library_output")


def test_a_library_that_crashes_leaves_the_runtime_alive(tmp_path: Path, state: StateDir) -> None:
    commit(state, reference_release(state))
    library = str(compiled(tmp_path, "-DCRASH_ON_LOAD"))
    release = tflite_release(state, edge_tpu(), shape=[1, 3], accelerator="edgetpu")
    with running(state.root, SKERRY_AGENT_RUNTIME__EDGETPU_LIBRARY=library) as device:
        device.surveyed()
        runtime = AdminSocket(state.admin_socket)
        before = runtime.status()
        (place,) = [found for found in before.placements if found.accelerator == "edgetpu"]
        assert "died of SIGSEGV" in place.problem
        with pytest.raises(RuntimeRefusedError, match="died of SIGSEGV"):
            runtime.load(release)
        after = runtime.status()
        assert (after.epoch, len(after.releases)) == (before.epoch, 1)
