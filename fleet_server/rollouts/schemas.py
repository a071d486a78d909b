"""What the routes say about rollouts."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from fleet_server.assignments.schemas import WindowBody
from fleet_server.paging import Cursor
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.plan import Inconclusive, OnFailure
from fleet_server.rollouts.snapshot import MAX_IN_FLIGHT
from fleet_server.rollouts.state import Kind, Status
from fleet_server.storable import StorableText

_DAY_S = 86_400
Share = Annotated[float, Field(ge=0, le=1)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StageBody(_Asked):
    """How far a stage goes, cumulative: `percent` or `count` of the devices have the release."""

    percent: Annotated[float, Field(gt=0, le=100)] | None = None
    count: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    soak_s: Annotated[float, Field(ge=0, le=30 * _DAY_S)] = 0
    """How long it is watched after its last device settled."""

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if (self.percent is None) == (self.count is None):
            raise ValueError("say either percent or count")
        return self


class ComparisonBody(_Asked):
    """How devices on the new release are compared with those on the old one."""

    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Chance, over the whole rollout, to stop a release that is no worse than the margins."""
    error_margin: Share = 0.01
    latency_margin: Annotated[float, Field(ge=0, le=10)] = 0.10
    quantiles: Annotated[
        list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=4)
    ] = [0.5, 0.95]
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Calls of a device before and after, to be compared."""
    period_s: Annotated[float, Field(ge=1, le=_DAY_S)] = 1800
    patience_s: Annotated[float, Field(ge=0, le=30 * _DAY_S)] = 900
    """How long a gate waits for traffic."""
    when_inconclusive: Inconclusive = Inconclusive.CONTINUE


def _compared() -> ComparisonBody | None:
    return ComparisonBody()


class PlanBody(_Asked):
    """Stages, thresholds and limits. A silent device counts as failed."""

    stages: Annotated[list[StageBody], Field(max_length=20)] = []
    """In order; the last one has `percent: 100`. None: one device, a tenth, everyone."""
    min_samples: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Devices of a stage that must have answered before it is judged."""
    failure_threshold: Share = 0.05
    timeout_threshold: Share | None = None
    """If set, silent devices are held against it and not against `failure_threshold`."""
    timeout_s: Annotated[float, Field(ge=1, le=300 * _DAY_S)] = 3600
    max_in_flight: Annotated[int, Field(ge=1, le=MAX_IN_FLIGHT)] = 10
    """Devices that change at the same time, at most."""
    window: WindowBody | None = None
    max_bytes_per_s: Annotated[int, Field(ge=1024, le=2**40)] | None = None
    download_ahead: bool = False
    comparison: ComparisonBody | None = Field(default_factory=_compared)
    """Null to judge by what devices say of themselves alone."""
    on_failure: OnFailure = OnFailure.ROLL_BACK

    @model_validator(mode="after")
    def _reaches_all(self) -> Self:
        if self.stages and self.stages[-1].percent != 100:  # noqa: PLR2004 (all of them)
            raise ValueError("the last stage must have percent: 100")
        return self


class CreateRollout(_Asked):
    """A release, the devices, and the plan."""

    family: Annotated[StorableText, Field(max_length=64)]
    version: Annotated[StorableText, Field(max_length=64)]
    selector: Annotated[str, Field(max_length=2000)] = "*"
    """Which devices, by labels and facts; `*` for all."""
    group: Annotated[StorableText, Field(max_length=64)] | None = None
    """Only devices of this group."""
    plan: PlanBody = Field(default_factory=PlanBody)


class Words(_Asked):
    """Why an operator does it; it is kept in the history."""

    reason: Annotated[StorableText, Field(max_length=500)] = ""


class RolloutSummary(BaseModel):
    """One rollout in a list."""

    id: int
    family: str
    version: str
    group: str | None
    selector: str
    status: Status
    stage: int
    """Number of the newest open stage, 0 before the first."""
    stages: int
    reason: str
    """Of the last decision."""
    superseded_by: int | None
    created_by: str
    created_ms: int
    changed_ms: int


class RolloutPage(BaseModel):
    """Some rollouts, the newest first."""

    rollouts: list[RolloutSummary]
    next_after: Cursor | None


class StageView(BaseModel):
    """How the devices of one stage stand."""

    number: int
    percent: float | None
    count: int | None
    soak_s: float
    open: bool
    devices: int
    states: dict[MemberState, int]
    excused: int
    """Failed and silent devices that an operator accepted by resuming."""


class DecisionView(BaseModel):
    """One row of the history."""

    number: int
    at_ms: int
    kind: Kind
    reason: str
    inputs: JsonValue
    devices: list[str]


class RolloutView(RolloutSummary):
    """One rollout with its progress and why it is where it is."""

    explanation: str
    """What it does or waits for now, as a sentence."""
    devices: int
    healthy: int
    failed: int
    silent: int
    in_flight: int
    progress: list[StageView]
    plan: JsonValue
    decisions: list[DecisionView]
    """The newest ones; `/decisions` has them all."""


class DecisionPage(BaseModel):
    """Some rows of the history, the newest first."""

    decisions: list[DecisionView]
    next_after: Cursor | None


class MemberView(BaseModel):
    """One device of a rollout."""

    device_id: str
    stage: int
    state: MemberState
    excused: bool
    retries: int
    previous_version: str | None
    assignment_version: int | None
    ordered_ms: int | None
    settled_ms: int | None
    detail: str


class MemberPage(BaseModel):
    """Some devices in the order of their ids."""

    devices: list[MemberView]
    next_after: Cursor | None
