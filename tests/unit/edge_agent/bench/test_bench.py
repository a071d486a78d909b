"""`skerry agent bench` and `skerry agent devices`, run as commands on real models."""

import json
import tarfile
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from edge_agent import hardware_commands
from edge_agent.bench import subject, worker
from edge_agent.bench.measuring import Row
from edge_agent.bench.picture import PictureError
from edge_agent.bench.subject import SubjectError
from edge_agent.cli import app
from edge_agent.errors import AgentError
from edge_agent.inference.backends import arrays
from edge_agent.inference.inference_request import checked_elements
from edge_agent.inference.tensors import size_bytes
from edge_agent.state_dir import StateDir
from fleet_protocol import manifest as manifests
from fleet_protocol.manifest import Datatype, TensorSpec
from tests.simulators.device_releases import release
from tests.unit.edge_agent.inference.reference_release import MODELS, commit, reference_release
from tests.unit.edge_agent.inference.tflite_files import relu, tflite_release

PNG = b"\x89PNG\r\n\x1a\n"


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_model_folder_is_measured_and_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "bench.png"
    output = run(
        "bench", str(MODELS), "--seconds", "1", "--json", "--png", str(picture),
        "--state", str(tmp_path),
    )  # fmt: skip
    report = json.loads(output)
    rows = {(row["variant"], row["accelerator"]): row for row in report["rows"]}
    assert report["model"] == "fashion_mnist"
    base = rows["fp32", "cpu"]
    assert base["speed_up"] == 1.0
    for row in (base, rows["int8", "cpu"]):
        assert row["problem"] == ""
        assert row["released"]
        assert row["calls"] >= 12
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["calls_per_s"] > 0
        assert row["resident_mib"] > 10
    assert not rows["fp32", "openvino-cpu"]["released"]
    assert picture.read_bytes().startswith(PNG)


def test_a_family_of_this_device_is_measured(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    commit(state, reference_release(state), tflite_release(state, relu(), shape=[-1, 3]))
    output = run("bench", "rows", "--seconds", "0.5", "--state", str(tmp_path))
    assert "rows 1.0.0 on" in output
    assert "cpu" in output


@pytest.mark.parametrize("datatype", Datatype)
def test_inputs_are_made_up_where_there_are_no_golden_ones(datatype: Datatype) -> None:
    made = worker.made_up(TensorSpec(name="x", datatype=datatype, shape=[-1, 6]))
    assert made.shape == [1, 6]
    assert checked_elements(made) is made
    if datatype is not Datatype.BYTES:
        assert len(made.data) == size_bytes(datatype, made.shape)
    assert any(bytes(made.data))
    if datatype in {Datatype.INT32, Datatype.INT64, Datatype.UINT16}:  # which may be indices
        assert arrays.to_array(made).max() == 1


def bundle(path: Path, *, content: bytes | None = None) -> Path:
    packed = release("1.2.0", model=b"a model")
    (tmp := path.parent / "files").mkdir()
    (tmp / "manifest.json").write_bytes(manifests.encode(packed.manifest))
    (tmp / "model.onnx").write_bytes(packed.model if content is None else content)
    with tarfile.open(path, "w") as file:
        for name in ("manifest.json", "model.onnx"):
            file.add(tmp / name, name)
    return path


def test_a_bundle_is_read(tmp_path: Path) -> None:
    with subject.opened(str(bundle(tmp_path / "m.bundle")), StateDir(tmp_path)) as model:
        (entry,) = model.entries
        assert (model.name, entry.variant, entry.path.read_bytes()) == (
            "animals 1.2.0",
            "fp32",
            b"a model",
        )
    assert not entry.path.exists()


def test_a_model_that_runs_nowhere_is_an_error_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"nothing of animals 1.2.0 can run here: .*cpu: ONNX"):
        run("bench", str(bundle(tmp_path / "m.bundle")), "--state", str(tmp_path))


@pytest.mark.parametrize("where", ["missing/bench.png", "."])
def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, where: str
) -> None:
    picture = str(tmp_path / where)
    with pytest.raises(PictureError, match=r"cannot write the picture"):
        run("bench", "no model at all", "--png", picture, "--state", str(tmp_path))


def test_names_are_whole_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    place = {"backend": "openvino", "accelerator": "openvino-cpu", "released": True}
    names = ["int8-of-the-head", "int8-of-the-tail"]
    rows = [msgspec.convert({**place, "variant": name, "precision": "int8"}, Row) for name in names]
    hardware_commands.print_rows("a title", rows)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "head" in shown
    assert "tail" in shown


def test_what_is_no_model(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    damaged = bundle(tmp_path / "damaged.bundle", content=b"A MODEL")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "folder").mkdir()
    for name, complaint in (
        (str(damaged), "is damaged"),
        (str(tmp_path / "text"), "not a bundle"),
        (str(tmp_path / "folder"), "not a model folder"),
        ("nonesuch", "neither a bundle, nor a model folder, nor a family"),
    ):
        with pytest.raises(SubjectError, match=complaint), subject.opened(name, state):
            pass


def test_devices_as_json_and_as_a_table(tmp_path: Path) -> None:
    found = json.loads(run("devices", "--json", "--state", str(tmp_path)))
    places = {(place["backend"], place["accelerator"]): place for place in found["placements"]}
    assert places["onnxruntime", "cpu"]["problem"] == ""
    assert places["onnxruntime", "cpu"]["version"]
    assert found["hardware"]["cpu_count"] >= 1
    assert "accelerator" in run("devices", "--state", str(tmp_path))
