"""Which device belongs to which stage: a pure function of rollout and device ids.

The order is that of a hash, so that the same few devices are not the canaries of every rollout,
and every server finds the same order.
"""

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from fleet_server.errors import RefusedError
from fleet_server.rollouts.plan import Plan, Stage


def rank(rollout_id: str, device_id: str) -> int:
    """Return the place of a device in a rollout, from 0 to 2**62."""
    digest = hashlib.sha256(f"{rollout_id}/{device_id}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 2


def in_order(rollout_id: str, device_ids: Iterable[str]) -> list[str]:
    """Return devices in the order of their turn."""
    return sorted(device_ids, key=lambda device_id: (rank(rollout_id, device_id), device_id))


def with_stages(plan: Plan, members: int) -> Plan:
    """Return a plan that has stages: its own, or else a canary, a tenth and everyone.

    In a small fleet only those of them that add enough devices to be judged.
    """
    if plan.stages:
        return plan
    needed = plan.min_samples
    stages: list[Stage] = []
    reached = 0
    for stage in (Stage(count=needed), Stage(percent=10)):
        end = stage.end(members)
        if end - reached >= needed and members - end >= needed:
            stages.append(stage)
            reached = end
    return msgspec.structs.replace(plan, stages=(*stages, Stage(percent=100)))


def stage_ends(plan: Plan, members: int) -> list[int]:
    """Return for each stage how many members have the release once it is done.

    Raises:
        RefusedError: a stage would add no device, or fewer than are needed to judge it.
    """
    ends: list[int] = []
    for number, stage in enumerate(plan.stages, 1):
        before = ends[-1] if ends else 0
        end = stage.end(members)
        added = end - before
        if added <= 0:
            raise RefusedError(
                f"plan.stages: stage {number} would add no device: stage {number - 1} already has "
                f"{before} of the {members} devices; leave it out or let it go further"
            )
        if added < plan.min_samples:
            raise RefusedError(
                f"plan.min_samples: stage {number} adds {added} of the {members} devices, fewer "
                f"than the {plan.min_samples} that are needed to judge it; make the stage larger "
                "or lower min_samples"
            )
        ends.append(end)
    return ends


def staged(ordered: Sequence[str], ends: Sequence[int]) -> list[tuple[str, int]]:
    """Return each device with the index of its stage."""
    stages: list[tuple[str, int]] = []
    start = 0
    for index, end in enumerate(ends):
        stages += [(device_id, index) for device_id in ordered[start:end]]
        start = end
    return stages
