"""Tells the receivers of webhooks that a rollout has ended, stopped, or was stopped by somebody.

A notice is written with the decision that it tells of, by whichever server won the write: so there
is one for each decision, whoever decides. Queue, signature and delivery are `fleet_server.alerts`'.
"""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.alerts import stored
from fleet_server.alerts.announcing import Announcements
from fleet_server.alerts.rules import Severity
from fleet_server.rollouts.snapshot import Snapshot
from fleet_server.rollouts.state import Decision, Kind

TOLD: Mapping[Kind, Severity] = {
    Kind.STOPPED: Severity.CRITICAL,
    Kind.ROLLED_BACK: Severity.WARNING,
    Kind.COMPLETED: Severity.INFO,
    Kind.PAUSED: Severity.INFO,
    Kind.RESUMED: Severity.INFO,
    Kind.ABORTED: Severity.INFO,
    Kind.ROLL_BACK_ASKED: Severity.INFO,
}
"""The decisions that change what becomes of a rollout, and how grave that is."""


async def tell(session: AsyncSession, seen: Snapshot, decision: Decision) -> None:
    """Queue the notice of a decision in its own transaction, if it is one to tell of."""
    severity = TOLD.get(decision.kind)
    if severity is None:
        return
    row = seen.row
    receivers = (await stored.receivers(session, {row.tenant}))[row.tenant]
    await Announcements(session, now_ms=seen.view.now_ms).tell(
        f"skerry.rollout.{decision.kind}",
        f"rollouts/{row.id}",
        {
            "rollout": row.id,
            "decision": row.revision + 1,
            "family": row.family,
            "version": row.version,
            "group": row.group_name,
            "selector": row.selector,
            "status": decision.head.status,
            "stage": decision.head.stage + 1,
            "stages": len(seen.plan.stages),
            "severity": severity,
            "detail": decision.reason,
        },
        [each for each in receivers if each.takes(severity)],
    )
