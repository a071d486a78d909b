"""The Edge TPU's path: a delegate library that is compiled here stands in for libedgetpu."""

import gc
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from edge_agent.hardware import Device, DeviceKind, Hardware
from edge_agent.inference.backends.edge_tpu import EdgeTpu
from edge_agent.inference.backends.litert_backend import LitertBackend
from edge_agent.inference.errors import LoadError
from edge_agent.inference.probe import Prober
from edge_agent.inference.survey import Survey
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import Placement
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype
from tests.unit.edge_agent.inference.tflite_files import blob, edge_tpu, tflite_release

SOURCE = Path(__file__).with_name("doubling_delegate.c")

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def compiled(folder: Path, *flags: str) -> Path:
    library = folder / f"lib{'-'.join(['delegate', *flags])}.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", *flags, "-o", library, SOURCE],  # noqa: S607 (the compiler of the path)
        check=True,
        timeout=60,
    )
    return library


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("delegate"))


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("crashing"), "-DCRASH_ON_LOAD")


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "d")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


def backend(library: Path, *, cache: Path | None = None, **options: str) -> LitertBackend:
    return LitertBackend(
        threads=1,
        edge_tpu=EdgeTpu(library=library, prober=Prober(cache), beside=list, options=options),
    )


def test_a_model_for_the_edge_tpu_runs_on_its_delegate(
    library: Path, state: StateDir, trace: Path
) -> None:
    release = tflite_release(state, edge_tpu(), shape=[1, 3], accelerator="edgetpu")
    model = backend(library, trace=str(trace)).load(blob(state, release), release)
    data = struct.pack("<3f", 1, -2, 3)
    (answer,) = model.run([Tensor(name="x", datatype=Datatype.FP32, shape=[1, 3], data=data)])
    assert struct.unpack("<3f", answer.data) == (2, -4, 6)
    # The child made and destroyed one, this process has one.
    assert trace.read_text().split() == ["create", "prepare", "destroy", "create", "prepare"]
    model.close()
    del model
    gc.collect()
    assert trace.read_text().split()[-1] == "destroy"


def test_a_library_that_has_proven_itself_is_not_tried_in_a_child_again(
    library: Path, state: StateDir, trace: Path, tmp_path: Path
) -> None:
    release = tflite_release(state, edge_tpu(), shape=[1, 3], accelerator="edgetpu")
    for _ in range(2):
        again = backend(library, cache=tmp_path / "probes.json", trace=str(trace))
        again.load(blob(state, release), release).close()
    gc.collect()
    assert trace.read_text().split().count("create") == 3
    os.utime(library)
    again = backend(library, cache=tmp_path / "probes.json", trace=str(trace))
    again.load(blob(state, release), release).close()
    assert trace.read_text().split().count("create") == 5


def test_a_library_that_crashes_takes_only_the_child_with_it(
    crashing: Path, state: StateDir
) -> None:
    release = tflite_release(state, edge_tpu(), shape=[1, 3], accelerator="edgetpu")
    with pytest.raises(LoadError, match=r"died of SIGSEGV.*made for another version of LiteRT"):
        backend(crashing).load(blob(state, release), release)


def test_what_the_library_reports_is_said(library: Path, state: StateDir) -> None:
    release = tflite_release(state, edge_tpu(), shape=[1, 3], accelerator="edgetpu")
    with pytest.raises(LoadError, match="no power on the bus"):
        backend(library, fail="no power on the bus").load(blob(state, release), release)


def test_a_file_that_is_no_delegate_is_refused(state: StateDir, tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("not a library" * 100)
    release = tflite_release(state, edge_tpu(), shape=[1, 3], accelerator="edgetpu")
    with pytest.raises(LoadError, match="invalid ELF header"):
        backend(tmp_path / "text.so").load(blob(state, release), release)


def coral(problem: str = "") -> Hardware:
    device = Device(kind=DeviceKind.EDGE_TPU, name="Coral", where="/dev/apex_0", problem=problem)
    return Hardware(machine="x", cpu="x", cpu_count=1, cpu_features=[], devices=[device])


def surveyed(library: Path, here: Hardware) -> dict[str, Placement]:
    survey = Survey(
        backends=[backend(library)],
        prober=Prober(),
        look=lambda: here,
        options=[f"--edgetpu-library={library}"],
    )
    return {found.accelerator: found for found in survey.placements()}


def test_the_survey_finds_a_usable_edge_tpu(library: Path) -> None:
    found = backend(library)
    assert found.why_not("edgetpu", coral()) is None
    assert found.why_not("edgetpu", coral("no permission")) == "no permission"
    placements = surveyed(library, coral())
    assert placements["edgetpu"].problem == ""
    assert placements["edgetpu"].version == placements["cpu"].version != ""


def test_the_survey_survives_a_crash_and_the_cpu_stays_usable(crashing: Path) -> None:
    placements = surveyed(crashing, coral())
    assert "died of SIGSEGV" in placements["edgetpu"].problem
    assert placements["cpu"].problem == ""
