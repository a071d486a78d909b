"""Settings: file, environment over it, and a clear refusal of what nobody reads."""

from pathlib import Path

import pytest

from edge_agent.settings import AgentSettings, SettingsError, load, load_runtime


def test_defaults_need_no_file(tmp_path: Path) -> None:
    assert load(tmp_path, {}) == AgentSettings()


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text("[runtime]\nport = 9000\nthreads = 2\n")
    settings = load(tmp_path, {"SKERRY_AGENT_RUNTIME__PORT": "9100", "OTHER": "x"})
    assert settings.runtime.port == 9100
    assert settings.runtime.threads == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[runtime]\nprot = 1", "prot"),
        ("[runtimes]\nport = 1", "runtimes"),
        ("[runtime]\nport = 70000", "port"),
        ("[runtime]\nport = '80'", "port"),
        ("[control]\nprobation_s = -1", "probation_s"),
        ("[supervisor]\nhang_s = 0.5", "hang_s"),
        ('[runtime]\nhost = "0.0.0.0"', "expose_to_network"),
        ('[runtime]\nhost = "device.example.org"', "expose_to_network"),
        ("[runtime", "cannot read"),
    ],
)
def test_a_wrong_file_is_refused_by_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "agent.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        load(tmp_path, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SKERRY_AGENT_RUNTIME__PROT", "1"),
        ("SKERRY_AGENT_RUNTIME__PORT", "many"),
        ("SKERRY_AGENT_PORT", "1"),
        ("SKERRY_AGENT_RUNTIMES__PORT", "1"),
    ],
)
def test_a_wrong_variable_is_refused(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError):
        load(tmp_path, {name: value})


@pytest.mark.parametrize(
    "text",
    [
        '[runtime]\nhost = "0.0.0.0"\nexpose_to_network = true',
        '[runtime]\nhost = "::1"',
        '[runtime]\nhost = "127.0.0.2"',
        '[runtime]\nhost = "localhost"',
    ],
)
def test_the_network_is_reached_only_on_purpose(tmp_path: Path, text: str) -> None:
    (tmp_path / "agent.toml").write_text(text)
    assert load(tmp_path, {}).runtime.host


@pytest.mark.parametrize(
    "elsewhere", ["[control]\nprobations = 3\n", "[contrl]\n", "control = 1\n"]
)
def test_what_is_wrong_elsewhere_does_not_stop_the_runtime(tmp_path: Path, elsewhere: str) -> None:
    (tmp_path / "agent.toml").write_text(elsewhere + "[runtime]\nport = 9000\n")
    environment = {"SKERRY_AGENT_CONTROL__PROBATIONS": "1", "SKERRY_AGENT_RUNTIME__THREADS": "2"}
    found = load_runtime(tmp_path, environment)
    assert (found.port, found.threads) == (9000, 2)
    with pytest.raises(SettingsError):
        load(tmp_path, environment)


def test_what_is_wrong_in_its_own_section_stops_the_runtime(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text("[runtime]\nprot = 1\n")
    with pytest.raises(SettingsError, match="prot"):
        load_runtime(tmp_path, {})
    (tmp_path / "agent.toml").unlink()
    with pytest.raises(SettingsError, match="prot"):
        load_runtime(tmp_path, {"SKERRY_AGENT_RUNTIME__PROT": "1"})
