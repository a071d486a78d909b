"""`skerry fleet devices` says which certificates are about to expire, and of no other."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleet_server import operator_cli
from fleet_server.operator_client import OperatorClient

DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("days", "gone", "said"),
    [
        (29.5, None, "29 days left"),
        (0.5, None, "0 days left"),
        (-1, None, "expired"),
        (31, None, ""),
        (-1, 1, ""),
    ],
)
def test_the_certificate_column(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, days: float, gone: int | None, said: str
) -> None:
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    device = {
        "id": "cam-1",
        "online": True,
        "health": "decommissioned" if gone else said if said == "expired" else "healthy",
        "last_seen_ms": now_ms,
        "update": "updated",
        "reported": None,
        "decommissioned_ms": gone,
        "certificate_expires_ms": now_ms + int(days * DAY_MS),
    }
    monkeypatch.setattr(OperatorClient, "pages", lambda *_: iter([device]))
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("x")
    done = CliRunner().invoke(
        operator_cli.app,
        ["devices", "--server", "https://localhost:1", "--token-file", str(token)],
    )
    assert done.exit_code == 0, done.output
    row = done.output.splitlines()[1]
    for words in ("days left", "expired"):
        assert (words in row) == (words in said)
    assert said in row
