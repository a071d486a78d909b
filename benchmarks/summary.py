"""docs/measurements.md: every figure that has a goal, as the committed results have it."""

import importlib
from pathlib import Path

import msgspec

from benchmarks.report import RESULTS, Row

DOCUMENT = Path(__file__).parents[1] / "docs" / "measurements.md"

_INTRODUCTION = """# Measurements

Each figure that has a goal, as it was measured last, met or not. `make bench NAME=<heading>`
measures it again, prints all figures of its run, and writes them and this page. Ratios were taken
within one run, with the contenders in turns. Everything was measured on two processors of a virtual
x86-64 machine with neighbours: expect other absolute values elsewhere.
"""


def write() -> None:
    """Write the document anew from the results."""
    DOCUMENT.write_text(text())


def text() -> str:
    """Return the document as the results want it."""
    return "\n".join([_INTRODUCTION, *map(_section, sorted(RESULTS.glob("*.json")))])


def _section(results: Path) -> str:
    rows = msgspec.json.decode(results.read_bytes(), type=list[Row])
    judged = [row for row in rows if row.goal]
    purpose = (importlib.import_module(f"benchmarks.{results.stem}").__doc__ or "").partition("\n")
    lines = [f"## {results.stem}", "", purpose[0], ""]
    if judged:
        lines += ["| figure | value | goal | met |", "|---|---|---|---|", *map(_line, judged), ""]
    others = len(rows) - len(judged)
    if others:
        lines.append(
            f"{'And ' if judged else ''}{others} figures without a goal in "
            f"[{results.stem}.json](../benchmarks/results/{results.name}).\n"
        )
    return "\n".join(lines)


def _line(row: Row) -> str:
    met = "yes" if row.met else "**no**"
    return f"| {row.name.replace('|', '/')} | {row.value:g} {row.unit} | {row.goal} | {met} |"
