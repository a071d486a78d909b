"""Assigning: complete lists, all or nothing, healed when database and signer disagree."""

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, Signature
from sqlalchemy import Engine, delete, event, select, update
from tuf.api.metadata import Metadata, Root, Targets

from fleet_protocol import delivery
from fleet_protocol.delivery import ANY_TIME, Terms, Window
from fleet_server.assignments import entries, service
from fleet_server.assignments.director import Director
from fleet_server.assignments.issuing import OvertakenError
from fleet_server.assignments.schemas import DeliveryBody
from fleet_server.assignments.service import Assignments
from fleet_server.assignments.signer import AssignmentSigner
from fleet_server.assignments.tables import Assignment
from fleet_server.assignments.terms import terms_of
from fleet_server.database import Database
from fleet_server.devices.tables import Device
from fleet_server.errors import NotFoundError, RefusedError, UnavailableError
from provisioning import drafting, drafts, signatures
from provisioning.drafting import Changes
from tests.unit.fleet_server.assigning import (
    Index,
    InProcessSigner,
    Published,
    add_devices,
    listed,
)
from tests.unit.fleet_server.authority import FAMILY, OTHER_FAMILY, PASSPHRASE, Fleet
from tests.unit.fleet_server.conftest import FakeClock


@pytest.fixture
async def signer(fleet: Fleet, clock: FakeClock) -> AsyncIterator[InProcessSigner]:
    opened = AssignmentSigner.open(fleet.data, clock)
    yield InProcessSigner(opened)
    opened.close()


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
async def assignments(  # noqa: PLR0913, PLR0917 (fixtures)
    fleet: Fleet,
    database: Database,
    signer: InProcessSigner,
    published: Published,
    clock: FakeClock,
    invitations: dict[str, str],
) -> Assignments:
    await add_devices(database, "cam-1", "cam-2", claims=invitations)
    return Assignments(
        database=database,
        releases=Index(),
        signer=signer,
        downlink=published,
        director=Director(fleet.data.director),
        clock=clock,
    )


def terms_in(document: bytes) -> dict[str, Terms]:
    signed = Metadata[Targets].from_bytes(document).signed
    families = [path.split("/")[1] for path in signed.targets]
    return delivery.terms_of(signed.unrecognized_fields, families=families)


async def test_the_list_is_complete(assignments: Assignments, published: Published) -> None:
    await assignments.assign(family=FAMILY, version="1.0.0", devices=["cam-1"])
    await assignments.assign(family=OTHER_FAMILY, version="1.0.0", devices=None)
    await assignments.assign(family=FAMILY, version="2.0.0", devices=["cam-1"])
    assert listed(published.documents["cam-1"]) == [
        f"models/{FAMILY}/2.0.0/manifest.json",
        f"models/{OTHER_FAMILY}/1.0.0/manifest.json",
    ]
    assert listed(published.documents["cam-2"]) == [f"models/{OTHER_FAMILY}/1.0.0/manifest.json"]


async def test_terms_are_signed_for_their_family_alone_and_last(
    assignments: Assignments, published: Published, clock: FakeClock
) -> None:
    night = Terms(window=Window(start_minute=120, duration_minutes=60), max_bytes_per_s=4096)
    await assignments.assign(family=OTHER_FAMILY, version="1.0.0", devices=["cam-1"], terms=night)
    await assignments.assign(family=FAMILY, version="1.0.0", devices=["cam-1"])
    assert terms_in(published.documents["cam-1"]) == {FAMILY: ANY_TIME, OTHER_FAMILY: night}
    clock.advance(days=16)
    assert await assignments.renew() == 1
    assert terms_in(published.documents["cam-1"]) == {FAMILY: ANY_TIME, OTHER_FAMILY: night}
    await assignments.assign(family=OTHER_FAMILY, version="1.0.0", devices=["cam-1"])
    assert terms_in(published.documents["cam-1"]) == {FAMILY: ANY_TIME, OTHER_FAMILY: ANY_TIME}


def test_an_operators_terms_become_those_that_are_signed() -> None:
    body = DeliveryBody.model_validate(
        {
            "download_not_before": "1970-01-01T00:00:02Z",
            "activate_not_before": "1970-01-01T01:00:03+01:00",
            "window": {"weekdays": ["sun", "mon"], "start": "02:30", "duration_minutes": 60},
            "download_in_window": True,
            "max_bytes_per_s": 5000,
        }
    )
    assert terms_of(body) == Terms(
        download_not_before_ms=2000,
        activate_not_before_ms=3000,
        window=Window(weekdays=(0, 6), start_minute=150, duration_minutes=60),
        download_in_window=True,
        max_bytes_per_s=5000,
    )


@pytest.mark.parametrize(
    "body", [{"download_in_window": True}, {"activate_not_before": "1960-01-01T00:00:00Z"}]
)
def test_terms_that_contradict_each_other_are_refused(body: dict[str, object]) -> None:
    with pytest.raises(RefusedError, match="cannot be signed"):
        terms_of(DeliveryBody.model_validate(body))


async def test_versions_rise_even_for_the_same_release(assignments: Assignments) -> None:
    versions = [
        (await assignments.assign(family=FAMILY, version="1.0.0", devices=["cam-1"]))[0].version
        for _ in range(3)
    ]
    assert versions == [1, 2, 3]


@pytest.mark.parametrize(
    ("version", "devices", "error", "named"),
    [
        ("9.9.9", None, NotFoundError, "release"),
        ("1.0.0", ["cam-1", "cam-9"], NotFoundError, "cam-9"),
        ("1.0.0", ["cam-1", "Cam 1"], RefusedError, "Cam 1"),
        ("1.0.0", [], RefusedError, "`devices` is empty"),
    ],
)
async def test_refusals_change_nothing(  # noqa: PLR0913, PLR0917 (a table)
    assignments: Assignments,
    published: Published,
    version: str,
    devices: list[str] | None,
    error: type[Exception],
    named: str,
) -> None:
    with pytest.raises(error, match=named):
        await assignments.assign(family=FAMILY, version=version, devices=devices)
    assert published.documents == {}
    assert [document async for document in assignments.documents()] == []


async def test_decommissioned_devices_are_left_out(
    assignments: Assignments, database: Database, published: Published
) -> None:
    await assignments.assign(family=FAMILY, version="1.0.0", devices=None)
    async with database.writing() as session:
        await session.execute(
            update(Device).where(Device.id == "cam-2").values(decommissioned_ms=1)
        )
    published.documents.clear()
    await assignments.assign(family=FAMILY, version="1.1.0", devices=None)
    assert list(published.documents) == ["cam-1"]
    assert [name async for name, _ in assignments.documents()] == ["cam-1"]
    with pytest.raises(RefusedError, match="cam-2"):
        await assignments.assign(family=FAMILY, version="1.0.0", devices=["cam-2"])


async def test_without_the_signer_nothing_is_assigned(
    assignments: Assignments, signer: InProcessSigner, published: Published
) -> None:
    signer.up = False
    with pytest.raises(UnavailableError):
        await assignments.assign(family=FAMILY, version="1.0.0", devices=None)
    assert published.documents == {}
    signer.up = True
    await assignments.assign(family=FAMILY, version="1.0.0", devices=None)


async def test_a_database_from_a_backup_goes_on_above_what_was_signed(
    assignments: Assignments, database: Database
) -> None:
    for _ in range(3):
        await assignments.assign(family=FAMILY, version="1.0.0", devices=["cam-1"])
    async with database.writing() as session:
        await session.execute(delete(Assignment))
    rows = await assignments.assign(family=FAMILY, version="1.0.0", devices=None)
    assert {row.device_id: row.version for row in rows} == {"cam-1": 4, "cam-2": 1}


async def report(database: Database, device_id: str, version: int) -> None:
    async with database.writing() as session:
        stated = f'{{"assignment_version": {version}}}'
        await session.execute(update(Device).where(Device.id == device_id).values(reported=stated))


@pytest.mark.parametrize(("held", "follows"), [(1, 2), (7, 8), (2**53 - 1, 2), (-5, 2)], ids=str)
async def test_when_the_signer_is_from_the_backup_too_the_devices_word_counts(
    assignments: Assignments, database: Database, held: int, follows: int
) -> None:
    await assignments.assign(family=FAMILY, version="1.0.0", devices=None)
    await report(database, "cam-1", held)
    rows = await assignments.assign(family=FAMILY, version="1.0.1", devices=None)
    assert {row.device_id: row.version for row in rows} == {"cam-1": follows, "cam-2": 2}


def another_server(
    fleet: Fleet, url: str, signer: InProcessSigner, clock: FakeClock
) -> Assignments:
    return Assignments(
        database=Database(url),
        releases=Index(),
        signer=signer,
        downlink=Published(),
        director=Director(fleet.data.director),
        clock=clock,
    )


async def test_servers_that_assign_to_one_device_at_once_both_do(
    assignments: Assignments,
    fleet: Fleet,
    database_url: str,
    signer: InProcessSigner,
    clock: FakeClock,
) -> None:
    """None is told to try again, no version is given twice, and the last one stands."""
    other = another_server(fleet, database_url, signer, clock)
    calls = [
        server.assign(family=family, version=f"1.0.{number}", devices=["cam-1"])
        for number in range(3)
        for server, family in ((assignments, FAMILY), (other, OTHER_FAMILY))
    ]
    versions = [row.version for rows in await asyncio.gather(*calls) for row in rows]
    assert len(set(versions)) == len(calls)
    (last,) = await assignments.assign(family=FAMILY, version="2.0.0", devices=["cam-1"])
    assert {entry.family for entry in entries.decode(last.entries)} == {FAMILY, OTHER_FAMILY}
    await other._database.close()


async def test_who_is_overtaken_every_time_is_told_so(
    assignments: Assignments, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[object] = []
    monkeypatch.setattr(service, "_PAUSES_S", (0.0,) * 7)

    async def overtaken(*arguments: object) -> list[Assignment]:
        attempts.append(arguments)
        raise OvertakenError("others were first", retry_after_s=1)

    monkeypatch.setattr(assignments._issuing, "issue", overtaken)
    with pytest.raises(OvertakenError):
        await assignments.assign(family=FAMILY, version="1.0.0", devices=["cam-1"])
    assert len(attempts) == 8


async def test_renewal_takes_no_device_back_in_time(
    assignments: Assignments, database: Database, clock: FakeClock
) -> None:
    await assignments.assign(family=FAMILY, version="1.0.0", devices=None)
    await report(database, "cam-1", 7)
    clock.advance(days=16)
    assert await assignments.renew() == 1
    async with database.reading() as session:
        rows = await session.execute(select(Assignment.device_id, Assignment.version))
        assert {row[0]: row[1] for row in rows} == {"cam-1": 1, "cam-2": 2}


async def test_a_root_that_another_server_adopted_counts(
    fleet: Fleet, assignments: Assignments, clock: FakeClock
) -> None:
    first = await assignments.assign(family=FAMILY, version="1.0.0", devices=["cam-1"])
    other = Director(fleet.data.director)
    root = renewed_director_root(fleet)
    other.adopt(root, other.check(root, now=clock()))
    second = await assignments.assign(family=FAMILY, version="1.0.0", devices=["cam-1"])
    assert [row.root_version for row in (*first, *second)] == [1, 2]


def renewed_director_root(fleet: Fleet) -> bytes:
    key = load_pem_private_key(fleet.authority.root_key.read_bytes(), PASSPHRASE)
    draft = drafting.root(
        "director",
        fleet.authority.director_root.read_bytes(),
        Changes(),
        expires=datetime.now(UTC) + timedelta(days=300),
    )
    opened = drafts.OpenDraft(draft)
    return signatures.combined(opened, [signatures.sign(opened, CryptoSigner(key))])


async def test_more_devices_than_fit_into_a_batch(
    assignments: Assignments,
    database: Database,
    invitations: dict[str, str],
) -> None:
    await add_devices(database, *(f"many-{number}" for number in range(450)), claims=invitations)
    rows = await assignments.assign(family=FAMILY, version="1.0.0", devices=None)
    assert len(rows) == 452
    assert len([name async for name, _ in assignments.documents()]) == 452


async def test_many_devices_are_stored_in_few_statements_and_verified_beside_the_loop(
    assignments: Assignments,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    invitations: dict[str, str],
) -> None:
    await add_devices(database, *(f"many-{number}" for number in range(450)), claims=invitations)
    threads: set[int] = set()
    statements: list[str] = []
    verify = Root.verify_delegate

    def watched(root: Root, role: str, payload: bytes, signatures: dict[str, Signature]) -> None:
        threads.add(threading.get_ident())
        verify(root, role, payload, signatures)

    def count(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    monkeypatch.setattr(Root, "verify_delegate", watched)
    event.listen(Engine, "before_cursor_execute", count)
    try:
        await assignments.assign(family=FAMILY, version="1.0.0", devices=None)
        await assignments.assign(family=FAMILY, version="1.0.1", devices=None)
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert threads
    assert threading.get_ident() not in threads
    assert len(statements) < 55  # three batches twice, each with its entry in the audit trail


async def test_renewal_when_half_of_the_lifetime_is_gone(
    assignments: Assignments, clock: FakeClock, published: Published
) -> None:
    await assignments.assign(family=FAMILY, version="1.0.0", devices=["cam-1"])
    clock.advance(days=14)
    assert await assignments.renew() == 0
    clock.advance(days=2)
    assert await assignments.renew() == 1
    signed = Metadata[Targets].from_bytes(published.documents["cam-1"]).signed
    assert (signed.version, len(signed.targets)) == (2, 1)
    assert await assignments.renew() == 0


async def test_the_stored_entries_read_back(assignments: Assignments) -> None:
    (row,) = await assignments.assign(family=FAMILY, version="1.0.0", devices=["cam-1"])
    (entry,) = entries.decode(row.entries)
    assert (entry.family, entry.version, entry.length) == (FAMILY, "1.0.0", 10)
