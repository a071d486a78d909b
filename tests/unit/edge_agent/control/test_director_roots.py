"""Rotation of assignment keys, as the device follows it."""

from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root

from edge_agent.control.trust import TrustError, director
from fleet_protocol.messages import EventKind
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import release
from tests.simulators.director import Director
from tests.unit.edge_agent.control.test_lost_database import lose_database

THE_END = 2**53


def rotate(device: ControlDevice, version: int) -> None:
    device.repository.put_director_root(version, device.director.rotate(version))


async def pushed_to_the_end(device: ControlDevice) -> None:
    """A thief of the assignment key leaves no version for its owner."""
    await device.receive(device.director.assign(DEVICE, THE_END, []))
    await device.receive(device.director.assign(DEVICE, 2, [release()]))
    assert "accepted" in device.events(EventKind.ASSIGNMENT_REFUSED)[-1].detail


async def test_a_new_assignment_key_undoes_a_pushed_version(device: ControlDevice) -> None:
    await pushed_to_the_end(device)
    stolen = device.director.key
    rotate(device, 2)
    device.repository.add(release())
    await device.receive(device.director.assign(DEVICE, 1, [release()]))
    await device.settle()
    assert device.active() == {"animals": "1.0.0"}

    for version in (THE_END, THE_END + 1):
        targets = device.director.assign_targets(DEVICE, version, {}, signer=stolen)
        await device.receive(targets)
        assert "not validly signed" in device.events(EventKind.ASSIGNMENT_REFUSED)[-1].detail


async def test_the_pushed_version_is_undone_after_a_lost_database_too(
    device: ControlDevice,
) -> None:
    await pushed_to_the_end(device)
    await lose_database(device)
    rotate(device, 2)
    await device.receive(device.director.assign(DEVICE, 3, []))
    await lose_database(device)
    refused = len(device.events(EventKind.ASSIGNMENT_REFUSED))
    await device.receive(device.director.assign(DEVICE, 2, []))
    assert len(device.events(EventKind.ASSIGNMENT_REFUSED)) == refused + 1
    await device.receive(device.director.assign(DEVICE, 4, []))
    assert device.events()[-1].kind is EventKind.ASSIGNMENT_ACCEPTED


async def test_hiding_the_new_root_from_a_device_that_knows_it_revives_nothing(
    device: ControlDevice,
) -> None:
    old = device.director.assign(DEVICE, THE_END, [])
    rotate(device, 2)
    await device.receive(device.director.assign(DEVICE, 1, []))
    for path in (device.state.trust / "director").iterdir():
        path.unlink()
    device.repository.faults.refuse["director"] = 404
    await device.receive(old)
    (refused,) = device.events(EventKind.ASSIGNMENT_REFUSED)
    assert "has followed director root 2" in refused.detail


async def test_a_renewed_root_does_not_let_versions_begin_anew(device: ControlDevice) -> None:
    await device.receive(device.director.assign(DEVICE, 5, []))
    key = device.director.root_key
    device.repository.put_director_root(2, device.director.make_root(2, key, key))
    await device.receive(device.director.assign(DEVICE, 4, [release()]))
    (refused,) = device.events(EventKind.ASSIGNMENT_REFUSED)
    assert "accepted 5 already" in refused.detail


async def test_a_damaged_link_on_the_disk_is_fetched_again(device: ControlDevice) -> None:
    rotate(device, 2)
    await device.receive(device.director.assign(DEVICE, 1, []))
    (device.state.trust / "director" / "2.root.json").write_bytes(b"{")
    await device.receive(device.director.assign(DEVICE, 2, []))
    assert device.events(EventKind.ASSIGNMENT_REFUSED) == []


async def test_a_document_under_an_unknown_root_is_judged_again_when_the_server_is_back(
    device: ControlDevice,
) -> None:
    rotate(device, 2)
    device.repository.faults.unreachable = True
    document = device.director.assign(DEVICE, 1, [])
    assert not await device.parts.desk.receive(document)
    device.repository.faults.unreachable = False
    assert await device.parts.desk.receive(document)
    assert device.events()[-1].kind is EventKind.ASSIGNMENT_ACCEPTED


@pytest.mark.parametrize("link", [b"", b"{}", b"x" * 600_000], ids=["empty", "no root", "endless"])
async def test_a_root_that_does_not_hold_stops_nothing(device: ControlDevice, link: bytes) -> None:
    device.repository.put_director_root(2, link)
    await device.receive(device.director.assign(DEVICE, 1, []))
    assert device.events()[-1].kind is EventKind.ASSIGNMENT_ACCEPTED
    assert not (device.state.trust / "director" / "2.root.json").exists()


def test_a_root_that_the_offline_key_did_not_sign_is_refused() -> None:
    fleet = Director()
    thief = CryptoSigner.generate_ed25519()
    with pytest.raises(TrustError):
        director(fleet.root).followed_by(fleet.make_root(2, thief, thief))


def test_a_key_that_comes_back_does_not_begin_a_new_count() -> None:
    fleet = Director()
    first = fleet.key
    second = director(fleet.root).followed_by(fleet.rotate(2))
    fleet.key = first
    third = second.followed_by(fleet.make_root(3, fleet.root_key, fleet.root_key))
    assert (second.epoch, third.epoch) == (2, 2)


async def test_a_long_chain_costs_two_verifications_a_link(
    device: ControlDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = 20
    key = device.director.root_key
    for version in range(2, 2 + links):
        device.repository.put_director_root(version, device.director.make_root(version, key, key))
    await device.receive(device.director.assign(DEVICE, 1, []))
    verify, calls = Root.verify_delegate, []

    def counted(self: Root, *arguments: Any) -> None:  # noqa: ANN401 (python-tuf's own)
        calls.append(self.version)
        verify(self, *arguments)

    monkeypatch.setattr(Root, "verify_delegate", counted)
    await device.receive(device.director.assign(DEVICE, 2, []))
    assert device.events()[-1].kind is EventKind.ASSIGNMENT_ACCEPTED
    assert links <= len(calls) <= 5 * links
