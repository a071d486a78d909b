"""The figures as a picture: two groups of bars, drawn with Pillow (extra ``bench``)."""

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent import store
from edge_agent.bench.measuring import Row
from edge_agent.errors import AgentError
from edge_agent.store import StoreError

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

_PUBLIC = 0o644
_WIDTH, _MARGIN = 1200, 36
_LABELS, _FIGURES = 380, 250
_BAR, _GAP = 26, 14
_INK, _SOFT, _PAPER = "#1c2733", "#6b7885", "#ffffff"
_FP32, _INT8, _TAIL = "#8fa3b5", "#1f77b4", "#d9822b"


class PictureError(AgentError):
    """The picture cannot be drawn or written."""


def check(path: Path) -> None:
    """Find out before anything is measured whether a picture could be drawn there.

    Args:
        path: of the PNG file.

    Raises:
        PictureError: Pillow is missing, or the file cannot be written.
    """
    if find_spec("PIL") is None:
        raise PictureError("a picture needs Pillow: pip install 'skerry[bench]'")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise PictureError(
            f"cannot write the picture {path}: it must be a file in a folder that is there and "
            "may be written"
        )


def draw(title: str, rows: Sequence[Row], path: Path) -> None:
    """Write the picture of what could be measured.

    Args:
        title: the model and the machine.
        rows: those without a problem are drawn.
        path: of the PNG file.

    Raises:
        PictureError: Pillow is missing, there is nothing to draw, or the file cannot be written.
    """
    check(path)
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 (an extra)

    good = [row for row in rows if not row.problem]
    if not good:
        raise PictureError("nothing could be measured, so there is nothing to draw")
    group = 64 + len(good) * (_BAR + _GAP)
    image = Image.new("RGB", (_WIDTH, 2 * _MARGIN + 84 + 2 * group), _PAPER)
    fonts = (ImageFont.load_default(26), ImageFont.load_default(17))
    canvas = ImageDraw.Draw(image)
    canvas.text((_MARGIN, _MARGIN), title, _INK, fonts[0])
    _legend(canvas, _MARGIN + 42, fonts[1])
    top = _MARGIN + 84
    _group(canvas, fonts[1], top, "Time of a call in ms: p50, and to p99 in orange", good, _latency)
    _group(
        canvas, fonts[1], top + group, "Calls per second, as many at once as it uses", good, _rate
    )
    drawn = BytesIO()
    image.save(drawn, "PNG")
    try:
        store.write_file(path, drawn.getvalue(), mode=_PUBLIC)
    except StoreError as error:
        raise PictureError(f"cannot write the picture: {error}") from error


def _latency(row: Row) -> tuple[float, float, str]:
    speed_up = f"   x {row.speed_up:.2f}" if row.speed_up is not None else ""
    return row.p50_ms, row.p99_ms, f"{_short(row.p50_ms)} / {_short(row.p99_ms)}{speed_up}"


def _rate(row: Row) -> tuple[float, float, str]:
    return row.calls_per_s, row.calls_per_s, _short(row.calls_per_s)


def _group(  # noqa: PLR0913, PLR0917 (a place on the canvas and what goes there)
    canvas: "ImageDraw",
    font: "FreeTypeFont | ImageFont",
    top: int,
    heading: str,
    rows: Sequence[Row],
    figures: Callable[[Row], tuple[float, float, str]],
) -> None:
    canvas.text((_MARGIN, top), heading, _INK, font)
    longest = max(figures(row)[1] for row in rows) or 1.0
    room = _WIDTH - 2 * _MARGIN - _LABELS - _FIGURES
    for at, row in enumerate(rows):
        y = top + 36 + at * (_BAR + _GAP)
        value, tail, text = figures(row)
        left = _MARGIN + _LABELS
        end, tail_end = left + room * value / longest, left + room * tail / longest
        label = f"{row.variant}  {row.accelerator} ({row.backend})"
        canvas.text((_MARGIN, y + 3), label, _INK if row.released else _SOFT, font)
        colour = _INT8 if row.precision == "int8" else _FP32
        canvas.rectangle((left, y, max(end, left + 1), y + _BAR), colour)
        if tail > value:
            middle = y + _BAR // 2
            canvas.rectangle((end + 1, middle - 2, tail_end, middle + 2), _TAIL)
        canvas.text((tail_end + 12, y + 3), text, _INK, font)


def _legend(canvas: "ImageDraw", top: int, font: "FreeTypeFont | ImageFont") -> None:
    left = _MARGIN
    for colour, text in ((_INT8, "INT8"), (_FP32, "other precisions")):
        canvas.rectangle((left, top + 3, left + 16, top + 19), colour)
        canvas.text((left + 24, top), text, _SOFT, font)
        left += 60 + int(canvas.textlength(text, font))
    canvas.text((left, top), "grey name: not released for that accelerator", _SOFT, font)


def _short(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3  # noqa: PLR2004 (powers of ten)
    return f"{value:,.{digits}f}"
