"""The model card: `card.json` for programs and `card.md` for people, from the same measurements.

Owns the layout of both. `card.md` is `card_template.md` with the figures of `card.json` filled in,
so that no number is ever written by hand.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import golden
from dataset import HOMEPAGE, LABELS
from golden import Outcome
from quantization import CALIBRATION_IMAGES

if TYPE_CHECKING:
    from measurement import Accuracy
    from network import TrainingPlan

FAMILY = "fashion_mnist"
TEMPLATE = Path(__file__).with_name("card_template.md")
COMMAND = (
    "python models/fashion_mnist/recipe.py"
    " --dataset /usr/share/datasets/fashion-mnist --out models/fashion_mnist"
)
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Variant:
    """One ONNX file and what was measured with it."""

    file: str
    precision: str
    purpose: str
    test: Accuracy
    demo: Accuracy
    correct_by_class: dict[str, Accuracy]
    latency_p50_us: float
    golden_outcome: Outcome


@dataclass(frozen=True)
class Findings:
    """Everything that the recipe measured.

    Attributes:
        parameters: Trained numbers of the network.
        training_s: Duration of the training, wall clock.
        dataset_sha256: Digest of each file of the data set.
        variants: The ONNX files, by name of the variant.
        spread: Largest difference of any logit between two ways to compute the same variant.
        fp32_int8_agreement: Share of test images that FP32 and INT8 answer alike.
        int8_errors_among_tops: Share of the errors of INT8 that take one top for another.
        measured_on: The processor that the latencies hold for, in words.
    """

    parameters: int
    training_s: float
    dataset_sha256: dict[str, str]
    variants: dict[str, Variant]
    spread: dict[str, float]
    fp32_int8_agreement: float
    int8_errors_among_tops: float
    measured_on: str


def build(findings: Findings, plan: TrainingPlan, built: list[Path]) -> dict[str, object]:
    """Build the content of `card.json`.

    Args:
        findings: What was measured.
        plan: How the network was trained.
        built: The built files that the card vouches for.
    """
    return {
        "family": FAMILY,
        "task": "image classification",
        "parameters": findings.parameters,
        "licence": {"weights": "MIT", "dataset": "MIT", "dataset_copyright": "2017 Zalando SE"},
        "dataset": {
            "name": "Fashion-MNIST",
            "homepage": HOMEPAGE,
            "training_images": 60_000,
            "test_images": 10_000,
            "sha256": findings.dataset_sha256,
        },
        "inputs": [
            {
                "name": "image",
                "datatype": "FP32",
                "shape": [-1, 1, 28, 28],
                "preprocessing": (
                    "8-bit grey values divided by 255: background 0, garment up to 1; one channel, "
                    "28 rows from the top, 28 columns from the left. Normalisation to mean 0 and "
                    "variance 1 is part of the graph."
                ),
            }
        ],
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [-1, len(LABELS)], "labels": LABELS}
        ],
        "variants": {name: _variant(value) for name, value in findings.variants.items()},
        "fp32_int8_agreement": findings.fp32_int8_agreement,
        "int8_errors_among_tops": findings.int8_errors_among_tops,
        "latency_measured_on": findings.measured_on,
        "computation_spread": findings.spread,
        "golden_tolerance": {
            name: asdict(tolerance) for name, tolerance in golden.TOLERANCES.items()
        },
        "training": {
            "seed": plan.seed,
            "epochs": plan.epochs,
            "duration_s": round(findings.training_s, 1),
            "threads": 1,
            "calibration_images": CALIBRATION_IMAGES,
        },
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in _PACKAGES},
        "files": {
            path.name: {"size_bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in built
        },
        "reproduce": COMMAND,
    }


def render(card: dict[str, object]) -> str:
    """Fill `card_template.md`, whose placeholders are format fields, from `card.json`'s content."""
    return TEMPLATE.read_text(encoding="utf-8").format_map(card)


def _variant(variant: Variant) -> dict[str, object]:
    return {
        "file": variant.file,
        "format": "onnx",
        "precision": variant.precision,
        "purpose": variant.purpose,
        "accuracy": {"test": _accuracy(variant.test), "demo": _accuracy(variant.demo)},
        "test_accuracy_by_class": {
            name: accuracy.fraction for name, accuracy in variant.correct_by_class.items()
        },
        "latency_p50_us": round(variant.latency_p50_us, 1),
        "golden": asdict(variant.golden_outcome),
    }


def _accuracy(accuracy: Accuracy) -> dict[str, object]:
    return asdict(accuracy) | {"fraction": accuracy.fraction}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
