"""Labels, facts, groups, lists: what operators set, what devices say, and who is selected by it."""

from collections.abc import AsyncIterator

import pytest

from fleet_protocol.messages import Capabilities, Reported, RunningModel
from fleet_server.clock import unix_ms
from fleet_server.database import Database
from fleet_server.devices import attributes
from fleet_server.devices.certificates import DeviceCa
from fleet_server.devices.enrollment import Enrollment
from fleet_server.devices.groups import Groups
from fleet_server.devices.health import SILENT_AFTER_MS, Health
from fleet_server.devices.listing import Counted
from fleet_server.devices.selector import SelectorError, parse
from fleet_server.devices.service import Devices, Filters
from fleet_server.devices.tokens import ClaimVerifier
from fleet_server.errors import MalformedError, NotFoundError, RefusedError
from fleet_server.paging import cursor, key_of
from fleet_server.telemetry.store import TelemetryStore
from fleet_server.telemetry.uplink import Uplink
from tests.unit.fleet_server import derived_terms
from tests.unit.fleet_server.authority import DeviceKey, Fleet
from tests.unit.fleet_server.conftest import FakeClock


class NoConnections:
    async def disconnect(self, device_id: str) -> None:
        pass


def report(*versions: str, accelerators: tuple[str, ...] = (), memory: int = 4 << 30) -> Reported:
    return Reported(
        at_ms=1,
        agent_version="0.1.0+dev (local)",
        assignment_version=0,
        runtime_up=True,
        running=[
            RunningModel(
                family=f"family-{number}",
                version=version,
                variant="v",
                backend="b",
                accelerator="cpu",
                committed=True,
            )
            for number, version in enumerate(versions)
        ],
        capabilities=Capabilities(
            machine="x86_64",
            cpu_count=2,
            memory_total_bytes=memory,
            backends={"onnxruntime": "1.23"},
            accelerators=list(accelerators),
        ),
    )


@pytest.fixture
async def devices(fleet: Fleet, database: Database, clock: FakeClock) -> AsyncIterator[Devices]:
    """Devices whose derived terms follow whatever a test does."""
    online = fleet.data.online
    enrollment = Enrollment(
        database=database,
        verifier=ClaimVerifier.load(online / "claim.pub.pem"),
        ca=DeviceCa.load(
            key_file=online / "device-ca.pem", certificate_file=online / "device-ca.crt"
        ),
        clock=clock,
    )
    for name in ("cam-1", "cam-2", "gate-1"):
        await enrollment.enroll(token=fleet.claim_token(name), csr_pem=DeviceKey.new(name).csr())
    yield Devices(database=database, connections=[NoConnections()], clock=clock)
    assert await derived_terms.wrong(database) == {}


@pytest.fixture
def store(database: Database, clock: FakeClock) -> TelemetryStore:
    return TelemetryStore(database=database, clock=clock)


async def ids(devices: Devices, text: str = "*", **filters: object) -> list[str]:
    wanted = Filters(selectors=(parse(text),), **filters)  # type: ignore[arg-type]
    page = await devices.page(wanted, after=None, limit=10)
    assert await devices.count(wanted) == Counted(len(page.devices), is_capped=False)
    assert page.next_after is None
    return [record.device.id for record in page.devices]


async def test_labels_select_and_stop_selecting(devices: Devices) -> None:
    await devices.label("cam-1", {"site": "oslo", "rack": "12"})
    await devices.label("gate-1", {"site": "oslo", "legacy": "true"})
    assert await ids(devices, "site=oslo") == ["cam-1", "gate-1"]
    assert await ids(devices, "site=oslo,!legacy") == ["cam-1"]
    assert await ids(devices, "rack>=12") == ["cam-1"]
    changed = await devices.label("gate-1", {"legacy": None, "site": "bergen"})
    assert attributes.decode_labels(changed.device.labels) == {"site": "bergen"}
    assert await ids(devices, "site=oslo") == ["cam-1"]
    assert await ids(devices, "legacy") == []


async def test_facts_follow_the_reports(devices: Devices, store: TelemetryStore) -> None:
    await store.store([Uplink("cam-1", report("1.0.0", accelerators=("edgetpu",)), retained=False)])
    await store.store([Uplink("cam-2", report(memory=1 << 30), retained=False)])
    assert await ids(devices, "accelerator in (edgetpu,cuda),ram_gib>=2") == ["cam-1"]
    assert await ids(devices, "runs.family-0=1.0.0") == ["cam-1"]
    assert await ids(devices, "backend=onnxruntime,agent_version=0.1.0+dev--local") == [
        "cam-1",
        "cam-2",
    ]
    await store.store([Uplink("cam-1", report("1.1.0"), retained=False)])
    assert await ids(devices, "runs.family-0=1.0.0") == []
    assert await ids(devices, "runs.family-0,!accelerator") == ["cam-1"]
    await devices.label("cam-1", {"site": "oslo"})
    assert await ids(devices, "runs.family-0=1.1.0,site=oslo") == ["cam-1"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"Site": "oslo"}, "is not a label name"),
        ({"site": "oslo "}, "is not a label value"),
        ({"site": ""}, "is not a label value"),
        ({"accelerator": "cuda"}, "is a fact"),
        ({"runs.x": "1.0.0"}, "is a fact"),
        ({f"n{number}": "v" for number in range(33)}, "may have 32 labels"),
    ],
)
async def test_labels_that_are_refused(
    devices: Devices, changes: dict[str, str | None], problem: str
) -> None:
    with pytest.raises(RefusedError, match=problem):
        await devices.label("cam-1", changes)
    assert (await devices.get("cam-1")).device.labels == "{}"


async def test_a_group_follows_its_selector(
    devices: Devices, database: Database, clock: FakeClock
) -> None:
    groups = Groups(database=database, clock=clock)
    await devices.label("cam-1", {"site": "oslo"})
    stored = await groups.put("north", selector_text=" site == oslo ", description="")
    assert stored.selector == "site=oslo"
    assert await ids(devices, group="north") == ["cam-1"]
    await devices.label("cam-2", {"site": "oslo"})
    assert await ids(devices, group="north", search="CAM") == ["cam-1", "cam-2"]
    await groups.put("north", selector_text="!site", description="")
    assert await ids(devices, group="north") == ["gate-1"]
    assert [group.name for group in await groups.page(after=None, limit=5)] == ["north"]
    with pytest.raises(SelectorError):
        await groups.put("north", selector_text="site=", description="")
    with pytest.raises(RefusedError, match="cannot name a group"):
        await groups.put("No/rth", selector_text="*", description="")
    await groups.delete("north")
    for call in (groups.delete("north"), groups.get("north"), ids(devices, group="north")):
        with pytest.raises(NotFoundError, match="there is no group 'north'"):
            await call


async def test_search_takes_its_text_literally(devices: Devices) -> None:
    assert await ids(devices, search="1") == ["cam-1", "gate-1"]
    assert await ids(devices, search="m-") == ["cam-1", "cam-2"]
    assert await ids(devices, search="%") == await ids(devices, search="_") == []


async def test_health_is_derived_and_listed(
    devices: Devices, store: TelemetryStore, clock: FakeClock
) -> None:
    assert await ids(devices, health=Health.NEW) == ["cam-1", "cam-2", "gate-1"]
    await store.store([Uplink("cam-1", report(), retained=False)])
    assert await ids(devices, health=Health.HEALTHY) == ["cam-1"]
    clock.advance(milliseconds=SILENT_AFTER_MS + 1)
    record = await devices.get("cam-1")
    assert record.health is Health.OFFLINE
    assert record.device.last_seen_ms == unix_ms(clock.now) - SILENT_AFTER_MS - 1
    assert await ids(devices, health=Health.OFFLINE) == ["cam-1"]
    await devices.decommission("cam-2")
    assert await ids(devices, health=Health.DECOMMISSIONED) == ["cam-2"]


@pytest.mark.parametrize("text", ["=", "cam-1", "Y2FtLTE=", "Y2FtLTF", "é", "AAE", "_w"])
def test_a_cursor_is_ours_or_refused(text: str) -> None:
    assert key_of(cursor("cam-1/x")) == "cam-1/x"
    with pytest.raises(MalformedError, match="not a cursor"):
        key_of(text)
