"""Rollouts over a real database, the real assignments service and the real signer."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from sqlalchemy import func, insert, select

from fleet_protocol.update_states import UpdateState
from fleet_server.assignments.director import Director
from fleet_server.assignments.service import Assignments
from fleet_server.assignments.signer import AssignmentSigner
from fleet_server.clock import unix_ms
from fleet_server.database import Database
from fleet_server.releases.tables import Release
from fleet_server.rollouts.founding import Founding
from fleet_server.rollouts.loop import RolloutLoop
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.orders import Orders
from fleet_server.rollouts.plan import Plan, Stage
from fleet_server.rollouts.service import Rollouts
from fleet_server.rollouts.state import Status
from fleet_server.rollouts.tables import Rollout, RolloutDecision, RolloutMember
from fleet_server.rollouts.tally import Tally, places
from tests.simulators.rollout_fleet import FAMILY, Downlink, Fleet
from tests.simulators.rollout_ledger import Device
from tests.unit.fleet_server.assigning import Index, InProcessSigner
from tests.unit.fleet_server.authority import Fleet as Authority
from tests.unit.fleet_server.conftest import FakeClock


def a_plan(**changes: object) -> Plan:
    stated: dict[str, object] = {
        "family": FAMILY,
        "version": "2.0.0",
        "stages": (Stage(count=4), Stage(percent=100)),
        "min_samples": 2,
        "failure_threshold": 0.25,
        "timeout_s": 60,
        "max_in_flight": 5,
        "comparison": None,
    }
    return Plan(**(stated | changes))  # type: ignore[arg-type]


@dataclass
class World:
    """One fleet, and as many servers as a test makes."""

    database: Database
    signer: InProcessSigner
    director: Director
    invitations: dict[str, str]
    clock: FakeClock
    downlink: Downlink = field(default_factory=Downlink)
    index: Index = field(default_factory=Index)
    fleet: Fleet = field(init=False)

    async def populate(
        self,
        count: int = 10,
        device: Callable[[int], Device] = lambda _: Device(),
        *,
        run: str | None = "1.0.0",
    ) -> None:
        """Enrol devices that all run one version of the family, or nothing."""
        devices = {f"cam-{n:03}": device(n) for n in range(count)}
        self.fleet = Fleet(self.database, self.downlink, self.clock, devices)
        self.fleet.claims = self.invitations
        await self.fleet.enroll()
        async with self.database.writing() as session:
            rows = [
                {
                    "family": FAMILY,
                    "version": version,
                    "manifest_path": f"models/{FAMILY}/{version}/manifest.json",
                    "manifest_length": 10,
                    "manifest_sha256": "0" * 64,
                    "security_counter": int(version == "9.0.0"),
                    "description": "",
                    "size_bytes": 0,
                    "published_ms": 0,
                }
                for version in ("1.0.0", "2.0.0", "3.0.0", "9.0.0", "9.9.9")
            ]
            await session.execute(insert(Release), rows)
        if run is not None:
            await self.assignments().assign(family=FAMILY, version=run, devices=None)
        await self.fleet.step()

    async def join(self, name: str) -> dict[str, Device]:
        """Enrol one more device, which runs nothing of the fleet; returns those before it."""
        known, self.fleet.devices = self.fleet.devices, {name: Device(version="0")}
        await self.fleet.enroll()
        self.fleet.devices = {**known, **self.fleet.devices}
        return known

    def assignments(self, database: Database | None = None) -> Assignments:
        return Assignments(
            database=database or self.database,
            releases=self.index,
            signer=self.signer,
            downlink=self.downlink,
            director=self.director,
            clock=self.clock,
        )

    @property
    def rollouts(self) -> Rollouts:
        return Rollouts(database=self.database, clock=self.clock)

    def server(self, database: Database | None = None) -> RolloutLoop:
        where = database or self.database
        return RolloutLoop(
            rollouts=Rollouts(database=where, clock=self.clock),
            founding=Founding(database=where, clock=self.clock),
            orders=Orders(database=where, assignments=self.assignments(where), clock=self.clock),
            interval_s=0.01,
            monotonic=lambda: unix_ms(self.clock()) / 1000,
        )

    async def create(self, plan: Plan | None = None, *, selector: str = "*") -> int:
        founding = Founding(database=self.database, clock=self.clock)
        return await founding.create(
            plan or a_plan(), selector_text=selector, group=None, who="ann"
        )

    async def run(self, server: RolloutLoop, *, ticks: int = 40, seconds: float = 5) -> None:
        """Let a server and the devices work, while time passes."""
        for _ in range(ticks):
            await server.once()
            await self.fleet.step()
            self.clock.advance(seconds=seconds)

    async def status(self, rollout_id: int) -> Status:
        return (await self.rollouts.standing(rollout_id)).seen.view.head.status

    async def states(self, rollout_id: int) -> dict[str, MemberState]:
        query = select(RolloutMember.device_id, RolloutMember.state)
        async with self.database.reading() as session:
            rows = await session.execute(query.where(RolloutMember.rollout_id == rollout_id))
            return {device_id: MemberState(state) for device_id, state in rows}

    async def stage_of(self, rollout_id: int) -> dict[str, int]:
        query = select(RolloutMember.device_id, RolloutMember.stage)
        async with self.database.reading() as session:
            rows = await session.execute(query.where(RolloutMember.rollout_id == rollout_id))
            return {device_id: stage for device_id, stage in rows}  # noqa: C416 (rows are typed)

    async def check_tallies(self) -> None:
        """Hold what every rollout keeps of its members against a count of them."""
        place = (RolloutMember.stage, RolloutMember.state, RolloutMember.excused)
        async with self.database.reading() as session:
            for row in await session.scalars(select(Rollout)):
                query = select(*place, func.count()).where(RolloutMember.rollout_id == row.id)
                counted = places(await session.execute(query.group_by(*place)))
                assert row.tally == Tally(counted).encode()

    async def history(self, rollout_id: int) -> list[RolloutDecision]:
        query = select(RolloutDecision).where(RolloutDecision.rollout_id == rollout_id)
        async with self.database.reading() as session:
            return list(await session.scalars(query.order_by(RolloutDecision.number)))


@pytest.fixture
async def world(
    database: Database, fleet: Authority, clock: FakeClock, invitations: dict[str, str]
) -> AsyncIterator[World]:
    signer = AssignmentSigner.open(fleet.data, clock)
    director = Director(fleet.data.director)
    made = World(database, InProcessSigner(signer), director, invitations, clock)
    yield made
    await made.check_tallies()
    signer.close()


FAILING = Device(fate=UpdateState.ROLLED_BACK)
SILENT = Device(fate=None)
