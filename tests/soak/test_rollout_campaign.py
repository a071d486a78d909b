"""200 devices with the agent's real control code go through good and bad releases, and kills.

``CAMPAIGN_DEVICES=36 make soak ARGS="-k campaign"`` is a small one. What every rollout must keep to
is asserted by the scenarios; what a reader is promised is in the rows of the benchmark. Part of all
tests is a fleet of eight (`tests/integration/rollouts`).
"""

import pytest

from benchmarks import rollout_campaign

pytestmark = pytest.mark.timeout(0)


def test_bad_releases_stop_early_and_no_killed_server_changes_the_end() -> None:
    rows = rollout_campaign.go_through(lambda _: None)
    assert [row for row in rows if row.met is False] == []
