"""The campaign as a benchmark: it keeps what it measured, and leaves nothing running."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from benchmarks import rollout_campaign
from benchmarks.measuring.rollout_outcome import Outcome, Scenario
from benchmarks.report import Row
from tests.simulators import child_process

DEVICES = 40


def outcome(scenario: Scenario, **changes: object) -> Outcome:
    good = scenario.release is Scenario.GOOD
    stated: dict[str, object] = {
        "scenario": scenario,
        "status": "completed" if good else "rolled_back",
        "runs": {"new" if good else "old": DEVICES},
        "stages": [],
        "first_stage": 12,
        "touched": 12,
        "elsewhere": 0,
        "reason": "5 failed, at most 1 of its 12 may",
        "stopped_s": None if good else 4.0,
        "took_s": 60.0,
        "in_flight": 12,
        "on_trial": 12,
        "budget": 12,
        "decisions": 20,
        "kills": {"at random": 3} if scenario.deaths else {},
        "ended_s": 1.8e9,
    }
    return msgspec.convert(stated | changes, Outcome)


def unmet(rows: list[Row]) -> set[str]:
    return {row.name for row in rows if row.met is False}


def test_what_is_missing_is_a_claim_that_is_not_met() -> None:
    found = [outcome(Scenario.GOOD), outcome(Scenario.GOOD_KILLED_AT_RANDOM)]
    rows = rollout_campaign.rows(found, devices=DEVICES)
    assert unmet(rows) == {"scenarios that were gone through"}
    assert (rows[0].value, rows[0].goal) == (2, f">= {len(Scenario)}")
    assert "false stops in 2 good rollouts" in {row.name for row in rows}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"status": "stopped"}, "false stops in 2 good rollouts"),
        ({"stages": [{"silent": 1}]}, "other end states with a killed server"),
        ({"on_trial": 13}, "rollouts beyond their disruption budget"),
        ({"runs": {"new": 39, "old": 1}}, "good, server killed at each write: devices that run it"),
        ({"kills": {}}, "kills of the server"),
    ],
)
def test_what_goes_wrong_is_seen(changes: dict[str, object], name: str) -> None:
    found = [outcome(Scenario.GOOD), outcome(Scenario.GOOD_KILLED, **changes)]
    assert name in unmet(rollout_campaign.rows(found, devices=DEVICES))


def test_what_was_measured_is_kept_and_the_newest_counts(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    made = [outcome(Scenario.FAILING), outcome(Scenario.GOOD), outcome(Scenario.GOOD, took_s=9.0)]
    whole = b"".join(msgspec.json.encode(each) + b"\n" for each in made)
    kept.write_bytes(whole + whole[:50])  # it was ended while it wrote
    found = rollout_campaign.outcomes(kept)
    assert [each.scenario for each in found] == [Scenario.GOOD, Scenario.FAILING]
    assert found[0].took_s == 9.0


_CAMPAIGN = """
import pathlib, signal, sys
def end(*_):
    pathlib.Path(sys.argv[1], "stopped").touch()
    sys.exit()
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1], "runs").touch()
signal.pause()
"""
_BENCHMARK = """
import signal, sys
from benchmarks import rollout_campaign
# Whoever is started in a shell's background ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
with rollout_campaign.running(sys.argv[1:]) as process:
    process.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_the_benchmark_ends_the_campaign_in_order(
    number: signal.Signals, tmp_path: Path
) -> None:
    campaign = child_process.bound([sys.executable, "-c", _CAMPAIGN, str(tmp_path)], "TERM")
    benchmark = subprocess.Popen(
        [sys.executable, "-c", _BENCHMARK, *campaign],
        cwd=child_process.ROOT,
        stderr=subprocess.DEVNULL,
    )
    until((tmp_path / "runs").exists)
    benchmark.send_signal(number)
    benchmark.wait(30)
    until((tmp_path / "stopped").exists)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
