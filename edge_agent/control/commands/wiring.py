"""Makes the parts that take and carry out commands."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from edge_agent.control.backoff import Backoff
from edge_agent.control.clock import Clock, TrustedClock
from edge_agent.control.commands.answers import Answers, Post
from edge_agent.control.commands.configure import ConfigureAction
from edge_agent.control.commands.desk import CommandDesk
from edge_agent.control.commands.patience import Patience
from edge_agent.control.commands.poll import MailboxPoll
from edge_agent.control.commands.restart import RestartAction, RuntimeRestart
from edge_agent.control.commands.runner import Carry, CommandRunner, Done, Later
from edge_agent.control.database import Database
from edge_agent.control.journal import Journal
from edge_agent.control.link import Link
from edge_agent.control.machine import Machine
from edge_agent.control.outbox import Outbox
from edge_agent.control.runtime_client import Runtime
from edge_agent.state_dir import StateDir
from fleet_protocol.commands import (
    Action,
    Bench,
    Command,
    Configure,
    Diagnostics,
    Logs,
    RestartRuntime,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What the commands may touch: nothing else of the device is in their reach."""

    state: StateDir
    database: Database
    journal: Journal
    outbox: Outbox
    machine: Machine
    runtime: Runtime
    runtime_pid: Callable[[], int | None]
    stop_runtime: Callable[[], None]
    link: Link
    clock: Clock
    trusted_clock: TrustedClock
    post: Post
    certificate_expires_ms: Callable[[], int | None]
    end_process: Callable[[], None]
    patience: Patience


def restart(reach: Reach) -> RuntimeRestart:
    """Return what restarts the runtime."""
    return RuntimeRestart(
        runtime=reach.runtime, stop_runtime=reach.stop_runtime, patience=reach.patience
    )


def configure(reach: Reach) -> ConfigureAction:
    """Return what takes the fleet's settings."""
    return ConfigureAction(
        state_root=reach.state.root,
        database=reach.database,
        journal=reach.journal,
        runtime=restart(reach),
        end_process=reach.end_process,
        patience=reach.patience,
    )


def runner(
    reach: Reach,
    *,
    desk: CommandDesk,
    poll: MailboxPoll,
    configure: ConfigureAction,
    backoff: Backoff,
) -> CommandRunner:
    """Return what runs commands."""
    carry: dict[type[Action], Carry] = {
        Diagnostics: _when_asked(partial(_diagnostics, reach, poll)),
        Bench: _when_asked(partial(_bench, reach)),
        Logs: _when_asked(partial(_logs, reach)),
        RestartRuntime: RestartAction(
            restart=restart(reach),
            database=reach.database,
            journal=reach.journal,
        ),
        Configure: configure,
    }
    return CommandRunner(
        desk=desk,
        database=reach.database,
        trusted_clock=reach.trusted_clock,
        carry=carry,
        fate=configure.fate,
        backoff=backoff,
    )


def answers(reach: Reach, runner: CommandRunner, backoff: Backoff) -> Answers:
    """Return what sends answers."""
    return Answers(
        database=reach.database, answered=runner.answered, post=reach.post, backoff=backoff
    )


def _when_asked(make: Callable[[], Carry]) -> Carry:
    """Load the code of a command with the first one: most devices never get one at all."""

    async def carry(action: Action, command: Command) -> Done | Later:
        return await make()(action, command)

    return carry


def _diagnostics(reach: Reach, poll: MailboxPoll) -> Carry:
    from edge_agent.control.commands.diagnostics import DiagnosticsAction  # noqa: PLC0415 (when asked)

    return DiagnosticsAction(
        state_root=reach.state.root,
        database=reach.database,
        journal=reach.journal,
        outbox=reach.outbox,
        machine=reach.machine,
        runtime=reach.runtime,
        runtime_pid=reach.runtime_pid,
        link=reach.link,
        poll=poll,
        clock=reach.clock,
        trusted_clock=reach.trusted_clock,
        certificate_expires_ms=reach.certificate_expires_ms,
    )


def _bench(reach: Reach) -> Carry:
    from edge_agent.control.commands.bench import BenchAction  # noqa: PLC0415 (when asked)

    return BenchAction(
        runtime=reach.runtime,
        blob=reach.state.blob,
        database=reach.database,
        journal=reach.journal,
    )


def _logs(reach: Reach) -> Carry:
    from edge_agent.control.commands.logs import LogsAction  # noqa: PLC0415 (when asked)

    return LogsAction(reach.state.log)
