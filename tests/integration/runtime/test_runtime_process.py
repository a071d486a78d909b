"""The life of the process: what it boots from, how it ends, what it survives."""

import json
import signal
import socket
import subprocess
import sys

import msgspec
import pytest

from edge_agent import counters
from edge_agent.pid_file import holder
from edge_agent.runtime_api import RuntimeStatus
from edge_agent.state_dir import StateDir
from tests.integration.runtime.raw_client import RawClient, request_bytes
from tests.integration.runtime.reference_calls import BINARY_OUTPUT, INFER, batch, golden, infer
from tests.integration.runtime.running_runtime import RunningRuntime, eventually, running
from tests.unit.edge_agent.inference import v2_request
from tests.unit.edge_agent.inference.reference_release import commit, reference_release

PORT = "SKERRY_AGENT_RUNTIME__PORT"


def status(runtime: RunningRuntime) -> RuntimeStatus:
    with runtime.admin() as admin:
        return msgspec.json.decode(admin.call("GET", "/admin/status").body, type=RuntimeStatus)


def test_without_a_commitment_it_serves_no_models(state: StateDir) -> None:
    with running(state.root) as runtime:
        with runtime.ready().public() as client:
            assert client.call("GET", "/v2/health/ready").status == 200
            response = client.call("POST", INFER, b"{}")
            assert response.status == 404
            assert "this device serves: no model yet" in response.error
        assert status(runtime).releases == []


def test_a_corrupt_commitment_is_reported_and_repaired_by_control(state: StateDir) -> None:
    release = reference_release(state)
    state.active_set.write_bytes(b'{"releases": [{"fam')
    with running(state.root) as runtime:
        with runtime.ready().public() as public, runtime.admin() as admin:
            assert public.call("GET", "/v2/health/live").status == 200
            ready = public.call("GET", "/v2/health/ready")
            assert ready.status == 503
            assert "active.json" in ready.error
            unknown = public.call("GET", "/v2/models/fashion_mnist")
            assert (unknown.status, "nobody knows whether" in unknown.error) == (503, True)
            assert set(status(runtime).failed) == {"active.json"}
            body = msgspec.json.encode(release)
            assert admin.call("POST", "/admin/releases", body).status == 200
            admin.call("POST", "/admin/families/fashion_mnist/activate", b'{"version": "1.0.0"}')
            infer(public, golden("fp32")[0][0])
            assert public.call("GET", "/v2/health/ready").status == 200
        (event,) = runtime.events("active_set_unusable")
        assert "active.json" in event["reason"]
        assert "traceback" not in runtime.log_text()


def test_a_model_that_does_not_load_takes_nobody_down(state: StateDir) -> None:
    good = reference_release(state)
    broken = msgspec.structs.replace(good, family="broken", sha256="0" * 64)
    state.blob(broken.sha256).write_bytes(b"not a model")
    lost = msgspec.structs.replace(good, family="lost", sha256="1" * 64)
    commit(state, broken, lost, good)
    with running(state.root) as runtime, runtime.ready().public() as client:
        infer(client, golden("fp32")[0][0])
        found = status(runtime)
        assert set(found.failed) == {"broken", "lost"}
        assert [release.family for release in found.releases] == ["fashion_mnist"]
        response = client.call("POST", "/v2/models/broken/infer", b"{}")
        assert response.status == 503
        assert "could not be loaded" in response.error
        ready = client.call("GET", "/v2/health/ready")
        assert (ready.status, "broken, lost" in ready.error) == (503, True)
        assert len(runtime.events("release_not_loaded")) == 2


def test_sigterm_ends_it_after_the_calls_in_flight(state: StateDir) -> None:
    commit(state, reference_release(state))
    with running(state.root) as runtime:
        clients = [runtime.ready().public() for _ in range(3)]
        body, length = v2_request.encode([batch(2000)], binary=[True], fields=BINARY_OUTPUT)
        for client in clients:
            client.socket.sendall(request_bytes("POST", INFER, body, header_length=length))
        # Each body is larger than a socket holds, so by now all are at least half read.
        assert runtime.stop() == 0
        for client in clients:
            with client:
                assert client.receive().status == 200
        (events,) = runtime.events("runtime_stopped")
        assert events["calls_cut_off"] is False
    (path,) = state.run.glob("counters-*.bin")
    assert (counters.read(path).requests, counters.read(path).closed) == (3, True)
    assert not state.runtime_socket.exists()
    assert not state.admin_socket.exists()
    assert holder(state.pid_file("runtime")) is None


def test_a_killed_runtime_loses_no_count_and_its_successor_serves(state: StateDir) -> None:
    commit(state, reference_release(state))
    with running(state.root) as first:
        with first.ready().public() as client:
            for image, _ in golden("fp32"):
                infer(client, image)
        epoch = status(first).epoch
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    assert state.runtime_socket.exists()
    with running(state.root) as second:
        with second.ready().public() as client:
            infer(client, golden("fp32")[0][0])
        assert status(second).epoch != epoch
        assert state.admin_socket.stat().st_mode & 0o777 == 0o600
        assert state.runtime_socket.stat().st_mode & 0o777 == 0o666
    counted = {c.label.epoch: c for c in map(counters.read, state.run.glob("counters-*.bin"))}
    assert len(counted) == 2
    assert (counted[epoch].requests, counted[epoch].closed) == (len(golden("fp32")), False)


def test_a_second_runtime_is_refused_and_disturbs_nobody(state: StateDir) -> None:
    with running(state.root) as first:
        first.ready()
        with running(state.root) as second:
            assert second.process.wait(20) == 1
        (event,) = first.events("runtime_cannot_run")
        assert f"(pid {first.process.pid}) already runs" in event["reason"]
        with first.public() as client:
            assert client.call("GET", "/v2/health/live").status == 200
    assert "traceback" not in first.log_text()


def test_a_port_in_use_is_named_and_taken_when_it_is_free(state: StateDir) -> None:
    commit(state, reference_release(state))
    taken = socket.create_server(("127.0.0.1", 0))
    port: int = taken.getsockname()[1]
    with taken, running(state.root, **{PORT: str(port)}) as runtime:
        with runtime.ready().public() as client:
            infer(client, golden("fp32")[0][0])
        eventually(lambda: bool(runtime.events("tcp_not_listening")))
        (event,) = runtime.events("tcp_not_listening")
        assert f"127.0.0.1:{port} (settings runtime.host and runtime.port)" in event["reason"]
        taken.close()
        eventually(lambda: bool(runtime.events("tcp_listening")), runtime.log_text)
        with RawClient(port) as client:
            infer(client, golden("fp32")[0][0])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ("[runtime]\nprot = 1\n", "unknown field `prot`"),
        ("[runtime]\nport = -1\n", ">= 0"),
        ("[runtime\n", "cannot read the settings"),
    ],
)
def test_wrong_settings_are_one_clear_line_and_stop_nothing(
    state: StateDir, settings: str, complaint: str
) -> None:
    commit(state, reference_release(state))
    (state.root / "agent.toml").write_text(settings)
    with running(state.root) as runtime, runtime.ready().public() as client:
        infer(client, golden("fp32")[0][0])
        (event,) = runtime.events("settings_not_used")
        assert complaint in event["reason"]
        assert "agent.toml" in event["reason"]
        assert "traceback" not in runtime.log_text()
        with runtime.admin() as admin:
            status = json.loads(admin.call("GET", "/admin/status").body)
        assert status["settings_problem"] == event["reason"]


def test_a_path_too_long_for_a_socket_is_explained(state: StateDir) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "edge_agent.inference", "--state", str(state.root / ("d" * 100))],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    assert "choose a shorter directory" in ended.stderr
    assert "Traceback" not in ended.stderr
