"""Rollouts on a fleet of simulated devices that run the agent's real control code.

A real server with its broker and PostgreSQL, devices with real verification, databases and
connections; only what runs the models is simulated. ``CAMPAIGN_DEVICES=36`` makes it small. The
scenarios are those of the soak test (`tests.simulators.campaign_scenarios`), in a process of their
own, which says how it goes.
"""

import os
import runpy
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.measuring.other_load import OtherLoad
from benchmarks.measuring.rollout_outcome import Outcome
from benchmarks.report import Row, at_least, at_most, figure

_DEVICES = int(os.environ.get("CAMPAIGN_DEVICES", "200"))
_ROOT = Path(__file__).parent.parent
_GOOD = "good"
HOW = (
    f"CAMPAIGN_DEVICES={_DEVICES} make bench NAME=rollout_campaign (each rollout: 10 % canaries, "
    "at least 12, a budget of as many devices, 5 % that may fail, 120 s for a device to settle)"
)


def run() -> list[Row]:
    """Run the campaign in a process of its own and read what it found."""
    # By its path: libraries install a package `tests` of their own.
    child = runpy.run_path(str(_ROOT / "tests/simulators/child_process.py"))
    others = OtherLoad()
    with tempfile.TemporaryDirectory(prefix="skerry-") as folder:
        results = Path(folder) / "outcomes.json"
        command = child["command"]("tests.simulators.campaign_scenarios", _DEVICES, results)
        subprocess.run(command, check=True, cwd=_ROOT)
        outcomes = msgspec.json.decode(results.read_bytes(), type=list[Outcome])
    busy = figure(
        "the machine meanwhile: kept busy by others", round(others.cores(), 2), "cores", HOW
    )
    return [*rows(outcomes, devices=_DEVICES), busy]


def rows(outcomes: Sequence[Outcome], *, devices: int) -> list[Row]:
    """Return the claims with what was found."""
    made: list[Row] = []
    for outcome in outcomes:
        made += _good(outcome, devices) if outcome.scenario == _GOOD else _bad(outcome, devices)
    good = [outcome for outcome in outcomes if outcome.scenario == _GOOD]
    false = sum(outcome.status != "completed" for outcome in good)
    kills = sum(sum(each.kills.values()) for each in outcomes)
    over = sum(max(each.in_flight, each.on_trial or 0) > each.budget for each in outcomes)
    return [
        *made,
        at_most(f"false stops in {len(good)} good rollouts", false, "rollouts", 0, HOW),
        at_most("rollouts beyond their disruption budget", over, "rollouts", 0, HOW),
        at_most("other end states with a killed server", _different(outcomes), "rollouts", 0, HOW),
        at_least("kills of the server", kills, "kills", 1, HOW),
    ]


def _good(outcome: Outcome, devices: int) -> list[Row]:
    return [
        at_least(
            f"{outcome.name}: devices that run it",
            outcome.runs.get("new", 0),
            "devices",
            devices,
            HOW,
        ),
        figure(f"{outcome.name}: took", round(outcome.took_s, 1), "s", HOW),
        *_kills(outcome),
    ]


def _bad(outcome: Outcome, devices: int) -> list[Row]:
    name = outcome.name
    stopped_s = outcome.stopped_s if outcome.stopped_s is not None else float("inf")
    return [
        figure(f"{name}: devices that it touched", outcome.touched, "devices", HOW),
        at_most(f"{name}: of them not in the first stage", outcome.elsewhere, "devices", 0, HOW),
        figure(f"{name}: stopped after", round(stopped_s, 1), "s", f"{HOW}: {outcome.reason}"),
        at_least(
            f"{name}: devices on the old release in the end",
            outcome.runs.get("old", 0),
            "devices",
            devices,
            HOW,
        ),
        at_least(f"{name}: stopped for this very reason", _fits(outcome), "rollouts", 1, HOW),
        *_kills(outcome),
    ]


def _fits(outcome: Outcome) -> int:
    """Say whether a rollout was stopped by what was wrong with its release."""
    words = {
        "fails on 30 %": " failed, at most ",
        "20 % slower": "worse than the old release: latency",
        "silences 40 %": " fell silent, at most ",
    }
    return int(outcome.status == "rolled_back" and words[outcome.scenario] in outcome.reason)


def _kills(outcome: Outcome) -> list[Row]:
    return [
        figure(f"{outcome.name}: kills {moment}", count, "kills", HOW)
        for moment, count in outcome.kills.items()
    ]


def _different(outcomes: Sequence[Outcome]) -> int:
    """Count the rollouts with kills that did not end as the one without."""
    calm = {each.scenario: each.end_state for each in outcomes if not each.kills}
    return sum(each.end_state != calm[each.scenario] for each in outcomes if each.kills)
