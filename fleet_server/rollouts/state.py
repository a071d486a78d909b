"""The state of a rollout as the engine sees it, and what a decision makes of it."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from fleet_server.clock import Span
from fleet_server.rollouts.members import IN_FLIGHT, MemberState
from fleet_server.rollouts.plan import Plan
from fleet_server.rollouts.windows import is_open, open_ms

MAX_DEVICES = 200
"""Devices that one decision concerns at most; the next decision takes the next ones."""


class Status(StrEnum):
    """Where a rollout stands."""

    RUNNING = "running"
    PAUSED = "paused"
    """By an operator."""
    STOPPED = "stopped"
    """By the engine; an operator resumes, rolls back or aborts it."""
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    COMPLETED = "completed"
    """Devices that join its group later get the release too, until a newer rollout replaces it."""
    ABORTED = "aborted"


OVER = frozenset({Status.ROLLED_BACK, Status.ABORTED})
"""Nothing is decided any more; devices that come back late are still noted."""


class Kind(StrEnum):
    """What was decided or noted; one row of the history each."""

    CREATED = "created"
    OBSERVED = "observed"
    OPENED_STAGE = "opened_stage"
    PREPARED = "prepared"
    ACTIVATED = "activated"
    COMPARED = "compared"
    STOPPED = "stopped"
    RETURNED = "returned"
    RECALLED = "recalled"
    COMPLETED = "completed"
    ROLLED_BACK = "rolled_back"
    JOINED = "joined"
    PAUSED = "paused"
    RESUMED = "resumed"
    ABORTED = "aborted"
    ROLL_BACK_ASKED = "roll_back_asked"
    RETRIED = "retried"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What changes of a rollout as a whole.

    Attributes:
        stage: index of the newest open stage, -1 before the first.
        looks: comparisons made so far.
        compared_devices: healthy devices at the last of them.
        compared_stage: the newest stage whose gate has had its comparison.
    """

    status: Status = Status.RUNNING
    stage: int = -1
    looks: int = 0
    compared_devices: int = 0
    compared_stage: int = -1


class StageCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How the devices of one stage stand.

    Attributes:
        excused: failed and silent ones that an operator accepted by resuming; they are in
            ``states`` too.
    """

    states: Mapping[MemberState, int] = {}
    excused_failed: int = 0
    excused_silent: int = 0

    def of(self, *states: MemberState) -> int:
        """Return how many devices are in one of some states."""
        return sum(self.states.get(state, 0) for state in states)

    @property
    def size(self) -> int:
        """Devices that still exist."""
        return sum(self.states.values()) - self.of(MemberState.GONE)

    @property
    def failed(self) -> int:
        """Failed and not excused."""
        return self.of(MemberState.FAILED) - self.excused_failed

    @property
    def silent(self) -> int:
        """Silent and not excused."""
        return self.of(MemberState.SILENT) - self.excused_silent

    @property
    def settled(self) -> int:
        """Of which it is known, or past the deadline, how they ended."""
        return self.of(MemberState.HEALTHY, MemberState.FAILED, MemberState.SILENT)

    @property
    def answered(self) -> int:
        """Which said themselves how they ended."""
        return self.of(MemberState.HEALTHY, MemberState.FAILED)


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a decision depends on.

    Attributes:
        stages: counts of every stage of the plan.
        settled_ms: when the last device of the newest open stage settled.
        deaf: spans in which the fleet was not heard; no time is counted in them.
        untold: devices that change now and whose assignments are not signed yet.
        turn: devices of open stages whose turn to activate is next, in order.
        ahead: devices of open stages that may fetch ahead, in order.
        to_return: devices that run the new release or change to it, those in flight first.
        to_recall: devices that are assigned the new release and do not run it.
    """

    plan: Plan
    head: Head
    stages: tuple[StageCounts, ...]
    now_ms: int
    settled_ms: int | None = None
    deaf: tuple[Span, ...] = ()
    untold: int = 0
    turn: tuple[str, ...] = ()
    ahead: tuple[str, ...] = ()
    to_return: tuple[str, ...] = ()
    to_recall: tuple[str, ...] = ()

    def total(self, *states: MemberState) -> int:
        """Return how many members are in one of some states."""
        return sum(stage.of(*states) for stage in self.stages)

    @property
    def in_flight(self) -> int:
        """Devices that change now."""
        return self.total(*IN_FLIGHT)

    @property
    def room(self) -> int:
        """How many more may change at the same time."""
        return max(0, self.plan.max_in_flight - self.in_flight)

    @property
    def watched_ms(self) -> int:
        """For how long the newest open stage has been watched since its last device settled."""
        if self.settled_ms is None:
            return 0
        return open_ms(None, self.settled_ms, self.now_ms, self.deaf)

    @property
    def window_open(self) -> bool:
        """Whether devices may be disturbed now."""
        return is_open(self.plan.window, self.now_ms)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What is done now.

    Attributes:
        reason: a sentence for the operator.
        inputs: the numbers that it rests on, as JSON values.
        head: the state of the rollout afterwards.
        devices: whom it concerns, in order.
        become: the state that they get.
    """

    kind: Kind
    reason: str
    inputs: Mapping[str, object]
    head: Head
    devices: tuple[str, ...] = ()
    become: MemberState | None = None


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing is done now; why, as a sentence, and the numbers."""

    reason: str
    inputs: Mapping[str, object]
