"""`skerry server new-key` and `install-certificate`, and certificates that a server takes over."""

import logging
import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner, Result

from fleet_protocol.errors import SkerryError
from fleet_server.cli import app
from fleet_server.devices.authorities import DeviceCas
from fleet_server.trust.live_certificates import LiveCertificates, renew_ingest
from provisioning import renewal
from provisioning.certificates import server_names
from signing_keys import key_file, public_keys
from tests.unit.fleet_server.authority import PASSPHRASE, Fleet
from tests.unit.fleet_server.conftest import FakeClock


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def files_of(fleet: Fleet) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in fleet.data.root.rglob("*") if path.is_file()}


def renewed(
    fleet: Fleet, *, now: datetime | None = None, name: str | None = None, current: str = "tls.crt"
) -> bytes:
    return renewal.renewed_server_certificate(
        fleet.authority,
        (fleet.data.online / current).read_bytes(),
        names=server_names([name]) if name else None,
        passphrase=PASSPHRASE,
        now=now or datetime.now(UTC),
    )


@pytest.mark.parametrize("role", ["snapshot", "timestamp", "assignment"])
def test_a_new_key_lies_beside_the_one_in_use(fleet: Fleet, role: str) -> None:
    before = files_of(fleet)
    result = run("new-key", role, "--data", fleet.data.root)
    assert result.exit_code == 0, result.exception
    public = Path(result.stdout.split("  key ")[0])
    private = public.with_name(public.name.replace(".pub.json", ".pem"))
    assert private.parent.name == ("signer" if role == "assignment" else "online")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    key = public_keys.decode(public.read_bytes())
    assert result.stdout.endswith(f"{key.keyid}\n")
    assert key_file.load(private, None).public_key.keyid == key.keyid
    after = files_of(fleet)
    assert after.keys() - before.keys() == {public, private}
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    ("role", "folder", "words"),
    [
        ("root", "server", "no online role"),
        ("timestamp", "offline", "not a data directory|missing"),
    ],
)
def test_a_new_key_that_makes_no_sense(fleet: Fleet, role: str, folder: str, words: str) -> None:
    before = files_of(fleet)
    result = run("new-key", role, "--data", fleet.authority.root / folder)
    assert isinstance(result.exception, SkerryError)
    assert any(word in str(result.exception) for word in words.split("|")), result.exception
    assert files_of(fleet) == before


def test_a_renewed_certificate_is_installed(fleet: Fleet, tmp_path: Path) -> None:
    made = tmp_path / "renewed.crt"
    made.write_bytes(renewed(fleet, name="fleet.example.org"))
    result = run("install-certificate", made, "--data", fleet.data.root)
    assert result.exit_code == 0, result.exception
    assert result.stdout.startswith("Valid until ")
    installed = x509.load_pem_x509_certificate((fleet.data.online / "tls.crt").read_bytes())
    names = installed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fleet.example.org"]


LONG_AGO = datetime.now(UTC) - timedelta(days=500)
REFUSED: dict[str, tuple[Callable[[Fleet, Fleet], bytes], str]] = {
    "no certificate": (lambda _fleet, _other: b"nonsense", "this is no certificate"),
    "expired": (lambda fleet, _other: renewed(fleet, now=LONG_AGO), "which is not now"),
    "the CA's own": (
        lambda fleet, _other: fleet.authority.fleet_ca.read_bytes(),
        "of another key than the server's",
    ),
    "another fleet's": (lambda _fleet, other: renewed(other), "of another key than the server's"),
    "of another CA": (
        lambda fleet, other: renewed(
            other, current=str(fleet.data.online / "tls.crt"), now=datetime.now(UTC)
        ),
        "no server certificate of the fleet CA",
    ),
}


@pytest.fixture(scope="module")
def other_fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet.provision(tmp_path_factory.mktemp("other") / "authority")


@pytest.mark.parametrize("case", REFUSED)
def test_a_certificate_that_does_not_fit(
    fleet: Fleet, other_fleet: Fleet, tmp_path: Path, case: str
) -> None:
    make, words = REFUSED[case]
    before = files_of(fleet)
    made = tmp_path / "made.crt"
    with pytest.raises(SkerryError, match=words):  # noqa: PT012 (either step may refuse)
        made.write_bytes(make(fleet, other_fleet))
        result = run("install-certificate", made, "--data", fleet.data.root)
        raise result.exception or AssertionError(result.stdout)
    assert files_of(fleet) == before


def test_a_running_server_takes_good_certificates_only(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    live = LiveCertificates(online=fleet.data.online, serving=[context], ingest=context)
    path = fleet.data.online / "tls.crt"
    caplog.set_level(logging.INFO)
    live.take()
    assert not caplog.messages
    good = renewed(fleet)
    path.write_bytes(good[: len(good) // 2])
    live.take()
    live.take()
    assert caplog.messages == ["certificate_not_taken"]
    path.write_bytes(good)
    live.take()
    assert caplog.messages[1:] == ["certificate_taken"]


def test_the_ingest_certificate_is_renewed_in_time(fleet: Fleet, clock: FakeClock) -> None:
    online = fleet.data.online
    cas = DeviceCas(online)
    before = x509.load_pem_x509_certificate((online / "ingest.crt").read_bytes())
    assert not renew_ingest(online, cas, clock)
    clock.now = before.not_valid_after_utc - timedelta(days=1)
    assert renew_ingest(online, cas, clock)
    after = x509.load_pem_x509_certificate((online / "ingest.crt").read_bytes())
    assert after.not_valid_after_utc > before.not_valid_after_utc
    assert isinstance(after.public_key(), ec.EllipticCurvePublicKey)
    assert after.public_key() == before.public_key()
    assert not renew_ingest(online, cas, clock)
