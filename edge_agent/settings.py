"""The agent's settings: ``agent.toml``, over it what the fleet has set, over it the environment.

Every key may be set as ``SKERRY_AGENT_<SECTION>__<KEY>``, such as ``SKERRY_AGENT_RUNTIME__PORT``, a
key of a table within as ``SKERRY_AGENT_RUNTIME__MODELS__<FAMILY>__MAX_BATCH``.
Unknown keys are refused in both, so a misspelt setting never silently does nothing.
"""

import ipaddress
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edge_agent import remote_settings
from edge_agent.errors import AgentError
from edge_agent.hang_watch import HANG_S
from fleet_protocol.names import Family
from fleet_protocol.remote_settings import NOTHING, RemoteSettings

FILE_NAME = "agent.toml"
_PREFIX = "SKERRY_AGENT_"
_RUNTIME = "runtime"

Seconds = Annotated[float, msgspec.Meta(gt=0, le=30 * 86400)]
Bytes = Annotated[int, msgspec.Meta(ge=1024)]
LOAD_S = 600.0
"""Generous: an accelerator's library may compile a model for minutes where its cache was lost."""

LogLevel = Literal["debug", "info", "warning", "error"]


class SettingsError(AgentError):
    """The settings cannot be read; the message names file or variable and key."""


Instances = Annotated[int, msgspec.Meta(ge=0, le=256)]
QueueLength = Annotated[int, msgspec.Meta(ge=0, le=65536)]
BatchSize = Annotated[int, msgspec.Meta(ge=1, le=65536)]
BatchWait = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]


class ModelSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What differs for one family, ``[runtime.models.<family>]``; None as for all families.

    Attributes:
        instances: see `RuntimeSettings`, and the others likewise.
        max_queue: see there.
        max_batch: see there.
        batch_wait_us: see there.
    """

    instances: Instances | None = None
    max_queue: QueueLength | None = None
    max_batch: BatchSize | None = None
    batch_wait_us: BatchWait | None = None


class RuntimeSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What the runtime process is told.

    Attributes:
        host: address on which applications reach the V2 protocol over TCP. It must be a loopback
            address unless ``expose_to_network`` is set.
        expose_to_network: allow any other ``host``. The protocol has no authentication: everybody
            who can reach the address can then use the models.
        port: its port; 0 turns TCP off and leaves the Unix socket.
        threads: threads of one inference call inside the backend.
        max_request_bytes: a larger request is refused with 413.
        request_memory_bytes: that the requests of all connections may take together from their
            first byte to their answer; never less than ``max_request_bytes``. One that finds no
            room is refused with 503. Answers over HTTP that wait to be read count, too.
        max_connections: further connections wait for one to close.
        shared_memory: let applications of this machine pass tensors in system shared memory.
        shared_memory_bytes: of all regions that they may have registered together.
        edgetpu_library: LiteRT delegate for the accelerator ``edgetpu``; empty looks for
            ``libedgetpu.so.1`` where Debian puts it.
        grpc_port: port on ``host`` for the V2 protocol over gRPC; 0 turns it off.
        grpc_socket: whether gRPC is served on the Unix socket ``run/grpc.sock``.
        instances: runs of one model at the same time; 0 for as many as the processors serve.
        max_queue: calls of one model that may wait; a further one is refused with 503.
        max_batch: items that waiting calls are joined to for one run of a model whose first
            dimension is free; 1 runs every call for itself.
        batch_wait_us: how long a batch that is not full may wait for further calls.
        load_s: how long loading one release may take when the process starts. Then the process ends
            itself, and the next one leaves that release out, so that the others serve.
        memory_budget_bytes: for all models together; 0 for three quarters of what the machine, or
            the process's control group, has available when the process starts.
        evict_idle: let the model that was not used for longest leave when another one needs the
            room; its next call loads it again.
        response_cache_bytes: memory for answers to inputs that come again; 0 keeps none.
        rate_limit_per_s: requests of one connection; 0 for no limit.
        otlp_endpoint: address of an OpenTelemetry collector for traces over HTTP, such as
            ``http://127.0.0.1:4318/v1/traces``; empty for no traces.
        models: what differs for single families.
    """

    host: str = "127.0.0.1"
    expose_to_network: bool = False
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8500
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    max_request_bytes: Bytes = 64 * 1024 * 1024
    request_memory_bytes: Bytes = 256 * 1024 * 1024
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 512
    shared_memory: bool = False
    shared_memory_bytes: Bytes = 1024 * 1024 * 1024
    edgetpu_library: str = ""
    grpc_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    grpc_socket: bool = False
    instances: Instances = 0
    max_queue: QueueLength = 256
    max_batch: BatchSize = 1
    batch_wait_us: BatchWait = 0
    load_s: Annotated[float, msgspec.Meta(ge=1, le=86400)] = LOAD_S
    memory_budget_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    evict_idle: bool = False
    response_cache_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    rate_limit_per_s: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 0.0
    otlp_endpoint: Annotated[str, msgspec.Meta(pattern=r"\A(https?://\S+)?\Z")] = ""
    models: dict[Family, ModelSettings] = {}
    log_level: LogLevel = "info"

    def __post_init__(self) -> None:
        """Keep a protocol without authentication off the network unless that is wanted."""
        if not self.expose_to_network and not _is_loopback(self.host):
            raise ValueError(
                f"runtime.host is {self.host!r}, which is not a loopback address; whoever reaches "
                "it can use the models. Set runtime.expose_to_network = true if that is wanted"
            )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ControlSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What the control process is told.

    Attributes:
        telemetry_window_s: length of a telemetry window.
        probation_s: how long a new release must serve healthily before it is committed.
        hang_s: silence of the runtime, or of one of its calls, after which a candidate on trial or
            probation is taken to hang: the runtime is ended and starts with what is committed.
        report_interval_s: how often the reported state is sent even if nothing changed.
        poll_interval_s: how often the assignment is asked for over HTTPS while the broker cannot be
            reached.
        outbox_max_messages: beyond it, the oldest unsent windows are merged.
        repository_check_s: how often the release repository is asked for its newest state, so that
            news which is kept back is noticed; each pause is drawn between half of it and all.
        min_bytes_per_s: a server that hands out less, on average over a minute of waiting for it,
            is left for now; what has come of a model's file is kept. Lower it for slower links.
        retry_initial_s: the first pause after a failure on this device is drawn from below it; it
            doubles with each failure.
        retry_shared_initial_s: the same after a failure that a whole fleet may see at once, such as
            a server that does not answer; so much time has the fleet to spread out.
        retry_max_s: the longest pause.
        max_bytes_per_s: the most that a download takes from the network; 0 for no limit. Terms of
            delivery may be tighter.
    """

    telemetry_window_s: Seconds = 60.0
    probation_s: Seconds = 60.0
    hang_s: Seconds = 30.0
    report_interval_s: Seconds = 300.0
    poll_interval_s: Seconds = 60.0
    outbox_max_messages: Annotated[int, msgspec.Meta(ge=16, le=1_000_000)] = 10_000
    repository_check_s: Seconds = 6 * 3600.0
    min_bytes_per_s: Annotated[int, msgspec.Meta(ge=16, le=1_000_000)] = 4096
    retry_initial_s: Seconds = 1.0
    retry_shared_initial_s: Seconds = 30.0
    retry_max_s: Seconds = 300.0
    max_bytes_per_s: Annotated[int, msgspec.Meta(ge=0, le=2**40)] = 0
    log_level: LogLevel = "info"


class SupervisorSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What the supervisor is told; it counts from the next `skerry agent run`.

    Attributes:
        hang_s: silence after which a runtime that has answered before is ended and started again.
            One that has never answered still loads its models and is given all the time.
    """

    hang_s: Annotated[float, msgspec.Meta(ge=6, le=30 * 86400)] = HANG_S


class AgentSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """All settings of the agent; each process is handed its own section."""

    runtime: RuntimeSettings = RuntimeSettings()
    control: ControlSettings = ControlSettings()
    supervisor: SupervisorSettings = SupervisorSettings()


def load(state_root: Path, environment: Mapping[str, str], file: str = FILE_NAME) -> AgentSettings:
    """Read the settings of a state directory.

    Raises:
        SettingsError: the file is not TOML, a key is unknown, or a value is out of range.
    """
    path = state_root / file
    remote = remote_settings.read(state_root).effective
    return _merged(path, _table(path), environment, remote, prefix=_PREFIX)


def check_remote(state_root: Path, environment: Mapping[str, str], remote: RemoteSettings) -> None:
    """Accept settings of the fleet that make sense over those of the device.

    Raises:
        SettingsError: they do not, or those of the device are wrong themselves.
    """
    path = state_root / FILE_NAME
    _merged(path, _with_remote(_table(path), remote), environment, NOTHING, prefix=_PREFIX)


def load_runtime(
    state_root: Path, environment: Mapping[str, str], file: str = FILE_NAME
) -> RuntimeSettings:
    """Read the runtime's section alone: what is wrong elsewhere does not stop inference.

    Raises:
        SettingsError: the file is not TOML, or the section or its environment is wrong.
    """
    path = state_root / file
    table = {name: value for name, value in _table(path).items() if name == _RUNTIME}
    remote = RemoteSettings(runtime=remote_settings.read(state_root).effective.runtime)
    return _merged(
        path, table, environment, remote, prefix=f"{_PREFIX}{_RUNTIME.upper()}__"
    ).runtime


def _table(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"cannot read the settings {path}: {error}") from error


def _merged(
    path: Path,
    table: dict[str, object],
    environment: Mapping[str, str],
    remote: RemoteSettings,
    *,
    prefix: str,
) -> AgentSettings:
    _converted(table, f"the settings {path}", strict=True)
    table = _with_remote(table, remote)
    for name, value in sorted(environment.items()):
        if name.startswith(prefix):
            _overlay(table, name, value)
    return _converted(table, f"the settings (environment {prefix}* over {path})", strict=False)


def _with_remote(table: Mapping[str, object], remote: RemoteSettings) -> dict[str, object]:
    """Return a table with what the fleet has set in the place of what it says itself."""
    merged = dict(table)
    for section, stated in msgspec.to_builtins(remote).items():
        own = merged.get(section, {})
        merged[section] = {**own, **stated} if isinstance(own, dict) else own
    return merged


def _overlay(table: dict[str, object], name: str, value: str) -> None:
    *sections, key = name.removeprefix(_PREFIX).lower().split("__")
    if not sections:
        raise SettingsError(f"{name} is not a setting: use {_PREFIX}<SECTION>__<KEY>")
    entries = table
    for section in sections:
        inner = entries.setdefault(section, {})
        if not isinstance(inner, dict):
            return  # the conversion says that this is no table
        entries = inner
    entries[key] = value


def _converted(table: dict[str, object], where: str, *, strict: bool) -> AgentSettings:
    try:
        return msgspec.convert(table, AgentSettings, strict=strict)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where} are wrong: {error}") from error
