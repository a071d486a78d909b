"""200 devices with the agent's real control code go through good and bad releases, and kills.

``CAMPAIGN_DEVICES=36 make soak ARGS="-k campaign"`` is a small one. What every rollout must keep to
is asserted by the scenarios; what a reader is promised is in the rows of the benchmark. Part of all
tests is a fleet of eight (`tests/integration/rollouts`).
"""

import os

import pytest

from benchmarks import rollout_campaign
from tests.simulators import campaign_scenarios

pytestmark = pytest.mark.timeout(0)

DEVICES = int(os.environ.get("CAMPAIGN_DEVICES", "200"))


async def test_bad_releases_stop_early_and_no_killed_server_changes_the_end() -> None:
    outcomes = await campaign_scenarios.run(
        devices=DEVICES, processes=campaign_scenarios.processes_for(DEVICES)
    )
    rows = rollout_campaign.rows(outcomes, devices=DEVICES)
    assert [row for row in rows if row.met is False] == []
