"""The cache of deltas: made in the background by a real worker, bounded, never in the way."""

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tuf.api.metadata import TargetFile, Targets

from fleet_protocol.delta import Rebuilder
from fleet_server.deltas import pairs, service
from fleet_server.deltas.encoding import encode
from fleet_server.deltas.service import Deltas, NotReadyError, Pair
from fleet_server.errors import NotFoundError
from fleet_server.releases.repository import Repository
from tests.unit.fleet_server.authority import FAMILY, Fleet, release

RANDOM = random.Random(5)  # noqa: S311 (weights)
OLD = RANDOM.randbytes(50_000)
NEW = OLD[:40_000] + RANDOM.randbytes(100) + OLD[40_100:]


def pair(folder: Path, base: bytes = OLD, new: bytes = NEW) -> Pair:
    paths = []
    for content in (base, new):
        paths.append(folder / hashlib.sha256(content).hexdigest())
        paths[-1].write_bytes(content)
    return Pair(paths[0].name, paths[1].name, paths[0], paths[1])


@pytest.fixture
def deltas(tmp_path: Path) -> Deltas:
    (tmp_path / "deltas").mkdir()
    return Deltas(folder=tmp_path / "deltas", max_bytes=100_000)


@pytest.fixture
async def running(deltas: Deltas) -> AsyncIterator[Deltas]:
    task = asyncio.create_task(deltas.run())
    yield deltas
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def settled(deltas: Deltas) -> None:
    async with asyncio.timeout(20):
        while deltas._waiting:  # noqa: ASYNC110 (a process of its own)
            await asyncio.sleep(0.02)


async def test_a_delta_is_made_on_demand_and_then_there(running: Deltas, tmp_path: Path) -> None:
    wanted = pair(tmp_path)
    for _ in range(3):
        with pytest.raises(NotReadyError):
            await running.get(wanted)
    assert len(running._waiting) == 1
    await settled(running)
    delta = (await running.get(wanted)).read_bytes()
    assert len(delta) < 2000
    rebuilder = Rebuilder(
        base_sha256=wanted.base_sha256,
        new_sha256=wanted.new_sha256,
        length=len(NEW),
        read_base=lambda offset, size: OLD[offset : offset + size],
    )
    assert b"".join(rebuilder.feed(delta)) == NEW


async def test_what_does_not_pay_is_remembered(running: Deltas, tmp_path: Path) -> None:
    wanted = pair(tmp_path, new=RANDOM.randbytes(50_000))
    with pytest.raises(NotReadyError):
        await running.get(wanted)
    await settled(running)
    for _ in range(2):
        with pytest.raises(NotFoundError, match="would not pay"):
            await running.get(wanted)
    assert not running._waiting


async def test_a_failure_is_not_tried_again_at_once(running: Deltas, tmp_path: Path) -> None:
    wanted = pair(tmp_path)
    wanted.base.unlink()
    for _ in range(2):
        with pytest.raises(NotReadyError):
            await running.get(wanted)
        await settled(running)
    assert list(running._failed_s) == [wanted.name]
    assert list((tmp_path / "deltas").iterdir()) == []


async def test_the_queue_is_bounded_and_0_bytes_turn_deltas_off(
    deltas: Deltas, tmp_path: Path
) -> None:
    pairs = [
        Pair(f"{number:064x}", "f" * 64, tmp_path / "a", tmp_path / "b")
        for number in range(service.MAX_WAITING + 10)
    ]
    for one in pairs:
        with pytest.raises(NotReadyError):
            await deltas.get(one)
    assert len(deltas._waiting) == service.MAX_WAITING
    off = Deltas(folder=tmp_path / "deltas", max_bytes=0)
    with pytest.raises(NotFoundError):
        await off.get(pairs[0])
    assert not off._waiting


def test_the_cache_is_bounded_and_keeps_what_was_asked_for(deltas: Deltas, tmp_path: Path) -> None:
    folder = tmp_path / "deltas"
    for number in range(10):
        path = folder / f"{number}.delta"
        path.write_bytes(bytes(20_000))
        os.utime(path, (number or 100, number or 100))
    (folder / "x.part").write_bytes(b"half")
    deltas._tidy()
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{number}.delta" for number in (0, 6, 7, 8, 9)
    ]


def test_frozen_layers_are_found_wherever_they_went() -> None:
    new = b"new layer" * 5000 + OLD
    assert len(b"".join(encode(OLD, new))) < 0.2 * len(new)


async def test_what_devices_will_ask_for_first_is_made_on_publication(fleet: Fleet) -> None:
    repository = Repository(fleet.data.repository, fleet.data.online)
    releases = [release(version) for version in ("1.2.0", "1.10.0", "2.0.0-rc1")]
    targets = {
        path: TargetFile.from_data(path, content, ["sha256"])
        for one in releases
        for path, content in one.by_path.items()
    }
    repository._published = replace(
        repository.published, families={FAMILY: Targets(targets=targets)}
    )
    for version, before in (("2.0.0-rc1", "1.10.0"), ("1.10.0", "1.2.0")):
        (found,) = pairs.likely(repository, FAMILY, version)
        assert f"/{before}/" in str(found.base)
        assert f"/{version}/" in str(found.new)
        assert found.new.name == f"{found.new_sha256}.model.onnx"
    assert pairs.likely(repository, FAMILY, "1.2.0") == []
    assert pairs.likely(repository, "another", "1.2.0") == []
