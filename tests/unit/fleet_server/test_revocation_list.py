"""What a Mosquitto beside the server is told: the topics of the contract, and whom to refuse."""

from datetime import UTC, datetime, timedelta

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
    async with database.reading() as session:
        found = await revocation_list.revoked(session, now=NOW)
        gone = await revocation_list.shut_out_devices(session, now=NOW)
    assert gone == ["gone", "stolen"]
    assert found.shut_out == {0xB1, 0xB2, 0xC2}
    assert found.replaced == {0xD1}


def test_each_list_is_newer_and_none_is_from_the_future(fleet: Fleet) -> None:
    online = fleet.data.online
    ca = DeviceCa.load(key_file=online / "device-ca.pem", certificate_file=online / "device-ca.crt")
    before, made = None, []
    for serials in ([], [7], [7, 9]):
        before = revocation_list.signed(ca, serials, before=before, now=NOW)
        found = x509.load_pem_x509_crl(before.pem.encode())
        assert found.is_signature_valid(ca.certificate.public_key())  # type: ignore[arg-type]
        assert sorted(revocation_list.listed(before.pem)) == serials
        assert found.next_update_utc == NOW + revocation_list.LIFETIME
        assert found.last_update_utc == before.dated
        made.append(before)
    assert made[-1].dated <= NOW
    assert [each.dated for each in made] == sorted({each.dated for each in made})
    put_back = revocation_list.signed(ca, [], before=before, now=NOW - timedelta(days=1))
    assert put_back.dated <= NOW - timedelta(days=1)
    numbers = [each.number for each in (*made, put_back)]
    assert numbers == sorted(set(numbers))
