"""The supervisor with real processes: restarts, adoption, orderly and disorderly ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent import pid_file, stopping
from edge_agent.state_dir import StateDir
from edge_agent.supervisor import Restarts

CHILD = """
import pathlib, signal, sys
from edge_agent.pid_file import PidFile
lock = PidFile(pathlib.Path(sys.argv[1]))
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in sys.argv else
              lambda *_: sys.exit(0))
while True:
    signal.pause()
"""
ANSWERING_CHILD = """
import pathlib, socket, sys
from edge_agent.pid_file import PidFile
lock = PidFile(pathlib.Path(sys.argv[1]))
path = pathlib.Path(sys.argv[1]).with_name("admin.sock")
path.unlink(missing_ok=True)
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.bind(str(path))
server.listen()
while True:
    asking, _ = server.accept()
    asked = asking.recv(4096)
    assert asked.startswith(b"GET /v2/health/live HTTP/1.1\\r\\n"), asked
    asking.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n")
    asking.close()
    with path.with_name("answers").open("a") as answers:
        answers.write(".")
"""
HANG_S = 3.0
DRIVER = """
import json, logging, pathlib, sys
from edge_agent import supervisor
from edge_agent.pid_file import PidFile
from edge_agent.state_dir import StateDir
supervisor._GRACE_S = 1.0
logging.basicConfig(level=logging.INFO)
state = StateDir(pathlib.Path(sys.argv[1]))
lock = PidFile(state.pid_file("supervisor"))
processes, hang_s = json.loads(sys.argv[2]), float(sys.argv[3])
supervisor.Supervisor(state=state, processes=processes, hang_s=hang_s).run()
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    state = StateDir(tmp_path / "s")
    state.create()
    yield state
    for name in ("supervisor", "control", "runtime"):
        pid = pid_file.holder(state.pid_file(name))
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


class Agent:
    """Starts supervisors of two simple children."""

    def __init__(self, state: StateDir) -> None:
        self.state = state
        self.stubborn = False
        self.runtime = CHILD

    def start(self) -> "subprocess.Popen[bytes]":
        extra = ["stubborn"] if self.stubborn else []
        processes = {
            name: [sys.executable, "-c", program, str(self.state.pid_file(name)), *extra]
            for name, program in (("runtime", self.runtime), ("control", CHILD))
        }
        arguments = [str(self.state.root), json.dumps(processes), str(HANG_S)]
        return subprocess.Popen([sys.executable, "-c", DRIVER, *arguments])

    def pid(self, name: str) -> int | None:
        return pid_file.holder(self.state.pid_file(name))

    def up(self) -> tuple[int, int]:
        """Wait until both children live; return their pids."""
        until(lambda: self.pid("runtime") is not None and self.pid("control") is not None)
        runtime, control = self.pid("runtime"), self.pid("control")
        assert runtime is not None
        assert control is not None
        return runtime, control


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.02)


@pytest.fixture
def agent(state: StateDir) -> Agent:
    return Agent(state)


def test_a_child_that_is_killed_is_started_again_and_the_other_lives_on(agent: Agent) -> None:
    supervisor = agent.start()
    runtime, control = agent.up()
    os.kill(runtime, signal.SIGKILL)
    until(lambda: agent.pid("runtime") not in {None, runtime})
    assert agent.pid("control") == control
    supervisor.terminate()
    assert supervisor.wait(10) == 0


def test_a_runtime_that_falls_silent_is_ended_and_started_again(agent: Agent) -> None:
    agent.runtime = ANSWERING_CHILD
    supervisor = agent.start()
    runtime, control = agent.up()
    answers = agent.state.run / "answers"
    # The second question says that the answer to the first one has been read.
    until(lambda: answers.exists() and len(answers.read_text()) > 1)
    assert agent.pid("runtime") == runtime
    os.kill(runtime, signal.SIGSTOP)
    until(lambda: agent.pid("runtime") not in {None, runtime})
    assert agent.pid("control") == control
    supervisor.terminate()
    assert supervisor.wait(10) == 0


def test_sigterm_ends_all_three(agent: Agent) -> None:
    supervisor = agent.start()
    agent.up()
    supervisor.terminate()
    assert supervisor.wait(10) == 0
    assert agent.pid("runtime") is agent.pid("control") is None


def test_a_child_that_ignores_sigterm_is_killed_after_a_grace(agent: Agent) -> None:
    agent.stubborn = True
    supervisor = agent.start()
    agent.up()
    supervisor.terminate()
    assert supervisor.wait(10) == 0
    assert agent.pid("runtime") is agent.pid("control") is None


def test_children_outlive_a_killed_supervisor_and_the_next_one_adopts_them(agent: Agent) -> None:
    first = agent.start()
    children = agent.up()
    first.kill()
    first.wait(10)
    assert agent.up() == children
    second = agent.start()
    until(lambda: agent.pid("supervisor") == second.pid)
    assert agent.up() == children
    os.kill(children[1], signal.SIGKILL)  # an adopted one is watched like one's own
    until(lambda: agent.pid("control") not in {None, children[1]})
    assert agent.pid("runtime") == children[0]
    second.terminate()
    assert second.wait(10) == 0
    assert agent.pid("runtime") is agent.pid("control") is None


def test_a_signal_to_the_supervisors_group_does_not_reach_the_children(agent: Agent) -> None:
    supervisor = agent.start()
    runtime, control = agent.up()
    assert os.getsid(runtime) == runtime
    assert os.getsid(control) == control
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(10) == 0


def test_stop_ends_an_agent_whose_supervisor_is_dead(agent: Agent) -> None:
    supervisor = agent.start()
    agent.up()
    supervisor.kill()
    supervisor.wait(10)
    assert stopping.stop(agent.state, timeout_s=10) == ["control", "runtime"]
    assert agent.pid("runtime") is agent.pid("control") is None


def test_stop_ends_a_whole_agent(agent: Agent) -> None:
    supervisor = agent.start()
    agent.up()
    until(lambda: agent.pid("supervisor") is not None)
    assert stopping.stop(agent.state, timeout_s=10) == ["supervisor", "control", "runtime"]
    assert supervisor.wait(10) == 0
    assert stopping.stop(agent.state, timeout_s=1) == []


def test_stop_says_who_does_not_end(agent: Agent) -> None:
    agent.stubborn = True
    supervisor = agent.start()
    agent.up()
    supervisor.kill()
    supervisor.wait(10)
    with pytest.raises(stopping.StopError, match="has not ended in time"):
        stopping.stop(agent.state, timeout_s=0.2)


def test_restarts_are_immediate_after_a_steady_life_and_slow_down_otherwise() -> None:
    restarts = Restarts()
    assert [restarts.after(0.1) for _ in range(9)] == [0, 0.25, 0.5, 1, 2, 4, 8, 16, 30.0]
    assert restarts.after(3600.0) == 0.0
    assert restarts.after(0.1) == 0.25
