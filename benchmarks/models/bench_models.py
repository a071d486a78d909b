"""The models that the benchmarks serve: built once by their recipes, cached."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring.environments import REQUIREMENTS, cache_folder, digest, environment
from fleet_protocol.manifest import Datatype, Format, TensorSpec

Array = NDArray[np.generic]

_RECIPES = Path(__file__).parent / "recipes"
_TORCH = "torch==2.13.0"
_IMAGE = [1, 3, 224, 224]


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchModel:
    """A model file with what its callers need to know; one input, one output in FP32.

    Attributes:
        name: a family's name.
        sample: an input, row-major, of the input's shape and datatype.
    """

    name: str
    path: Path
    format: Format
    input: TensorSpec
    output: TensorSpec
    sample: Array


def first_values() -> BenchModel:
    """Return the model without work: all that a call to it costs is the way there and back."""
    folder = _built("first_values")
    return BenchModel(
        name="first_values",
        path=folder / "model.onnx",
        format=Format.ONNX,
        input=TensorSpec(name="image", datatype=Datatype.FP32, shape=_IMAGE),
        output=TensorSpec(name="values", datatype=Datatype.FP32, shape=[1, 1, 1, 8]),
        sample=np.load(folder / "sample.npy"),
    )


def efficientnet_lite0_onnx(precision: str = "int8") -> BenchModel:
    """Return EfficientNet-Lite0 for ONNX Runtime, ``int8`` or ``fp32``."""
    folder = _built("efficientnet_lite0")
    return BenchModel(
        name="efficientnet_lite0",
        path=folder / f"{precision}.onnx",
        format=Format.ONNX,
        input=TensorSpec(
            name="image", datatype=Datatype.FP32, shape=_IMAGE, preprocessing="(rgb - 127) / 128"
        ),
        output=TensorSpec(name="logits", datatype=Datatype.FP32, shape=[1, 1000]),
        sample=np.load(folder / "sample.npy"),
    )


def efficientnet_lite0_pixels() -> BenchModel:
    """Return EfficientNet-Lite0 INT8 for ONNX Runtime; it takes the image's pixels as they are."""
    quantized = _built("efficientnet_lite0")
    folder = _built("efficientnet_lite0_pixels", source=quantized)
    return BenchModel(
        name="efficientnet_lite0",
        path=folder / "int8.onnx",
        format=Format.ONNX,
        input=TensorSpec(name="image", datatype=Datatype.UINT8, shape=_IMAGE),
        output=TensorSpec(name="logits", datatype=Datatype.FP32, shape=[1, 1000]),
        sample=np.load(folder / "sample.npy"),
    )


def efficientnet_lite0_tflite(precision: str = "int8") -> BenchModel:
    """Return EfficientNet-Lite0 for LiteRT, ``int8`` or ``fp32``; its input is channels-last."""
    folder = _built("efficientnet_lite0")
    return BenchModel(
        name="efficientnet_lite0",
        path=folder / f"{precision}.tflite",
        format=Format.TFLITE,
        input=TensorSpec(
            name="args_0",
            datatype=Datatype.FP32,
            shape=[1, 224, 224, 3],
            preprocessing="(rgb - 127) / 128",
        ),
        output=TensorSpec(name="output_0", datatype=Datatype.FP32, shape=[1, 1000]),
        sample=np.ascontiguousarray(np.load(folder / "sample.npy").transpose(0, 2, 3, 1)),
    )


def agreement() -> dict[str, dict[str, float]]:
    """Return how far the files of EfficientNet-Lite0 agree with the FP32 ONNX file."""
    text = (_built("efficientnet_lite0") / "agreement.json").read_text()
    measured: dict[str, dict[str, float]] = json.loads(text)
    return measured


def release_pairs() -> Path:
    """Return a folder for each network, with one for each release: ``2`` and several ``3-*``."""
    reference = Path(__file__).parents[2] / "models" / "fashion_mnist"
    used = [_RECIPES / "efficientnet_lite0.py", reference / "network.py"]
    return _built("release_pairs", more=[*used, reference / "quantization.py"])


def _built(recipe: str, *, more: Sequence[Path] = (), source: Path | None = None) -> Path:
    """Return the folder of a recipe's files, which is made if it is not there.

    Args:
        recipe: name of its program.
        more: files that it uses besides what all do.
        source: folder of the recipe whose files it starts from; named by what made them.

    Raises:
        SystemExit: the recipe failed.
    """
    program = _RECIPES / f"{recipe}.py"
    common = [_RECIPES / "photographs.py", REQUIREMENTS / "model_recipes.txt"]
    inputs = [program, *common, *more]
    origin = [source.name.encode()] if source else []
    key = digest(_TORCH.encode(), *origin, *(path.read_bytes() for path in inputs))
    folder = cache_folder() / "models" / f"{recipe}-{key}"
    if not folder.exists():
        python = environment("model_recipes", before=[_TORCH], dependencies=False)
        print(f"Building {recipe} into {folder}", flush=True)
        partial = folder.with_suffix(".part")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        log = partial / "build.log"
        with log.open("wb") as output:
            command = [str(python), str(program), str(partial), *([str(source)] if source else [])]
            status = subprocess.run(command, check=False, stdout=output, stderr=output).returncode
        if status:
            raise SystemExit(f"the recipe {recipe} failed with status {status}; see {log}")
        partial.rename(folder)
    return folder
