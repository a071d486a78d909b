"""A small fleet of real control code, a real server with its broker, PostgreSQL: two rollouts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.settings import ControlSettings
from fleet_server.rollouts.watching import RESTS
from tests.integration.server.running_server import RunningServer
from tests.simulators import rollout_record
from tests.simulators.agent_processes import Devices
from tests.simulators.postgresql_cluster import Cluster
from tests.simulators.release_behaviour import Behaviour
from tests.simulators.rollout_campaign import Campaign
from tests.unit.fleet_server.authority import Fleet

DEVICES = 8
STAGES = [{"count": 3}, {"percent": 100}]
SETTINGS = ControlSettings(
    telemetry_window_s=1.0,
    probation_s=1.0,
    report_interval_s=30.0,
    retry_initial_s=0.2,
    retry_shared_initial_s=0.2,
    retry_max_s=1.0,
)


@pytest.fixture
async def campaign(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Campaign]:
    fleet = await asyncio.to_thread(Fleet.provision, tmp_path / "authority")
    server = RunningServer(fleet)
    url = await cluster.create()
    server.environment |= {
        "SKERRY_SERVER_DATABASE_URL": url,
        "SKERRY_SERVER_ROLLOUT_INTERVAL_S": "0.2",
    }
    await asyncio.to_thread(server.skerry, "server", "migrate")
    await asyncio.to_thread(server.start)
    devices = await asyncio.to_thread(
        Devices.enrolled, fleet, server.url, tmp_path / "devices", DEVICES, SETTINGS
    )
    token = await asyncio.to_thread(
        server.skerry, "server", "token", "--name", "a", "--role", "admin"
    )
    made = Campaign(server, devices, token.stdout.strip(), deadline_s=60)
    await made.publish(Behaviour(version="1.0.0"))
    with devices.running():
        await made.everywhere("1.0.0")
        yield made
    await asyncio.to_thread(server.stop)
    await cluster.drop(url)
    assert "traceback" not in server.log_path.read_text().lower()


async def test_a_bad_release_goes_back_and_a_good_one_outlives_a_killed_server(
    campaign: Campaign,
) -> None:
    limits = {"stages": STAGES, "min_samples": 2, "max_in_flight": 5, "comparison": None}
    await campaign.publish(Behaviour(version="2.0.0", failing=1.0))
    bad = await campaign.rollout("2.0.0", **limits, failure_threshold=0.0)
    await campaign.ended(bad)
    stopped = await campaign.settled(bad)
    rollout_record.check(stopped)
    assert stopped.status == "rolled_back"
    assert set(stopped.view["progress"][1]["states"]) == {"waiting"}
    assert campaign.devices.touched("2.0.0") <= stopped.first_stage()
    assert campaign.devices.serving("1.0.0") == DEVICES

    await campaign.publish(Behaviour(version="3.0.0"))
    good = await campaign.rollout("3.0.0", **limits)
    await campaign.until(lambda: campaign.devices.serving("3.0.0") > 0)
    await campaign.kill_server()
    await campaign.ended(good)
    done = await campaign.settled(good)
    rollout_record.check(done)
    assert (done.status, done.view["healthy"]) == ("completed", DEVICES)
    assert campaign.devices.serving("3.0.0") == DEVICES

    shown = await commanded(campaign, "show", str(good))
    assert f"{DEVICES}/{DEVICES} devices healthy" in shown
    assert f"rollout {good}" in await commanded(
        campaign, "rollback", str(good), "--reason", "a drill"
    )
    said = await commanded(campaign, "watch", str(good), status=RESTS["rolled_back"])
    assert said.splitlines()[-1].startswith("rolled_back")
    await campaign.served("1.0.0")


async def commanded(campaign: Campaign, *arguments: str, status: int = 0) -> str:
    """Run a command of `skerry fleet rollout` that ends with a status."""
    server = campaign.server
    token = server.fleet.authority.root / "token"
    token.touch(mode=0o600)
    token.write_text(campaign.token)
    where = ["--server", server.url, "--token-file", str(token), "--ca", str(server.ca)]
    done = await asyncio.to_thread(server.skerry, "fleet", "rollout", *arguments, *where)
    assert done.returncode == status, done.stderr
    return done.stdout
