"""Publishes the reported state: after each connection, at every change, and now and then."""

import logging
from importlib.metadata import PackageNotFoundError, version

from edge_agent.control.clock import Clock
from edge_agent.control.commands.configure import ConfigureAction
from edge_agent.control.commands.desk import CommandDesk
from edge_agent.control.link import Link, LinkDownError
from edge_agent.control.machine import Machine
from edge_agent.control.observation import (
    Observation,
    backends_of,
    placements_seen,
    reported,
)
from edge_agent.control.pulse import first_change
from edge_agent.control.variants import accelerators_of
from fleet_protocol.messages import encode
from fleet_protocol.topics import Channel

logger = logging.getLogger(__name__)


def agent_version() -> str:
    """Return the version of the installed distribution."""
    try:
        return version("skerry")
    except PackageNotFoundError:
        return "unknown"


class Reporter:
    """Sends the whole reported state each time; the broker keeps the newest."""

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        observation: Observation,
        configuration: ConfigureAction,
        commands: CommandDesk,
        link: Link,
        machine: Machine,
        clock: Clock,
        interval_s: float,
    ) -> None:
        self._observation = observation
        self._configuration = configuration
        self._commands = commands
        self._link = link
        self._machine = machine
        self._clock = clock
        self._interval_s = interval_s
        self._version = agent_version()
        self._backends: dict[str, str] = {}
        self._accelerators: list[str] = []

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            link_seen, seen = self._link.state.count, self._observation.changed.count
            configured, taken = self._configuration.changed.count, self._commands.taken.count
            if self._link.connected:
                self._report()
            await first_change(
                (self._link.state, link_seen),
                (self._observation.changed, seen),
                (self._configuration.changed, configured),
                (self._commands.taken, taken),
                timeout_s=self._interval_s,
            )

    def _report(self) -> None:
        situation = self._observation.situation
        if situation is None:
            return
        # While the runtime is away, the backends that it had are the best knowledge there is.
        self._backends = dict(backends_of(situation)) or self._backends
        self._accelerators = accelerators_of(placements_seen(situation)) or self._accelerators
        state = reported(
            situation,
            at_ms=self._clock.now_ms(),
            agent_version=self._version,
            capabilities=self._machine.capabilities(
                backends=self._backends, accelerators=self._accelerators
            ),
            troubles=self._observation.troubles,
            configuration=self._configuration.status,
            command_sequence=self._commands.sequence,
        )
        try:
            self._link.publish(Channel.REPORTED, encode(state))
        except LinkDownError as error:
            logger.debug("report_waits", extra={"reason": str(error)})
