"""Rollouts on a fleet of simulated devices that run the agent's real control code.

A real server with its broker and PostgreSQL, devices with real verification, databases and
connections; only what runs the models is simulated. ``CAMPAIGN_DEVICES=36`` makes it small.
``CAMPAIGN_SCENARIOS=good,slow`` measures these two again and leaves the other figures as they are,
``CAMPAIGN_SCENARIOS=missing`` goes on where a run was interrupted. Each outcome is kept, and the
results are written, as soon as its scenario has ended.
"""

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from benchmarks import report
from benchmarks.measuring.environments import cache_folder
from benchmarks.measuring.other_load import OtherLoad
from benchmarks.measuring.rollout_outcome import Outcome, Scenario
from benchmarks.report import Row, at_least, at_most, figure

_NAME = "rollout_campaign"
_ROOT = Path(__file__).parent.parent
_ALL, _MISSING = "all", "missing"
_LEAST_DEVICES = 36
_LOOK_EVERY_S = 1.0
_STOPS_WITHIN_S = 120.0


def run() -> list[Row]:
    """Go through what is asked for in a process of its own; return all that is known by then.

    Raises:
        SystemExit: see `go_through`.
    """
    return go_through(partial(report.save, _NAME))


def go_through(write: Callable[[list[Row]], object]) -> list[Row]:
    """Go through what is asked for in a process of its own; return all that is known by then.

    Args:
        write: gets what is known by then whenever a scenario has ended.

    Raises:
        SystemExit: it was asked for what there is not, or the campaign failed or was interrupted;
            what had been measured is written.
    """
    devices = int(os.environ.get("CAMPAIGN_DEVICES", "200"))
    if devices < _LEAST_DEVICES:
        raise SystemExit(f"CAMPAIGN_DEVICES: the stages need {_LEAST_DEVICES} devices or more.")
    kept = cache_folder() / "campaigns" / f"{devices}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    wanted, others = _wanted(kept, os.environ.get("CAMPAIGN_SCENARIOS", _ALL)), OtherLoad()
    if wanted and _went_through(wanted, kept, devices, write):
        raise SystemExit(
            f"The campaign ended early. What it measured is kept: CAMPAIGN_SCENARIOS={_MISSING} "
            "goes on with the rest."
        )
    found = outcomes(kept)
    busy = round(others.cores(), 2)
    name = "the machine meanwhile, in the newest run: kept busy by others"
    return [*rows(found, devices=devices), figure(name, busy, "cores", _how(found, devices))]


def outcomes(kept: Path) -> list[Outcome]:
    """Return the newest outcome of each scenario that a file has, in the order of scenarios."""
    content = kept.read_bytes() if kept.exists() else b""
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    made = [msgspec.json.decode(line, type=Outcome) for line in lines]
    newest = {outcome.scenario: outcome for outcome in made}
    return [newest[scenario] for scenario in Scenario if scenario in newest]


def rows(found: Sequence[Outcome], *, devices: int) -> list[Row]:
    """Return the claims with what was found; scenarios that are missing are a claim not met.

    Args:
        found: at most one outcome of each scenario.
        devices: how many there were.
    """
    made: list[Row] = []
    for each in found:
        one = _good if each.scenario.release is Scenario.GOOD else _bad
        made += one(each, devices, _how([each], devices))
    how = _how(found, devices)
    good = [each for each in found if each.scenario.release is Scenario.GOOD]
    false = sum(each.status != "completed" for each in good)
    kills = sum(sum(each.kills.values()) for each in found)
    over = sum(max(each.in_flight, each.on_trial or 0) > each.budget for each in found)
    return [
        at_least("scenarios that were gone through", len(found), "scenarios", len(Scenario), how),
        *made,
        at_most(f"false stops in {len(good)} good rollouts", false, "rollouts", 0, how),
        at_most("rollouts beyond their disruption budget", over, "rollouts", 0, how),
        at_most("other end states with a killed server", _different(found), "rollouts", 0, how),
        at_least("kills of the server", kills, "kills", 1, how),
    ]


def _wanted(kept: Path, asked: str) -> list[Scenario]:
    """Return the scenarios to go through; all of them begin anew.

    Raises:
        SystemExit: there is no such scenario.
    """
    if asked == _ALL:
        kept.unlink(missing_ok=True)
        return list(Scenario)
    if asked == _MISSING:
        there = {outcome.scenario for outcome in outcomes(kept)}
        return [scenario for scenario in Scenario if scenario not in there]
    names = set(asked.split(","))
    if unknown := names - {*Scenario}:
        raise SystemExit(
            f"CAMPAIGN_SCENARIOS: there is no {', '.join(sorted(unknown))}. It is {_ALL}, "
            f"{_MISSING}, or some of {', '.join(Scenario)}, separated by commas."
        )
    return [scenario for scenario in Scenario if scenario in names]


def _went_through(
    wanted: Sequence[Scenario], kept: Path, devices: int, write: Callable[[list[Row]], object]
) -> int:
    """Go through scenarios, and write the rows whenever one has ended; return the exit status."""
    # By its path: libraries install a package `tests` of their own.
    child = runpy.run_path(str(_ROOT / "tests/simulators/child_process.py"))
    module = "tests.simulators.campaign_scenarios"
    written = outcomes(kept)
    with running(child["bound"](child["command"](module, devices, kept, *wanted), "TERM")) as it:
        ended = False
        while not ended:
            ended = it.poll() is not None
            if (found := outcomes(kept)) != written:
                write(rows(written := found, devices=devices))
            time.sleep(_LOOK_EVERY_S)
    return it.returncode


@contextmanager
def running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the campaign while the block lasts; whatever ends this process ends it in order, too."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    process = subprocess.Popen(command, cwd=_ROOT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(_STOPS_WITHIN_S)
        signal.signal(signal.SIGTERM, before)


def _how(found: Sequence[Outcome], devices: int) -> str:
    times = sorted(time.strftime("%Y-%m-%d %H:%M", time.gmtime(each.ended_s)) for each in found)
    ended = " to ".join(dict.fromkeys([*times[:1], *times[-1:]])) or "never"
    return (
        f"CAMPAIGN_DEVICES={devices} make bench NAME={_NAME} (each rollout: 10 % canaries, at "
        "least 12, a budget of as many devices, or of twice as many where the server dies at each "
        "write, 5 % that may fail, 120 s for a device to settle, or 1800 s where the server dies; "
        f"ended {ended} UTC)"
    )


def _good(outcome: Outcome, devices: int, how: str) -> list[Row]:
    name, runs = outcome.name, outcome.runs.get("new", 0)
    return [
        at_least(f"{name}: devices that run it", runs, "devices", devices, how),
        figure(f"{name}: took", round(outcome.took_s, 1), "s", f"{how}: {outcome.reason}"),
        *_kills(outcome, how),
    ]


def _bad(outcome: Outcome, devices: int, how: str) -> list[Row]:
    name, runs = outcome.name, outcome.runs.get("old", 0)
    stopped_s = outcome.stopped_s if outcome.stopped_s is not None else float("inf")
    return [
        figure(f"{name}: devices that it touched", outcome.touched, "devices", how),
        at_most(f"{name}: of them not in the first stage", outcome.elsewhere, "devices", 0, how),
        figure(f"{name}: stopped after", round(stopped_s, 1), "s", f"{how}: {outcome.reason}"),
        at_least(f"{name}: devices on the old release in the end", runs, "devices", devices, how),
        at_least(f"{name}: stopped for this very reason", _fits(outcome), "rollouts", 1, how),
        *_kills(outcome, how),
    ]


def _fits(outcome: Outcome) -> int:
    """Say whether a rollout was stopped by what was wrong with its release."""
    words = {
        Scenario.FAILING: " failed, at most ",
        Scenario.SLOW: "worse than the old release: latency",
        Scenario.SILENT: " fell silent, at most ",
    }
    fits = words[outcome.scenario.release] in outcome.reason
    return int(outcome.status == "rolled_back" and fits)


def _kills(outcome: Outcome, how: str) -> list[Row]:
    return [
        figure(f"{outcome.name}: kills {moment}", count, "kills", how)
        for moment, count in outcome.kills.items()
    ]


def _different(found: Sequence[Outcome]) -> int:
    """Count the rollouts with kills that did not end as the one without."""
    calm = {each.scenario: each.end_state for each in found if not each.scenario.deaths}
    killed = [each for each in found if each.scenario.deaths and each.scenario.release in calm]
    return sum(each.end_state != calm[each.scenario.release] for each in killed)
