"""A committed model that crashes the process that loads it."""

from pathlib import Path

import msgspec

from edge_agent import supervisor
from edge_agent.runtime_api import RuntimeStatus
from edge_agent.state_dir import StateDir
from tests.integration.runtime.reference_calls import golden, infer
from tests.integration.runtime.running_runtime import RunningRuntime, running
from tests.unit.edge_agent.inference.reference_release import commit, reference_release

CRASHING = """
import ctypes, os, signal
from pathlib import Path
from fleet_protocol.manifest import Format

class Backend:
    name = "crashing"
    formats = frozenset({Format.ONNX})
    accelerators = ("fuse",)

    def __init__(self, *, threads):
        pass

    def files(self):
        return [Path(__file__)]

    def version(self):
        return "1"

    def why_not(self, accelerator, hardware):
        return None

    def load(self, path, release):
        {fate}
"""
DIES = "os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory is short"
HANGS = (
    "ctypes.PyDLL(None).sleep(1000)  # a call that does not even leave the interpreter to others"
)


def crashing_backend(folder: Path, fate: str = DIES) -> dict[str, str]:
    """Install a distribution with the backend; return the environment that finds it."""
    info = folder / "crashing-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crashing\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[skerry.backends]\ncrashing = crashing:Backend\n")
    (folder / "crashing.py").write_text(CRASHING.replace("{fate}", fate))
    return {"PYTHONPATH": str(folder)}


def test_a_model_that_crashes_three_starts_is_left_out_of_the_fourth(
    state: StateDir, tmp_path: Path
) -> None:
    environment = crashing_backend(tmp_path / "site")
    good = reference_release(state)
    fatal = msgspec.structs.replace(good, family="fatal", accelerator="fuse")
    commit(state, fatal, good)
    for _ in range(3):
        crashes(state, environment)
    with running(state.root, **environment) as runtime:
        with runtime.ready().public() as client:
            infer(client, golden("fp32")[0][0])
            refused = client.call("POST", "/v2/models/fatal/infer", b"{}")
            assert refused.status == 503
            assert "crashed the runtime in 3 starts in a row" in refused.error
            ready = client.call("GET", "/v2/health/ready")
            assert (ready.status, "fatal" in ready.error) == (503, True)
        with runtime.surveyed().admin() as admin:
            status = msgspec.json.decode(
                admin.call("GET", "/admin/status").body, type=RuntimeStatus
            )
            assert "left out" in status.failed["fatal"]
            # Control asks for what is committed and not served; that must not be the next crash.
            asked = admin.call("POST", "/admin/releases", msgspec.json.encode(fatal))
            assert asked.status == 422
            assert "crashed the runtime" in asked.error
        assert runtime.process.poll() is None
    supervisor.forget_starts(state)
    crashes(state, environment)


def crashes(state: StateDir, environment: dict[str, str]) -> None:
    runtime = RunningRuntime(state, **{"SKERRY_AGENT_RUNTIME__PORT": "0", **environment})
    assert runtime.process.wait(60) < 0, runtime.log_text()


def test_a_load_that_hangs_is_ended_and_left_out_of_the_next_start(
    state: StateDir, tmp_path: Path
) -> None:
    environment = crashing_backend(tmp_path / "site", HANGS)
    good = reference_release(state)
    fatal = msgspec.structs.replace(good, family="fatal", accelerator="fuse")
    commit(state, fatal, good)
    crashes(state, {**environment, "SKERRY_AGENT_RUNTIME__LOAD_S": "1"})
    with running(state.root, **environment) as runtime, runtime.ready().public() as client:
        infer(client, golden("fp32")[0][0])
        refused = client.call("POST", "/v2/models/fatal/infer", b"{}")
        assert refused.status == 503
        assert "had not ended within runtime.load_s at a start" in refused.error
