"""What hardware is here, what each backend can do with it, and why not for the rest.

Libraries and drivers are asked in processes of their own: a driver that crashes is a line in the
answer.
"""

from pathlib import Path

import msgspec

from edge_agent import hardware, settings
from edge_agent.control.runtime_client import (
    AdminSocket,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)
from edge_agent.hardware import Hardware
from edge_agent.inference.backends import catalog
from edge_agent.inference.probe import Prober
from edge_agent.inference.survey import Survey, with_used
from edge_agent.runtime_api import Placement
from edge_agent.state_dir import StateDir


class Devices(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``skerry agent devices``."""

    hardware: Hardware
    placements: list[Placement]


def survey(state: StateDir, environment: dict[str, str]) -> Devices:
    """Look at the hardware and ask each backend; takes as long as their libraries load.

    A state directory need not exist: then the default settings hold.

    Raises:
        SettingsError: ``agent.toml`` is malformed.
    """
    named = settings.load(state.root, environment).runtime.edgetpu_library
    edge_tpu = Path(named) if named else None
    known = catalog.installed(threads=1, edgetpu_library=edge_tpu)
    found = Survey(
        backends=known.backends,
        prober=Prober(),
        options=[f"--edgetpu-library={edge_tpu}"] if edge_tpu else [],
    ).placements()
    return Devices(hardware=hardware.look(), placements=with_used(found, _used(state)))


def _used(state: StateDir) -> set[tuple[str, str]]:
    """Return what the running runtime has models on, by backend and accelerator."""
    try:
        status = AdminSocket(state.admin_socket).status()
    except (RuntimeUnavailableError, RuntimeRefusedError):
        return set()
    return {(release.backend, release.accelerator) for release in status.releases}
