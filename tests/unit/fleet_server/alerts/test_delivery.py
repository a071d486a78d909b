"""Notices to a real receiver in a process of its own: signed, repeated, not sent everywhere."""

import json

import pytest

from fleet_server.alerts import targets
from fleet_server.alerts.deliveries import MAX_AGE_MS, pause_s
from fleet_server.alerts.rules import Severity
from fleet_server.alerts.sender import Letter, Outcome, Sender
from fleet_server.alerts.targets import TargetError, TargetPolicy
from fleet_server.errors import RefusedError
from tests.simulators.webhook_receiver import verified
from tests.unit.fleet_server.alerts.conftest import LOOPBACK, Start, World
from tests.unit.fleet_server.authority import Fleet
from tests.unit.fleet_server.conftest import FakeClock

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


async def webhook(world: World, url: str) -> str:
    return (await world.webhooks.create("pager", url=url, min_severity=Severity.INFO)).secret


async def test_a_notice_arrives_signed(world: World, receiving: Start) -> None:
    receiver = receiving()
    secret = await webhook(world, f"{receiver.url}/ok?a=b")
    await world.add(runtime_up=False)
    await world.look(180)
    await world.send()
    (request,) = receiver.requests
    event = json.loads(request["body"])
    assert request["path"] == "/ok?a=b"
    assert request["headers"]["content-type"] == "application/cloudevents+json; charset=UTF-8"
    assert verified(secret, request)
    assert not verified(SECRET, request)
    assert event["id"] == request["headers"]["webhook-id"]
    assert (event["specversion"], event["type"]) == ("1.0", "skerry.alert.fired")
    assert (event["source"], event["subject"]) == ("/skerry/tenants/default", "devices/cam-01")
    assert event["data"]["rule"] == "runtime-down"
    (row,) = await world.queue()
    assert (row.due_ms, row.delivered_ms, row.attempts) == (None, world.now_ms, 1)


async def test_what_fails_is_repeated_with_the_same_id(world: World, receiving: Start) -> None:
    receiver = receiving()
    secret = await webhook(world, f"{receiver.url}/flaky/2")
    event_id = await world.webhooks.test("pager")
    for pause in (0, 5, 10):
        await world.send()
        world.clock.advance(seconds=max(pause, 5))
    world.clock.advance(seconds=10)
    await world.send()
    assert [each["headers"]["webhook-id"] for each in receiver.requests] == [event_id] * 3
    assert all(verified(secret, each) for each in receiver.requests)
    stamps = [int(each["headers"]["webhook-timestamp"]) for each in receiver.requests]
    assert stamps == sorted(set(stamps))
    (row,) = await world.queue()
    assert (row.due_ms, row.problem, row.attempts) == (None, "", 3)


async def test_a_server_that_dies_after_it_sent_sends_again(world: World, receiving: Start) -> None:
    receiver = receiving()
    await webhook(world, f"{receiver.url}/ok")
    await world.webhooks.test("pager")
    async with Sender(policy=LOOPBACK, clock=world.clock) as sender:
        (leased,) = await world.deliveries.lease(("default", "pager"))
        outcome = await sender.attempt(leased.letter)  # and dies here
    await world.send()
    assert len(receiver.requests) == 1  # another server leaves it alone as long as it is leased
    world.clock.advance(seconds=61)
    await world.send()
    ids = {each["headers"]["webhook-id"] for each in receiver.requests}
    assert (len(receiver.requests), len(ids)) == (2, 1)
    await world.deliveries.note(("default", "pager"), leased, outcome)  # late, and not believed
    assert (await world.queue())[0].attempts == 2


async def test_only_the_newest_lease_notes_an_outcome(world: World) -> None:
    await webhook(world, "http://127.0.0.1:1/")
    await world.webhooks.test("pager")
    key = ("default", "pager")
    (first,) = await world.deliveries.lease(key)
    assert await world.deliveries.lease(key) == []
    world.clock.advance(seconds=61)
    (second,) = await world.deliveries.lease(key)
    await world.deliveries.note(key, first, Outcome())  # late: somebody else is at it
    assert (await world.queue())[0].delivered_ms is None
    await world.deliveries.note(key, second, Outcome())
    assert (await world.queue())[0].delivered_ms == world.now_ms


async def test_a_receiver_that_is_gone_is_left_alone(world: World, receiving: Start) -> None:
    receiver = receiving()
    await webhook(world, f"{receiver.url}/status/410")
    await world.webhooks.test("pager")
    await world.send()
    assert (await world.webhooks.get("pager")).disabled_ms == world.now_ms
    await world.webhooks.test("pager")
    await world.send()
    assert len(receiver.requests) == 1
    assert [row.due_ms for row in await world.queue()] == [None, None]


async def test_a_notice_is_given_up_after_days(world: World, receiving: Start) -> None:
    await webhook(world, f"{receiving().url}/status/503")
    await world.webhooks.test("pager")
    await world.send()
    world.clock.advance(milliseconds=MAX_AGE_MS)
    await world.send()
    (row,) = await world.queue()
    assert (row.due_ms, row.delivered_ms, row.problem) == (None, None, "it answered 503")


async def test_both_secrets_sign_while_they_are_exchanged(world: World, receiving: Start) -> None:
    receiver = receiving()
    old = await webhook(world, f"{receiver.url}/ok")
    new = (await world.webhooks.rotate("pager")).secret
    await world.webhooks.test("pager")
    await world.send()
    world.clock.advance(days=1)
    await world.webhooks.test("pager")
    await world.send()
    both, one = receiver.requests
    assert verified(old, both)
    assert verified(new, both)
    assert verified(new, one)
    assert not verified(old, one)


def letter(url: str) -> Letter:
    return Letter(url=url, event_id="msg_1", body="{}", whsec=[SECRET])


async def test_tls_has_to_be_trusted(clock: FakeClock, fleet: Fleet, receiving: Start) -> None:
    receiver = receiving(fleet.data.online / "tls.crt", fleet.data.online / "tls.pem")
    ca = fleet.data.online / "fleet-ca.crt"
    policy = TargetPolicy(private_addresses=True)
    async with Sender(policy=policy, clock=clock, ca=ca) as sender:
        assert (await sender.attempt(letter(f"{receiver.url}/ok"))).problem == ""
        by_another_name = receiver.url.replace("localhost", "127.1")
        assert "certificate" in (await sender.attempt(letter(f"{by_another_name}/ok"))).problem
    async with Sender(policy=policy, clock=clock) as sender:
        assert "certificate" in (await sender.attempt(letter(f"{receiver.url}/ok"))).problem
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/redirect", "it answered 302; redirects are not followed"),
        ("/hang", "no answer within 0.5 s"),
        ("/status/500", "it answered 500"),
        ("/flood", ""),
    ],
)
async def test_a_receiver_that_misbehaves(
    clock: FakeClock, receiving: Start, path: str, problem: str
) -> None:
    receiver = receiving()
    async with Sender(policy=LOOPBACK, clock=clock, timeout_s=0.5) as sender:
        outcome = await sender.attempt(letter(receiver.url + path))
    assert outcome.problem.startswith(problem)
    assert bool(outcome.problem) == bool(problem)
    assert [each["path"] for each in receiver.requests] == [path]


async def test_who_does_not_listen(clock: FakeClock) -> None:
    async with Sender(policy=LOOPBACK, clock=clock) as sender:
        assert (await sender.attempt(letter("http://127.0.0.1:1/"))).problem


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://example.org/",
        "https:///path",
        "https://user:secret@example.org/",
        "https://example.org/#part",
        "https://example.org:99999/",
        "https://[::1/",
        "https://example.org/a b",
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://[::1]/",
        "https://[fe80::1]/",
        "https://[fd00::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(RefusedError, match="url"):
        targets.checked(url, TargetPolicy())


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.1"])
async def test_names_of_private_addresses_are_not_called(host: str, clock: FakeClock) -> None:
    target = targets.checked(f"https://{host}/", TargetPolicy())  # nothing is resolved yet
    with pytest.raises(TargetError, match=r"resolve"):
        await targets.resolved(target, TargetPolicy())
    async with Sender(policy=TargetPolicy(), clock=clock) as sender:
        assert "resolve" in (await sender.attempt(letter(f"https://{host}/"))).problem


def test_pauses_double_up_to_an_hour_and_are_spread() -> None:
    assert [pause_s(attempts, 1.0) for attempts in (1, 2, 3, 10, 11, 10**9)] == [
        5.0, 10.0, 20.0, 2560.0, 3600.0, 3600.0,
    ]  # fmt: skip
    assert pause_s(1, 0.0) == 2.5
