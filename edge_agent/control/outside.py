"""The world outside the control process: all that a simulator may stand in for.

Clocks, runtime, broker, server and machine; `parts` wires what lives inside.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_agent.control.clock import Clock
from edge_agent.control.commands.answers import Post
from edge_agent.control.commands.patience import Patience
from edge_agent.control.link import Link
from edge_agent.control.machine import Machine
from edge_agent.control.runtime_client import Runtime
from edge_agent.control.server_client import ReleaseServer
from fleet_protocol.claims import ClaimBundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """The world around the control process.

    Attributes:
        runtime_pid: pid of the runtime process, None while none lives.
        end_runtime: kills the runtime process if there is one.
        stop_runtime: lets it finish its calls and end.
        post: sends JSON to a path of the server.
        end_process: ends this process, which its supervisor then starts again.
        certificate_expires_ms: when the device's certificate does, if it has one.
        settings_problem: why the settings are not those of ``agent.toml``.
        at_rest: is called when there is nothing left to do after a change.
        patience: of commands with the runtime.
    """

    claim: ClaimBundle
    clock: Clock
    randomness: random.Random
    runtime: Runtime
    runtime_pid: Callable[[], int | None]
    end_runtime: Callable[[], None]
    stop_runtime: Callable[[], None]
    server: ReleaseServer
    post: Post
    end_process: Callable[[], None]
    link: Link
    machine: Machine
    settings_problem: str = ""
    at_rest: Callable[[], None] = lambda: None
    certificate_expires_ms: Callable[[], int | None] = lambda: None
    patience: Patience = field(default_factory=Patience)
