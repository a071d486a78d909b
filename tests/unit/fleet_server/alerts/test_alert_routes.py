"""What the routes of alerts accept and refuse."""

from datetime import timedelta

import httpx

from fleet_server.accounts.roles import Role
from fleet_server.alerts.rules import DEFAULTS
from fleet_server.clock import unix_ms, utc_now
from fleet_server.database import Database
from tests.unit.fleet_server.authority import Fleet
from tests.unit.fleet_server.in_process_app import bearer, client_of, wired

P95 = {"signal": "p95_ms", "fires_at": 50, "resolves_at": 40}
HOUR_MS = 3_600_000


async def test_rules_silences_and_webhooks(fleet: Fleet, database: Database) -> None:
    services = await wired(fleet, database)
    token, _ = await services.accounts.create(
        name="ann", role=Role.ADMIN, lifetime=timedelta(hours=1), tenant="default"
    )
    now_ms = unix_ms(utc_now())
    async with client_of(services) as client:
        client.headers.update(bearer(token))
        await rules(client)
        for body, status in (
            ({"ends_ms": now_ms + HOUR_MS}, 201),
            ({"ends_ms": now_ms - 1}, 422),
            ({"ends_ms": now_ms + 400 * 24 * HOUR_MS}, 422),
            ({"ends_ms": now_ms + HOUR_MS, "starts_ms": now_ms + 2 * HOUR_MS}, 422),
            ({"ends_ms": now_ms + HOUR_MS, "selector": "site="}, 400),
            ({"ends_ms": now_ms + HOUR_MS, "reason": ""}, 422),
        ):
            asked = {"selector": "site=x", "reason": "works", **body}
            answer = await client.post("/api/v1/alert-silences", json=asked)
            assert answer.status_code == status, answer.text
        (silence,) = (await client.get("/api/v1/alert-silences")).json()["silences"]
        assert (silence["created_by"], silence["reason"]) == ("ann", "works")
        ended = await client.post(f"/api/v1/alert-silences/{silence['id']}/end")
        assert ended.json()["ends_ms"] < now_ms + HOUR_MS
        await webhooks(client)


async def rules(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/api/v1/alert-rules")).json()["rules"]
    assert [rule["name"] for rule in listed] == sorted(rule.name for rule in DEFAULTS)
    assert (await client.put("/api/v1/alert-rules/slow", json=P95)).status_code == 200
    off = {"signal": "silence_s", "fires_at": 900, "enabled": False}
    assert (await client.put("/api/v1/alert-rules/device-offline", json=off)).status_code == 200
    assert (await client.get("/api/v1/alert-rules/device-offline")).json()["enabled"] is False
    assert (await client.delete("/api/v1/alert-rules/device-offline")).status_code == 204
    assert (await client.get("/api/v1/alert-rules/device-offline")).json()["enabled"] is True
    assert (await client.delete("/api/v1/alert-rules/device-offline")).status_code == 422
    assert (await client.delete("/api/v1/alert-rules/nothing")).status_code == 404
    for name, body, said in (
        ("slow", {**P95, "resolves_at": 60}, "resolves_at: p95_ms resolves at or below"),
        ("x", {"signal": "certificate_days", "fires_at": 9, "resolves_at": 8}, "at or above"),
        ("x", {"signal": "silence_s", "fires_at": 9, "family": "animals"}, "belongs to a device"),
        ("x", {**P95, "selector": "site="}, "character 6"),
        ("x", {**P95, "family": "No Family"}, "not a model family"),
        ("x", {**P95, "for_s": -1}, "body.for_s"),
        ("x", {**P95, "limit": 1}, "body.limit"),
        ("Bad Name", P95, "cannot name an alert rule"),
    ):
        answer = await client.put(f"/api/v1/alert-rules/{name}", json=body)
        assert answer.status_code in {400, 422}, answer.text
        assert said in answer.json()["detail"]


async def webhooks(client: httpx.AsyncClient) -> None:
    root = "/api/v1/alert-webhooks"
    body = {"name": "pager", "url": "https://pager.example.org/hook"}
    made = await client.post(root, json=body)
    assert made.status_code == 201
    assert made.json()["secret"].startswith("whsec_")
    assert (await client.post(root, json=body)).status_code == 409
    for url in ("http://pager.example.org/", "https://127.0.0.1/", "https://a:b@example.org/"):
        answer = await client.post(root, json={"name": "other", "url": url})
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"].startswith("url: ")
    rotated = (await client.post(f"{root}/pager/secret")).json()["secret"]
    assert rotated != made.json()["secret"]
    for path in (root, f"{root}/pager", "/api/v1/audit"):
        shown = (await client.get(path)).text
        assert "pager.example.org" in shown
        assert "whsec_" not in shown
    assert (await client.post(f"{root}/pager/test")).status_code == 202
    (waiting,) = (await client.get(f"{root}/pager/deliveries")).json()["deliveries"]
    assert (waiting["kind"], waiting["attempts"]) == ("skerry.alert.test", 0)
    assert (await client.delete(f"{root}/pager")).status_code == 204
    assert (await client.get(f"{root}/pager")).status_code == 404
