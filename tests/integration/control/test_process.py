"""The control process as the supervisor starts it, without any network."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from edge_agent import identity, pid_file, store
from edge_agent.identity import Enrollment
from edge_agent.identity_files import IdentityFiles
from edge_agent.state_dir import StateDir
from fleet_protocol import claims
from fleet_protocol.claims import ClaimBundle
from tests.simulators.device_repository import SimulatedRepository
from tests.simulators.director import Director
from tests.simulators.fleet_authority import Authority


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    """An enrolled device whose fleet is out of reach."""
    state = StateDir(tmp_path / "s")
    state.create()
    files = IdentityFiles(state.identity)
    authority = Authority()
    key = identity.ensure_key(files.key)
    request = identity.certificate_request(key, "cam-01")
    files.certificate.write_text(authority.device_certificate(request))
    claim = ClaimBundle(
        device_id="cam-01",
        token="t",
        expires_at_ms=0,
        fleet_ca_pem=authority.pem,
        release_root=SimulatedRepository().root.decode(),
        director_root=Director().root.decode(),
    )
    files.claim.write_bytes(claims.encode(claim))
    enrollment = Enrollment(
        device_id="cam-01", server_url="https://localhost:1", mqtt_host="localhost", mqtt_port=1
    )
    files.enrollment.write_bytes(msgspec.json.encode(enrollment))
    (state.root / "agent.toml").write_text("[control]\ntelemetry_window_s = 0.2\n")
    return state


def start(state: StateDir) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "edge_agent.control", "--state", str(state.root)],
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def control(state: StateDir) -> Iterator["subprocess.Popen[str]"]:
    process = start(state)
    yield process
    process.kill()
    process.communicate(timeout=10)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.02)


def windows(state: StateDir) -> int:
    if not state.database.exists():
        return 0
    try:
        with closing(store.read_only_database(state.database)) as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM outbox WHERE kind = 'telemetry'"
            ).fetchone()
            return int(count)
    except store.StoreError:
        return 0


def test_without_a_fleet_windows_wait_and_sigterm_ends_it(
    state: StateDir, control: "subprocess.Popen[str]"
) -> None:
    until(lambda: windows(state) >= 3)
    control.send_signal(signal.SIGTERM)
    _, log = control.communicate(timeout=10)
    assert control.returncode == 0
    assert "Traceback" not in log
    assert log.count('"event":"control_stopped"') == 1


def test_after_a_kill_it_goes_on_where_it_was(
    state: StateDir, control: "subprocess.Popen[str]"
) -> None:
    until(lambda: windows(state) >= 2)
    control.kill()
    control.wait(10)
    before = windows(state)
    second = start(state)
    try:
        until(lambda: windows(state) > before)
    finally:
        second.terminate()
        assert second.communicate(timeout=10) is not None


def test_two_do_not_run_on_one_state_directory(
    state: StateDir, control: "subprocess.Popen[str]"
) -> None:
    until(lambda: pid_file.holder(state.pid_file("control")) == control.pid)
    second = start(state)
    _, log = second.communicate(timeout=20)
    assert second.returncode == 1
    assert f"pid {control.pid}" in log
    assert log.startswith("error: ")


def test_it_runs_at_the_lowest_priority_and_leaves_other_sessions_alone(
    state: StateDir, control: "subprocess.Popen[str]"
) -> None:
    mine = Path("/proc/self/autogroup")
    before = mine.read_text() if mine.exists() else ""
    until(lambda: windows(state) >= 1)
    assert os.getpriority(os.PRIO_PROCESS, control.pid) == 19
    assert os.sched_getscheduler(control.pid) == os.SCHED_BATCH
    assert (mine.read_text() if mine.exists() else "") == before


def test_a_device_that_is_not_enrolled_gets_one_line(tmp_path: Path) -> None:
    process = start(StateDir(tmp_path / "nothing"))
    _, log = process.communicate(timeout=20)
    assert process.returncode == 1
    assert log.startswith("error: ")
    assert log.count("\n") == 1
