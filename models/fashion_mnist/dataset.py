"""Fashion-MNIST on disk: reads the four IDX files and writes files of the same format.

Owns the IDX format (http://yann.lecun.com/exdb/mnist/, "the IDX file format") and the conversion
from stored pixels to what the networks take. Which images are used for what is decided elsewhere.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
HOMEPAGE = "https://github.com/zalandoresearch/fashion-mnist"

LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_UNSIGNED_BYTE = 0x08
_IMAGE_SHAPE = (28, 28)


class DatasetError(Exception):
    """The data set is missing, damaged or not Fashion-MNIST."""


@dataclass(frozen=True)
class LabelledImages:
    """Images with their classes.

    Attributes:
        images: Pixels 0..255, shape [N, 28, 28].
        labels: Indices into `LABELS`, shape [N].
    """

    images: Bytes
    labels: Bytes

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> LabelledImages:
        """Return the images at `indices`, in that order."""
        return LabelledImages(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class FashionMnist:
    """Both parts of the data set, and the SHA-256 of each file that they were read from."""

    train: LabelledImages
    test: LabelledImages
    sha256: dict[str, str]


def read_fashion_mnist(folder: Path) -> FashionMnist:
    """Read the training and the test part from `folder`.

    Raises:
        DatasetError: A file is missing, damaged or of an unexpected size.
    """
    sha256: dict[str, str] = {}

    def read_part(prefix: str, count: int) -> LabelledImages:
        parts: list[Bytes] = []
        for name, shape in (
            (f"{prefix}-images-idx3-ubyte.gz", (count, *_IMAGE_SHAPE)),
            (f"{prefix}-labels-idx1-ubyte.gz", (count,)),
        ):
            stored = _read_stored(folder / name)
            sha256[name] = hashlib.sha256(stored).hexdigest()
            parts.append(_decode_idx(stored, folder / name, shape))
        return LabelledImages(*parts)

    return FashionMnist(read_part("train", 60_000), read_part("t10k", 10_000), sha256)


def write_idx(path: Path, values: Bytes) -> None:
    """Write `values` as a gzip-compressed IDX file; equal values give equal bytes."""
    header = struct.pack(">HBB", 0, _UNSIGNED_BYTE, values.ndim)
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(header + sizes + values.tobytes(), 9, mtime=0))


def as_input(images: Bytes) -> Floats:
    """Turn pixels [N, 28, 28] into the networks' input: FP32, 0..1, shape [N, 1, 28, 28]."""
    return (images.astype(np.float32) / np.float32(255))[:, np.newaxis]


def _read_stored(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = (
            f"cannot read {path}: {error.strerror}.\n"
            f"Fashion-MNIST is the Debian package {DEBIAN_PACKAGE}. Install it with\n"
            f"    apt-get install {DEBIAN_PACKAGE}\n"
            f"and use --dataset {DEBIAN_FOLDER}, or put the four *-ubyte.gz files from\n"
            f"{HOMEPAGE} into a folder and name that."
        )
        raise DatasetError(message) from error


def _decode_idx(stored: bytes, path: Path, shape: tuple[int, ...]) -> Bytes:
    expected = struct.pack(f">HBB{len(shape)}I", 0, _UNSIGNED_BYTE, len(shape), *shape)
    try:
        content = gzip.decompress(stored)
    except (OSError, EOFError) as error:
        message = f"{path} is damaged ({error}). Fetch it again."
        raise DatasetError(message) from error
    body = content[len(expected) :]
    if not content.startswith(expected) or len(body) != int(np.prod(shape)):
        message = f"{path} is not an IDX file of unsigned bytes with shape {list(shape)}."
        raise DatasetError(message)
    return np.frombuffer(body, np.uint8).reshape(shape)
