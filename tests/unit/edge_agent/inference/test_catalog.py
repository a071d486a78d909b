"""Which backend gets a release, those of other distributions included."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edge_agent.hardware import Device, DeviceKind, Hardware
from edge_agent.inference.backends import catalog
from edge_agent.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from edge_agent.inference.errors import LoadError
from edge_agent.inference.probe import Prober
from edge_agent.inference.survey import Survey, not_installed, with_used
from edge_agent.runtime_api import Placement
from fleet_protocol.manifest import Format

OTHERS = """
from pathlib import Path
from fleet_protocol.manifest import Format

class Backend:
    name = "abacus"
    formats = frozenset({Format.ONNX})
    accelerators = ("beads",)

    def __init__(self, *, threads):
        self.threads = threads

    def files(self):
        return [Path(__file__)]

    def version(self):
        return "7"

    def why_not(self, accelerator, hardware):
        return None
"""


@pytest.mark.parametrize(
    ("file_format", "accelerator", "name"),
    [
        (Format.ONNX, "cpu", "onnxruntime"),
        (Format.ONNX, "cuda", "onnxruntime"),
        (Format.ONNX, "openvino-cpu", "openvino"),
        (Format.TFLITE, "cpu", "litert"),
        (Format.TFLITE, "edgetpu", "litert"),
    ],
)
def test_the_backend_of_a_format_and_accelerator(
    file_format: Format, accelerator: str, name: str
) -> None:
    known = catalog.installed(threads=1)
    assert known.backend_for(file_format, accelerator).name == name
    assert known.backend_for(file_format, accelerator, name="openvino").name == "openvino"


def test_what_nothing_runs_is_refused_with_what_there_is() -> None:
    known = catalog.installed(threads=1)
    with pytest.raises(LoadError, match=r"no backend runs tflite files on .*cpu, edgetpu"):
        known.backend_for(Format.TFLITE, "cuda")
    with pytest.raises(LoadError, match="no backend 'abacus' here"):
        known.named("abacus")
    with pytest.raises(LoadError, match="no backend for tflite files"):
        catalog.Catalog([OnnxRuntimeBackend(threads=1)]).backend_for(Format.TFLITE)


def distribution(folder: Path, target: str) -> None:
    """Install a distribution with a backend into a folder, as pip leaves it."""
    info = folder / "abacus-7.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abacus\nVersion: 7\n")
    (info / "entry_points.txt").write_text(f"[skerry.backends]\nabacus = {target}\n")
    (folder / "abacus_backend.py").write_text(OTHERS)


def program(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_a_backend_of_another_distribution_is_found_and_surveyed(tmp_path: Path) -> None:
    distribution(tmp_path, "abacus_backend:Backend")
    done = program(
        tmp_path,
        """
        import json
        from edge_agent.inference.backends import catalog
        from edge_agent.inference.probe import Prober
        from edge_agent.inference.survey import Survey
        from fleet_protocol.manifest import Format
        known = catalog.installed(threads=3)
        backend = known.backend_for(Format.ONNX, "beads")
        found = Survey(backends=[backend], prober=Prober()).placements()
        print(json.dumps([backend.threads, [(p.backend, p.version, p.problem) for p in found]]))
        """,
    )
    assert json.loads(done.stdout) == [3, [["abacus", "7", ""]]]


def test_a_backend_of_another_distribution_that_is_broken_harms_nobody(tmp_path: Path) -> None:
    distribution(tmp_path, "abacus_backend:Missing")
    done = program(
        tmp_path,
        """
        from edge_agent.inference.backends import catalog
        print([backend.name for backend in catalog.installed(threads=1).backends])
        """,
    )
    assert done.stdout.strip() == "['onnxruntime', 'litert', 'openvino']"
    assert "backend_not_loaded" in done.stderr


def gpu(problem: str = "") -> Hardware:
    device = Device(kind=DeviceKind.NVIDIA_GPU, name="gpu", where="/dev/nvidia0", problem=problem)
    return Hardware(machine="x", cpu="x", cpu_count=1, cpu_features=[], devices=[device])


def test_onnx_runtime_without_a_provider_says_what_to_install() -> None:
    backend = OnnxRuntimeBackend(threads=1)
    assert "no CUDAExecutionProvider" in (backend.why_not("cuda", gpu()) or "")
    assert "onnxruntime-gpu instead of onnxruntime" in (backend.why_not("tensorrt", gpu()) or "")
    assert backend.why_not("cuda", gpu("no driver")) == "no driver"


class Library:
    """What of onnxruntime decides where a session runs: onnxruntime-gpu on a box without a GPU."""

    class SessionOptions:
        """Keeps what it is told."""

        def __init__(self) -> None:
            self.entries: dict[str, str] = {}

        def add_session_config_entry(self, name: str, value: str) -> None:
            self.entries[name] = value

    class InferenceSession:
        """Takes every provider and uses the CPU."""

        def __init__(self, model: object, options: object, providers: list[str]) -> None:
            assert model
            assert providers
            assert isinstance(options, Library.SessionOptions)
            assert options.entries["session.disable_cpu_ep_fallback"] == "1"

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    @staticmethod
    def get_available_providers() -> list[str]:
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    @staticmethod
    def set_default_logger_severity(severity: int) -> None:
        assert severity


def test_a_session_that_fell_back_to_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", Library)
    backend = OnnxRuntimeBackend(threads=1)
    for accelerator in ("cuda", "tensorrt"):
        reason = backend.why_not(accelerator, gpu())
        assert "would run it on CPUExecutionProvider instead of" in (reason or "")


def test_the_survey_of_this_machine(tmp_path: Path) -> None:
    known = catalog.installed(threads=1)
    survey = Survey(backends=known.backends, prober=Prober(tmp_path / "probes.json"))
    found = {(place.backend, place.accelerator): place for place in survey.placements()}
    assert not found["onnxruntime", "cpu"].problem
    assert found["litert", "edgetpu"].problem
    assert (tmp_path / "probes.json").stat().st_mode & 0o777 == 0o600


def test_what_is_in_use_is_usable_whatever_a_child_found_out() -> None:
    busy = Placement(
        backend="litert", version="", format=Format.TFLITE, accelerator="edgetpu", problem="busy"
    )
    cpu = Placement(backend="litert", version="2", format=Format.TFLITE, accelerator="cpu")
    (tpu, _) = with_used([busy, cpu], {("litert", "edgetpu")})
    assert (tpu.problem, tpu.version) == ("", "2")
    assert with_used([busy, cpu], set()) == [busy, cpu]


def test_a_library_that_is_not_installed_is_not_asked() -> None:
    class Absent(OnnxRuntimeBackend):
        def files(self) -> list[Path]:
            return []

    places = Survey(backends=[Absent(threads=1)], prober=Prober()).placements()
    assert {place.problem for place in places} == {
        "onnxruntime is not installed: pip install 'skerry[onnx]'"
    }


def test_no_extra_of_ours_is_named_for_a_backend_of_others() -> None:
    assert "skerry[litert]" in not_installed("litert")
    assert "skerry[" not in not_installed("abacus")


def test_the_hardware_is_looked_at_every_few_seconds() -> None:
    now_s, here = 100.0, gpu()
    looks: list[Hardware] = []

    class Absent(OnnxRuntimeBackend):
        def files(self) -> list[Path]:
            asked.append(looks[-1])
            return []

    def look() -> Hardware:
        looks.append(here)
        return here

    asked: list[Hardware] = []
    survey = Survey(backends=[Absent(threads=1)], prober=Prober(), look=look, clock=lambda: now_s)
    for now_s, here, looked in (  # noqa: B007 (the closures read them)
        (100.0, gpu(), 1), (104.9, gpu("gone"), 1), (105.0, gpu("gone"), 2), (109.0, gpu(), 2),
    ):  # fmt: skip
        survey.placements()
        assert len(looks) == looked
    assert asked == [gpu(), gpu("gone")]
