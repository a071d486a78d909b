"""The end of a trial of settings: before other commands, over any death, with a full disk."""

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent import remote_settings, settings
from edge_agent.control.commands.patience import Patience
from edge_agent.control.machine import Machine, Snapshot
from edge_agent.store import StoreError
from fleet_protocol.command_answers import Outcome
from tests.simulators import durable_writes
from tests.simulators.commanding import answers, command, envelope, give, mailbox
from tests.simulators.control_device import DEVICE, ControlDevice, Crash
from tests.simulators.device_releases import release
from tests.simulators.device_repository import SimulatedRepository
from tests.simulators.director import Director

MOST_WRITES = 40


IMPATIENT = Patience(
    back_within_s=0.1, restart_look_s=0.005, steady_s=0.0, serves_within_s=0.05, trial_look_s=0.005
)


class TunedDevice(ControlDevice):
    """Its runtime reads its settings when it boots, and serves nothing with three instances."""

    instances = 0

    def _end_runtime(self) -> None:
        self.instances = settings.load_runtime(self.state.root, {}).instances
        self.runtime.unloadable = {"1.0.0"} if self.instances == 3 else set()
        super()._end_runtime()

    async def begin_life(self) -> None:
        remote_settings.count_start(self.state.root)
        await self.restarted()

    async def life(self) -> None:
        """Live until the process ends or nothing is left to do."""
        await self.begin_life()
        if await self.parts.configure.judge():
            await self.parts.commands.interrupt()
            await self.parts.answers.send_all()


class WatchedMachine(Machine):
    """Remembers whether settings were on trial when diagnostics looked at it."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root
        self.trials: list[bool] = []

    def snapshot(self, runtime_pid: int | None) -> Snapshot:
        self.trials.append(remote_settings.read(self._root).trial is not None)
        return super().snapshot(runtime_pid)


async def on_trial(folder: Path, instances: int) -> TunedDevice:
    """Return a device that serves and has just put settings for its runtime on trial."""
    device = TunedDevice(
        root=folder,
        repository=SimulatedRepository(),
        director=Director(),
        patience=IMPATIENT,
    )
    await device.parts.prepare()
    device.repository.add(made := release("1.0.0"))
    await device.receive(device.director.assign(DEVICE, 1, [made]))
    await device.settle()
    action = {
        "kind": "configure",
        "name": "tuned",
        "version": 7,
        "settings": {"runtime": {"instances": instances}},
    }
    await give(device, command(1, now_ms=device.clock.now_ms()) | {"action": action})
    assert remote_settings.read(device.state.root).trial is not None
    return device


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[TunedDevice]:
    """A device with good settings on trial."""
    device = await on_trial(tmp_path / "d", 2)
    yield device
    await device.kill()


async def test_no_command_begins_before_the_verdict(device: TunedDevice) -> None:
    """Else what the runner had begun would be taken for a life's that ended."""
    device.machine = machine = WatchedMachine(device.state.root)
    await device.begin_life()
    asked = command(2, now_ms=device.clock.now_ms())
    device.parts.command_desk.offer(mailbox(envelope(asked, device.director.key)))
    answered = device.parts.commands.answered
    running = asyncio.create_task(device.parts.run_commands())
    async with asyncio.timeout(10):
        while answered.count < 2:
            await answered.changed(answered.count)
    running.cancel()
    assert [(one.outcome, one.detail) for one in await answers(device)] == [
        (Outcome.DONE, "configuration tuned 7 is in effect"),
        (Outcome.DONE, "the runtime serves, 1 model family is known"),
    ]
    assert machine.trials == [False]


@pytest.mark.parametrize("instances", [2, 3])
async def test_whatever_dies_when_the_trial_has_one_end(tmp_path: Path, instances: int) -> None:
    """Killed before and after each durable write; the runtime has what is in effect at the end."""
    ends = set()
    for number in range(1, MOST_WRITES):
        device = await on_trial(tmp_path / str(number), instances)
        died = await dies(device, number)
        for _ in range(remote_settings.MAX_STARTS + 1):
            await device.life()
        (answer,) = {(one.outcome, one.command_id): one for one in await answers(device)}.values()
        remote = remote_settings.read(device.state.root)
        assert (remote.trial, remote.ended) == (None, None)
        assert device.instances == remote.working.settings.runtime.instances or not device.instances
        assert device.runtime.serving("animals") == "1.0.0"
        ends.add((answer.outcome, remote.working.version))
        await device.kill()
        if not died:
            break
    else:
        raise AssertionError("there are more writes than were tried")
    good = (Outcome.DONE, 7)
    assert ends == {good} if instances == 2 else ends == {(Outcome.FAILED, 0)}


async def dies(device: TunedDevice, number: int) -> bool:
    """Live two lives, which end at a durable write: odd numbers before it, even ones after it."""
    at, after = (number + 1) // 2, number % 2 == 0
    seen = 0

    def before(_what: str) -> int:
        nonlocal seen
        seen += 1
        if seen == at and not after:
            raise Crash
        return seen

    def done(which: int) -> None:
        if which == at and after:
            raise Crash

    with durable_writes.watched(before=before, after=done):
        try:
            await device.life()
            await device.life()
        except Crash:
            return True
    return False


async def test_a_start_that_cannot_be_counted_is_made_under_the_former_settings(
    device: TunedDevice,
) -> None:
    """Else settings under which control dies would be tried for ever."""
    with durable_writes.watched(before=_no_new_files, after=lambda _: None):
        remote_settings.count_start(device.state.root)
    assert settings.load_runtime(device.state.root, {}).instances == 0
    await device.life()
    (answer,) = await answers(device)
    assert answer.outcome is Outcome.FAILED
    assert "before it could say why" in answer.detail
    assert device.parts.configure.status.refused_version == 7


async def test_who_asks_again_after_the_verdict_goes_on(device: TunedDevice) -> None:
    """As the task of the commands does after an error of theirs."""
    await device.begin_life()
    assert [await device.parts.configure.judge() for _ in range(3)] == [True] * 3
    assert device.ended_processes == 1


async def test_on_a_full_disk_the_runtime_is_restarted_once(tmp_path: Path) -> None:
    device = await on_trial(tmp_path / "d", 3)
    await device.begin_life()
    with durable_writes.watched(before=_no_new_files, after=lambda _: None):
        for _ in range(3):
            with pytest.raises(StoreError, match="No space"):
                await device.parts.configure.judge()
            assert device.runtime.serving("animals") == "1.0.0"
    assert device.ended_runtimes == 2, "once for the trial, once back"
    assert not await device.parts.configure.judge()
    assert device.ended_processes == 2
    await device.kill()


def _no_new_files(what: str) -> int:
    """Refuse what takes room; a new name for what is there does not."""
    if what.startswith("replace") and what.split()[1].startswith("."):
        raise OSError(errno.ENOSPC, "No space left on device")
    return 0
