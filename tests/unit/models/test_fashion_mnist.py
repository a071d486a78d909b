"""The reference model's folder keeps what its card promises.

Runs the committed files as a device would. How the files came about (calibration, form of the
quantized graph) is checked by the recipe, which has the libraries to look inside them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FOLDER = Path(__file__).parents[3] / "models" / "fashion_mnist"
CARD: dict[str, Any] = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
GOLDEN: dict[str, Any] = json.loads((FOLDER / "golden.json").read_text(encoding="utf-8"))
GOOD = ("fp32", "int8")
WRONG_LABELS = "int8-wrong-labels"


def run(variant: str, image: Floats) -> Floats:
    options = onnxruntime.SessionOptions()  # type: ignore[attr-defined]
    options.intra_op_num_threads = 1
    path = str(FOLDER / CARD["variants"][variant]["file"])
    session = onnxruntime.InferenceSession(  # type: ignore[attr-defined]
        path, options, providers=["CPUExecutionProvider"]
    )
    return cast("Floats", session.run(["logits"], {"image": image})[0])


def tensor(entry: dict[str, Any]) -> Floats:
    assert entry["datatype"] == "FP32"
    return np.frombuffer(base64.b64decode(entry["data_base64"]), "<f4").reshape(entry["shape"])


def golden_outcome(variant: str, section: dict[str, Any]) -> tuple[float, float]:
    """Largest error of any logit, and the share of vectors whose largest logit is as expected."""
    vectors = section["vectors"]
    answers = [run(variant, tensor(vector["inputs"][0])) for vector in vectors]
    expected = [tensor(vector["outputs"][0]) for vector in vectors]
    pairs = list(zip(answers, expected, strict=True))
    return (
        max(float(np.abs(answer - wanted).max()) for answer, wanted in pairs),
        sum(int(answer.argmax() == wanted.argmax()) for answer, wanted in pairs) / len(pairs),
    )


@pytest.fixture(scope="module")
def demo() -> tuple[Floats, NDArray[np.uint8]]:
    """Input and labels of the demo images, read as the data set's authors describe the format."""
    images = gzip.decompress((FOLDER / "demo_images.idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((FOLDER / "demo_labels.idx1-ubyte.gz").read_bytes())
    assert struct.unpack(">4I", images[:16]) == (0x0803, 1000, 28, 28)
    assert struct.unpack(">2I", labels[:8]) == (0x0801, 1000)
    pixels = np.frombuffer(images[16:], np.uint8).reshape(1000, 1, 28, 28)
    return pixels.astype(np.float32) / np.float32(255), np.frombuffer(labels[8:], np.uint8)


def test_the_card_vouches_for_every_built_file() -> None:
    built = {path.name for path in FOLDER.iterdir() if path.suffix in {".onnx", ".gz"}}

    assert set(CARD["files"]) == built | {"golden.json"}
    assert {variant["file"] for variant in CARD["variants"].values()} <= built


@pytest.mark.parametrize("name", sorted(CARD["files"]))
def test_a_built_file_is_the_one_that_the_card_describes(name: str) -> None:
    content = (FOLDER / name).read_bytes()

    assert len(content) == CARD["files"][name]["size_bytes"]
    assert hashlib.sha256(content).hexdigest() == CARD["files"][name]["sha256"]


def test_the_built_files_stay_small() -> None:
    names = [*CARD["files"], "card.json", "card.md"]

    assert sum((FOLDER / name).stat().st_size for name in names) < 2_000_000


@pytest.mark.parametrize("variant", [*GOOD, WRONG_LABELS])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_variant_takes_and_gives_what_the_card_says(variant: str, batch: int) -> None:
    logits = run(variant, np.zeros((batch, 1, 28, 28), np.float32))

    assert logits.shape == (batch, len(CARD["outputs"][0]["labels"]))
    assert logits.dtype == np.float32


@pytest.mark.parametrize("variant", [*GOOD, WRONG_LABELS])
def test_accuracy_on_the_demo_images(variant: str, demo: tuple[Floats, NDArray[np.uint8]]) -> None:
    image, labels = demo
    accuracy = CARD["variants"][variant]["accuracy"]

    measured = float(np.mean(run(variant, image).argmax(axis=1) == labels))

    assert measured == pytest.approx(accuracy["demo"]["fraction"], abs=0.002)
    assert measured == pytest.approx(accuracy["test"]["fraction"], abs=0.005)


@pytest.mark.parametrize("variant", [*GOOD, WRONG_LABELS])
@pytest.mark.parametrize(("part", "total"), [("test", 10_000), ("demo", 1_000)])
def test_every_accuracy_in_the_card_has_its_counts(variant: str, part: str, total: int) -> None:
    accuracy = CARD["variants"][variant]["accuracy"][part]

    assert accuracy["total"] == total
    assert accuracy["fraction"] == accuracy["correct"] / total


def test_the_card_for_people_has_the_figures_of_the_card_for_programs() -> None:
    text = (FOLDER / "card.md").read_text(encoding="utf-8")

    for variant in CARD["variants"].values():
        assert f"{variant['accuracy']['test']['fraction']:.2%}" in text
    assert f"{CARD['parameters']:,}" in text


@pytest.mark.parametrize("variant", GOOD)
def test_a_good_variant_passes_its_golden_check(variant: str) -> None:
    tolerance = GOLDEN[variant]["tolerance"]

    error, agreement = golden_outcome(variant, GOLDEN[variant])

    assert error <= tolerance["max_abs_error"]
    assert agreement >= tolerance["top1_agreement"]


@pytest.mark.parametrize("section", GOOD)
def test_the_net_with_wrong_labels_fails_the_golden_check_by_far(section: str) -> None:
    error, agreement = golden_outcome(WRONG_LABELS, GOLDEN[section])

    assert error > 10 * GOLDEN[section]["tolerance"]["max_abs_error"]
    assert agreement == 0


@pytest.mark.parametrize("variant", GOOD)
def test_golden_vectors_show_every_class_once_and_clearly(variant: str) -> None:
    section = GOLDEN[variant]
    answers = [tensor(vector["outputs"][0]) for vector in section["vectors"]]
    margins = [np.diff(np.sort(answer[0])[-2:])[0] for answer in answers]

    assert sorted(int(answer.argmax()) for answer in answers) == list(range(10))
    # Then nothing within the tolerance can have another largest logit.
    assert min(margins) > 2 * section["tolerance"]["max_abs_error"]


@pytest.mark.parametrize("variant", GOOD)
def test_golden_tensors_are_complete(variant: str) -> None:
    for vector in GOLDEN[variant]["vectors"]:
        entries = [*vector["inputs"], *vector["outputs"]]
        assert [entry["name"] for entry in entries] == ["image", "logits"]
        for entry in entries:
            assert entry["shape"][0] == 1
            data = base64.b64decode(entry["data_base64"], validate=True)
            assert len(data) == 4 * math.prod(entry["shape"])


def test_golden_images_are_not_demo_images(demo: tuple[Floats, NDArray[np.uint8]]) -> None:
    shown = {image.tobytes() for image in demo[0]}

    for vector in GOLDEN["int8"]["vectors"]:
        assert tensor(vector["inputs"][0])[0].tobytes() not in shown
