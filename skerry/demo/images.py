"""The labelled test images that the demo's applications send."""

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skerry.demo.errors import DemoError

_IDX_IMAGES = 0x803
_IDX_LABELS = 0x801


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Images as the model wants them, and the right answers.

    Attributes:
        inputs: float32, shape [N, 1, 28, 28], 0 to 1.
        labels: uint8, shape [N].
    """

    inputs: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)


def load(model_folder: Path) -> LabelledImages:
    """Read the demo images of the reference model (IDX format, gzip).

    Raises:
        DemoError: a file is missing or is not what it should be.
    """
    pixels = _idx(model_folder / "demo_images.idx3-ubyte.gz", _IDX_IMAGES)
    labels = _idx(model_folder / "demo_labels.idx1-ubyte.gz", _IDX_LABELS)
    inputs = (pixels.astype(np.float32) / np.float32(255.0))[:, np.newaxis, :, :]
    return LabelledImages(np.ascontiguousarray(inputs), labels)


def _idx(path: Path, magic: int) -> npt.NDArray[np.uint8]:
    try:
        raw = gzip.decompress(path.read_bytes())
        dimensions = magic & 0xFF
        header = struct.unpack_from(f">{1 + dimensions}I", raw)
        if header[0] != magic:
            raise DemoError(f"{path} is not an IDX file of the expected kind")
        data = np.frombuffer(raw, np.uint8, offset=4 * (1 + dimensions))
        return data.reshape(header[1:])
    except (OSError, EOFError, struct.error, ValueError) as error:
        raise DemoError(f"cannot read the demo images {path}: {error}") from error
