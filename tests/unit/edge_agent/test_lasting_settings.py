"""A mistake in ``agent.toml`` stops no process that is started again."""

from pathlib import Path

import pytest

from edge_agent import lasting_settings
from edge_agent.settings import FILE_NAME, RuntimeSettings, load_runtime

BROKEN = [
    "[runtime\nport = 1",
    "[runtime]\nprot = 1",
    "[runtime]\nport = 'x'",
    "[runtime]\nhost = '0.0.0.0'",
    "\udcff",
]


def read(root: Path, **environment: str) -> lasting_settings.Lasting[RuntimeSettings]:
    return lasting_settings.read(root, environment, process="runtime", load=load_runtime)


def write(root: Path, text: str) -> None:
    (root / FILE_NAME).write_bytes(text.encode(errors="surrogateescape"))


@pytest.mark.parametrize("text", BROKEN)
def test_the_last_good_settings_serve(tmp_path: Path, text: str) -> None:
    write(tmp_path, "[runtime]\nport = 8600")
    assert read(tmp_path) == lasting_settings.Lasting(RuntimeSettings(port=8600))
    write(tmp_path, text)
    for _ in range(2):
        found = read(tmp_path)
        assert found.settings.port == 8600
        assert FILE_NAME in found.problem
        assert "last started with" in found.problem
    write(tmp_path, "[runtime]\nport = 8700")
    assert read(tmp_path) == lasting_settings.Lasting(RuntimeSettings(port=8700))


@pytest.mark.parametrize("text", BROKEN)
def test_without_good_ones_the_defaults_serve(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    found = read(tmp_path)
    assert found.settings == RuntimeSettings()
    assert "defaults" in found.problem


def test_a_wrong_environment_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "[runtime]\nport = 8600")
    read(tmp_path)
    found = read(tmp_path, SKERRY_AGENT_RUNTIME__PORT="x")
    assert found.settings.port == 8600
    assert "SKERRY_AGENT_RUNTIME" in found.problem


def test_no_file_is_no_problem(tmp_path: Path) -> None:
    assert read(tmp_path) == lasting_settings.Lasting(RuntimeSettings())


def test_a_disk_that_refuses_the_copy_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "[runtime]\nport = 8600")
    (tmp_path / "last-good-runtime.toml").mkdir()
    assert read(tmp_path).settings.port == 8600
    assert "settings_not_kept" in caplog.text
