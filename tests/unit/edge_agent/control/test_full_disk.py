"""A disk that fills up in the middle of an update: nothing serves unwatched, the way back stays."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from edge_agent import store
from edge_agent.control.active_set import ActiveSetFile
from edge_agent.control.way_back import serve_what_is_committed
from edge_agent.store import StoreError
from fleet_protocol.update_states import UpdateState
from tests.simulators import durable_writes
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import release


@contextmanager
def full_disk(*, since: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Refuse every commit that writes; what needs no room, such as a rename, goes on."""

    def refuse(what: str) -> int:
        if what.startswith("commit") and since():
            raise sqlite3.OperationalError("database or disk is full")
        return 0

    with durable_writes.watched(before=refuse, after=lambda _: None):
        yield


@pytest.fixture
async def updating(device: ControlDevice) -> ControlDevice:
    """A device that has committed to 1.0.0 and is assigned 1.1.0."""
    device.repository.add(release("1.0.0"), release("1.1.0"))
    await device.receive(device.director.assign(DEVICE, 1, [release("1.0.0")]))
    await device.settle()
    await device.receive(device.director.assign(DEVICE, 2, [release("1.1.0")]))
    return device


async def step(device: ControlDevice) -> None:
    try:
        await device.step()
    except StoreError as error:
        raise AssertionError("the look failed for want of room") from error


async def test_a_switch_that_cannot_be_noted_is_taken_back_at_once(
    updating: ControlDevice,
) -> None:
    await updating.until(UpdateState.VERIFIED)
    switched: list[str] = []
    activate = updating.runtime.activate

    def watched(family: str, version: str) -> None:
        activate(family, version)
        switched.append(version)

    updating.runtime.activate = watched  # type: ignore[method-assign]
    with full_disk(since=lambda: bool(switched)):
        for _ in range(10):
            await step(updating)
            assert updating.runtime.serving("animals") == "1.0.0"
            updating.clock.advance(1.0)
    assert switched[:2] == ["1.1.0", "1.0.0"]
    assert updating.record().state is UpdateState.TRIAL
    await updating.settle()
    assert updating.active() == {"animals": "1.1.0"}


async def test_a_candidate_that_serves_unnoted_is_put_back_at_the_next_look(
    updating: ControlDevice,
) -> None:
    """Control died between the switch and the journal, and the disk has no room when it starts."""
    await updating.until(UpdateState.PROBATION)
    before = msgspec.structs.replace(updating.record(), state=UpdateState.TRIAL, epoch="")
    await updating.database.transact(
        lambda connection: updating.parts.journal.rewrite(connection, before)
    )
    with full_disk():
        await updating.restarted()
        await step(updating)
        assert updating.runtime.serving("animals") == "1.0.0"
    await updating.settle()
    assert updating.active() == {"animals": "1.1.0"}


async def test_the_way_back_needs_no_room(updating: ControlDevice) -> None:
    await updating.until(UpdateState.PROBATION)
    updating.runtime.answer_calls("animals", bad=50)
    updating.clock.advance(1000.0)  # so that there is something else to note, too
    with full_disk():
        await step(updating)
        assert updating.runtime.serving("animals") == "1.0.0"
        for _ in range(5):
            updating.clock.advance(1.0)
            await step(updating)
    assert updating.record().state is UpdateState.PROBATION
    await updating.settle()
    assert updating.record().state is UpdateState.ROLLED_BACK
    assert "50 of 50 calls failed" in updating.record().detail, "not what was seen afterwards"


async def test_without_a_database_what_is_committed_serves(updating: ControlDevice) -> None:
    await updating.until(UpdateState.PROBATION)
    serve_what_is_committed(updating.runtime, ActiveSetFile(updating.state.active_set))
    assert updating.runtime.serving("animals") == "1.0.0"
    await updating.step()
    assert updating.record().state is UpdateState.ROLLED_BACK


async def test_a_database_is_opened_without_a_write(tmp_path: Path) -> None:
    store.open_database(tmp_path / "state.db").close()
    with full_disk():
        store.open_database(tmp_path / "state.db").close()
