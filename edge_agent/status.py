"""What `skerry agent status` shows: read beside the running agent, changing nothing."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import msgspec
from cryptography import x509

from edge_agent import identity, pid_file, remote_settings, store
from edge_agent.control import assignment, freshness
from edge_agent.control.active_set import ActiveSetFile
from edge_agent.control.assignment import AssignedRelease
from edge_agent.control.clock import SystemClock, TrustedClock
from edge_agent.control.journal import Journal, UpdateRecord
from edge_agent.control.outbox import Outbox
from edge_agent.control.runtime_client import (
    AdminSocket,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)
from edge_agent.control.waiting import held_back, waiting
from edge_agent.identity import Enrollment
from edge_agent.identity_files import IdentityFiles
from edge_agent.remote_settings import Configuration, Remote
from edge_agent.runtime_api import ActiveRelease, LoadedRelease, RuntimeStatus
from edge_agent.state_dir import StateDir
from fleet_protocol.remote_settings import NOTHING, RemoteSettings
from fleet_protocol.update_states import UpdateState


class FamilyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where one family stands.

    Attributes:
        variant: which one of the release answers, and on which `accelerator`; of the committed
            release where none does.
        choice: why this variant, as a sentence; empty where nobody has said so.
        update: state of the newest update, with `update_version` and `detail`.
    """

    family: str
    assigned: str | None = None
    committed: str | None = None
    serving: str | None = None
    variant: str | None = None
    accelerator: str | None = None
    choice: str = ""
    update: UpdateState | None = None
    update_version: str | None = None
    detail: str = ""
    floor: int = 0


class ConfigurationShown(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the fleet and where they are from.

    Attributes:
        name: of the fleet's configuration; empty if there is none.
        version: of it.
        command_id: of the command that brought it; the fleet's audit trail says who set it.
        issued: when the fleet issued that, as ISO 8601.
        settings: what it sets, by section.
    """

    name: str = ""
    version: int = 0
    command_id: str = ""
    issued: str | None = None
    settings: RemoteSettings = NOTHING


class ConfigurationState(msgspec.Struct, frozen=True, kw_only=True):
    """Which settings of the fleet this agent works with.

    Attributes:
        working: what proved itself last.
        trial: what is tried in its place now, None for nothing.
        trial_starts: of the control process under it.
        refused_version: of the newest that was not kept, 0 for none.
        problem: why not.
    """

    working: ConfigurationShown = ConfigurationShown()
    trial: ConfigurationShown | None = None
    trial_starts: int = 0
    refused_version: int = 0
    problem: str = ""


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The agent of one state directory.

    Attributes:
        processes: pid of each process that lives, None for one that does not.
        assignment_version: 0 before the first assignment.
        outbox: messages of each stream that the server has not acknowledged.
        configuration: the settings of the fleet, as far as the files on the disk say.
        alarms: what has expired without anything newer: `release repository`, `assignment`.
    """

    state: str
    device_id: str | None
    server_url: str | None
    certificate_expires: str | None
    processes: dict[str, int | None]
    runtime: RuntimeStatus | None
    assignment_version: int
    families: list[FamilyStatus]
    outbox: dict[str, int]
    configuration: ConfigurationState = ConfigurationState()
    alarms: list[str] = []


def read(state: StateDir) -> AgentStatus:
    """Return the status of a state directory.

    Raises:
        AgentError: a file is damaged or cannot be read.
    """
    files = IdentityFiles(state.identity)
    enrollment = identity.load_enrollment(files)
    runtime = _runtime(state)
    version, families, outbox = 0, _serving_only(runtime), dict[str, int]()
    alarms: list[str] = []
    if state.database.exists():
        with closing(store.read_only_database(state.database)) as connection:
            version, families, outbox = _from_database(connection, state, runtime)
            alarms = freshness.raised(connection)
    return AgentStatus(
        state=str(state.root),
        device_id=_field(enrollment, "device_id"),
        server_url=_field(enrollment, "server_url"),
        certificate_expires=_certificate_expires(files),
        processes={
            name: pid_file.holder(state.pid_file(name))
            for name in ("supervisor", "runtime", "control")
        },
        runtime=runtime,
        assignment_version=version,
        families=families,
        outbox=outbox,
        configuration=_configuration(remote_settings.read(state.root)),
        alarms=alarms,
    )


def _configuration(remote: Remote) -> ConfigurationState:
    told, trial = remote.status, remote.trial
    return ConfigurationState(
        working=_shown(remote.working),
        trial=None if trial is None else _shown(trial.wanted),
        trial_starts=0 if trial is None else trial.starts,
        refused_version=told.refused_version,
        problem=told.problem,
    )


def _shown(configuration: Configuration) -> ConfigurationShown:
    issued = datetime.fromtimestamp(configuration.issued_ms / 1000, UTC)
    return ConfigurationShown(
        name=configuration.name,
        version=configuration.version,
        command_id=configuration.command_id,
        issued=issued.isoformat(timespec="seconds") if configuration.issued_ms else None,
        settings=configuration.settings,
    )


def _field(enrollment: Enrollment | None, name: str) -> str | None:
    return None if enrollment is None else str(getattr(enrollment, name))


def _runtime(state: StateDir) -> RuntimeStatus | None:
    try:
        return AdminSocket(state.admin_socket).status()
    except (RuntimeUnavailableError, RuntimeRefusedError):
        return None


def _serving(runtime: RuntimeStatus | None) -> dict[str, LoadedRelease]:
    releases = runtime.releases if runtime is not None else []
    return {release.family: release for release in releases if release.active}


def _serving_only(runtime: RuntimeStatus | None) -> list[FamilyStatus]:
    return [
        FamilyStatus(
            family=family,
            serving=release.version,
            variant=release.variant,
            accelerator=release.accelerator,
            choice=release.choice,
        )
        for family, release in sorted(_serving(runtime).items())
    ]


def _from_database(
    connection: sqlite3.Connection, state: StateDir, runtime: RuntimeStatus | None
) -> tuple[int, list[FamilyStatus], dict[str, int]]:
    outbox = Outbox(max_messages=0)
    journal = Journal(outbox=outbox)
    accepted = assignment.load(connection)
    assigned = accepted.assignment.releases if accepted is not None else {}
    active = ActiveSetFile(state.active_set).read()
    now = TrustedClock(clock=SystemClock()).now(connection)
    records = journal.records(connection)
    serving = _serving(runtime)
    families = []
    for family in sorted({*assigned, *active, *records, *serving}):
        record = records.get(family)
        placed = serving.get(family) or active.get(family)
        families.append(
            FamilyStatus(
                family=family,
                assigned=assigned[family].version if family in assigned else None,
                committed=active[family].version if family in active else None,
                serving=serving[family].version if family in serving else None,
                variant=None if placed is None else placed.variant,
                accelerator=None if placed is None else placed.accelerator,
                choice="" if placed is None else placed.choice,
                update=None if record is None else record.state,
                update_version=None if record is None else record.version,
                detail=_detail(record, assigned.get(family), active.get(family), now),
                floor=journal.floor(connection, family),
            )
        )
    depth = {str(kind): count for kind, count in outbox.depth(connection).items()}
    return (accepted.assignment.version if accepted is not None else 0), families, depth


def _detail(
    record: UpdateRecord | None,
    wanted: AssignedRelease | None,
    active: ActiveRelease | None,
    now: datetime,
) -> str:
    """Return what an update waits for by its terms of delivery, or what its journal says."""
    said = "" if record is None else record.detail
    if wanted is None or (active is not None and active.version == wanted.version):
        return said
    waits = waiting(wanted.terms, now)
    if record is None or record.manifest != wanted.manifest:
        return waits.download or said
    return held_back(record.state, waits) or said


def _certificate_expires(files: IdentityFiles) -> str | None:
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    except (OSError, ValueError):
        return None
    return certificate.not_valid_after_utc.astimezone(UTC).isoformat(timespec="minutes")


def certificate_has_expired(status: AgentStatus, now: datetime) -> bool:
    """Say whether the device's certificate is no longer valid."""
    expires = status.certificate_expires
    return expires is not None and datetime.fromisoformat(expires) < now
