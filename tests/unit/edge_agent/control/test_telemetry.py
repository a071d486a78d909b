"""Windows from counter files: sums, baselines, final files, time."""

import sqlite3
from contextlib import closing

import pytest

from edge_agent import store
from edge_agent.control.outbox import Kind
from edge_agent.control.telemetry import baseline_of, difference
from edge_agent.counters import CounterLabel, CounterWriter, Counts
from fleet_protocol.histogram import Histogram
from fleet_protocol.messages import ErrorKind, TelemetryWindow, decode
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import release


@pytest.fixture
async def serving(device: ControlDevice) -> ControlDevice:
    """A device that serves a release."""
    device.repository.add(release("1.0.0"))
    await device.receive(device.director.assign(DEVICE, 1, [release("1.0.0")]))
    await device.settle()
    return device


def windows(device: ControlDevice) -> list[TelemetryWindow]:
    with closing(store.read_only_database(device.state.database)) as connection:
        rows = connection.execute(
            "SELECT payload FROM outbox WHERE kind = ? ORDER BY position", (Kind.TELEMETRY,)
        ).fetchall()
    return [decode(payload, TelemetryWindow) for (payload,) in rows]


def counter_files(device: ControlDevice) -> int:
    return len(list(device.state.run.glob("counters-*.bin")))


async def test_a_window_holds_what_happened_since_the_one_before(serving: ControlDevice) -> None:
    serving.runtime.answer_calls("animals", good=3, bad=1)
    await serving.parts.telemetry.close_window()
    serving.runtime.answer_calls("animals", good=2)
    await serving.parts.telemetry.close_window()
    first, second = windows(serving)
    (model,) = first.models
    assert (model.family, model.version, model.variant) == ("animals", "1.0.0", "fp32")
    assert (model.requests, model.errors) == (4, {ErrorKind.BACKEND: 1})
    assert model.latency_us.count == 3
    assert model.latency_us.total == 300.0
    assert model.classes == {"cat": 3}
    assert [m.requests for m in second.models] == [2]
    assert second.models[0].errors == {}


async def test_an_idle_device_sends_windows_without_models(device: ControlDevice) -> None:
    await device.parts.telemetry.close_window()
    device.clock.advance(60.0)
    await device.parts.telemetry.close_window()
    (first, second) = windows(device)
    assert first.models == second.models == []
    assert second.start_ms == first.end_ms
    assert second.end_ms - second.start_ms == 60_000
    assert second.system.memory_total_bytes is not None


async def test_a_window_begins_where_the_last_one_of_an_earlier_life_ended(
    device: ControlDevice,
) -> None:
    await device.parts.telemetry.close_window()
    device.clock.advance(500.0)
    await device.restarted()
    await device.parts.telemetry.close_window()
    first, second = windows(device)
    assert second.start_ms == first.end_ms


async def test_a_clock_that_was_turned_back_makes_no_negative_window(
    device: ControlDevice,
) -> None:
    await device.parts.telemetry.close_window()
    device.clock.set_wall_clock(device.clock.now_ms() - 10_000)
    await device.parts.telemetry.close_window()
    assert all(window.end_ms >= window.start_ms for window in windows(device))


async def test_the_file_of_a_dead_runtime_is_drained_and_deleted(serving: ControlDevice) -> None:
    serving.runtime.answer_calls("animals", good=5)
    serving.runtime.boot()
    assert counter_files(serving) == 2
    await serving.parts.telemetry.close_window()
    assert counter_files(serving) == 1
    assert [m.requests for w in windows(serving) for m in w.models] == [5]


async def test_the_files_of_a_runtime_that_is_gone_are_drained(serving: ControlDevice) -> None:
    serving.runtime.answer_calls("animals", good=5)
    serving.runtime.down = True
    await serving.parts.telemetry.close_window()
    assert counter_files(serving) == 0


async def test_the_file_of_an_unloaded_release_is_drained_and_deleted(
    serving: ControlDevice,
) -> None:
    serving.runtime.answer_calls("animals", good=7)
    serving.repository.add(release("1.1.0"))
    await serving.receive(serving.director.assign(DEVICE, 2, [release("1.1.0")]))
    await serving.settle()
    serving.runtime.answer_calls("animals", good=2)
    await serving.parts.telemetry.close_window()
    (window,) = windows(serving)
    assert {m.version: m.requests for m in window.models} == {"1.0.0": 7, "1.1.0": 2}
    assert counter_files(serving) == 1


async def test_two_lives_of_a_release_are_one_model_in_a_window(serving: ControlDevice) -> None:
    serving.runtime.answer_calls("animals", good=1)
    serving.runtime.boot()
    serving.runtime.answer_calls("animals", good=2)
    await serving.parts.telemetry.close_window()
    (window,) = windows(serving)
    (model,) = window.models
    assert (model.requests, model.latency_us.count) == (3, 3)


def counts(*, requests: int = 0, errors: int = 0, classes: int = 0) -> Counts:
    label = CounterLabel(
        epoch="e", family="animals", version="1.0.0", variant="fp32", classes=["cat"]
    )
    return Counts(
        label=label,
        closed=False,
        requests=requests,
        errors={ErrorKind.BACKEND: errors},
        latency_us=Histogram(),
        classes={"cat": classes},
    )


@pytest.mark.parametrize("change", [{"requests": 1}, {"errors": 1}, {"classes": 1}])
def test_a_count_that_comes_alone_is_not_lost(change: dict[str, int]) -> None:
    baseline = baseline_of(counts())
    assert difference(counts(), baseline) is None
    window = difference(counts(**change), baseline)
    assert window is not None
    told = {
        "requests": window.requests,
        "errors": window.errors.get(ErrorKind.BACKEND, 0),
        "classes": window.classes.get("cat", 0),
    }
    assert told == {"requests": 0, "errors": 0, "classes": 0, **change}


async def test_an_unreadable_file_keeps_its_baseline(serving: ControlDevice) -> None:
    serving.runtime.answer_calls("animals", good=5)
    await serving.parts.telemetry.close_window()
    (path,) = serving.state.run.glob("counters-*.bin")
    whole = path.read_bytes()
    path.write_bytes(b"junk")
    await serving.parts.telemetry.close_window()
    path.write_bytes(whole)
    await serving.parts.telemetry.close_window()
    assert sum(m.requests for w in windows(serving) for m in w.models) == 5


async def test_the_baseline_of_a_vanished_file_goes_with_the_next_window(
    serving: ControlDevice,
) -> None:
    serving.runtime.boot()
    await serving.parts.telemetry.close_window()
    await serving.parts.telemetry.close_window()
    with closing(sqlite3.connect(serving.state.database)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM baselines").fetchone()
    assert count == counter_files(serving) == 1


async def test_a_runtime_that_does_not_answer_may_still_count(serving: ControlDevice) -> None:
    """Nothing but a file that says it is closed is final while a runtime lives in silence."""
    label = CounterLabel(epoch="other", family="animals", version="1.0.0", variant="fp32")
    path = serving.state.run / "counters-other-1.bin"
    writer = CounterWriter(path, label)
    serving.runtime.down = True
    serving.parts.telemetry._files._runtime_pid = lambda: 1
    await serving.parts.telemetry.close_window()
    assert path.exists()
    writer.close()
    await serving.parts.telemetry.close_window()
    assert not path.exists()
