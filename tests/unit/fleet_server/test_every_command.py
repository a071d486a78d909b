"""All commands of `skerry fleet`: each one warns of what runs out, whatever it is asked for."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperArgument, TyperGroup
from typer.testing import CliRunner

from fleet_server import operator_cli
from fleet_server.errors import RefusedError
from fleet_server.operator_client import ApiError, OperatorClient

VALUES = {
    "labels": "a=b",
    "lasts": "1h",
    "setting": "control.log_level=info",
    "role": "viewer",
    "to_all": "",
}
"""Values that have a form of their own; "" where the option takes none."""

WITHOUT = {"claim-admin", "login", "logout", "expiries"}
"""Those that have no token yet or let go of it, and the one that says it all itself."""


def commands(group: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


TREE = typer.main.get_command(operator_cli.app)
assert isinstance(TREE, TyperGroup)
EVERY = [path for path in commands(TREE) if path[0] not in WITHOUT]


def asked(path: tuple[str, ...], token: Path) -> list[str]:
    """Return the command with what it cannot do without."""
    command: Any = TREE
    for name in path:
        command = command.commands[name]
    arguments = list(path)
    options = ["--server", "https://localhost:1", "--token-file", str(token)]
    for parameter in command.params:
        if parameter.name in {"server", "token_file"}:
            continue
        wanted = parameter.required or parameter.name in {"setting", "to_all", "min_calls"}
        if wanted and isinstance(parameter, TyperArgument):
            arguments.append(VALUES.get(parameter.name, "1"))
        elif wanted:
            options += [parameter.opts[0], *filter(None, [VALUES.get(parameter.name, "1")])]
    return [*arguments, *options]


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_it_warns_of_what_runs_out(
    path: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer(_: object, method: str, asked_path: str, **__: object) -> dict[str, object]:
        if asked_path != "/api/v1/trust/expiries":
            raise ApiError(f"{method} {asked_path}", status=500)
        expiry = {"level": "warning", "name": "the root", "days_left": 3.0, "action": "sign it"}
        fine = {"level": "ok", "name": "the CA", "days_left": 300.0, "action": ""}
        return {"expiries": [expiry, fine]}

    monkeypatch.setattr(OperatorClient, "_request", answer)
    monkeypatch.chdir(tmp_path)
    Path("1").touch()
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("x")
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret\nsecret\n"))
    with pytest.raises(ApiError):
        TREE.main(asked(path, token), standalone_mode=False)
    said = capsys.readouterr().err
    assert "WARNING: the root has 3.0 days left; sign it" in said
    assert "the CA" not in said


def test_a_configuration_without_settings_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("x")
    options = ["--server", "https://localhost:1", "--token-file", str(token)]
    settings = ["--set", "control.log_level=info", "--file", str(tmp_path / "settings.json")]
    for given in ([], settings):
        done = CliRunner().invoke(operator_cli.app, ["config", "set", "quiet", *given, *options])
        assert isinstance(done.exception, RefusedError)
        assert "--set section.key=value" in str(done.exception)
