"""Settings of the fleet are tried before they are kept, and taken back if they do not work."""

import os
from pathlib import Path

import msgspec
import pytest

from edge_agent import remote_settings, settings
from edge_agent.control.commands.patience import Patience
from edge_agent.settings import AgentSettings
from fleet_protocol.command_answers import Answer, Outcome
from fleet_protocol.remote_settings import RemoteSettings
from tests.simulators.commanding import answers, command, give, outcomes
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import release


def asked(
    device: ControlDevice, sequence: int, wanted: object, version: int = 7
) -> dict[str, object]:
    action = {"kind": "configure", "name": "quiet", "version": version, "settings": wanted}
    return command(sequence, now_ms=device.clock.now_ms()) | {"action": action}


def in_effect(device: ControlDevice) -> AgentSettings:
    return settings.load(device.state.root, {})


async def next_life(device: ControlDevice) -> list[Answer]:
    """Start control again, as its supervisor does, and let it judge what is on trial."""
    await begin_life(device)
    if not await device.parts.configure.judge():
        await begin_life(device)
        assert await device.parts.configure.judge()
    await device.parts.commands.interrupt()
    return await answers(device)


async def begin_life(device: ControlDevice) -> None:
    remote_settings.count_start(device.state.root)
    device.patience = Patience(back_within_s=0.3, steady_s=0.0, serves_within_s=0.2)
    await device.restarted()


async def serving(device: ControlDevice) -> None:
    made = release("1.0.0")
    device.repository.add(made)
    await device.receive(device.director.assign(DEVICE, 1, [made]))
    await device.settle()


async def test_what_works_is_kept(device: ControlDevice) -> None:
    wanted = {"control": {"telemetry_window_s": 30.0, "log_level": "debug"}}
    assert await give(device, first := asked(device, 1, wanted)) == []
    assert device.ended_processes == 1
    assert in_effect(device).control.telemetry_window_s == 30.0
    assert device.parts.configure.status.trial_version == 7
    (answer,) = await next_life(device)
    assert (answer.command_id, answer.outcome) == (first["id"], Outcome.DONE)
    status = device.parts.configure.status
    assert (status.name, status.version, status.trial_version) == ("quiet", 7, 0)
    assert device.ended_runtimes == 0, "the runtime had no reason to restart"
    assert (await next_life(device), in_effect(device).control.log_level) == ([], "debug")


async def test_settings_of_the_runtime_restart_it(device: ControlDevice) -> None:
    await serving(device)
    await give(device, asked(device, 1, {"runtime": {"max_batch": 4}}))
    assert outcomes(await next_life(device)) == [Outcome.DONE]
    assert device.ended_runtimes == 1
    assert settings.load_runtime(device.state.root, {}).max_batch == 4


async def test_what_the_runtime_does_not_serve_under_is_taken_back(device: ControlDevice) -> None:
    await serving(device)
    await give(device, asked(device, 1, {"control": {"poll_interval_s": 10.0}}, version=6))
    await next_life(device)
    device.clock.advance(60)
    await give(device, asked(device, 2, {"runtime": {"instances": 3}}))
    device.runtime.unloadable.add("1.0.0")
    (answer,) = await next_life(device)
    assert answer.outcome is Outcome.FAILED
    assert "does not serve animals 1.0.0" in answer.detail
    status = device.parts.configure.status
    assert (status.version, status.refused_version) == (6, 7)
    assert "does not serve" in status.problem
    assert in_effect(device).control.poll_interval_s == 10.0
    assert in_effect(device).runtime.instances == 0
    assert device.ended_processes == 3, "it ends once more, to work with the former settings"


async def test_a_process_that_does_not_live_long_enough_gives_them_up(
    device: ControlDevice,
) -> None:
    await give(device, asked(device, 1, {"control": {"report_interval_s": 60.0}}))
    for _ in range(remote_settings.MAX_STARTS):
        remote_settings.count_start(device.state.root)
        await device.restarted()
        assert in_effect(device).control.report_interval_s == 60.0
    (answer,) = await next_life(device)
    assert answer.outcome is Outcome.FAILED
    assert "ended 2 times" in answer.detail
    assert in_effect(device) == AgentSettings()


async def test_taking_everything_back_needs_no_other_settings(device: ControlDevice) -> None:
    await give(device, asked(device, 1, {"control": {"report_interval_s": 60.0}}))
    await next_life(device)
    device.clock.advance(60)
    nothing = asked(device, 2, {}, version=0)
    nothing["action"] |= {"name": ""}  # type: ignore[operator]
    await give(device, nothing)
    assert outcomes(await next_life(device)) == [Outcome.DONE]
    assert in_effect(device) == AgentSettings()
    assert device.parts.configure.status.version == 0


@pytest.mark.parametrize(
    "wanted",
    [
        {"runtime": {"host": "192.0.2.1"}},
        {"runtime": {"expose_to_network": True}},
        {"runtime": {"edgetpu_library": "/var/evil.so"}},
        {"runtime": {"otlp_endpoint": "http://192.0.2.1/"}},
        {"runtime": {"rate_limit_per_s": 0.001}},
        {"runtime": {"max_queue": 0}},
        {"control": {"repository_check_s": 2_000_000}},
        {"control": {"probation_s": 0.001}},
        {"control": {"telemetry_window_s": 86_400}},
        {"control": {"max_bytes_per_s": 1}},
        {"supervisor": {"hang_s": 2_000_000}},
    ],
)
async def test_what_guards_a_device_cannot_be_said(
    device: ControlDevice, wanted: dict[str, object]
) -> None:
    assert outcomes(await give(device, asked(device, 1, wanted))) == [Outcome.REFUSED]
    assert in_effect(device) == AgentSettings()
    assert device.ended_processes == 0


async def test_settings_that_do_not_go_with_the_devices_own_are_told(
    device: ControlDevice,
) -> None:
    (device.state.root / "agent.toml").write_text("[control]\nprobation = 1\n")
    (answer,) = await give(device, asked(device, 1, {"control": {"log_level": "debug"}}))
    assert answer.outcome is Outcome.FAILED
    assert "agent.toml" in answer.detail


@pytest.mark.parametrize("end", ["ge", "le"])
def test_whatever_the_fleet_may_say_the_agent_can_take(tmp_path: Path, end: str) -> None:
    """The bounds of one lie within those of the other."""
    sections: dict[str, dict[str, object]] = {}
    for section in msgspec.structs.fields(RemoteSettings):
        for field in msgspec.structs.fields(section.type):
            bounds = getattr(field.type, "__args__", (field.type,))[0]
            meta = getattr(bounds, "__metadata__", (None,))[0]
            limit = getattr(meta, end, None)
            if limit is not None:
                sections.setdefault(section.name, {})[field.name] = limit
    assert len(sections["control"]) == 4
    assert len(sections["runtime"]) == 3
    wanted = msgspec.convert(sections, RemoteSettings)
    settings.check_remote(tmp_path, {}, wanted)


def test_the_environment_of_the_device_has_the_last_word(tmp_path: Path) -> None:
    wanted = msgspec.convert({"control": {"log_level": "debug"}}, RemoteSettings)
    working = remote_settings.Configuration(version=1, settings=wanted)
    remote_settings.settle(tmp_path, remote_settings.Remote(working=working))
    (tmp_path / "agent.toml").write_text('[control]\nlog_level = "error"\n')
    assert settings.load(tmp_path, {}).control.log_level == "debug"
    environment = {"SKERRY_AGENT_CONTROL__LOG_LEVEL": "warning"}
    assert settings.load(tmp_path, environment).control.log_level == "warning"
    (tmp_path / remote_settings.FILE_NAME).write_bytes(os.urandom(50))
    assert settings.load(tmp_path, {}).control.log_level == "error"
