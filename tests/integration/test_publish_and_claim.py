"""What provisioning and the pipeline make, before the real fleet server."""

import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from fleet_protocol import claims, messages
from provisioning import ceremony
from provisioning.claim_issue import ClaimIssuer
from provisioning.layout import Authority
from tests.simulators import warm_processes
from tests.simulators.warm_processes import WarmProcess

PASSPHRASE = b"correct horse battery"
MODEL = Path(__file__).parents[2] / "models" / "fashion_mnist"
START_TIMEOUT_S = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True)
class Fleet:
    """An authority and its running server."""

    authority: Authority
    url: str
    http: urllib3.PoolManager

    def skerry(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return warm_processes.run("skerry", *map(str, arguments), timeout_s=60)

    def publish(self, bundle: Path, token_file: Path) -> subprocess.CompletedProcess[str]:
        passphrase_file = token_file.with_name("passphrase")
        passphrase_file.write_bytes(PASSPHRASE)
        passphrase_file.chmod(0o600)
        return self.skerry(
            *("model", "publish", bundle, "--server", self.url),
            *("--authority", self.authority.root, "--token-file", token_file),
            *("--passphrase-file", passphrase_file),
        )

    def token_file(self, folder: Path, role: str) -> Path:
        path = folder / f"{role}.token"
        made = self.skerry(
            *("server", "token", "--data", self.authority.server, "--name", role),
            *("--role", role, "--out", path),
        )
        assert made.returncode == 0, made.stderr
        return path

    def pack(self, folder: Path, version: str, variant: str) -> Path:
        out = folder / f"{version}-{variant}.bundle"
        packed = self.skerry(
            *("model", "pack", MODEL, "--version", version, "--variant", variant, "--out", out)
        )
        assert packed.returncode == 0, packed.stderr
        return out

    def releases(self, token_file: Path) -> set[tuple[str, str]]:
        answer = self.http.request(
            "GET",
            f"{self.url}/api/v1/releases",
            headers={"Authorization": f"Bearer {token_file.read_text().strip()}"},
        )
        return {(item["family"], item["version"]) for item in answer.json()["releases"]}

    def enroll(self, claim: bytes) -> urllib3.BaseHTTPResponse:
        bundle = claims.decode(claim)
        request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(
            ec.generate_private_key(ec.SECP256R1()), SHA256()
        )
        body = messages.EnrollRequest(
            token=bundle.token, csr_pem=request.public_bytes(Encoding.PEM).decode()
        )
        return self.http.request(
            "POST", f"{self.url}/device/v1/enroll", body=messages.encode(body), retries=False
        )


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    plan = ceremony.Plan.of(families=["fashion_mnist"], server_names=["localhost"])
    authority = ceremony.create(
        folder / "authority", plan, passphrase=PASSPHRASE, now=datetime.now(UTC)
    )
    port = free_port()
    log = folder / "server.log"
    log.touch()
    process = warm_processes.spawn(
        *("skerry", "server", "run", "--data", str(authority.server)),
        stdout=log,
        stderr=log,
        environment={
            "SKERRY_SERVER_HTTPS_PORT": str(port),
            "SKERRY_SERVER_MQTT_PORT": str(free_port()),
        },
    )
    http = urllib3.PoolManager(ca_certs=str(authority.fleet_ca), retries=False)
    running = Fleet(authority, f"https://localhost:{port}", http)
    try:
        wait_until_ready(running, process, log)
        yield running
    finally:
        http.clear()
        process.terminate()
        process.wait(timeout=30)


def wait_until_ready(fleet: Fleet, process: WarmProcess, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            if fleet.http.request("GET", f"{fleet.url}/health/ready").status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.05)


def test_publishing(fleet: Fleet, tmp_path: Path) -> None:
    token_file = fleet.token_file(tmp_path, "publisher")
    first, second = fleet.pack(tmp_path, "1.0.0", "fp32"), fleet.pack(tmp_path, "1.1.0", "int8")
    for bundle, said in ((first, "Published"), (first, "Nothing to do"), (second, "Published")):
        done = fleet.publish(bundle, token_file)
        assert done.stdout.startswith(said), done.stderr
    assert fleet.releases(token_file) == {("fashion_mnist", "1.0.0"), ("fashion_mnist", "1.1.0")}

    changed = fleet.publish(fleet.pack(tmp_path, "1.0.0", "int8"), token_file)
    assert (changed.returncode, changed.stdout) == (1, "")
    assert "with other content" in changed.stderr


def test_a_token_that_may_not_publish(fleet: Fleet, tmp_path: Path) -> None:
    token_file = fleet.token_file(tmp_path, "viewer")
    before = fleet.releases(token_file)
    done = fleet.publish(fleet.pack(tmp_path, "9.0.0", "int8"), token_file)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "publisher" in done.stderr
    assert fleet.releases(token_file) == before


def test_the_server_accepts_a_claim_once(fleet: Fleet) -> None:
    issuer = ClaimIssuer(fleet.authority, passphrase=PASSPHRASE)
    claim = issuer.issue("cam-01", now=datetime.now(UTC))
    answer = fleet.enroll(claim)
    assert answer.status == 200
    assert answer.json()["device_id"] == "cam-01"
    device_ca = x509.load_pem_x509_certificate(
        (fleet.authority.online / "device-ca.crt").read_bytes()
    )
    certificate = x509.load_pem_x509_certificate(answer.json()["certificate_pem"].encode())
    certificate.verify_directly_issued_by(device_ca)
    assert 400 <= fleet.enroll(claim).status < 500


def test_the_server_refuses_a_claim_of_another_authority(fleet: Fleet, tmp_path: Path) -> None:
    plan = ceremony.Plan.of(families=["fashion_mnist"], server_names=["localhost"])
    now = datetime.now(UTC)
    other = ceremony.create(tmp_path / "other", plan, passphrase=PASSPHRASE, now=now)
    claim = ClaimIssuer(other, passphrase=PASSPHRASE).issue("cam-02", now=now)
    assert fleet.enroll(claim).status == 401
