"""What a fleet goes through: releases that are good, fail, are slow or silence devices; kills.

Each scenario is one rollout on the same fleet, one after the other. Whatever must hold in each of
them is asserted here; what a reader wants to know is written down as `Outcome` when it has ended.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from benchmarks.measuring.rollout_outcome import Deaths, Outcome, Scenario
from edge_agent.settings import ControlSettings
from fleet_server.rollouts.state import Kind
from tests.integration.server.running_server import COLD, RunningServer
from tests.simulators import child_process, rollout_record
from tests.simulators.agent_processes import Devices
from tests.simulators.mosquitto import Mosquitto
from tests.simulators.postgresql_cluster import Cluster
from tests.simulators.release_behaviour import Behaviour
from tests.simulators.rollout_campaign import Campaign, Json
from tests.simulators.rollout_record import Record
from tests.unit.fleet_server.authority import Fleet

_LEAST_CANARIES = 12
_TIMEOUT_S = 120.0
_LONG_TIMEOUT_S = 1800.0
"""Where the server is killed again and again: nobody may be taken for silent meanwhile."""

_SETTINGS = ControlSettings(
    telemetry_window_s=4.0,
    probation_s=3.0,
    report_interval_s=60.0,
    poll_interval_s=30.0,
    retry_initial_s=0.5,
    retry_shared_initial_s=0.5,
    retry_max_s=2.0,
)


_BEHAVIOURS = {
    Scenario.GOOD: Behaviour(version="2.0.0"),
    Scenario.FAILING: Behaviour(version="3.0.0", failing=0.3),
    Scenario.SLOW: Behaviour(version="4.0.0", latency=1.2),
    Scenario.SILENT: Behaviour(version="5.0.0", silent=0.4, silence_s=1.5 * _TIMEOUT_S),
    Scenario.FAILING_KILLED: Behaviour(version="6.0.0", failing=0.3),
    Scenario.GOOD_KILLED: Behaviour(version="7.0.0"),
    Scenario.GOOD_KILLED_AT_RANDOM: Behaviour(version="8.0.0"),
}
_LONGEST_LIFE_S = 20.0
Take = Callable[[Outcome], None]


def _plan(scenario: Scenario, devices: int) -> Json:
    canaries = max(_LEAST_CANARIES, devices // 10)
    dies_often = scenario.deaths is Deaths.AT_EACH_WRITE
    return {
        "stages": [{"count": canaries}, {"percent": 50}, {"percent": 100}],
        "min_samples": 5,
        "failure_threshold": 0.05,
        "timeout_s": _LONG_TIMEOUT_S if scenario.deaths else _TIMEOUT_S,
        "max_in_flight": (2 if dies_often else 1) * canaries,
        "comparison": {"period_s": 600, "patience_s": 120, "when_inconclusive": "stop"},
    }


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


async def run(scenarios: Sequence[Scenario], *, devices: int, processes: int, take: Take) -> None:
    """Set a fleet up and let it go through the scenarios.

    Args:
        scenarios: in their order.
        devices: how many there are.
        processes: among which they are shared out.
        take: gets the outcome of each scenario when it has ended.

    Raises:
        AssertionError: something that must hold in every rollout did not.
    """
    async with _set_up(devices, processes) as campaign:
        good = "1.0.0"
        for number, scenario in enumerate(scenarios, 1):
            _say(f"=== {number} of {len(scenarios)}: {scenario}")
            took = await _through(campaign, scenario, good)
            take(took)
            good = _BEHAVIOURS[scenario].version if took.status == "completed" else good


@asynccontextmanager
async def _set_up(count: int, processes: int) -> AsyncIterator[Campaign]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skerry-campaign-")))
        cluster = Cluster()
        stack.callback(cluster.stop)
        await asyncio.to_thread(cluster.start)
        fleet = await asyncio.to_thread(Fleet.provision, folder / "authority")
        server = RunningServer(fleet, program=child_process.bound(COLD))
        server.environment |= {
            "SKERRY_SERVER_DATABASE_URL": await cluster.create(),
            "SKERRY_SERVER_ROLLOUT_INTERVAL_S": "0.5",
        }
        broker = await asyncio.to_thread(Mosquitto.beside, server)
        stack.callback(broker.stop)
        await asyncio.to_thread(broker.start)
        stack.callback(server.stop)
        await asyncio.to_thread(server.start)
        _say(f"enrolling {count} devices")
        devices = await asyncio.to_thread(
            Devices.enrolled, fleet, server.url, folder / "devices", count, _SETTINGS
        )
        made = await asyncio.to_thread(
            server.skerry, "server", "token", "--name", "a", "--role", "admin"
        )
        campaign = Campaign(
            server, devices, made.stdout.strip(), deadline_s=_LONG_TIMEOUT_S, say=_say
        )
        stack.enter_context(devices.running(processes=processes))
        await campaign.publish(Behaviour(version="1.0.0"))
        _say("every device installs its first release")
        await campaign.everywhere("1.0.0")
        yield campaign
        lines = server.log_path.read_text().splitlines()
        failures = [line for line in lines if "(most recent call last)" in line]
        assert not failures, failures[:3]


async def _through(campaign: Campaign, scenario: Scenario, good: str) -> Outcome:
    behaviour = _BEHAVIOURS[scenario]
    new = behaviour.version
    _say(f"--- {new} after {good}; the server dies {scenario.deaths or 'never'}")
    await campaign.publish(behaviour)
    plan = _plan(scenario, len(campaign.devices.states))
    campaign.kills.clear()
    async with AsyncExitStack() as stack:
        if scenario.deaths is Deaths.AT_RANDOM:
            deaths = campaign.at_random(_LONGEST_LIFE_S)
            await stack.enter_async_context(campaign.dying(deaths))
        elif scenario.deaths is Deaths.AT_EACH_WRITE:
            await stack.enter_async_context(campaign.dying(campaign.at_each_write()))
        number = await campaign.rollout(new, **plan)
        await campaign.ended(number)
    record = await campaign.settled(number)
    if record.status != "stopped":  # else devices keep what they have, and it is told as it is
        await campaign.served(new if record.status == "completed" else good)
    made = _outcome(campaign, scenario, record)
    _say(f"--- {msgspec.json.encode(made).decode()}")
    if record.status == "stopped":
        await campaign.everywhere(good)
    return made


def _outcome(campaign: Campaign, scenario: Scenario, record: Record) -> Outcome:
    devices, behaviour = campaign.devices, _BEHAVIOURS[scenario]
    new = behaviour.version
    runs = Counter(
        "new" if version == new else "old" for version in devices.running_versions().values()
    )
    touched, view = devices.touched(new), record.view
    stopped = bool(record.of(Kind.STOPPED))
    last = record.of(Kind.STOPPED if stopped else Kind.COMPLETED)[-1]
    return Outcome(
        scenario=scenario,
        status=record.status,
        runs=dict(runs),
        stages=[stage["states"] for stage in view["progress"]],
        first_stage=len(record.first_stage()),
        touched=len(touched),
        elsewhere=len(touched - record.first_stage()),
        reason=last["reason"],
        stopped_s=record.seconds_until(Kind.STOPPED) if stopped else None,
        took_s=(view["decisions"][0]["at_ms"] - view["created_ms"]) / 1000,
        in_flight=rollout_record.check(record),
        on_trial=None if behaviour.silent else devices.most_on_trial(new),
        budget=view["plan"]["max_in_flight"],
        decisions=len(record.decisions),
        kills=dict(campaign.kills),
        ended_s=time.time(),
    )


def main(devices: str, results: str, *scenarios: str) -> None:
    """Go through some scenarios and append each outcome as a line of JSON to a file.

    SIGTERM ends it like Ctrl-C does: everything that it started is stopped first.
    """

    def take(outcome: Outcome) -> None:
        with Path(results).open("ab") as file:
            file.write(msgspec.json.encode(outcome) + b"\n")
            file.flush()

    signal.signal(signal.SIGTERM, _interrupted)
    count = int(devices)
    wanted = [Scenario(each) for each in scenarios]
    campaign = run(wanted, devices=count, processes=processes_for(count), take=take)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(campaign)
        return
    _say("interrupted: everything is stopped, and what was measured is kept")
    sys.exit(128 + signal.SIGINT)


def _interrupted(*_: object) -> None:
    """Let asyncio do for SIGTERM what it does for SIGINT."""
    signal.raise_signal(signal.SIGINT)


def processes_for(devices: int) -> int:
    """Return among how many processes devices are shared out: one interpreter bears some 70."""
    return max(1, min(4, -(-devices // 70), 2 * (os.cpu_count() or 1)))
