"""Does the release do harm by what the devices say of themselves? The thresholds of the plan.

A stage is judged from `min_samples` settled devices on. It has failed once more of its devices
failed than its share allows, even if all others did well; or earlier, if so many failures among
those that settled would hardly ever happen at the allowed share.
"""

import math
from collections.abc import Mapping

from fleet_protocol.counting import counted
from fleet_server.rollouts.rank_tests import binomial_tail
from fleet_server.rollouts.state import StageCounts, View

_EARLY_ALPHA = 0.001
"""Chance at which a stage stops before it is certain that its share of failures is too high."""


def harm_of(view: View) -> str:
    """Return why an open stage has failed, "" if none has."""
    for index in range(view.head.stage + 1):
        counts = view.stages[index]
        if _judged(counts) >= view.plan.min_samples:
            problem = _problem(view, counts)
            if problem:
                return f"stage {index + 1} of {len(view.stages)}: {problem}"
    return ""


def _judged(counts: StageCounts) -> int:
    return counts.settled - counts.excused_failed - counts.excused_silent


def _problem(view: View, counts: StageCounts) -> str:
    plan = view.plan
    failed, silent = {"failed": counts.failed}, {"fell silent": counts.silent}
    if plan.timeout_threshold is None:
        return _over(failed | silent, counts, plan.failure_threshold)
    return _over(failed, counts, plan.failure_threshold) or _over(
        silent, counts, plan.timeout_threshold
    )


def _over(of: Mapping[str, int], counts: StageCounts, share: float) -> str:
    judged, bad = _judged(counts), sum(of.values())
    allowed = math.floor(share * counts.size + 1e-9)
    what = " and ".join(f"{count} {word}" for word, count in of.items() if count)
    said = f"of {counted(judged, 'judged device')} {what}"
    if bad > allowed:
        return f"{said}, at most {allowed} of its {counts.size} may ({100 * share:g} %)"
    if bad <= share * judged:
        return ""
    chance = binomial_tail(bad, judged, share)
    if chance < _EARLY_ALPHA:
        return (
            f"{said}; if {100 * share:g} % did, so many would by chance {chance:.1g} of the time "
            "(exact binomial test)"
        )
    return ""
