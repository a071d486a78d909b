"""Pages and counts are what the selector language says, however they are found."""

import importlib
import random
from collections.abc import Iterator
from itertools import count

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, String, cast, delete, func, insert, update

from fleet_server import tenancy
from fleet_server.clock import unix_ms
from fleet_server.database import Database
from fleet_server.database_engine import make_engine
from fleet_server.devices import derived, health, listing, sources, walk
from fleet_server.devices.health import Health, Signs
from fleet_server.devices.selector import ID, number_of, parse
from fleet_server.devices.service import Devices, Filters
from fleet_server.devices.silence import SilenceWatch
from fleet_server.devices.sources import Branch, Span, Wanted, has_search_index
from fleet_server.devices.tables import Device, DeviceTerm
from fleet_server.tenancy import Tenant
from tests.unit.fleet_server import derived_terms
from tests.unit.fleet_server.conftest import FakeClock

DEVICES = 60
SILENT_SITE = "s3"
_BLANK = dict.fromkeys(
    ("public_key_pem", "public_key_sha256", "certificate_pem", "certificate_serial"), ""
)
ASKED = (
    "*",
    "site=s3",
    "site=s3,tier=main",
    "site=s3,rack in (0,1),tier=main",
    "site=s0,serial>=50",
    "site in (s0,s3),!rare",
    "rare",
    "ram>=4,tier!=main",
    "tier in (main,canary)",
    "site=s3,tier in (main,canary),ram>=4",
    "site=s2,serial<40",
    "serial>=7",
    "rack<2,site notin (s0,s1)",
    "version,version!=v0",
    "id in (cam-001,cam-007,nowhere)",
    "!id",
    "tier=main,tier=canary",
    "nowhere",
    "rack>99",
    "!rare,site!=s0",
    "rare!=yes",
    "rare!=no",
    "!nowhere",
    "nowhere!=x,!rare",
    "tier notin (main)",
    "version notin (v0,v9),site in (s0,s4)",
    "!site",
    "id!=cam-001,version!=v0",
)


class Fleet:
    """Devices of two tenants, those of the other one alike, and what each shall be found by."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        now_ms = unix_ms(clock.now)
        drawn = random.Random(5)  # noqa: S311 (the same fleet each time)
        self.signs: dict[str, Signs] = {}
        self.attributes: dict[str, dict[str, list[str]]] = {}
        for number in range(DEVICES):
            device_id = f"{drawn.choice(('cam', 'gate'))}-{number:03}"
            site = f"s{number * 5 // DEVICES}"
            seen = drawn.choice((None, now_ms, now_ms - health.SILENT_AFTER_MS - 1))
            self.signs[device_id] = Signs(
                decommissioned_ms=drawn.choice((None, None, None, 1)),
                revoked_ms=drawn.choice((None, None, None, 1)),
                certificate_expires_ms=now_ms + drawn.choice((1, 1, 1, 0)),
                last_seen_ms=seen if site != SILENT_SITE else 1,
                runtime_up=drawn.choice((None, True, False)),
            )
            self.attributes[device_id] = {
                ID: [device_id],
                "site": [site],
                "tier": drawn.choice((["main"], ["canary"], ["main", "canary"])),
                "ram": [drawn.choice(("2", "4", "8.5"))],
                "rack": [str(number % 7)],
                "serial": [str(number)],
                "version": [f"v{int(number % 20 == 0)}"],
                **({"rare": ["yes"]} if number % 25 == 0 else {}),
            }

    def rows(
        self, tenant: str, prefix: str = ""
    ) -> Iterator[tuple[dict[str, object], list[dict[str, object]]]]:
        for device_id, signs in self.signs.items():
            named = {name: getattr(signs, name) for name in Signs.__slots__}
            device = {"id": prefix + device_id, "tenant": tenant, "online": False, "enrolled_ms": 0}
            terms: list[dict[str, object]] = [
                {
                    "device_id": prefix + device_id,
                    "tenant": tenant,
                    "name": name,
                    "value": prefix + value if name in {ID, derived.STEM} else value,
                    "number": number_of(value),
                }
                for name, values in with_derived(self.attributes[device_id]).items()
                for value in values
            ]
            yield {**device, **named, **_BLANK}, terms

    def expected(self, text: str, search: str = "", word: Health | None = None) -> list[str]:
        now_ms = unix_ms(self.clock.now)
        selector = parse(text)
        return [
            device_id
            for device_id, found in sorted(self.attributes.items())
            if selector.holds({name: frozenset(values) for name, values in found.items()})
            and search.lower() in device_id
            and word in {None, health.of(self.signs[device_id], now_ms=now_ms)}
        ]


def with_derived(attributes: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return attributes with the terms that are derived from them."""
    (device_id,) = attributes[ID]
    key = derived.names_key(attributes.keys() - {ID})
    return {**attributes, derived.NAMES: [key], derived.STEM: [derived.stem(device_id)]}


@pytest.fixture
async def fleet(database: Database, clock: FakeClock) -> Fleet:
    made = Fleet(clock)
    async with database.writing() as session:
        session.add(Tenant(name="other"))
        for device, terms in (*made.rows("default"), *made.rows("other", prefix="x")):
            await session.execute(insert(Device).values(**device))
            await session.execute(insert(DeviceTerm), terms)
    return made


async def everything(devices: Devices, filters: Filters, limit: int) -> tuple[list[str], int]:
    """Return the ids of all pages, and how many pages that were."""
    ids: list[str] = []
    after: str | None = None
    for pages in count(1):
        page = await devices.page(filters, after=after, limit=limit)
        ids += [each.device.id for each in page.devices]
        after = page.next_after
        if after is None:
            return ids, pages
    raise AssertionError


@pytest.mark.parametrize("bounds", [(4000, 1000), (30, 3), (1, 3)], ids=["few", "some", "many"])
async def test_pages_and_counts_are_what_was_asked_for(
    database: Database,
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
    bounds: tuple[int, int],
) -> None:
    """With small bounds a small fleet takes the ways of a large one."""
    monkeypatch.setattr(listing, "_FEW", bounds[0])
    monkeypatch.setattr(listing, "_AT_FIRST", bounds[1])
    monkeypatch.setattr(walk, "_WORTH", bounds[0] // 100)
    monkeypatch.setattr(listing, "BUDGET_S", 60.0)
    devices = Devices(database=database, connections=(), clock=fleet.clock)
    cases: list[tuple[str, str, Health | None]] = [(text, "", None) for text in ASKED]
    cases += [("*", "", word) for word in Health]
    cases += [
        ("*", "am-0", None),
        ("*", "-05", None),
        ("*", "no-such-device", None),
        ("tier=main,ram>=4", "-01", None),
        ("tier=main", "-1", Health.OFFLINE),
        ("site=s3", "", Health.OFFLINE),
    ]
    for text, search, word in cases:
        filters = Filters(selectors=(parse(text),), search=search, health=word)
        expected = fleet.expected(text, search, word)
        assert (await everything(devices, filters, 25))[0] == expected, (text, search, word)
        counted = await devices.count(filters)
        assert (counted.number, counted.is_capped) == (len(expected), False), (text, search, word)


async def test_an_answer_that_takes_long_ends_where_it_looked_to(
    database: Database, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_FEW", 1)
    monkeypatch.setattr(listing, "_AT_FIRST", 10)
    slow = count(0.0, listing.BUDGET_S)
    devices = Devices(
        database=database, connections=(), clock=fleet.clock, monotonic=lambda: next(slow)
    )
    filters = Filters(health=Health.HEALTHY)
    first = await devices.page(filters, after=None, limit=10)
    assert len(first.devices) < 10
    assert first.next_after is not None
    ids, pages = await everything(devices, filters, 10)
    assert ids == fleet.expected("*", "", Health.HEALTHY)
    assert pages > 1
    assert (await devices.count(filters)).is_capped


async def test_a_tenant_lists_its_own(database: Database, fleet: Fleet) -> None:
    devices = Devices(database=database, connections=(), clock=fleet.clock)
    tenancy.enter("other")
    for text, search in (("site=s3", ""), ("site=s3,ram>=4,!rare", ""), ("tier=main", "-01")):
        filters = Filters(selectors=(parse(text),), search=search)
        ids, _ = await everything(devices, filters, 500)
        assert ids == ["x" + each for each in fleet.expected(text, search)]
    assert (await everything(devices, Filters(search="xcam-0"), 500))[0]
    tenancy.enter(tenancy.DEFAULT)
    assert (await everything(devices, Filters(search="xcam-0"), 500))[0] == []


async def test_a_part_of_ids_that_takes_long_to_look_up_is_walked_for(
    database: Database, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Span] = []
    parts = sources._parts

    def slow(wanted: Wanted, span: Span) -> list[Branch]:
        asked.append(span)
        (branch,) = parts(wanted, span)
        return [Branch(branch.query.where(cast(func.pg_sleep(10), String) == ""))]

    monkeypatch.setattr(sources, "_parts", slow)
    monkeypatch.setattr(listing, "_AT_FIRST", 1)
    devices = Devices(database=database, connections=(), clock=fleet.clock)
    for _ in range(2):
        assert (await everything(devices, Filters(search="-05"), 5))[0] == fleet.expected(
            "*", "-05"
        )
    async with database.reading() as session:
        is_made = await has_search_index(session)
    assert len(asked) == int(is_made)


async def test_offline_devices_are_listed_whether_they_are_marked_or_not(
    database: Database, fleet: Fleet
) -> None:
    devices = Devices(database=database, connections=(), clock=fleet.clock)
    filters = Filters(health=Health.OFFLINE)
    expected = fleet.expected("*", "", Health.OFFLINE)
    watch = SilenceWatch(database=database, clock=fleet.clock)
    assert (await everything(devices, filters, 5))[0] == expected
    assert await watch.once() > len(expected)  # those out of service as well
    assert (await everything(devices, filters, 5))[0] == expected
    assert await watch.once() == 0
    now_ms = unix_ms(fleet.clock.now)
    async with database.writing() as session:  # by somebody who does not unmark it
        await session.execute(
            update(Device).where(Device.id == expected[0]).values(last_seen_ms=now_ms)
        )
    assert (await everything(devices, filters, 5))[0] == expected[1:]


@pytest.mark.usefixtures("fleet")
async def test_a_fleet_that_exists_gets_what_is_derived(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.writing() as session:
        await session.execute(
            delete(DeviceTerm).where(DeviceTerm.name.in_((derived.NAMES, derived.STEM)))
        )
    step = importlib.import_module("fleet_server.migrations.versions.0017_what_devices_lack")
    monkeypatch.setattr(step, "_AT_ONCE", DEVICES // 4)

    def upgrade(connection: Connection) -> None:
        with Operations.context(MigrationContext.configure(connection)):
            step.upgrade()

    engine = make_engine(database_url)
    async with engine.execution_options(skerry_writes=True).begin() as connection:
        await connection.run_sync(upgrade)
    await engine.dispose()
    assert await derived_terms.wrong(database) == {}
