"""`skerry agent`: what it says, and with which status it ends."""

import json
import subprocess
from pathlib import Path

import msgspec
import pytest

from edge_agent import remote_settings, store
from edge_agent.enroll import Answer, enroll
from edge_agent.pid_file import PidFile
from edge_agent.remote_settings import Configuration, Refusal, Remote, Trial
from edge_agent.state_dir import StateDir
from fleet_protocol import claims
from fleet_protocol.claims import ClaimBundle
from fleet_protocol.messages import EnrollRequest, EnrollResponse, decode, encode
from fleet_protocol.remote_settings import RemoteSettings
from tests.simulators import warm_processes
from tests.simulators.fleet_authority import Authority
from tests.unit.edge_agent.inference.reference_release import commit, reference_release


def skerry(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {"NO_COLOR": "1", "COLUMNS": "200", **environment}
    return warm_processes.run(
        "skerry", "agent", *map(str, arguments), timeout_s=60, environment=environment
    )


def enrolled(folder: Path) -> StateDir:
    state = StateDir(folder / "s")
    authority = Authority()

    def post(_url: str, body: bytes, claim: ClaimBundle) -> Answer:
        certificate = authority.device_certificate(decode(body, EnrollRequest).csr_pem)
        response = EnrollResponse(
            device_id=claim.device_id,
            certificate_pem=certificate,
            mqtt_host="localhost",
            mqtt_port=1,
        )
        return Answer(200, encode(response))

    claim = ClaimBundle(
        device_id="cam-01",
        token="t",
        expires_at_ms=0,
        fleet_ca_pem=authority.pem,
        release_root="{}",
        director_root="{}",
    )
    (folder / "claim").write_bytes(claims.encode(claim))
    enroll(state=state, server_url="https://localhost:1", claim=claim, post=post)
    return state


def test_help_names_the_commands() -> None:
    done = skerry("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("enroll", "run", "status", "stop"))


@pytest.mark.parametrize("command", ["enroll", "run", "status", "stop"])
def test_every_command_has_an_example(command: str) -> None:
    assert f"skerry agent {command}" in skerry(command, "--help").stdout


def test_run_on_a_device_that_is_not_enrolled_says_how_to_enrol(tmp_path: Path) -> None:
    done = skerry("run", "--state", tmp_path / "s")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "skerry agent enroll" in done.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("toml", "environment", "named"),
    [
        ("[control]\nprobations = 3\n", {}, "probations"),
        ("[control\n", {}, "agent.toml"),
        ("", {"SKERRY_AGENT_RUNTIME__PROT": "1"}, "prot"),
    ],
)
def test_run_names_the_setting_that_is_wrong(
    tmp_path: Path, toml: str, environment: dict[str, str], named: str
) -> None:
    state = enrolled(tmp_path)
    (state.root / "agent.toml").write_text(toml)
    done = skerry("run", "--state", state.root, **environment)
    assert done.returncode == 1
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("damaged", ["claim.json", "key.pem", "certificate.pem"])
def test_run_without_a_whole_identity_needs_a_model_to_serve(tmp_path: Path, damaged: str) -> None:
    state = enrolled(tmp_path)
    path = state.identity / damaged
    if damaged == "key.pem":
        path.write_bytes(path.read_bytes()[:40])
    else:
        path.unlink()
    done = skerry("run", "--state", state.root)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert damaged in done.stderr
    state.active_set.write_text('{"releases": []}')
    lock = PidFile(state.pid_file("supervisor"))  # so that it gets no further than that
    done = skerry("run", "--state", state.root)
    lock.release()
    assert done.returncode == 1
    warning, refusal = done.stderr.splitlines()
    assert warning.startswith("warning: ")
    assert damaged in warning
    assert "already runs" in refusal


def test_enroll_that_is_refused_is_one_line(tmp_path: Path) -> None:
    enrolled(tmp_path)
    done = skerry(
        "enroll",
        "--server",
        "https://localhost:1",
        "--claim",
        tmp_path / "claim",
        "--state",
        tmp_path / "other",
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot reach the fleet server")
    assert done.stderr.count("\n") == 1


def test_enroll_again_confirms(tmp_path: Path) -> None:
    state = enrolled(tmp_path)
    done = skerry(
        "enroll",
        "--server",
        "https://localhost:1",
        "--claim",
        tmp_path / "claim",
        "--state",
        state.root,
    )
    assert done.returncode == 0
    assert "cam-01 is enrolled at https://localhost:1" in done.stdout


def test_status_of_a_device_at_rest(tmp_path: Path) -> None:
    state = enrolled(tmp_path)
    store.open_database(state.database).close()
    done = skerry("status", "--state", state.root, "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["device_id"] == "cam-01"
    assert found["processes"] == {"supervisor": None, "runtime": None, "control": None}
    assert found["runtime"] is None
    assert found["outbox"] == {"telemetry": 0, "event": 0}
    text = skerry("status", "--state", state.root)
    assert "cam-01 at https://localhost:1" in text.stdout
    assert "down" in text.stdout


def test_status_says_which_variant_runs_where_and_why(tmp_path: Path) -> None:
    state = enrolled(tmp_path)
    store.open_database(state.database).close()
    why = "int8 on cpu 0.21 ms a call, fp32 on cpu 0.34 ms: measured here"
    release = reference_release(state, precision="int8")
    commit(state, msgspec.structs.replace(release, choice=why))
    (family,) = json.loads(skerry("status", "--state", state.root, "--json").stdout)["families"]
    assert (family["committed"], family["serving"]) == ("1.0.0", None)
    assert (family["variant"], family["accelerator"]) == ("int8", "cpu")
    assert family["choice"] == why
    text = skerry("status", "--state", state.root).stdout
    assert f"fashion_mnist will run as int8 on cpu: {why}" in text


def test_the_state_directory_may_come_from_the_environment(tmp_path: Path) -> None:
    state = enrolled(tmp_path)
    done = skerry("status", "--json", SKERRY_STATE=str(state.root))
    assert json.loads(done.stdout)["state"] == str(state.root)


def test_status_of_nothing_is_an_error(tmp_path: Path) -> None:
    done = skerry("status", "--state", tmp_path / "s")
    assert done.returncode == 1
    assert "no state directory" in done.stderr


def test_stop_where_nothing_runs_says_so(tmp_path: Path) -> None:
    done = skerry("stop", "--state", tmp_path / "s")
    assert done.returncode == 0
    assert "No agent runs" in done.stdout


def test_status_says_which_settings_of_the_fleet_hold(tmp_path: Path) -> None:
    state = enrolled(tmp_path)

    def configuration(version: int) -> Configuration:
        wanted = msgspec.convert({"control": {"log_level": "debug"}}, RemoteSettings)
        return Configuration(
            name="quiet",
            version=version,
            settings=wanted,
            command_id=f"{version:032x}",
            issued_ms=1_700_000_000_000,
        )

    before = skerry("status", "--state", state.root)
    assert "Configuration: the device's own" in before.stdout
    refused = Refusal(version=8, command_id="8", problem="\x1b[2Jno [red]room")
    remote_settings.settle(state.root, Remote(working=configuration(7), refused=refused))
    remote_settings.put_on_trial(state.root, Trial(wanted=configuration(9), starts=1))
    said = skerry("status", "--state", state.root).stdout
    assert "quiet version 7, commanded by the fleet at 2023-11-14T22:13:20+00:00" in said
    assert "On trial: quiet version 9" in said
    assert "1 of 2 times" in said
    assert r"Version 8 was not kept: \u001b[2Jno [red]room" in said
    found = json.loads(skerry("status", "--json", "--state", state.root).stdout)["configuration"]
    assert found["working"]["settings"] == {"control": {"log_level": "debug"}}
    assert (found["trial"]["version"], found["trial_starts"], found["refused_version"]) == (9, 1, 8)
