"""Prometheus' text format, written: pure, and no more than we use of it.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4). The
numbers are kept by `edge_agent.inference.statistics` already, so a client library with metric
objects and locks of its own would count everything twice on the hot path; this file is the rest.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Distribution(NamedTuple):
    """The content of a histogram.

    Attributes:
        bounds: upper bounds of the buckets, rising.
        counts: of each bucket by itself, and of what lies above the last bound.
        total: sum of all values.
    """

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float


class Exposition:
    """A document in the making; samples may come in any order of their metrics."""

    def __init__(self) -> None:
        """Say nothing yet."""
        self._metrics: dict[str, list[str]] = {}

    def gauge(self, name: str, help_text: str, value: float, labels: str = "") -> None:
        """Add a value that goes up and down."""
        self._lines(name, "gauge", help_text).append(f"{name}{_braced(labels)} {_number(value)}")

    def counter(self, name: str, help_text: str, value: float, labels: str = "") -> None:
        """Add a value that only grows; its name ends in ``_total``."""
        self._lines(name, "counter", help_text).append(f"{name}{_braced(labels)} {_number(value)}")

    def histogram(
        self, name: str, help_text: str, distribution: Distribution, labels: str = ""
    ) -> None:
        """Add a histogram with classic buckets."""
        bounds, counts, total = distribution
        lines = self._lines(name, "histogram", help_text)
        comma = "," if labels else ""
        seen = 0
        for bound, count in zip(bounds, counts, strict=False):
            seen += count
            lines.append(f'{name}_bucket{{{labels}{comma}le="{_number(bound)}"}} {seen}')
        seen += sum(counts[len(bounds) :])
        lines.append(f'{name}_bucket{{{labels}{comma}le="+Inf"}} {seen}')
        lines.append(f"{name}_sum{_braced(labels)} {_number(total)}")
        lines.append(f"{name}_count{_braced(labels)} {seen}")

    def text(self) -> bytes:
        """Return the document."""
        lines = [line for metric in self._metrics.values() for line in metric]
        return ("\n".join(lines) + "\n").encode() if lines else b""

    def _lines(self, name: str, kind: str, help_text: str) -> list[str]:
        lines = self._metrics.get(name)
        if lines is None:
            escaped = help_text.replace("\\", r"\\").replace("\n", r"\n")
            lines = [f"# HELP {name} {escaped}", f"# TYPE {name} {kind}"]
            self._metrics[name] = lines
        return lines


def label_text(labels: Mapping[str, str]) -> str:
    """Return labels as they stand between the braces."""
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
