"""Packing the reference model, with the real backend."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet_protocol.errors import ProtocolError, SkerryError
from model_pipeline import bundle
from model_pipeline.errors import PipelineError
from model_pipeline.model_folder import ModelFolder
from model_pipeline.pack import Packing, pack

REFERENCE = Path(__file__).parents[3] / "models" / "fashion_mnist"
WRONG = REFERENCE / "fashion_mnist-int8-wrong-labels.onnx"
Json = dict[str, Any]


def packing(*variants: str, **changes: object) -> Packing:
    settings: Json = {"version": "1.1.0", "variants": variants, **changes}
    return Packing(**settings)


def test_both_variants(tmp_path: Path) -> None:
    out = tmp_path / "release.bundle"
    pack(ModelFolder(REFERENCE), packing("fp32", "int8", security_counter=4), out)
    manifest = bundle.read(out).manifest
    card = json.loads((REFERENCE / "card.json").read_text())
    assert (manifest.family, manifest.version) == ("fashion_mnist", "1.1.0")
    assert manifest.security_counter == 4
    assert manifest.outputs[0].labels == card["outputs"][0]["labels"]
    assert [variant.name for variant in manifest.variants] == ["fp32", "int8"]
    for variant in manifest.variants:
        recorded = card["variants"][variant.name]
        assert variant.precision == recorded["precision"]
        assert variant.sha256 == card["files"][recorded["file"]]["sha256"]
        assert variant.accuracy.value == recorded["accuracy"]["test"]["fraction"]
        assert variant.accuracy.sample_count == recorded["accuracy"]["test"]["total"]
        assert 0 < variant.memory_bytes < 500_000_000


def test_a_wrong_file_is_not_packed(tmp_path: Path) -> None:
    out = tmp_path / "release.bundle"
    with pytest.raises(PipelineError, match="golden answers"):
        pack(ModelFolder(REFERENCE), packing("int8", model_file=WRONG), out)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_is_packed_if_nobody_may_ask(tmp_path: Path) -> None:
    out = tmp_path / "release.bundle"
    packed = pack(
        ModelFolder(REFERENCE), packing("int8", model_file=WRONG, golden_check=False), out
    )
    assert b"".join(packed.files[1].chunks()) == WRONG.read_bytes()
    assert packed.files[1].name == "fashion_mnist-int8.onnx"


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (packing(), "at least one variant"),
        (packing("int4"), "choose from"),
        (packing("fp32", "int8", model_file=WRONG), "one variant"),
        (packing("int8", model_file=Path("/nowhere/x.onnx")), "cannot read /nowhere/x.onnx"),
        (packing("int8", version="one"), "release version"),
        (packing("int8", security_counter=-1), "security_counter"),
        (packing("int8", description="x" * 3000), "description"),
    ],
)
def test_what_cannot_be_packed(tmp_path: Path, asked: Packing, sentence: str) -> None:
    with pytest.raises(SkerryError, match=sentence):
        pack(ModelFolder(REFERENCE), asked, tmp_path / "release.bundle")
    assert list(tmp_path.iterdir()) == []


def test_no_place_to_write(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="cannot write"):
        pack(ModelFolder(REFERENCE), packing("int8"), tmp_path / "missing" / "release.bundle")


def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("card.json", "golden.json", "fashion_mnist-int8.onnx"):
        shutil.copy(REFERENCE / name, folder)
    return folder


def test_a_file_that_the_card_does_not_describe(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    shutil.copy(WRONG, folder / "fashion_mnist-int8.onnx")
    with pytest.raises(PipelineError, match="is not the file that"):
        pack(ModelFolder(folder), packing("int8"), tmp_path / "release.bundle")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    noise = packing("int8", model_file=tmp_path / "noise.onnx")
    with pytest.raises(PipelineError, match="does not load"):
        pack(ModelFolder(REFERENCE), noise, tmp_path / "release.bundle")


def test_a_file_that_is_no_model_is_found_without_the_check_too(tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    noise = packing("int8", model_file=tmp_path / "noise.onnx", golden_check=False)
    with pytest.raises(PipelineError, match="cannot measure the memory"):
        pack(ModelFolder(REFERENCE), noise, tmp_path / "release.bundle")


def no_variants(card: Json) -> None:
    card["variants"] = {}


def no_family(card: Json) -> None:
    del card["family"]


def unknown_format(card: Json) -> None:
    card["variants"]["int8"]["format"] = "pickle"


def other_labels(card: Json) -> None:
    card["outputs"][0]["shape"] = [-1, 11]


def name_with_a_folder(card: Json) -> None:
    card["variants"]["int8"]["file"] = "../fashion_mnist-int8.onnx"


@pytest.mark.parametrize(
    "change", [no_variants, no_family, unknown_format, other_labels, name_with_a_folder]
)
def test_a_card_that_is_wrong(tmp_path: Path, change: Callable[[Json], None]) -> None:
    folder = copied(tmp_path)
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises((PipelineError, ProtocolError)):
        pack(ModelFolder(folder), packing("int8"), tmp_path / "release.bundle")
    assert not (tmp_path / "release.bundle").exists()


@pytest.mark.parametrize("name", ["card.json", "golden.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff"])
def test_a_folder_that_is_no_model(tmp_path: Path, name: str, content: bytes | None) -> None:
    folder = copied(tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(PipelineError, match=name):
        ModelFolder(folder)


def test_a_variant_without_golden_vectors(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "golden.json").write_text("{}")
    with pytest.raises(PipelineError, match="golden answers could not be checked"):
        pack(ModelFolder(folder), packing("int8"), tmp_path / "release.bundle")
