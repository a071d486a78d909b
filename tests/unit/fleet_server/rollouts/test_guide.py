"""The plan that the guide shows is a plan, with the defaults that it says."""

import json
import re
from pathlib import Path

from fleet_server.rollouts.schemas import PlanBody

_GUIDE = Path(__file__).parents[4] / "docs" / "rollouts.md"


def test_the_guide_shows_the_defaults() -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", _GUIDE.read_text(), re.DOTALL)
    plan = json.loads(shown)
    stated = PlanBody.model_validate(plan).model_dump(mode="json")
    assert stated["window"] == plan["window"]
    default = PlanBody.model_validate({"stages": plan["stages"], "window": plan["window"]})
    assert stated == default.model_dump(mode="json")
    assert set(plan) == set(stated)
