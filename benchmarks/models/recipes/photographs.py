"""Inputs for calibration and comparison: crops of the photographs that scikit-image ships.

No labelled data set comes with the benchmarks. Noise would not do: the ranges of its activations
are not those of images. A few photographs of very different things, cropped, mirrored and dimmed at
random, give ranges that hold for others: the two lists below share no photograph (the motorcycle is
seen by the left and the right lens).
"""

# mypy: ignore-errors
# The libraries are those of another environment; the project's has none of them to check against.

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 224
CALIBRATION = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "page.png",
)
COMPARISON = (
    "chelsea.png",
    "coins.png",
    "moon.png",
    "motorcycle_right.png",
    "retina.jpg",
    "rocket.jpg",
)


def crops(names: tuple[str, ...], count: int, seed: int) -> NDArray[np.float32]:
    """Return inputs of the network, (count, 3, 224, 224), from the photographs in turn."""
    generator = np.random.default_rng(seed)
    photographs = [Image.open(_folder() / name).convert("RGB") for name in names]
    return np.stack([_crop(photographs[at % len(names)], generator) for at in range(count)])


def _folder() -> Path:
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-image is not installed")
    return Path(spec.origin).parent / "data"


def _crop(photograph: Image.Image, generator: np.random.Generator) -> NDArray[np.float32]:
    side = int(min(photograph.size) * generator.uniform(0.5, 1.0))
    left = generator.integers(0, photograph.width - side + 1)
    top = generator.integers(0, photograph.height - side + 1)
    square = photograph.crop((left, top, left + side, top + side))
    pixels = np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)
    if generator.random() < 0.5:  # noqa: PLR2004 - mirrored as often as not
        pixels = pixels[:, ::-1]
    dimmed = np.clip(pixels * generator.uniform(0.7, 1.2), 0, 255)
    return ((dimmed - 127) / 128).transpose(2, 0, 1).astype(np.float32)
