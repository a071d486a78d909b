"""What an ONNX file does when ONNX Runtime runs it: logits, accuracy, latency, rounding.

Everything here runs on one thread of the CPU, as the agent does on a small device.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dataset import LABELS

if TYPE_CHECKING:
    from pathlib import Path

    from dataset import Bytes, Floats

Flags = NDArray[np.bool_]

_BATCH = 500
_WARM_UP_CALLS = 200
_TIMED_CALLS = 2000
_ROUNDS = 10


class CheckError(Exception):
    """A built file does not have a property that its card would claim."""


class Session(Protocol):
    """The part of `onnxruntime.InferenceSession` that is used here."""

    def run(self, output_names: None, feeds: dict[str, Floats]) -> list[Floats]:
        """Run the model once."""


@dataclass(frozen=True)
class Accuracy:
    """How many of how many images were classified as labelled."""

    correct: int
    total: int

    @property
    def fraction(self) -> float:
        """Accuracy in 0..1."""
        return self.correct / self.total


def open_session(path: Path, *, optimized: bool = True) -> Session:
    """Load an ONNX file for one CPU thread.

    Args:
        path: The model.
        optimized: False runs the graph as it is written. An INT8 graph in QDQ form is then
            computed in floating point between its rounding steps, instead of by INT8 kernels.
    """
    options = onnxruntime.SessionOptions()  # type: ignore[attr-defined]
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel  # type: ignore[attr-defined]
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    )
    session = onnxruntime.InferenceSession(  # type: ignore[attr-defined]
        str(path), options, ["CPUExecutionProvider"]
    )
    return cast("Session", session)


def run_all(session: Session, image: Floats) -> Floats:
    """Run inputs [N, 1, 28, 28] in batches and return logits [N, 10]."""
    starts = range(0, len(image), _BATCH)
    return np.concatenate(
        [session.run(None, {"image": image[start : start + _BATCH]})[0] for start in starts]
    )


def right(logits: Floats, labels: Bytes) -> Flags:
    """Tell for each image whether its largest logit is that of its label."""
    flags: Flags = logits.argmax(axis=1) == labels
    return flags


def count(flags: Flags) -> Accuracy:
    """Sum up what `right` returned."""
    return Accuracy(int(flags.sum()), len(flags))


def count_by_class(flags: Flags, labels: Bytes) -> dict[str, Accuracy]:
    """Sum up what `right` returned for each class, by its name."""
    return {name: count(flags[labels == label]) for label, name in enumerate(LABELS)}


def share_of_errors_among(names: tuple[str, ...], logits: Floats, labels: Bytes) -> float:
    """Share of the wrong answers where label and answer are both among the classes `names`."""
    classes = [LABELS.index(name) for name in names]
    wrong = ~right(logits, labels)
    inside = np.isin(labels, classes) & np.isin(logits.argmax(axis=1), classes)
    return float((wrong & inside).sum() / wrong.sum())


def margin(logits: Floats) -> Floats:
    """Distance of the largest logit to the next one, shape [N]."""
    ordered = np.sort(logits, axis=1)
    distance: Floats = ordered[:, -1] - ordered[:, -2]
    return distance


def max_abs_difference(left: Floats, other: Floats) -> float:
    """Largest difference between two sets of logits."""
    return float(np.abs(left - other).max())


def median_latencies_us(sessions: dict[str, Session], image: Floats) -> dict[str, float]:
    """Median time of a bare `session.run` with one image, in microseconds.

    The models take turns in blocks, so that a change of clock rate or a busy neighbour meets all
    of them; that makes the ratios steadier than the times themselves.
    """
    feeds = {"image": image[:1]}
    times_ns: dict[str, list[int]] = {name: [] for name in sessions}
    for session in sessions.values():
        for _ in range(_WARM_UP_CALLS):
            session.run(None, feeds)
    for _ in range(_ROUNDS):
        for name, session in sessions.items():
            for _ in range(_TIMED_CALLS // _ROUNDS):
                started = time.perf_counter_ns()
                session.run(None, feeds)
                times_ns[name].append(time.perf_counter_ns() - started)
    return {name: float(np.median(values)) / 1000 for name, values in times_ns.items()}
