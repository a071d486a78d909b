"""What holds for every rollout, whatever devices, operators and servers do."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_protocol.update_states import UpdateState
from fleet_server.rollouts import engine, interventions
from fleet_server.rollouts.interventions import Intervention
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.plan import OnFailure, Plan, Stage
from fleet_server.rollouts.state import Decision, Kind, Status, View
from tests.simulators.rollout_ledger import Device, Ledger

S = MemberState
UNTOUCHED = {S.WAITING, S.PREPARED, S.GONE}
TICK_MS = 20_000

fates = st.sampled_from(
    [UpdateState.COMMITTED] * 4 + [UpdateState.FAILED, UpdateState.ROLLED_BACK, None]
)
devices = st.builds(Device, fate=fates, takes_ms=st.integers(0, 90_000))
fleets = st.lists(devices, min_size=6, max_size=24)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    first = draw(st.integers(1, 3))
    return Plan(
        family="animals",
        version="2.0.0",
        stages=(
            Stage(count=first, soak_s=draw(st.sampled_from([0.0, 30.0]))),
            Stage(percent=100),
        ),
        min_samples=draw(st.integers(1, first)),
        failure_threshold=draw(st.sampled_from([0.0, 0.1, 0.4, 1.0])),
        timeout_threshold=draw(st.sampled_from([None, 0.3])),
        timeout_s=60,
        max_in_flight=draw(st.integers(1, 6)),
        download_ahead=draw(st.booleans()),
        comparison=None,
        on_failure=draw(st.sampled_from(OnFailure)),
    )


def ledger(plan: Plan, fleet: list[Device]) -> Ledger:
    return Ledger(plan, {f"cam-{n}": replace(device) for n, device in enumerate(fleet)})


def judged(view: View, stage: int) -> int:
    return view.stages[stage].settled


def check(before: View, decided: Decision, made: Ledger) -> None:
    """Check one decision against the state that it was made from."""
    plan = made.plan
    assert made.in_flight <= plan.max_in_flight
    if decided.kind is Kind.OPENED_STAGE and before.head.stage >= 0:
        newest = before.stages[before.head.stage]
        assert newest.of(S.WAITING, S.PREPARED, S.ACTIVATING) == 0
        assert newest.answered >= plan.min_samples
    if decided.kind is Kind.STOPPED and decided.head.status is Status.ROLLING_BACK:
        assert max(judged(before, n) for n in range(before.head.stage + 1)) >= plan.min_samples
    beyond = [m for m in made.members.values() if m.stage > made.head.stage]
    assert all(m.state in {S.WAITING, S.GONE} for m in beyond)
    assert decided.reason.endswith(".")
    assert decided.inputs["now_ms"] == before.now_ms


def work(made: Ledger) -> Iterator[tuple[View, Decision]]:
    """Let one server decide until it has nothing to do."""
    while True:
        made.observe()
        view = made.view()
        decided = engine.decide(view)
        assert decided == engine.decide(view)
        if not isinstance(decided, Decision):
            return
        assert made.commit(decided, at_revision=made.revision)
        yield view, decided


@settings(max_examples=60, deadline=None)
@given(plans(), fleets, st.data())
def test_invariants_whatever_devices_and_operators_do(
    plan: Plan, fleet: list[Device], data: st.DataObject
) -> None:
    made = ledger(plan, fleet)
    for _ in range(12):
        for before, decided in work(made):
            check(before, decided, made)
        event = data.draw(st.sampled_from([None, None, None, "device", "retry", *Intervention]))
        if isinstance(event, Intervention):
            view = made.view()
            if made.head.status in interventions._ALLOWED[event]:
                made.commit(
                    interventions.intervene(view, event, who="ann", why=""),
                    at_revision=made.revision,
                )
        elif event == "device":
            made.gone.add(data.draw(st.sampled_from(made.order)))
        elif event == "retry" and made.head.status in interventions._RETRYABLE:
            bad = made.in_state(S.FAILED, S.SILENT)
            if bad:
                state = made.members[bad[0]].state
                made.commit(
                    interventions.retry(made.view(), bad[0], state, who="ann"),
                    at_revision=made.revision,
                )
        made.now_ms += TICK_MS


@settings(max_examples=40, deadline=None)
@given(plans(), fleets)
def test_every_rollout_ends(plan: Plan, fleet: list[Device]) -> None:
    made = ledger(plan, fleet)
    for _ in range(400):
        for before, decided in work(made):
            check(before, decided, made)
        made.now_ms += TICK_MS
        if made.head.status in {Status.COMPLETED, Status.STOPPED, Status.ROLLED_BACK}:
            break
    else:
        raise AssertionError(f"still {made.head} after {made.history[-3:]}")
    for _ in range(10):  # late devices hear of the end as well
        made.now_ms += TICK_MS
        made.observe()
    if made.head.status is Status.ROLLED_BACK:
        assert not made.in_state(S.HEALTHY, S.ACTIVATING, S.RETURNING)
        assert {d.version for d in made.devices.values() if d.fate} == {"1.0.0"}


@dataclass
class Server:
    """One server process: what it has read and not yet committed."""

    read: tuple[int, Decision] | None = None

    def step(self, made: Ledger) -> bool:
        """Read and decide, or commit what was decided; say whether it has anything to do."""
        if self.read is not None:
            (revision, decided), self.read = self.read, None
            made.commit(decided, at_revision=revision)
            return True
        made.observe()
        decision = engine.decide(made.view())
        if isinstance(decision, Decision):
            self.read = made.revision, decision
            return True
        return False


@settings(max_examples=40, deadline=None)
@given(plans(), fleets, st.lists(st.integers(0, 5), max_size=200))
def test_any_interleaving_of_servers_gives_one_history(
    plan: Plan, fleet: list[Device], schedule: list[int]
) -> None:
    alone, shared = ledger(plan, fleet), ledger(plan, fleet)
    servers = [Server() for _ in range(3)]
    turns = iter(schedule)
    for _ in range(8):
        for _ in work(alone):
            pass
        busy = True
        while busy:
            chosen = next(turns, None)
            if chosen is None:
                busy = any(server.step(shared) for server in servers)
            elif chosen < len(servers):
                servers[chosen].step(shared)
            else:
                servers[chosen - len(servers)] = Server()  # killed, and started again
        alone.now_ms += TICK_MS
        shared.now_ms += TICK_MS
    assert shared.history == alone.history
    assert shared.members == alone.members
