"""Settings: file under environment, and every mistake named."""

from pathlib import Path

import pytest

from fleet_server import settings
from fleet_server.data_dir import DataDir
from fleet_server.database_engine import described
from fleet_server.errors import SettingsError


def test_defaults_serve_this_machine_only(tmp_path: Path) -> None:
    loaded = settings.load(tmp_path / "server.toml", {})
    assert (loaded.host, loaded.https_port, loaded.mqtt_port) == ("127.0.0.1", 8443, 8883)


def test_the_environment_lies_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text('[server]\nhttps_port = 9000\nhost = "::1"\n')
    loaded = settings.load(path, {"SKERRY_SERVER_HTTPS_PORT": "9001", "PATH": "/bin"})
    assert (loaded.host, loaded.https_port) == ("::1", 9001)


@pytest.mark.parametrize(
    ("content", "environment", "named"),
    [
        ("[server]\nhttp_port = 1", {}, "server.http_port"),
        ("[server]\nhttps_port = 0", {}, "server.https_port"),
        ("[server]\nhttps_port = 'many'", {}, "server.https_port"),
        ("[server]\nlog_level = 'loud'", {}, "server.log_level"),
        ("https_port = 1", {}, "https_port outside the table [server]"),
        ("[serve]\nhttps_port = 1", {}, "serve outside"),
        ("server = 1", {}, "server"),
        ("[server", {}, "cannot read the settings"),
        ("", {"SKERRY_SERVER_HTTP_PORT": "1"}, "SKERRY_SERVER_HTTP_PORT: is not a setting"),
        ("", {"SKERRY_SERVER_MQTT_PORT": "70000"}, "SKERRY_SERVER_MQTT_PORT"),
        ("[server]\ndatabase_url = 'mysql://x:hunter2@y/z'", {}, "database_url in"),
        (
            "",
            {"SKERRY_SERVER_DATABASE_URL": "postgresql://x:hunter2@y:z/w"},
            "use postgresql://user",
        ),
        ("", {"SKERRY_SERVER_DATABASE_URL": "postgresql://x:hunter2@y/"}, "use postgresql://user"),
    ],
)
def test_a_wrong_setting_is_named(
    tmp_path: Path, content: str, environment: dict[str, str], named: str
) -> None:
    path = tmp_path / "server.toml"
    path.write_text(content)
    with pytest.raises(SettingsError) as raised:
        settings.load(path, environment)
    assert named in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_the_password_of_the_database_is_not_shown(tmp_path: Path) -> None:
    url = "postgresql://skerry:hunter2@db:5432/fleet?sslmode=require"
    loaded = settings.load(tmp_path / "server.toml", {"SKERRY_SERVER_DATABASE_URL": url})
    assert settings.database_url(loaded, DataDir(tmp_path)) == url
    assert "hunter2" not in repr(loaded)
    assert described(url) == "postgresql://skerry:***@db:5432/fleet"
