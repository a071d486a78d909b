"""The server's settings: the table ``[server]`` of ``server.toml``, over it the environment.

Every key may be set as ``SKERRY_SERVER_<KEY>``, such as ``SKERRY_SERVER_HTTPS_PORT``. Unknown keys
are refused in both, so a misspelt setting never silently does nothing.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fleet_server.data_dir import DataDir
from fleet_server.errors import SettingsError
from fleet_server.online_keys import OnlineKeys
from fleet_server.text_form import Form
from signing_keys.passphrases import Secrets

_PREFIX = "SKERRY_SERVER_"
_TABLE = "server"
_MIN_DAYS = 7

Port = Annotated[int, Field(ge=1, le=65535)]
_Address = Form("^https?://.+$", "use an address that begins with https:// or http://")


def _postgresql(url: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        known = parts.scheme in {"postgresql", "postgres"} and bool(parts.path.strip("/"))
        parts.port  # noqa: B018 (raises if it is no number)
    except ValueError:
        known = False
    if not known:
        raise ValueError("use postgresql://user:password@host:port/name")
    return url


def _mqtts(url: str) -> str:
    try:
        parts = urlsplit(url)
        known = parts.scheme == "mqtts" and bool(parts.hostname) and parts.port is not None
    except ValueError:
        known = False
    if not known or parts.netloc.count("@") or parts.path.strip("/") or parts.query:
        raise ValueError("use mqtts://HOST:PORT; the server shows its certificate, no password")
    return url


def _words(value: object) -> object:
    return value.split() if isinstance(value, str) else value


def _at_least_a_week(days: int) -> int:
    if 0 < days < _MIN_DAYS:
        raise ValueError(
            f"use {_MIN_DAYS} or more (alerts and rollouts look back that far), or 0 for ever"
        )
    return days


KeyUris = Annotated[tuple[str, ...], BeforeValidator(_words)]


class ServerSettings(BaseSettings):
    """All settings, frozen.

    Attributes:
        host: address on which HTTPS and MQTT listen. The default serves this machine only; set it
            to ``0.0.0.0`` (or the address of one interface) so that devices can reach the server.
        https_port: API for devices, operators and publishers.
        mqtt_port: where devices find the broker; TLS with client certificates.
        broker_url: a broker of its own, ``mqtts://HOST:PORT``; without it one is embedded. For
            Mosquitto beside the server `skerry server broker-config` writes the configuration.
        public_host: the broker's host name as devices shall use it. Without it each device is told
            the name by which it called the API.
        database_url: a PostgreSQL database, ``postgresql://user:password@host:5432/name``; without
            it SQLite in the data directory. It holds a password: its place is the environment or a
            ``server.toml`` that only this user may read, never an argument.
        rollout_interval_s: how often each server process looks at the rollouts.
        oidc_issuer: an OpenID Connect provider where people log in, such as ``https://id.example``;
            the other ``oidc_`` settings belong to it.
        oidc_client_id: as what this server is registered there.
        oidc_client_secret: the secret of that registration.
        oidc_redirect_url: ``https://THIS-SERVER/api/v1/oidc/callback``, as it is registered there.
        oidc_role_claim: the claim that says what a person may do.
        oidc_roles: which of its values mean what, ``VALUE=ROLE`` or ``VALUE=TENANT/ROLE`` separated
            by commas.
        snapshot_keys, timestamp_keys, assignment_keys: URIs of the online signing keys, such as
            ``hsm:2?label=fleet`` or ``awskms:...``, separated by spaces; without them the key files
            of the data directory. During a rotation the old and the new key are both named.
        pin_file: holds the PIN of the token, or the passphrase of encrypted key files.
        drain_s: how long a server that was told to stop still takes everything while it says that
            it is not ready, so that a load balancer turns away from it first.
        max_connections: how many MQTT connections are served at once; more are closed.
        telemetry_days: for how long windows of telemetry are kept; 0 keeps them for ever.
        event_days: the same for events of devices.
        delta_cache_bytes: of deltas between releases, which spare devices most of a download; 0
            makes none.
        revocation_check_s: how often live MQTT connections are compared with who is let in; those
            whom this process shuts out it cuts off at once.
        alert_interval_s: how often the servers, together, look at what alerts are about.
        webhook_plain_http: lets notices go to ``http`` URLs, where anybody on the way reads them.
        webhook_private_addresses: lets notices go to addresses that are not of the public internet,
            and so to what only this machine can reach: only if everybody who may make webhooks,
            in every tenant, may reach that too.
        webhook_ca: file with certificates of authorities that receivers of notices may have, beside
            those that the system trusts.
        log_level: lowest level that is logged.
    """

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    host: Annotated[str, Field(min_length=1, max_length=253)] = "127.0.0.1"
    https_port: Port = 8443
    mqtt_port: Port = 8883
    broker_url: Annotated[str, AfterValidator(_mqtts)] | None = None
    public_host: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    database_url: Annotated[SecretStr, AfterValidator(_postgresql)] | None = None
    rollout_interval_s: Annotated[float, Field(ge=0.05, le=60)] = 2.0
    oidc_issuer: Annotated[str, _Address, Field(max_length=500)] | None = None
    oidc_client_id: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    oidc_client_secret: SecretStr | None = None
    oidc_redirect_url: Annotated[str, _Address, Field(max_length=500)] | None = None
    oidc_role_claim: Annotated[str, Field(min_length=1, max_length=100)] = "groups"
    oidc_roles: Annotated[str, Field(min_length=3, max_length=10_000)] | None = None
    snapshot_keys: KeyUris = ()
    timestamp_keys: KeyUris = ()
    assignment_keys: KeyUris = ()
    pin_file: Path | None = None
    drain_s: Annotated[float, Field(ge=0, le=300)] = 0.0
    max_connections: Annotated[int, Field(ge=2, le=100_000)] = 4096
    telemetry_days: Annotated[int, AfterValidator(_at_least_a_week), Field(ge=0, le=36_500)] = 90
    event_days: Annotated[int, AfterValidator(_at_least_a_week), Field(ge=0, le=36_500)] = 365
    delta_cache_bytes: Annotated[int, Field(ge=0, le=2**50)] = 2 * 1024**3
    revocation_check_s: Annotated[float, Field(ge=0.2, le=60)] = 20.0
    alert_interval_s: Annotated[float, Field(ge=0.05, le=300)] = 10.0
    webhook_plain_http: bool = False
    webhook_private_addresses: bool = False
    webhook_ca: Path | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (the library calls it by this name)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic-settings' signature)
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic-settings' signature)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic-settings' signature)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what `load` hands over: the library itself would skip unknown variables."""
        return (init_settings,)


def database_url(settings: ServerSettings, data: DataDir) -> str:
    """Return the address of the database that the settings mean."""
    if settings.database_url is None:
        # The signer reads settings as well, and has nothing to do with the database.
        from fleet_server.database_engine import sqlite_url  # noqa: PLC0415 (SQLAlchemy only where it is used)

        return sqlite_url(data.database)
    return settings.database_url.get_secret_value()


def load(path: Path, environment: Mapping[str, str]) -> ServerSettings:
    """Read the settings.

    Args:
        path: the file ``server.toml``; it need not exist.
        environment: the process's environment variables.

    Raises:
        SettingsError: the file is not TOML, a key is unknown, or a value is out of range.
    """
    values: dict[str, object] = dict(_file_table(path))
    named = {key: f"{_TABLE}.{key} in {path}" for key in values}
    for variable, value in sorted(environment.items()):
        if variable.startswith(_PREFIX):
            key = variable.removeprefix(_PREFIX).lower()
            values[key] = value
            named[key] = f"environment variable {variable}"
    try:
        return ServerSettings.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        key = str(problem["loc"][0]) if problem["loc"] else _TABLE
        what = (
            f"is not a setting; the settings are {', '.join(sorted(ServerSettings.model_fields))}"
            if problem["type"] == "extra_forbidden"
            else _sentence(problem["msg"])
        )
        raise SettingsError(f"{named.get(key, key)}: {what}") from error


def _sentence(said: str) -> str:
    words = said.removeprefix("Value error, ")
    return words[:1].lower() + words[1:]


def online_keys(config: ServerSettings, data: DataDir) -> list[OnlineKeys]:
    """Return the candidates for snapshot and timestamp keys."""
    return [
        _keys("snapshot", data.online, config.snapshot_keys, config),
        _keys("timestamp", data.online, config.timestamp_keys, config),
    ]


def assignment_keys(config: ServerSettings, data: DataDir) -> OnlineKeys:
    """Return the candidates for the assignment key; for the signer process alone."""
    return _keys("assignment", data.signer, config.assignment_keys, config)


def _keys(role: str, folder: Path, uris: tuple[str, ...], config: ServerSettings) -> OnlineKeys:
    secrets = Secrets(passphrase_file=config.pin_file, pin_file=config.pin_file)
    return OnlineKeys(role, folder, uris=uris, secrets=secrets)


def _file_table(path: Path) -> dict[str, object]:
    try:
        document: dict[str, object] = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"cannot read the settings {path}: {error}") from error
    table = document.pop(_TABLE, {})
    if document or not isinstance(table, dict):
        stray = ", ".join(sorted(document)) or _TABLE
        raise SettingsError(
            f"the settings {path} have {stray} outside the table [{_TABLE}], where all keys belong"
        )
    return table
