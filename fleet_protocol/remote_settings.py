"""The settings of the agent that the fleet may set, with the bounds within which it may.

They are a type of their own and not the agent's: a server in wrong hands must not be able to open a
device to the network, load a library, turn off what notices a freeze, or starve inference. What is
absent here cannot be said. None leaves a setting as the device has it.
"""

from typing import Annotated, Literal

import msgspec

LogLevel = Literal["debug", "info", "warning", "error"]
ConfigurationName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?\Z",
        description="name of a configuration: a-z, 0-9, hyphens",
    ),
]
NameOrNone = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A(?:[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?)?\Z",
        description="name of a configuration, or nothing",
    ),
]
ConfigurationVersion = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class RemoteControlSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """For the control process; see `edge_agent.settings.ControlSettings`.

    Attributes:
        log_level: of its log.
        telemetry_window_s: length of a telemetry window.
        report_interval_s: how often the reported state is sent even if nothing changed.
        poll_interval_s: how often the server is asked while the broker cannot be reached.
        max_bytes_per_s: the most that a download takes from the network.
    """

    log_level: LogLevel | None = None
    telemetry_window_s: Annotated[float, msgspec.Meta(ge=5, le=3600)] | None = None
    report_interval_s: Annotated[float, msgspec.Meta(ge=10, le=3600)] | None = None
    poll_interval_s: Annotated[float, msgspec.Meta(ge=5, le=3600)] | None = None
    max_bytes_per_s: Annotated[int, msgspec.Meta(ge=16 * 1024, le=2**40)] | None = None


class RemoteRuntimeSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """For the runtime process, which is restarted for them; see `edge_agent.settings`.

    Attributes:
        log_level: of its log.
        instances: runs of one model at the same time; 0 for as many as the processors serve.
        max_batch: items that waiting calls are joined to for one run.
        batch_wait_us: how long a batch that is not full may wait for further calls.
    """

    log_level: LogLevel | None = None
    instances: Annotated[int, msgspec.Meta(ge=0, le=16)] | None = None
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=256)] | None = None
    batch_wait_us: Annotated[int, msgspec.Meta(ge=0, le=100_000)] | None = None


class RemoteSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What the fleet sets; sections as in ``agent.toml``."""

    control: RemoteControlSettings = RemoteControlSettings()
    runtime: RemoteRuntimeSettings = RemoteRuntimeSettings()


NOTHING = RemoteSettings()


class ConfigurationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Which configuration a device works with, as it reports it.

    Attributes:
        name: of the configuration in effect; empty for none.
        version: its version; 0 for none.
        trial_version: of the one that is being tried, 0 for none.
        refused_version: of the newest one that the device did not keep, 0 for none.
        problem: why not.
    """

    name: NameOrNone = ""
    version: ConfigurationVersion = 0
    trial_version: ConfigurationVersion = 0
    refused_version: ConfigurationVersion = 0
    problem: Annotated[str, msgspec.Meta(max_length=1000)] = ""


NO_CONFIGURATION = ConfigurationStatus()
