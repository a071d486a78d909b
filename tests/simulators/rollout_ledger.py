"""A rollout in memory: what the database holds, with its compare-and-set, and nothing else.

Servers in tests read a `View` at a revision and commit a decision at that revision, as the real
store does; the world of devices moves only when a test says so.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

from fleet_protocol.messages import Capabilities, Reported, RunningModel, UpdateStatus
from fleet_protocol.update_states import UpdateState
from fleet_server.rollouts import interventions, membership
from fleet_server.rollouts.members import (
    IN_FLIGHT,
    TO_RECALL,
    TO_RETURN,
    WATCHED,
    Member,
    MemberState,
    settled,
)
from fleet_server.rollouts.plan import Plan
from fleet_server.rollouts.state import Decision, Head, StageCounts, Status, View

S = MemberState


@dataclass
class Device:
    """How a device behaves with the new release.

    Attributes:
        fate: the state in which its update ends; None: it never answers again.
        takes_ms: from the order to that state.
        detail: what it says of its update.
    """

    fate: UpdateState | None = UpdateState.COMMITTED
    takes_ms: int = 1000
    detail: str = ""
    version: str = "1.0.0"
    assignment: int = 0
    told: tuple[str | None, int] | None = None

    def tell(self, version: str | None, assignment: int, now_ms: int) -> None:
        self.told = (version, now_ms)
        self.assignment = assignment

    def reported(self, now_ms: int, *, old: str = "1.0.0") -> Reported | None:
        if self.told is None:
            return _report(0, self.version, self.version, UpdateState.COMMITTED)
        version, since_ms = self.told
        if self.fate is None and version != old:
            return _report(0, old, old, UpdateState.COMMITTED)
        if version is None or now_ms < since_ms + self.takes_ms:
            return _report(self.assignment, self.version, version or "", UpdateState.DOWNLOADING)
        fate = UpdateState.COMMITTED if version == old else self.fate
        if fate is UpdateState.COMMITTED:
            self.version = version
        return _report(
            self.assignment, self.version, version, fate or UpdateState.IDLE, self.detail
        )


def _report(
    assignment: int, running: str, update: str, state: UpdateState, detail: str = ""
) -> Reported:
    return Reported(
        at_ms=0,
        agent_version="0",
        assignment_version=assignment,
        runtime_up=True,
        running=[
            RunningModel(
                family="animals",
                version=running,
                variant="v",
                backend="b",
                accelerator="cpu",
                committed=True,
            )
        ],
        updates=[UpdateStatus(family="animals", version=update, state=state, detail=detail)]
        if update
        else [],
        capabilities=Capabilities(machine="m", cpu_count=1),
    )


@dataclass
class Ledger:
    """The stored rollout, and the fleet that it moves."""

    plan: Plan
    devices: dict[str, Device]
    now_ms: int = 1_800_000_000_000
    head: Head = field(default_factory=Head)
    revision: int = 0
    history: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        ordered = membership.in_order("r1", self.devices)
        ends = membership.stage_ends(self.plan, len(ordered))
        self.order = ordered
        self.members = {
            device_id: Member(
                device_id=device_id, stage=stage, state=S.WAITING, previous_version="1.0.0"
            )
            for device_id, stage in membership.staged(ordered, ends)
        }
        self.settled_ms: dict[str, int] = {}
        self.excused: set[str] = set()
        self.retried: list[str] = []
        self.gone: set[str] = set()

    def observe(self) -> bool:
        """Take what devices say, as the service does in the transaction of a decision."""
        changed = False
        for device_id, member in self.members.items():
            if member.state not in WATCHED and device_id not in self.gone:
                continue
            outcome = settled(
                member,
                self.plan,
                reported=self.devices[device_id].reported(self.now_ms),
                decommissioned=device_id in self.gone,
                now_ms=self.now_ms,
            )
            if outcome is not None and outcome.state is not member.state:
                self.members[device_id] = replace(member, state=outcome.state)
                self.settled_ms[device_id] = self.now_ms
                changed = True
        self.revision += changed
        return changed

    def view(self) -> View:
        """Return what the engine sees."""
        open_stages = [m for m in self._ordered() if m.stage <= self.head.stage]
        newest = [
            self.settled_ms[m.device_id]
            for m in open_stages
            if m.stage == self.head.stage and m.device_id in self.settled_ms
        ]
        return View(
            plan=self.plan,
            head=self.head,
            stages=tuple(self._counts(index) for index in range(len(self.plan.stages))),
            now_ms=self.now_ms,
            settled_ms=max(newest, default=None),
            turn=_ids(open_stages, S.WAITING, S.PREPARED),
            ahead=_ids(open_stages, S.WAITING),
            to_return=tuple(
                one
                for state in TO_RETURN
                for one in _ids(self._ordered(), state)
                if self.head.status is Status.ROLLING_BACK
            ),
            to_recall=_ids(
                self._ordered(),
                *(TO_RECALL if self.head.status is Status.ROLLING_BACK else (S.PREPARED,)),
            )
            if self.head.status in {Status.ROLLING_BACK, Status.ABORTED}
            else (),
        )

    def commit(self, decision: Decision, *, at_revision: int) -> bool:
        """Store a decision unless something was stored since its view was read."""
        if at_revision != self.revision:
            return False
        self.revision += 1
        if interventions.excuses(self.head, decision):
            self.excused |= {
                m.device_id for m in self.members.values() if m.state in {S.FAILED, S.SILENT}
            }
        self.head = decision.head
        self.history.append(decision)
        for device_id in decision.devices:
            member = self.members[device_id]
            assert decision.become is not None
            self.members[device_id] = replace(
                member,
                state=decision.become,
                ordered_ms=self.now_ms,
                assignment_version=self.revision,
            )
            self.excused.discard(device_id)
            wanted = {
                S.ACTIVATING: self.plan.version,
                S.RETURNING: member.previous_version,
                S.RECALLED: member.previous_version,
            }
            if decision.become in wanted:
                self.devices[device_id].tell(wanted[decision.become], self.revision, self.now_ms)
        return True

    def in_state(self, *states: MemberState) -> list[str]:
        return [m.device_id for m in self._ordered() if m.state in states]

    @property
    def in_flight(self) -> int:
        return len(self.in_state(*IN_FLIGHT))

    def _ordered(self) -> list[Member]:
        return [self.members[device_id] for device_id in self.order]

    def _counts(self, stage: int) -> StageCounts:
        here = [m for m in self.members.values() if m.stage == stage]
        excused = [m for m in here if m.device_id in self.excused]
        return StageCounts(
            states=dict(Counter(m.state for m in here)),
            excused_failed=sum(m.state is S.FAILED for m in excused),
            excused_silent=sum(m.state is S.SILENT for m in excused),
        )


def _ids(members: list[Member], *states: MemberState) -> tuple[str, ...]:
    return tuple(m.device_id for m in members if m.state in states)
