"""`skerry fleet rollout watch`: how it ends, and what it makes of a server that goes away."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleet_server import operator_cli
from fleet_server.operator_client import ApiError, OperatorClient
from fleet_server.rollouts.state import Status
from fleet_server.rollouts.watching import RESTS, follow

AWAY = ApiError("https://fleet does not answer: refused", status=None)
BUSY = ApiError("the database is down", status=503)
GONE = ApiError("the token has expired", status=401)


def view(status: str, explanation: str = "x") -> dict[str, object]:
    return {"status": status, "explanation": explanation, "healthy": 1, "devices": 2}


class Server:
    """Gives prepared answers, the last one again and again, while a clock runs."""

    def __init__(self, *answers: dict[str, object] | ApiError) -> None:
        self._answers = list(answers)
        self.now_s = 0.0
        self.troubles: list[str] = []

    def ask(self) -> dict[str, object]:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, ApiError):
            raise answer
        return answer

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def watched(self, patience_s: float = 60) -> Iterator[str]:
        for seen in follow(
            self.ask,
            patience_s=patience_s,
            troubled=self.troubles.append,
            sleep=self.sleep,
            monotonic=lambda: self.now_s,
        ):
            yield f"{seen['status']} {seen['explanation']}"


def test_it_says_what_is_new_until_the_rollout_rests() -> None:
    server = Server(view("running", "a"), view("running", "a"), view("running"), view("completed"))
    assert list(server.watched()) == ["running a", "running x", "completed x"]


def test_a_server_that_restarts_is_waited_for() -> None:
    server = Server(view("running"), AWAY, BUSY, AWAY, view("running"), AWAY, view("stopped"))
    assert list(server.watched()) == ["running x", "stopped x"]
    assert server.troubles == [str(AWAY), str(AWAY)]


def test_a_server_that_stays_away_ends_it() -> None:
    server = Server(view("running"), AWAY)
    with pytest.raises(ApiError):
        list(server.watched(patience_s=60))
    assert 60 <= server.now_s < 120


@pytest.mark.parametrize("answers", [(AWAY,), (BUSY,), (view("running"), GONE)])
def test_what_will_not_pass_ends_it_at_once(
    answers: tuple[dict[str, object] | ApiError, ...],
) -> None:
    server = Server(*answers)
    with pytest.raises(ApiError):
        list(server.watched())
    assert server.now_s <= 2


@pytest.mark.parametrize("status", RESTS)
def test_the_exit_status_says_how_it_ended(
    status: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(OperatorClient, "get", lambda *_, **__: view(status))
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("x")
    command = ["rollout", "watch", "1", "--server", "https://localhost:1", "--json"]
    done = CliRunner().invoke(operator_cli.app, [*command, "--token-file", str(token)])
    assert done.exit_code == RESTS[status], done.output
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == [status]


def test_every_status_either_rests_or_goes_on() -> None:
    assert set(RESTS) == set(Status) - {Status.RUNNING, Status.ROLLING_BACK}
    assert len(set(RESTS.values())) == len(RESTS)
