"""Golden vectors: a few inputs with the logits that a device must reproduce before it serves.

Owns the format of `golden.json`, the choice of images and the tolerances.
"""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from dataset import LABELS, Bytes, Floats
from measurement import CheckError, Flags, Session, margin

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of the images of a class that every variant gets right, sorted by margin, the one at three
# quarters: clear enough that no rounding decides it, not so extreme that a damaged model would
# still get it right.
_MARGIN_RANK = 0.75


@dataclass(frozen=True)
class Tolerance:
    """How far a device may be from the expected logits.

    Attributes:
        max_abs_error: Largest difference of any logit.
        top1_agreement: Share of vectors whose largest logit must be the expected one, 0..1.
    """

    max_abs_error: float
    top1_agreement: float = 1.0


# The card gives what these stand against: the spread that was measured between ways to compute the
# same model.
#
# FP32: twice what 16-bit floating point does, because an accelerator may compute in FP16 or TF32.
# INT8: an order of magnitude above the spread between INT8 kernels and a runtime that simulates
# them in floating point, and a fraction of what saturating 16-bit sums do to a network (see
# quantization.py), which the check is there to catch.
TOLERANCES = {"fp32": Tolerance(0.05), "int8": Tolerance(0.25)}


@dataclass(frozen=True)
class Outcome:
    """What a model did on golden vectors.

    Attributes:
        max_abs_error: Largest difference of any logit from the expected one.
        top1_agreement: Share of vectors whose largest logit is the expected one, 0..1.
        largest_logit: Of all its answers.
        smallest_margin: Smallest distance between the two largest logits of an answer.
    """

    max_abs_error: float
    top1_agreement: float
    largest_logit: float
    smallest_margin: float


def choose(labels: Bytes, usable: Flags, logits: dict[str, Floats]) -> NDArray[np.int64]:
    """Choose one image of each class.

    Args:
        labels: Class of each image, shape [N].
        usable: Images that may be chosen: right in every variant, shape [N].
        logits: For each variant what it says, shape [N, 10].

    Returns:
        Indices of the images, in the order of the classes.

    Raises:
        CheckError: A chosen image is so close to another class that a device within the tolerance
            could answer otherwise.
    """
    smallest = np.min([margin(values) for values in logits.values()], axis=0)
    chosen = []
    for label in range(len(LABELS)):
        candidates = np.flatnonzero((labels == label) & usable)
        ranked = candidates[np.argsort(smallest[candidates], kind="stable")]
        chosen.append(ranked[int(_MARGIN_RANK * len(ranked))])
    indices = np.array(chosen, np.int64)
    needed = 2 * max(tolerance.max_abs_error for tolerance in TOLERANCES.values())
    if smallest[indices].min() <= needed:
        raise CheckError(f"a golden image has a margin of {smallest[indices].min():.2f} logits")
    return indices


def run_singly(session: Session, image: Floats) -> Floats:
    """Run the golden images one by one, as a device does, and return logits [N, 10]."""
    return np.concatenate([session.run(None, {"image": one[np.newaxis]})[0] for one in image])


def compare(logits: Floats, reference: Floats) -> Outcome:
    """Compare a model's logits with the expected ones."""
    return Outcome(
        max_abs_error=float(np.abs(logits - reference).max()),
        top1_agreement=float(np.mean(logits.argmax(axis=1) == reference.argmax(axis=1))),
        largest_logit=float(logits.max()),
        smallest_margin=float(margin(logits).min()),
    )


def section(image: Floats, logits: Floats, tolerance: Tolerance) -> dict[str, object]:
    """Build the part of `golden.json` for one variant."""
    return {
        "vectors": [
            {"inputs": [_tensor("image", one)], "outputs": [_tensor("logits", answer)]}
            for one, answer in zip(image, logits, strict=True)
        ],
        "tolerance": asdict(tolerance),
    }


def _tensor(name: str, values: Floats) -> dict[str, object]:
    batch = values[np.newaxis].astype("<f4")
    return {
        "name": name,
        "datatype": "FP32",
        "shape": list(batch.shape),
        "data_base64": base64.b64encode(batch.tobytes()).decode("ascii"),
    }
