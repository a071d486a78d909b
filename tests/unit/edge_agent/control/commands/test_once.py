"""A command is taken once, run at most once and answered, whatever happens in between."""

import asyncio
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.control.commands import book
from edge_agent.control.server_client import ServerRefusedError, ServerUnreachableError
from fleet_protocol.command_answers import (
    MAX_LIBRARIES,
    MAX_LISTED,
    MAX_SAID,
    Answer,
    DiagnosticsResult,
    Outcome,
)
from fleet_protocol.commands import MAX_OPEN
from fleet_protocol.messages import Reported, decode
from fleet_protocol.topics import Channel
from fleet_protocol.update_states import UpdateState
from tests.simulators.commanding import (
    answers,
    arrive,
    command,
    envelope,
    give,
    mailbox,
    outcomes,
)
from tests.simulators.control_device import DEVICE, ControlDevice, Crash
from tests.simulators.device_releases import release
from tests.simulators.device_repository import SimulatedRepository
from tests.simulators.director import Director


async def test_diagnostics_are_answered(device: ControlDevice) -> None:
    now_ms = device.clock.now_ms()
    (answer,) = await give(device, asked := command(1, now_ms=now_ms))
    assert (answer.command_id, answer.outcome) == (asked["id"], Outcome.DONE)
    assert answer.result is not None
    assert answer.begun_ms == now_ms


async def test_diagnostics_say_what_serves_beside_the_newest_update(device: ControlDevice) -> None:
    """An update that failed is the newest one, and not what answers calls."""
    device.runtime.models["1.1.0"] = lambda value: 3 * value
    for version, each in enumerate((release("1.0.0"), release("1.1.0")), start=1):
        device.repository.add(each)
        await device.receive(device.director.assign(DEVICE, version, [each]))
        await device.settle()
    (answer,) = await give(device, command(1, now_ms=device.clock.now_ms()))
    assert isinstance(answer.result, DiagnosticsResult)
    (update,) = answer.result.updates
    assert (update.version, update.state) == ("1.1.0", UpdateState.FAILED)
    assert serving(answer) == [("animals", "1.0.0", True)]


async def test_what_is_loaded_serves_if_it_is_active_and_on_probation_is_said(
    device: ControlDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.repository.add(release("1.0.0"))
    await device.receive(device.director.assign(DEVICE, 1, [release("1.0.0")]))
    await device.settle()
    status = device.runtime.status()
    (old,) = status.releases
    loaded = [
        msgspec.structs.replace(old, active=False),
        msgspec.structs.replace(old, version="1.1.0"),
    ]
    said = msgspec.structs.replace(status, releases=loaded)
    monkeypatch.setattr(device.runtime, "status", lambda: said)
    (answer,) = await give(device, command(1, now_ms=device.clock.now_ms()))
    assert serving(answer) == [("animals", "1.1.0", False)]


def serving(answer: Answer) -> list[tuple[str, str, bool]]:
    """Return what a device says that it serves: family, version, whether it has committed to it."""
    assert isinstance(answer.result, DiagnosticsResult)
    return [(one.family, one.version, one.committed) for one in answer.result.serving or ()]


async def test_what_serves_is_not_known_while_the_runtime_is_silent(device: ControlDevice) -> None:
    device.runtime.down = True
    (answer,) = await give(device, command(1, now_ms=device.clock.now_ms()))
    assert isinstance(answer.result, DiagnosticsResult)
    assert answer.result.serving is None


async def test_the_mailbox_may_come_again(device: ControlDevice) -> None:
    """The broker keeps it, and a server publishes it until it has the answer."""
    first, second = (command(at, now_ms=device.clock.now_ms()) for at in (4, 9))
    assert len(await give(device, first)) == 1
    device.clock.advance(60)
    assert [one.command_id for one in await give(device, first, second)] == [second["id"]]
    assert await give(device, second, first) == []


async def test_they_run_in_order(device: ControlDevice) -> None:
    now_ms = device.clock.now_ms()
    third, first, second = (
        command(at, kind, now_ms=now_ms)
        for at, kind in ((3, "logs"), (1, "bench"), (2, "diagnostics"))
    )
    given_answers = await give(device, third, first, second)
    assert [one.command_id for one in given_answers] == [first["id"], second["id"], third["id"]]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"expires_ms": 1}, "expired"),
        ({"action": {"kind": "exec", "argv": ["sh"]}}, "no command 'exec'"),
        ({"action": {"kind": "logs", "lines": 0}}, "`lines` must be"),
        ({"action": {"kind": "logs", "path": "/etc/shadow"}}, "path"),
        ({"action": ["diagnostics"]}, "arguments are wrong"),
    ],
)
async def test_what_cannot_be_done_is_answered_with_the_reason(
    device: ControlDevice, changes: dict[str, object], sentence: str
) -> None:
    now_ms = device.clock.now_ms()
    issued_ms = 0 if "expires_ms" in changes else now_ms
    wrong = command(1, now_ms=now_ms) | {"issued_ms": issued_ms} | changes
    (answer,) = await give(device, wrong)
    assert answer.outcome is Outcome.REFUSED
    assert answer.begun_ms is None
    assert re.search(sentence, answer.detail), answer.detail


async def test_a_kind_comes_only_so_often(device: ControlDevice) -> None:
    """Whoever signs cannot keep a device busy."""
    now_ms = device.clock.now_ms()
    given_answers = await give(device, *(command(at, now_ms=now_ms) for at in (1, 2)))
    assert outcomes(given_answers) == [Outcome.DONE, Outcome.REFUSED]
    device.clock.advance(10)
    later = command(3, now_ms=device.clock.now_ms())
    assert outcomes(await give(device, later)) == [Outcome.DONE]


async def test_a_clock_that_was_ahead_once_keeps_no_kind_away(device: ControlDevice) -> None:
    a_year_s = 365 * 86400
    device.clock.advance(a_year_s)
    assert outcomes(await give(device, command(1, now_ms=device.clock.now_ms()))) == [Outcome.DONE]
    device.clock.advance(-a_year_s)
    assert outcomes(await give(device, command(2, now_ms=device.clock.now_ms()))) == [Outcome.DONE]


async def test_a_restart_on_the_way_is_told_and_not_repeated(device: ControlDevice) -> None:
    asked = command(1, now_ms=device.clock.now_ms())
    content = mailbox(envelope(asked, device.director.key))
    device.parts.command_desk.offer(content)
    await device.parts.command_desk.judge()
    taken = await device.database.transact(book.next_waiting)
    assert taken is not None
    await device.database.transact(
        lambda connection: book.begin(connection, taken, kind="diagnostics", now_ms=1)
    )
    await device.restarted()
    await device.parts.commands.interrupt()
    assert outcomes(await answers(device)) == [Outcome.INTERRUPTED]
    assert await arrive(device, content) == []


async def test_no_more_are_taken_than_may_wait_for_their_answers(device: ControlDevice) -> None:
    device.post_problems += [ServerUnreachableError("down")] * 2
    now_ms = device.clock.now_ms()
    for start in (1, 1 + MAX_OPEN):
        many = [command(start + at, "none", now_ms=now_ms) for at in range(MAX_OPEN)]
        assert await give(device, *many) == []
    assert len(await answers(device)) == MAX_OPEN
    await device.parts.commands.work()
    assert len(await answers(device)) == MAX_OPEN


@pytest.mark.parametrize(
    ("problem", "kept"),
    [
        (ServerUnreachableError("down"), True),
        (ServerRefusedError("busy", status=503), True),
        (ServerRefusedError("who are you", status=401), True),
        (ServerRefusedError("no such command", status=404), False),
    ],
)
async def test_an_answer_is_kept_until_the_server_has_it(
    device: ControlDevice, problem: Exception, *, kept: bool
) -> None:
    device.post_problems.append(problem)
    assert await give(device, command(1, now_ms=device.clock.now_ms())) == []
    await device.restarted()
    assert len(await answers(device)) == kept


async def test_what_a_runtime_says_at_length_is_cut(
    device: ControlDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = msgspec.structs.replace(
        device.runtime.status(),
        backends={f"{number}-{'b' * 300}": "v" * 300 for number in range(MAX_LIBRARIES + 1)},
        failed={f"family{number}": "x" * 5000 for number in range(MAX_LISTED + 1)},
    )
    monkeypatch.setattr(device.runtime, "status", lambda: said)
    (answer,) = await give(device, command(1, now_ms=device.clock.now_ms()))
    assert isinstance(answer.result, DiagnosticsResult)
    assert len(answer.result.libraries) == MAX_LIBRARIES
    assert len(answer.result.runtime_failed) == MAX_LISTED
    assert {len(text) for text in answer.result.runtime_failed.values()} == {MAX_SAID}


async def test_what_is_too_long_as_a_whole_is_left_out_and_that_is_said(
    device: ControlDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = {f"family{number}": "\x1b" * MAX_SAID for number in range(MAX_LISTED)}
    said = msgspec.structs.replace(device.runtime.status(), failed=failed)
    monkeypatch.setattr(device.runtime, "status", lambda: said)
    (answer,) = await give(device, command(1, now_ms=device.clock.now_ms()))
    assert (answer.outcome, answer.result) == (Outcome.DONE, None)
    assert "too long to be sent" in answer.detail


async def test_the_fleet_is_told_how_far_commands_have_come(device: ControlDevice) -> None:
    """A server from a backup goes on above that."""
    await give(device, command(7, now_ms=device.clock.now_ms()))
    assert device.parts.command_desk.taken.count == 1
    await device.restarted()
    await device.step()
    device.link.connect()
    device.parts.reporter._report()
    (reported,) = (body for where, body in device.link.published if where is Channel.REPORTED)
    assert decode(reported, Reported).command_sequence == 7


async def test_a_lost_database_repeats_nothing(device: ControlDevice) -> None:
    asked = command(7, now_ms=device.clock.now_ms())
    assert len(await give(device, asked)) == 1
    await device.kill()
    for path in device.state.root.glob("state.db*"):
        path.unlink()
    device.start()
    await device.parts.prepare()
    assert await give(device, asked) == []
    newer = command(8, now_ms=device.clock.now_ms())
    assert outcomes(await give(device, newer)) == [Outcome.DONE]


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    deaths=st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=3),
    lost=st.integers(0, 2),
)
def test_once_whatever_dies_when(deaths: list[tuple[int, bool]], lost: int) -> None:
    """Any deaths at durable writes, any lost posts: one run at most, and one answer of each."""
    asyncio.run(_once(deaths, lost))


async def _once(deaths: list[tuple[int, bool]], lost: int) -> None:
    with TemporaryDirectory() as folder:
        device = ControlDevice(
            root=Path(folder) / "d", repository=SimulatedRepository(), director=Director()
        )
        await device.parts.prepare()
        now_ms = device.clock.now_ms()
        kinds = ("diagnostics", "logs", "unknown")
        asked = [command(at + 1, kind, now_ms=now_ms) for at, kind in enumerate(kinds)]
        content = mailbox(*(envelope(one, device.director.key) for one in asked))
        device.post_problems += [ServerUnreachableError("lost")] * lost
        got: list[Answer] = []
        for at, after in [*deaths, (0, False)]:
            device.plan.seen, device.plan.at, device.plan.after = 0, at, after
            try:
                await device.parts.commands.interrupt()
                device.parts.command_desk.offer(content)
                await device.parts.commands.work()
                await device.parts.answers.send_all()
            except Crash:
                pass
            device.plan.at = 0
            await device.restarted()
        while not await device.parts.answers.send_all():
            pass
        got = await answers(device)
        await device.kill()
    final = {
        one.command_id: {two.outcome for two in got if two.command_id == one.command_id}
        for one in got
    }
    assert final.keys() == {one["id"] for one in asked}
    assert all(len(ways) == 1 for ways in final.values()), final
