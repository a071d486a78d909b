"""`skerry fleet` for accounts, audit and single devices, against a server that runs."""

import json
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleet_protocol.errors import SkerryError
from fleet_server import operator_cli
from tests.integration.server.running_server import RunningServer

PASSWORD = "correct horse battery"


@dataclass
class Shell:
    """Gives commands with one token after the other."""

    server: RunningServer
    folder: Path
    token: str = "admin"

    def __call__(self, *arguments: str, given: str = "") -> str:
        """Return what a command printed.

        Raises:
            SkerryError: it was refused.
        """
        options = ("--server", self.server.url, "--ca", str(self.server.ca))
        done = CliRunner().invoke(
            operator_cli.app,
            [*arguments, *options, "--token-file", str(self.folder / self.token)],
            input=given,
        )
        if isinstance(done.exception, SkerryError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    def json(self, *arguments: str, given: str = "") -> dict[str, object]:
        found = json.loads(self(*arguments, "--json", given=given))
        assert isinstance(found, dict)
        return found


@pytest.fixture
def fleet(server: RunningServer, tmp_path: Path) -> Shell:
    file = tmp_path / "admin"
    file.touch(mode=0o600)
    file.write_text(server.api_token("admin"))
    return Shell(server, tmp_path)


def test_people_are_let_in_and_shut_out(fleet: Shell) -> None:
    said = fleet("user", "add", "ann", "--role", "operator", given=f"{PASSWORD}\n")
    assert "ann may log in as operator" in said
    with pytest.raises(SkerryError, match="holds the API token"):
        fleet("login", "--name", "ann", given=f"{PASSWORD}\n")
    fleet.token = "session"
    with pytest.raises(SkerryError, match="password is wrong"):
        fleet("login", "--name", "ann", given="guess\n")
    for _ in range(2):  # the second one takes the place of the first one
        assert "ann: operator" in fleet("login", "--name", "ann", given=f"{PASSWORD}\n")
    assert stat.S_IMODE((fleet.folder / "session").stat().st_mode) == 0o600
    assert fleet.json("whoami")["kind"] == "session"
    with pytest.raises(SkerryError, match="admin"):
        fleet("users")
    fleet("password", given=f"{PASSWORD}\n{PASSWORD}!\n")
    with pytest.raises(SkerryError):
        fleet("whoami")
    fleet("login", "--name", "ann", given=f"{PASSWORD}!\n")
    fleet("logout")
    assert not (fleet.folder / "session").exists()
    fleet("login", "--name", "ann", given=f"{PASSWORD}!\n")
    fleet.token = "admin"
    assert "viewer" in fleet("user", "role", "ann", "viewer")
    fleet("user", "password", "ann", given=f"{PASSWORD}?\n")
    assert "viewer" in fleet("users")
    fleet("user", "remove", "ann")
    assert fleet.json("users") == {"users": []}
    fleet.token = "session"
    with pytest.raises(SkerryError):
        fleet("whoami")


def test_a_token_may_do_less_than_its_role_and_is_taken_back(fleet: Shell) -> None:
    out = fleet.folder / "ci"
    command = ("token", "create", "ci", "--role", "operator", "--scope", "read", "--expires", "2h")
    made = fleet.json(*command, "--out", str(out))
    assert "token" not in made
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with pytest.raises(SkerryError, match="exists and may be in use"):
        fleet(*command, "--out", str(out))
    fleet.token = "ci"
    assert fleet.json("whoami")["permissions"] == ["read"]
    assert "at least" not in fleet("devices", "--count")
    fleet.token = "admin"
    assert str(made["id"]) in fleet("tokens")
    fleet("token", "revoke", str(made["id"]))
    fleet.token = "ci"
    with pytest.raises(SkerryError, match="not known"):
        fleet("devices")


def test_one_device_is_looked_at_and_revoked_and_the_trail_says_so(fleet: Shell) -> None:
    fleet.server.enroll("cam-7")
    assert fleet.json("events", "cam-7") == {"events": []}
    fleet("group", "save", "north", "--selector", "id=cam-7")
    assert "north" in fleet("groups")
    fleet("group", "remove", "north")
    assert "north" not in fleet("groups")
    assert "cam-7 is revoked" in fleet("revoke", "cam-7")
    assert fleet.json("devices", "cam-7")["health"] == "revoked"
    listed = fleet.json("audit", "list", "--limit", "1")["entries"]
    assert isinstance(listed, list)
    assert "cam-7" in json.dumps(listed[0])
    out = fleet.folder / "trail.jsonl"
    exported = fleet.json("audit", "export", "--out", str(out))
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert exported["entries"] == len(lines) == listed[0]["number"]
    assert exported["head"] == f"{len(lines)}:{lines[-1]['sha256']}"
