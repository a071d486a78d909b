"""What a Mosquitto beside the server is told: the topics of the contract, and whom to refuse."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import insert

from fleet_protocol.topics import DOWNLINK, UPLINK, Channel
from fleet_server.broker import mosquitto, revocation_list
from fleet_server.clock import unix_ms
from fleet_server.database import Database
from fleet_server.devices.certificates import DeviceCa
from fleet_server.devices.tables import Device, IssuedCertificate, PendingCertificate
from fleet_server.settings import ServerSettings
from tests.unit.fleet_server.authority import Fleet

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
VALID, EXPIRED = unix_ms(NOW) + 1, unix_ms(NOW)


def test_every_channel_has_a_line_for_each_side() -> None:
    lines = mosquitto.access_list().splitlines()
    assert set(Channel) == UPLINK | DOWNLINK
    for channel in Channel:
        there, back = ("write", "read") if channel in UPLINK else ("read", "write")
        assert [line for line in lines if line.endswith(f"/{channel}")] == [
            f"pattern {there} skerry/v1/%u/{channel}",
            f"topic {back} skerry/v1/+/{channel}",
        ]


@pytest.mark.parametrize(
    "url", ["mqtt://host:1883", "mqtts://host", "mqtts://a:b@host:8883", "mqtts://host:8883/x", "x"]
)
def test_wrong_addresses_of_a_broker(url: str) -> None:
    with pytest.raises(ValueError, match=r"use mqtts://HOST:PORT"):
        ServerSettings.model_validate({"broker_url": url})


def row(name: str, **changes: object) -> dict[str, object]:
    return {
        "id": name,
        "tenant": "default",
        "public_key_pem": "",
        "public_key_sha256": f"{name}-2",
        "certificate_pem": "",
        "certificate_serial": "",
        "certificate_expires_ms": VALID,
        "enrolled_ms": 0,
        "online": False,
        "revoked_ms": None,
        "decommissioned_ms": None,
    } | changes


async def test_who_is_on_the_list(database: Database) -> None:
    devices = [
        row("fine"),
        row("stolen", revoked_ms=1),
        row("gone", decommissioned_ms=1),
        row("renewed"),
    ]
    issued = [
        ("a1", "fine", "fine-2", VALID),
        ("b1", "stolen", "stolen-1", VALID),
        ("b2", "stolen", "stolen-2", VALID),
        ("b3", "stolen", "stolen-2", EXPIRED),
        ("c2", "gone", "gone-2", VALID),
        ("d1", "renewed", "renewed-1", VALID),
        ("d2", "renewed", "renewed-2", VALID),
        ("d3", "renewed", "renewed-3", VALID),
    ]
    pending = row("renewed") | {"certificate_serial": "d3", "issued_ms": 0}
    known = {column.key for column in PendingCertificate.__table__.columns}
    pending["device_id"] = "renewed"
    async with database.writing() as session:
        await session.execute(insert(Device), devices)
        for serial, device_id, key, expires_ms in issued:
            session.add(
                IssuedCertificate(
                    serial=serial, device_id=device_id, public_key_sha256=key, expires_ms=expires_ms
                )
            )
        session.add(PendingCertificate(**{k: v for k, v in pending.items() if k in known}))
    found = await revocation_list.revoked(database, now=NOW)
    assert found.shut_out == {0xB1, 0xB2, 0xC2}
    assert found.replaced == {0xD1}


def test_each_list_is_newer_and_none_is_from_the_future(fleet: Fleet, tmp_path: Path) -> None:
    online, path = fleet.data.online, tmp_path / "revoked.pem"
    ca = DeviceCa.load(key_file=online / "device-ca.pem", certificate_file=online / "device-ca.crt")
    authority = x509.load_pem_x509_certificate((online / "device-ca.crt").read_bytes())
    dates = []
    for serials in ([], [7], [7, 9]):
        revocation_list.write(path, [ca], serials, now=NOW)
        made = x509.load_pem_x509_crl(path.read_bytes())
        assert made.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
        assert sorted(each.serial_number for each in made) == serials
        assert made.next_update_utc == NOW + revocation_list.LIFETIME
        dates.append(made.last_update_utc)
    assert dates == sorted(set(dates))
    assert dates[-1] <= NOW
    revocation_list.write(path, [ca], [], now=NOW - timedelta(days=1))  # the clock was put back
    assert x509.load_pem_x509_crl(path.read_bytes()).last_update_utc <= NOW - timedelta(days=1)
