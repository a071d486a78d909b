"""Whether a candidate agrees with the release that serves, on live requests: pure.

All answers that were asked for decide plainly. If they do not come in time, those that came refuse
the candidate only if chance hardly explains how many disagree; otherwise it goes on, and says on
how few: a device that nobody calls must be able to update.
"""

from dataclasses import dataclass

from edge_agent.control.significance import chance_of_at_least
from edge_agent.runtime_api import ShadowReport
from fleet_protocol.manifest import Shadowing

_CHANCE = 0.01


@dataclass(frozen=True, slots=True)
class Agreement:
    """The outcome.

    Attributes:
        passed: None while more answers are to come.
        detail: for a person.
    """

    passed: bool | None
    detail: str


def conclude(
    report: ShadowReport, shadowing: Shadowing, *, elapsed_s: float, hang_s: float
) -> Agreement:
    """Say whether the candidate may be switched to.

    Args:
        report: what it has answered.
        shadowing: what the manifest asks for.
        elapsed_s: how long it has shadowed.
        hang_s: an answer that takes longer never comes.
    """
    if report.running_s > hang_s:
        return Agreement(
            passed=False,
            detail=f"an answer to a live request had not come after {report.running_s:.0f} s",
        )
    said = (
        f"{report.agreed} of {report.compared} answers to live requests agreed with the release "
        f"that serves, wanted are {shadowing.min_agreement:.1%}"
    )
    if report.problem:
        said += f"; the last one that failed: {report.problem[:500]}"
    disagreed = report.compared - report.agreed
    if report.compared >= shadowing.requests:
        enough = report.agreed >= shadowing.min_agreement * report.compared
        return Agreement(passed=enough, detail=said)
    if elapsed_s < shadowing.timeout_s:
        return Agreement(passed=None, detail=said)
    chance = chance_of_at_least(disagreed, report.compared, 1 - shadowing.min_agreement)
    said += f"; {shadowing.requests} were asked for and no more came in {shadowing.timeout_s:g} s"
    return Agreement(passed=chance >= _CHANCE, detail=said)
