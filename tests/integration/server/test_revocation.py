"""Renewal and revocation with the real server: HTTPS at once, live MQTT sessions soon."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from edge_agent import enroll as enrolment
from edge_agent import identity
from edge_agent.control.clock import SystemClock
from edge_agent.control.renewal import Renewal
from edge_agent.control.server_client import DeviceTokens, FleetServer
from edge_agent.identity import Identity
from edge_agent.state_dir import StateDir
from fleet_protocol import claims
from fleet_server.devices.certificates import DeviceCa, RequestedKey
from provisioning.claim_issue import ClaimIssuer
from tests.integration.server.mqtt_client import Client
from tests.integration.server.running_server import RunningServer, serving
from tests.unit.fleet_server.authority import PASSPHRASE, Fleet

METADATA = "/device/v1/repository/metadata/timestamp.json"


@pytest.fixture(scope="module")
def server(provisioned: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    fleet = provisioned.copy_to(tmp_path_factory.mktemp("server") / "a")
    yield from serving(fleet, {"SKERRY_SERVER_REVOCATION_CHECK_S": "0.5"})


def enrolled(server: RunningServer, folder: Path, name: str, *, replaces: bool = False) -> Identity:
    issuer = ClaimIssuer(server.fleet.authority, passphrase=PASSPHRASE)
    claim = claims.decode(issuer.issue(name, now=datetime.now(UTC), replaces=replaces))
    state = StateDir(folder)
    enrolment.enroll(state=state, server_url=server.url, claim=claim, post=enrolment.https_post)
    return identity.load(state)


def connect(server: RunningServer, who: Identity) -> Client:
    files = (who.files.certificate, who.files.key)
    return Client(port=server.mqtt_port, ca=server.ca, files=files, client_id=who.device_id)


def asks(server: RunningServer, who: Identity) -> int:
    tokens = DeviceTokens(device_id=who.device_id, key=who.private_key(), clock=SystemClock())
    return server.request("GET", METADATA, token=tokens.token()).status


def make_old(server: RunningServer, who: Identity) -> None:
    """Put a certificate of 80 days ago in the place of the new one."""
    online = server.fleet.data.online
    ca = DeviceCa.load(key_file=online / "device-ca.pem", certificate_file=online / "device-ca.crt")
    made = ca.issue(
        device_id=who.device_id,
        key=RequestedKey(who.private_key().public_key()),
        now=datetime.now(UTC) - timedelta(days=80),
    )
    who.files.certificate.write_text(made.pem)


def test_a_renewed_device_reconnects_and_its_old_key_is_cut_off(
    server: RunningServer, tmp_path: Path
) -> None:
    who = enrolled(server, tmp_path / "state", "renewing")
    make_old(server, who)
    tokens = DeviceTokens(device_id=who.device_id, key=who.private_key(), clock=SystemClock())
    renewal = Renewal(
        files=who.files,
        lock=tmp_path / "lock",
        device_id=who.device_id,
        server=FleetServer(
            url=server.url, tls=who.tls_context(client_certificate=False), tokens=tokens
        ),
        clock=SystemClock(),
        tokens=tokens,
        renewed=lambda: None,
    )
    before = connect(server, who)
    assert before.accepted
    old = x509.load_pem_x509_certificate(who.files.certificate.read_bytes())
    assert renewal.look() is True
    assert before.was_cut()
    new = x509.load_pem_x509_certificate(who.files.certificate.read_bytes())
    assert new.not_valid_after_utc - old.not_valid_after_utc > timedelta(days=79)
    with connect(server, who) as client:
        assert client.accepted
    assert asks(server, who) == 200


def test_a_revoked_device_is_refused_until_it_has_a_new_claim(
    server: RunningServer, tmp_path: Path
) -> None:
    who = enrolled(server, tmp_path / "state", "stolen")
    connected = connect(server, who)
    assert asks(server, who) == 200
    admin = server.api_token("admin")
    path = "/api/v1/devices/stolen/revoke"
    assert server.request("POST", path, token=server.api_token("operator")).status == 403
    assert server.request("POST", path, token=admin).json()["health"] == "revoked"
    assert asks(server, who) == 401
    assert connected.was_cut()
    assert not connect(server, who).accepted
    who = enrolled(server, tmp_path / "state", "stolen", replaces=True)
    assert asks(server, who) == 200
    with connect(server, who) as client:
        assert client.accepted


def test_what_another_process_shuts_out_is_cut_off_too(
    server: RunningServer, tmp_path: Path
) -> None:
    who = enrolled(server, tmp_path / "state", "elsewhere")
    connected = connect(server, who)
    assert connected.accepted
    with closing(sqlite3.connect(server.fleet.data.database)) as database, database:
        database.execute("UPDATE devices SET revoked_ms = 1 WHERE id = 'elsewhere'")
    assert connected.was_cut()
    assert asks(server, who) == 401
