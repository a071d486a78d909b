"""Trains, quantizes and measures the Fashion-MNIST reference model: makes every built file anew.

The order of the steps is here; each step is a module beside this one.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

try:
    import numpy as np
    import onnx
    import onnxscript  # noqa: F401 - PyTorch's exporter needs it, and says so only after training
    import torch
    from numpy.typing import NDArray
except ModuleNotFoundError as missing:
    sys.exit(
        f"recipe.py needs {missing.name}. Install the project's extra in its folder:\n"
        '    pip install -e ".[pipeline]"'
    )

import card
import demo_images
import golden
import measurement
import network
import quantization
from card import Findings, Variant
from dataset import (
    DEBIAN_FOLDER,
    DEBIAN_PACKAGE,
    DatasetError,
    FashionMnist,
    Floats,
    LabelledImages,
    as_input,
    read_fashion_mnist,
    write_idx,
)
from golden import Outcome
from measurement import CheckError, Flags, Session

Indices = NDArray[np.int64]

logger = logging.getLogger(__name__)

WRONG = "int8-wrong-labels"
MODELS = {
    "fp32": "fashion_mnist-fp32.onnx",
    "int8": "fashion_mnist-int8.onnx",
    WRONG: "fashion_mnist-int8-wrong-labels.onnx",
}
PURPOSES = {
    "fp32": "for any device",
    "int8": "for any device; smaller, and faster where INT8 kernels are",
    WRONG: (
        "a deliberately bad release for the demo: classes moved on by one, to be refused by the "
        "golden check; never for use"
    ),
}
GOLDEN = "golden.json"
DEMO_IMAGES = "demo_images.idx3-ubyte.gz"
DEMO_LABELS = "demo_labels.idx1-ubyte.gz"
CARD_JSON = "card.json"
CARD_MD = "card.md"

# The classes that look alike: what covers the upper body.
TOPS = ("T-shirt/top", "Pullover", "Dress", "Coat", "Shirt")

EXPORT_TOLERANCE = 1e-4
TOTAL_LIMIT_BYTES = 2_000_000
LEAST_FP32_ACCURACY = 0.91
LARGEST_INT8_LOSS = 0.01
LARGEST_DEMO_BIAS = 0.002

_NEXT_LINE = " \\\n      --out"
_DESCRIPTION = """\
Train a small network on Fashion-MNIST, export it as FP32 ONNX, quantize it to
INT8, choose golden vectors and demo images, measure everything and write the
model card. Takes about two minutes and one processor core.
"""

_EPILOG = f"""\
written to --out, only after every check has passed:
  {MODELS["fp32"]:38}the model
  {MODELS["int8"]:38}the model, quantized
  {MODELS[WRONG]:38}a bad one, for the demo to refuse
  {GOLDEN:38}inputs and expected logits
  {DEMO_IMAGES:38}1,000 test images (IDX format)
  {DEMO_LABELS:38}and their classes
  {CARD_JSON + ", " + CARD_MD:38}what was measured

example:
  {card.COMMAND.replace(" --out", _NEXT_LINE)}

The data set is the Debian package {DEBIAN_PACKAGE}. The libraries are the
project's extra: pip install -e ".[pipeline]" in its folder. Progress goes to
standard error. Exit status: 0 done, 1 the data set or a check failed.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the recipe as a program and return its exit status."""
    options = _parse(arguments)
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    for name in (__name__, network.__name__):
        logging.getLogger(name).setLevel(logging.INFO)
    # Inside the exporter, on every export, and nothing that this recipe can change.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    try:
        data = read_fashion_mnist(options.dataset)
        options.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.out, prefix=".building-") as folder:
            _make(data, Path(folder), options.measured_on)
            for path in Path(folder).iterdir():
                path.replace(options.out / path.name)
    except (DatasetError, CheckError) as error:
        sys.stderr.write(f"recipe.py: {error}\n")
        return 1
    logger.info("Done: %s", options.out)
    return 0


@dataclass(frozen=True)
class Results:
    """What the ONNX files say about the test images, by name of the variant.

    Attributes:
        sessions: The loaded models.
        logits: Their answers, shape [10000, 10].
        correct: Whether the largest logit is that of the label, shape [10000].
    """

    sessions: dict[str, Session]
    logits: dict[str, Floats]
    correct: dict[str, Flags]


def _make(data: FashionMnist, out: Path, measured_on: str) -> None:
    plan = network.TrainingPlan()

    logger.info("Training on %s images (one thread)", f"{len(data.train):,}")
    started = time.perf_counter()
    trained = network.train(data.train, plan)
    training_s = time.perf_counter() - started

    logger.info("Exporting and quantizing")
    _write_models(trained, data.train, plan.seed, out)

    logger.info("Measuring on %s test images", f"{len(data.test):,}")
    image = as_input(data.test.images)
    results = _run_models(data.test, image, out)
    _check_logits(results.logits, network.predict(trained, image))
    demo = _write_demo_images(data.test, results.correct, plan.seed, out)
    _check_accuracy(results.correct, demo)
    outcomes = _write_golden(data.test, demo, results, out)
    latencies = measurement.median_latencies_us(results.sessions, image)
    findings = Findings(
        parameters=network.parameter_count(trained),
        training_s=training_s,
        dataset_sha256=data.sha256,
        variants={
            name: Variant(
                file=file,
                precision="fp32" if name == "fp32" else "int8",
                purpose=PURPOSES[name],
                test=measurement.count(results.correct[name]),
                demo=measurement.count(results.correct[name][demo]),
                correct_by_class=measurement.count_by_class(
                    results.correct[name], data.test.labels
                ),
                latency_p50_us=latencies[name],
                golden_outcome=outcomes[name],
            )
            for name, file in MODELS.items()
        },
        spread=_spread(results.logits, image, out)
        | _half_precision_spread(results.logits["fp32"][demo], trained, image[demo]),
        fp32_int8_agreement=float(
            np.mean(results.logits["fp32"].argmax(axis=1) == results.logits["int8"].argmax(axis=1))
        ),
        int8_errors_among_tops=measurement.share_of_errors_among(
            TOPS, results.logits["int8"], data.test.labels
        ),
        measured_on=measured_on,
    )
    _write_card(findings, plan, out)


def _write_models(trained: network.FashionNet, train: LabelledImages, seed: int, out: Path) -> None:
    network.export_onnx(trained, out / MODELS["fp32"])
    drawn = np.random.default_rng(seed).permutation(len(train))
    calibration = train.take(drawn[: quantization.CALIBRATION_IMAGES])
    quantization.quantize(out / MODELS["fp32"], out / MODELS["int8"], as_input(calibration.images))
    rotated = quantization.rotate_classes(onnx.load(out / MODELS["int8"]))
    (out / MODELS[WRONG]).write_bytes(rotated.SerializeToString(deterministic=True))


def _run_models(test: LabelledImages, image: Floats, out: Path) -> Results:
    sessions = {name: measurement.open_session(out / file) for name, file in MODELS.items()}
    logits = {name: measurement.run_all(session, image) for name, session in sessions.items()}
    correct = {name: measurement.right(values, test.labels) for name, values in logits.items()}
    return Results(sessions, logits, correct)


def _check_logits(logits: dict[str, Floats], trained: Floats) -> None:
    difference = measurement.max_abs_difference(logits["fp32"], trained)
    if difference > EXPORT_TOLERANCE:
        raise CheckError(f"the FP32 file and the trained network differ by {difference:.2g} logits")
    if not np.array_equal(logits[WRONG], np.roll(logits["int8"], 1, axis=1)):
        raise CheckError(f"{MODELS[WRONG]} is not {MODELS['int8']} with its classes moved by one")


def _check_accuracy(correct: dict[str, Flags], demo: Indices) -> None:
    fp32, int8 = (float(correct[name].mean()) for name in ("fp32", "int8"))
    if fp32 < LEAST_FP32_ACCURACY:
        raise CheckError(f"FP32 accuracy is {fp32:.2%}, below {LEAST_FP32_ACCURACY:.0%}")
    if fp32 - int8 > LARGEST_INT8_LOSS:
        raise CheckError(f"INT8 accuracy is {int8:.2%}, too far below the {fp32:.2%} of FP32")
    for name in ("fp32", "int8"):
        sample = float(correct[name][demo].mean())
        if abs(sample - float(correct[name].mean())) > LARGEST_DEMO_BIAS:
            raise CheckError(f"{name} accuracy on the demo images is {sample:.2%}: a biased sample")


def _write_demo_images(
    test: LabelledImages, correct: dict[str, Flags], seed: int, out: Path
) -> Indices:
    drawn = demo_images.draw(
        test.labels, correct["fp32"], correct["int8"], np.random.default_rng(seed)
    )
    demo = test.take(drawn)
    write_idx(out / DEMO_IMAGES, demo.images)
    write_idx(out / DEMO_LABELS, demo.labels)
    return drawn


def _write_golden(
    test: LabelledImages, demo: Indices, results: Results, out: Path
) -> dict[str, Outcome]:
    """Write `golden.json` and return what each model does on the vectors of its precision."""
    usable = results.correct["fp32"] & results.correct["int8"]
    usable[demo] = False
    published = {name: results.logits[name] for name in golden.TOLERANCES}
    image = as_input(test.images[golden.choose(test.labels, usable, published)])
    answers = {
        name: golden.run_singly(session, image) for name, session in results.sessions.items()
    }
    content = {
        name: golden.section(image, answers[name], tolerance)
        for name, tolerance in golden.TOLERANCES.items()
    }
    (out / GOLDEN).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    outcomes = {
        name: golden.compare(values, answers["fp32" if name == "fp32" else "int8"])
        for name, values in answers.items()
    }
    wrong, limit = outcomes[WRONG], golden.TOLERANCES["int8"].max_abs_error
    if wrong.max_abs_error < 10 * limit or wrong.top1_agreement > 0:
        raise CheckError(f"the golden vectors hardly notice wrong labels: {wrong}")
    return outcomes


def _spread(logits: dict[str, Floats], image: Floats, out: Path) -> dict[str, float]:
    """Compare each published model with itself, run as its graph is written."""
    spread = {}
    for name, tolerance in golden.TOLERANCES.items():
        plain = measurement.open_session(out / MODELS[name], optimized=False)
        difference = measurement.max_abs_difference(logits[name], measurement.run_all(plain, image))
        if difference > tolerance.max_abs_error / 4:
            raise CheckError(f"{name} logits vary by {difference:.2g}: too much for the tolerance")
        spread[f"{name}_optimization"] = difference
    return spread


def _half_precision_spread(
    logits: Floats, trained: network.FashionNet, image: Floats
) -> dict[str, float]:
    half = network.predict(trained, image, dtype=torch.float16)
    difference = measurement.max_abs_difference(logits, half)
    if difference > golden.TOLERANCES["fp32"].max_abs_error:
        raise CheckError(f"FP16 logits differ by {difference:.2g}: too much for the tolerance")
    return {"fp32_half_precision": difference}


def _write_card(findings: Findings, plan: network.TrainingPlan, out: Path) -> None:
    built = [out / name for name in (*MODELS.values(), GOLDEN, DEMO_IMAGES, DEMO_LABELS)]
    content = card.build(findings, plan, built)
    (out / CARD_JSON).write_text(
        json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (out / CARD_MD).write_text(card.render(content), encoding="utf-8")
    total = sum(path.stat().st_size for path in out.iterdir())
    if total >= TOTAL_LIMIT_BYTES:
        raise CheckError(f"the built files have {total:,} bytes, {TOTAL_LIMIT_BYTES:,} are allowed")
    for name, variant in findings.variants.items():
        logger.info(
            "  %-17s %6.2f %% of the test images, p50 %5.0f us",
            name,
            100 * variant.test.fraction,
            variant.latency_p50_us,
        )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dataset",
        type=Path,
        default=DEBIAN_FOLDER,
        metavar="DIR",
        help="folder with the four *-ubyte.gz files (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder that the built files go to; files of the same name are replaced",
    )
    parser.add_argument(
        "--measured-on",
        default=f"one {platform.machine()} core",
        metavar="TEXT",
        help="the processor, in the words that the card shall use (default: %(default)s)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
