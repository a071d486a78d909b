"""What a follower keeps on its disk, whatever it is told, and as whom it may run."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleet_server.broker.mosquitto_files import MosquittoFiles
from fleet_server.broker.told import Authority, Told
from fleet_server.cli import app
from fleet_server.errors import FleetError, RefusedError, SetupError, UnavailableError
from fleet_server.follower import setup
from fleet_server.follower.following import Following, held_in
from fleet_server.follower.source import Fetched
from tests.unit.fleet_server.conftest import FakeClock
from tests.unit.fleet_server.test_acceptance import DAY, NOW, Ca, pem


class Elsewhere:
    """A folder without a Mosquitto, and a server that says what a test lets it say."""

    def __init__(self, folder: Path) -> None:
        self.ca = Ca()
        self.files = MosquittoFiles.apart(folder)
        device_ca = folder.with_suffix(".crt")
        device_ca.write_text(pem(self.ca.certificate))
        options = ("--server", "https://fleet.example.org:8443", "--device-ca", str(device_ca))
        self.made = CliRunner().invoke(app, ["broker-config", "--folder", str(folder), *options])
        self.answer: Fetched | FleetError = UnavailableError("away")
        self.asked: list[str | None] = []

    def following(self) -> Following:
        def fetch(etag: str | None) -> Fetched:
            self.asked.append(etag)
            if isinstance(self.answer, FleetError):
                raise self.answer
            return self.answer

        clock = FakeClock()
        clock.now = NOW
        return Following(files=self.files, fetch=fetch, clock=clock)

    def says(self, *told: Authority, shut_out: list[str] | None = None) -> None:
        self.answer = Fetched(Told(authorities=list(told), shut_out=shut_out or []), '"new"')

    def content(self) -> dict[str, bytes]:
        found = (path for path in self.files.folder.rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in found}


@pytest.fixture
def there(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path / "b")


def test_the_configuration_names_what_is_missing_and_opens_nothing(there: Elsewhere) -> None:
    assert there.made.exit_code == 0, there.made.output
    for name in ("fleet-ca.crt", "token", "tls.crt", "tls.pem"):
        assert f"{there.files.folder / name} is missing" in there.made.output
    assert there.files.folder.stat().st_mode & 0o077 == 0
    written = there.files.configuration.read_text()
    assert f"crlfile {there.files.revoked}\n" in written
    assert "allow_anonymous true\nacl_file" in written
    unit = (there.files.folder / setup.FOLLOWER_UNIT).read_text()
    assert f"broker-follow --folder {there.files.folder} --server https://fleet" in unit
    assert not there.files.revoked.exists()  # Mosquitto does not start before it is told


def test_what_is_held_outlives_every_answer(there: Elsewhere) -> None:
    following = there.following()
    there.says(there.ca.told(10, 7))
    for _ in range(2):
        with pytest.raises(UnavailableError, match="start it with"):
            following.look()
    assert there.asked == [None, None]  # Mosquitto was not told, so it lacks the answer
    before = there.content()
    assert str(there.files.revoked) in before
    for attack in (there.ca.told(9), Ca().told(11), there.ca.told(11, now=NOW + DAY)):
        there.says(attack)
        for one in (following, there.following()):  # of a new process as well
            with pytest.raises(RefusedError):
                one.look()
    there.answer = UnavailableError("away")
    with pytest.raises(UnavailableError, match="away"):
        following.look()
    assert there.content() == before


def test_a_damaged_list_is_fetched_anew_and_a_damaged_authority_is_not(there: Elsewhere) -> None:
    there.files.revoked.write_bytes(b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    there.says(there.ca.told(10, 7))
    with pytest.raises(UnavailableError, match="start it with"):
        there.following().look()
    assert len(held_in(there.files).lists) == 1
    for path in there.files.authorities.iterdir():
        path.write_bytes(b"")
    with pytest.raises(SetupError, match="--device-ca"):
        there.following()


def test_one_follower_at_a_time_and_as_the_folders_owner(
    there: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = setup.claim(there.files.folder)
    with pytest.raises(SetupError, match="another"):
        setup.claim(there.files.folder)
    os.close(descriptor)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with pytest.raises(SetupError, match="belongs to"):
        setup.claim(there.files.folder)
    with pytest.raises(SetupError, match="broker-config"):
        setup.claim(there.files.folder / "absent")
