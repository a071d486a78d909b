"""`skerry server token --out`: the token is in a file of its owner, and nowhere else."""

import json
import os
import pwd
import stat
from pathlib import Path

from typer.testing import CliRunner

from fleet_server.cli import app
from signing_keys import token_files
from signing_keys.errors import SigningKeyError
from tests.unit.fleet_server.authority import Fleet


def test_a_token_goes_into_a_new_file(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "token"
    command = ["token", "--name", "ci", "--role", "viewer", "--data", str(fleet.data.root)]
    done = CliRunner().invoke(app, [*command, "--out", str(path), "--json"])
    assert done.exit_code == 0, done.output
    token = token_files.read(path)
    assert token.startswith("skerry_")
    assert token not in done.output
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = CliRunner().invoke(app, [*command, "--out", str(path)])
    assert isinstance(again.exception, SigningKeyError)
    assert token_files.read(path) == token


def test_the_trail_says_who_made_a_token(fleet: Fleet) -> None:
    data = str(fleet.data.root)
    CliRunner().invoke(app, ["token", "--name", "ci", "--role", "viewer", "--data", data])
    exported = CliRunner().invoke(app, ["audit", "export", "--data", data]).stdout
    entries = [json.loads(line) for line in exported.splitlines()]
    made = next(entry for entry in entries if entry["action"] == "token.create")
    assert made["actor"].startswith(f"local:{pwd.getpwuid(os.getuid()).pw_name}")
