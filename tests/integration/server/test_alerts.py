"""Alerts in a running server: from the command line to a receiver, over the death of the server."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.server.running_server import RunningServer, eventually, free_port, serving
from tests.simulators.webhook_receiver import running, verified
from tests.unit.fleet_server.authority import Fleet


@pytest.fixture
def server(fleet: Fleet) -> Iterator[RunningServer]:
    settings = {
        "SKERRY_SERVER_ALERT_INTERVAL_S": "0.2",
        "SKERRY_SERVER_WEBHOOK_PLAIN_HTTP": "true",
        "SKERRY_SERVER_WEBHOOK_PRIVATE_ADDRESSES": "true",
    }
    yield from serving(fleet, settings)


def test_a_notice_survives_the_server(server: RunningServer, tmp_path: Path) -> None:
    admin = server.api_token("admin")
    token_file = tmp_path / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(admin)
    where = ("--server", server.url, "--token-file", str(token_file), "--ca", str(server.ca))

    def fleet(*arguments: str) -> str:
        done = server.skerry("fleet", *arguments, *where)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def deliveries() -> list[dict[str, Any]]:
        path = "/api/v1/alert-webhooks/pager/deliveries"
        found: list[dict[str, Any]] = server.request("GET", path, token=admin).json()["deliveries"]
        return found

    port = free_port()
    made = json.loads(fleet("webhook", "create", "pager", "--url", f"http://127.0.0.1:{port}/ok"))
    server.enroll("camera")
    limits = ("--signal", "certificate_days", "--fires-at", "1000")
    fleet("alert", "rules", "set", "always", *limits)
    eventually(lambda: deliveries() and deliveries()[0]["problem"])  # nobody listens yet
    server.stop(signal.SIGKILL)
    with running(tmp_path / "webhooks.jsonl", port=port) as receiver:
        server.start()
        eventually(lambda: receiver.requests)
        assert verified(made["secret"], receiver.requests[0])
        assert receiver.requests[0]["headers"]["webhook-id"] == deliveries()[0]["event_id"]
        assert "always" in fleet("alerts")
        assert "certificate_days" in fleet("alert", "rules", "list")
        fleet("alert", "rules", "remove", "always")
        eventually(lambda: len(receiver.requests) == 2, server.log_path.read_text)
    event = json.loads(receiver.requests[1]["body"])
    assert (event["type"], event["data"]["device"]) == ("skerry.alert.resolved", "camera")
    silence = json.loads(
        fleet("silence", "create", "site=x", "--for", "2h", "--reason", "works", "--json")
    )
    assert "works" in fleet("silences")
    fleet("silence", "end", str(silence["id"]))
    for path in ("alert-webhooks", "audit"):
        shown = server.request("GET", f"/api/v1/{path}", token=admin).data.decode()
        assert "pager" in shown
        assert made["secret"] not in shown
    assert made["secret"] not in server.log_path.read_text()
