"""Trust in a running server: who may change it, a new assignment key, a renewed certificate."""

import json
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from tuf.api.metadata import Metadata, Root, Targets
from typer.testing import CliRunner

from provisioning.cli import app as provision
from tests.integration.server.running_server import EnrolledDevice, RunningServer, eventually
from tests.simulators.key_holders import done, signature_of
from tests.unit.fleet_server.authority import FAMILY, PASSPHRASE, release, signed_role
from tests.unit.fleet_server.upload_form import CONTENT_TYPE, form

METADATA = "/api/v1/trust/metadata"
EXPIRIES = "/api/v1/trust/expiries"


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_bytes(PASSPHRASE)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def assigned(server: RunningServer, alice: EnrolledDevice) -> None:
    new = release()
    body = form(
        ("metadata", None, signed_role(server.fleet.publisher(), new)),
        *(("targets", path, content) for path, content in new.by_path.items()),
    )
    admin, kind = server.api_token("admin"), {"Content-Type": CONTENT_TYPE}
    made = server.request("POST", "/api/v1/releases", token=admin, body=body, headers=kind)
    assert made.status == 201, made.data
    wanted = {"family": FAMILY, "version": "1.0.0", "devices": [alice.device_id]}
    assert server.request("PUT", "/api/v1/assignments", token=admin, json=wanted).status == 200


def fleet_command(server: RunningServer, folder: Path, role: str, *arguments: object) -> str:
    token = folder / f"{role}.token"
    token.touch(mode=0o600)
    token.write_text(server.api_token(role))
    where = ("--server", server.url, "--ca", str(server.ca), "--token-file", str(token))
    ran = server.skerry("fleet", *(str(each) for each in arguments), *where)
    return ran.stdout if ran.returncode == 0 else ran.stderr


def test_who_may_look_and_who_may_change(server: RunningServer, alice: EnrolledDevice) -> None:
    root = {"documents": [server.fleet.authority.release_root.read_text()]}
    tokens = {role: server.api_token(role) for role in ("viewer", "operator", "publisher")}
    for role, token in tokens.items():
        assert server.request("GET", EXPIRIES, token=token).status == 200
        expected = 200 if role == "publisher" else 403
        assert server.request("POST", METADATA, token=token, json=root).status == expected, role
    for other in (None, alice.key.token()):
        assert server.request("GET", EXPIRIES, token=other).status == 401
        assert server.request("POST", METADATA, token=other, json=root).status == 401


@pytest.mark.parametrize(
    ("documents", "status"),
    [
        ([], 422),
        (["{}"] * 65, 422),
        (["no metadata"], 400),
        (["[" * 100_000], 400),
        (['{"signatures": [], "signed": {"_type": "root", "version": true}}'], 400),
        ([7], 422),
    ],
)
def test_what_is_no_metadata_is_refused(
    server: RunningServer, documents: list[object], status: int
) -> None:
    publisher = server.api_token("publisher")
    answer = server.request("POST", METADATA, token=publisher, json={"documents": documents})
    assert answer.status == status, answer.data


def test_everything_that_runs_out_is_listed(server: RunningServer, tmp_path: Path) -> None:
    told = json.loads(fleet_command(server, tmp_path, "viewer", "expiries", "--json"))
    names = [one["name"] for one in told["expiries"]]
    assert {
        *("release root", "release targets", "release snapshot", "release timestamp"),
        *("director root", f"list of {FAMILY}", "server certificate", "ingest certificate"),
        *("device CA", "fleet CA"),
    } <= set(names)
    days = [one["days_left"] for one in told["expiries"]]
    assert days == sorted(days)
    assert all(one["key_ids"] and one["level"] == "ok" for one in told["expiries"]), told


@pytest.mark.usefixtures("assigned")
def test_the_assignment_key_is_replaced_in_a_running_fleet(
    server: RunningServer, alice: EnrolledDevice, tmp_path: Path, passphrase_file: Path
) -> None:
    def assignment() -> Metadata[Targets]:
        answer = server.request("GET", "/device/v1/assignment", token=alice.key.token())
        assert answer.status == 200, answer.data
        return Metadata[Targets].from_bytes(answer.data)

    authority = server.fleet.authority
    first = Metadata[Root].from_bytes(authority.director_root.read_bytes()).signed
    (old,) = first.roles["targets"].keyids
    before = assignment()
    first.verify_delegate("targets", before.signed_bytes, before.signatures)

    made = server.skerry("server", "new-key", "assignment")
    assert made.returncode == 0, made.stderr
    public = made.stdout.split("  key ")[0]
    draft, signed = tmp_path / "root.draft", tmp_path / "2.root.json"
    done(
        *("draft-root", "--repository", "director", "--authority", authority.root),
        *("--add", f"assignment={public}", "--remove", f"assignment={old}", "--out", draft),
    )
    signature = signature_of(draft, authority.root_key, "--passphrase-file", passphrase_file)
    done("combine", draft, signature, "--out", signed)
    done("publish", signed, "--authority", authority.root)
    assert "publisher" in fleet_command(server, tmp_path, "viewer", "adopt", signed)
    said = fleet_command(server, tmp_path, "publisher", "adopt", signed)
    assert said == "adopted director 2.root.json\n"

    link = server.request("GET", "/device/v1/director/2.root.json", token=alice.key.token())
    second = Metadata[Root].from_bytes(link.data)
    first.verify_delegate("root", second.signed_bytes, second.signatures)
    eventually(lambda: old not in assignment().signatures, server.log_path.read_text)
    after = assignment()
    second.signed.verify_delegate("targets", after.signed_bytes, after.signatures)
    assert list(after.signed.targets) == list(before.signed.targets)


def test_a_renewed_certificate_is_shown_without_a_restart(
    server: RunningServer, tmp_path: Path, passphrase_file: Path
) -> None:
    def shown(port: int) -> x509.Certificate:
        pem = ssl.get_server_certificate(("127.0.0.1", port))
        return x509.load_pem_x509_certificate(pem.encode())

    authority, out = server.fleet.authority, tmp_path / "renewed.crt"
    ports = (server.https_port, server.mqtt_port)
    before = [shown(port) for port in ports]
    renewed = CliRunner().invoke(
        provision,
        [
            *("renew-certificate", "--authority", str(authority.root), "--out", str(out)),
            *("--current", str(authority.online / "tls.crt")),
            *("--passphrase-file", str(passphrase_file)),
        ],
    )
    assert renewed.exit_code == 0, renewed.exception
    ran = server.skerry("server", "install-certificate", str(out))
    assert ran.returncode == 0, ran.stderr
    made = x509.load_pem_x509_certificate(out.read_bytes())
    for port, old in zip(ports, before, strict=True):
        assert made.serial_number != old.serial_number
        assert made.public_key() == old.public_key()
        eventually(lambda port=port: shown(port) == made, server.log_path.read_text)  # type: ignore[misc]
    assert server.request("GET", "/health/ready").status == 200
