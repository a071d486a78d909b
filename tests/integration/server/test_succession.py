"""A device CA follows another one in a running fleet, with a real Mosquitto between."""

import json
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from edge_agent import enroll as enrolment
from edge_agent import identity
from edge_agent.control.authority_watch import AuthorityWatch
from edge_agent.control.clock import SystemClock
from edge_agent.control.renewal import Renewal
from edge_agent.control.server_client import DeviceTokens, FleetServer
from edge_agent.identity import Identity
from edge_agent.state_dir import StateDir
from fleet_protocol import claims
from fleet_server.devices.certificates import issuer_key_id
from provisioning import fleet_ca
from provisioning.claim_issue import ClaimIssuer
from tests.integration.server.mqtt_client import Client
from tests.integration.server.running_server import EnrolledDevice, RunningServer, eventually
from tests.simulators.mosquitto import Mosquitto
from tests.unit.fleet_server.authority import PASSPHRASE, Fleet


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.touch(mode=0o600)
    path.write_bytes(PASSPHRASE)
    path.chmod(0o600)
    return path


def enrolled(server: RunningServer, folder: Path, name: str) -> Identity:
    issuer = ClaimIssuer(server.fleet.authority, passphrase=PASSPHRASE)
    claim = claims.decode(issuer.issue(name, now=datetime.now(UTC)))
    state = StateDir(folder)
    enrolment.enroll(state=state, server_url=server.url, claim=claim, post=enrolment.https_post)
    return identity.load(state)


def agent_of(server: RunningServer, who: Identity, lock: Path) -> tuple[AuthorityWatch, Renewal]:
    tokens = DeviceTokens(device_id=who.device_id, key=who.private_key(), clock=SystemClock())
    tls = who.tls_context(client_certificate=False)
    https = FleetServer(url=server.url, tls=tls, tokens=tokens)
    renewal = Renewal(
        files=who.files, lock=lock, device_id=who.device_id, server=https,
        clock=SystemClock(), tokens=tokens, renewed=lambda: None,
    )  # fmt: skip
    watch = AuthorityWatch(
        claim_pem=lambda: who.claim.fleet_ca_pem,
        path=who.files.fleet_cas,
        server=https,
        trust=lambda pem: tls.load_verify_locations(cadata=pem),
        issued_by=renewal.issued_by,
    )
    return watch, renewal


def connects(server: RunningServer, name: str, files: tuple[Path, Path]) -> bool:
    with Client(port=server.mqtt_port, ca=server.ca, files=files, client_id=name) as client:
        return client.accepted


def device_cas(server: RunningServer) -> list[dict[str, object]]:
    shown = server.skerry("server", "ca", "show", "--json")
    assert shown.returncode == 0, shown.stderr
    return [each for each in json.loads(shown.stdout)["authorities"] if each["kind"] == "device CA"]


def revoke(server: RunningServer, device: EnrolledDevice) -> None:
    path = f"/api/v1/devices/{device.device_id}/revoke"
    assert server.request("POST", path, token=server.api_token("admin")).status == 200


def test_devices_move_to_a_new_device_ca(provisioned: Fleet, tmp_path: Path) -> None:
    server = RunningServer(provisioned.copy_to(tmp_path / "a"))
    broker = Mosquitto.beside(server).start()
    try:
        server.start()
        alice, who = server.enroll("alice"), enrolled(server, tmp_path / "state", "cam")
        watch, renewal = agent_of(server, who, tmp_path / "lock")
        watch.ask()
        assert renewal.look() is False
        made = server.skerry("server", "ca", "new-device-ca", "--json")
        new = json.loads(made.stdout)["key"]
        eventually(lambda: server.events("device_ca_in_office"), server.log_path.read_text)
        eventually(server.is_ready)
        bob = server.enroll("bob")
        of_bob = x509.load_pem_x509_certificate(bob.files[0].read_bytes())
        assert issuer_key_id(of_bob) == new
        cam = (who.files.certificate, who.files.key)
        assert [
            connects(server, *each)
            for each in (("alice", alice.files), ("bob", bob.files), ("cam", cam))
        ] == [True] * 3

        watch.ask()
        assert renewal.look() is True
        cam = (who.files.certificate, who.files.key)
        assert issuer_key_id(x509.load_pem_x509_certificate(cam[0].read_bytes())) == new
        assert connects(server, "cam", cam)
        assert renewal.look() is False

        refused = server.skerry("server", "ca", "retire-device-ca")
        assert refused.returncode != 0
        assert "1 device still holds" in refused.stderr
        for each in (alice, bob):  # one of each CA
            revoke(server, each)
            eventually(lambda each=each: not connects(server, each.device_id, each.files))  # type: ignore[misc]
        assert [each["devices"] for each in device_cas(server)] == [0, 1]
        retired = server.skerry("server", "ca", "retire-device-ca")
        assert retired.returncode == 0, retired.stderr
        assert [each["key"] for each in device_cas(server)] == [new]
        eventually(lambda: len(server.events("device_cas_taken")) >= 2, server.log_path.read_text)
        trail = server.skerry("server", "audit", "export").stdout
        assert [word in trail for word in ("new_device_ca", "retire_device_ca")] == [True, True]
        broker.kill()
        broker.start()
        assert connects(server, "cam", cam)
        assert not connects(server, "alice", alice.files)
    finally:
        server.stop()
        broker.stop()
    assert "traceback" not in server.log_path.read_text().lower()


def test_devices_move_to_a_new_fleet_ca(
    server: RunningServer, tmp_path: Path, passphrase_file: Path
) -> None:
    authority = server.fleet.authority
    who = enrolled(server, tmp_path / "state", "mover")
    watch, _ = agent_of(server, who, tmp_path / "lock")
    where = ("--authority", str(authority.root))
    secret = ("--passphrase-file", str(passphrase_file))
    made = server.skerry("provision", "new-fleet-ca", *where, *secret)
    assert made.returncode == 0, made.stderr
    adopted = server.skerry("server", "ca", "adopt-fleet-ca", str(authority.fleet_ca_handover))
    assert adopted.returncode == 0, adopted.stderr
    renewed = tmp_path / "renewed.crt"
    current = ("--current", str(authority.online / "tls.crt"), "--out", str(renewed))
    done = server.skerry("provision", "renew-certificate", *where, *secret, *current)
    assert done.returncode == 0, done.stderr
    refused = server.skerry("server", "install-certificate", str(renewed))
    assert "1 device does not trust the new fleet CA yet" in refused.stderr

    watch.ask()
    installed = server.skerry("server", "install-certificate", str(renewed))
    assert installed.returncode == 0, installed.stderr
    new = fleet_ca.trusted(authority)[-1]

    def shown(port: int) -> bool:
        pem = ssl.get_server_certificate(("127.0.0.1", port))
        return x509.load_pem_x509_certificate(pem.encode()).issuer == new.subject

    for port in (server.https_port, server.mqtt_port):
        eventually(lambda port=port: shown(port), server.log_path.read_text)  # type: ignore[misc]
    watch.ask()  # over TLS, to the new certificate
    agent_of(server, identity.load(StateDir(tmp_path / "state")), tmp_path / "lock")[0].ask()
    who.tls_context(client_certificate=True)
    retired = server.skerry("server", "ca", "retire-fleet-ca")
    assert retired.returncode == 0, retired.stderr
