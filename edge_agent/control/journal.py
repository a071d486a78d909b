"""The update journal: where each family's newest update stands, which release is committed.

Each transition is written in one transaction with its event; on commit the floor rises in it too.
Rows are data for `reconcile`; nothing here decides.
"""

import sqlite3
from collections.abc import Mapping

import msgspec

from edge_agent.control.assignment import AssignedRelease, ManifestRef
from edge_agent.control.outbox import EventDraft, Outbox
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import Acceptance
from fleet_protocol.messages import EventKind
from fleet_protocol.names import Family, Version
from fleet_protocol.update_states import SETTLED, UpdateState, check_transition

MAX_ATTEMPTS = 3
"""Attempts at one release under one assignment version before it has failed for good."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A verified release as it will be loaded.

    Attributes:
        manifest_sha256: the manifest's blob, which holds the golden vectors.
        acceptance: the manifest's limits.
        contenders: more than one variant could run and it has not been measured yet which is the
            fastest; ``release`` is then the first of them.
        choice_key: under which the choice among them is remembered.
    """

    release: ActiveRelease
    manifest_sha256: str
    security_counter: int
    memory_bytes: int
    acceptance: Acceptance = Acceptance()
    contenders: list[ActiveRelease] = []
    choice_key: str = ""


class UpdateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The newest update of a family.

    Attributes:
        detail: for a person: why it failed, or what it waits for.
        attempts: trials begun and downloads spoilt under this assignment version.
        retry: a settled update may be tried again without a new assignment.
        candidate: from `VERIFIED` on.
        epoch: the runtime's epoch at the switch.
        switched_s: the switch on the monotonic clock, comparable as long as the epoch lives.
        shadow_epoch: the runtime's epoch in which the candidate shadows live requests.
        shadow_since_s: since when, on the monotonic clock.
        ended_because: why the runtime that held the candidate was ended.
        trying: which contender the runtime of ``epoch`` was loading; -1 for none.
        excluded: why a contender is out, by its number.
    """

    family: Family
    version: Version
    manifest: ManifestRef
    assignment_version: int
    state: UpdateState
    detail: str = ""
    attempts: int = 0
    retry: bool = False
    candidate: Candidate | None = None
    epoch: str = ""
    switched_s: float = 0.0
    shadow_epoch: str = ""
    shadow_since_s: float = 0.0
    ended_because: str = ""
    trying: int = -1
    excluded: dict[int, str] = {}

    @property
    def settled(self) -> bool:
        """Whether nothing is under way."""
        return self.state in SETTLED


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """The release that a family has committed to."""

    release: ActiveRelease
    manifest: ManifestRef
    security_counter: int


class Journal:
    """Reads and writes the journal, inside the caller's transaction."""

    def __init__(self, *, outbox: Outbox) -> None:
        self._outbox = outbox

    def records(self, connection: sqlite3.Connection) -> dict[str, UpdateRecord]:
        """Return the newest update of each family."""
        rows = connection.execute("SELECT family, record FROM updates")
        return {family: msgspec.json.decode(raw, type=UpdateRecord) for family, raw in rows}

    def committed(self, connection: sqlite3.Connection) -> dict[str, Committed]:
        """Return the committed release of each family."""
        rows = connection.execute("SELECT family, record FROM committed")
        return {family: msgspec.json.decode(raw, type=Committed) for family, raw in rows}

    def floor(self, connection: sqlite3.Connection, family: str) -> int:
        """Return the lowest security counter that the family may install."""
        row = connection.execute(
            "SELECT security_counter FROM floors WHERE family = ?", (family,)
        ).fetchone()
        return 0 if row is None else int(row[0])

    def floors(self, connection: sqlite3.Connection) -> dict[str, int]:
        """Return all floors by family."""
        return dict(connection.execute("SELECT family, security_counter FROM floors").fetchall())

    def raise_floors(self, connection: sqlite3.Connection, floors: Mapping[str, int]) -> None:
        """Raise floors; none is ever lowered."""
        for family, counter in floors.items():
            connection.execute(
                "INSERT INTO floors VALUES (?, ?) ON CONFLICT (family) DO UPDATE SET "
                "security_counter = excluded.security_counter "
                "WHERE excluded.security_counter > security_counter",
                (family, counter),
            )

    def begin(
        self,
        connection: sqlite3.Connection,
        release: AssignedRelease,
        *,
        assignment_version: int,
        at_ms: int,
    ) -> UpdateRecord:
        """Start an update; attempts count on if it is the same one again and may be retried."""
        before = self.records(connection).get(release.family)
        again = (
            before is not None
            and before.assignment_version == assignment_version
            and before.manifest == release.manifest
            and before.state is not UpdateState.COMMITTED
            and before.retry
        )
        record = UpdateRecord(
            family=release.family,
            version=release.version,
            manifest=release.manifest,
            assignment_version=assignment_version,
            state=UpdateState.IDLE if before is None else before.state,
            attempts=before.attempts if before is not None and again else 0,
        )
        return self.move(connection, record, UpdateState.DOWNLOADING, at_ms=at_ms)

    def move(
        self,
        connection: sqlite3.Connection,
        record: UpdateRecord,
        state: UpdateState,
        *,
        at_ms: int,
        **changes: object,
    ) -> UpdateRecord:
        """Write a transition with its event and return the new record.

        Raises:
            ProtocolError: the table of transitions does not have it.
        """
        check_transition(record.state, state)
        moved = msgspec.structs.replace(record, **{"detail": "", **changes, "state": state})
        self.rewrite(connection, moved)
        self._outbox.append_event(
            connection,
            EventDraft(
                at_ms=at_ms,
                kind=EventKind.UPDATE_STATE,
                detail=moved.detail,
                family=moved.family,
                version=moved.version,
                state=state,
            ),
        )
        return moved

    def rewrite(self, connection: sqlite3.Connection, record: UpdateRecord) -> None:
        """Write a record whose state has not changed."""
        connection.execute(
            "INSERT INTO updates VALUES (?, ?, ?, ?) ON CONFLICT (family) DO UPDATE SET "
            "version = excluded.version, state = excluded.state, record = excluded.record",
            (record.family, record.version, record.state, msgspec.json.encode(record)),
        )

    def commit(
        self, connection: sqlite3.Connection, record: UpdateRecord, *, at_ms: int, detail: str
    ) -> UpdateRecord:
        """Write the commit of the record's candidate: journal, event, floor and release."""
        candidate = candidate_of(record)
        committed = Committed(
            release=candidate.release,
            manifest=record.manifest,
            security_counter=candidate.security_counter,
        )
        connection.execute(
            "INSERT INTO committed VALUES (?, ?, ?) ON CONFLICT (family) DO UPDATE SET "
            "version = excluded.version, record = excluded.record",
            (record.family, record.version, msgspec.json.encode(committed)),
        )
        self.raise_floors(connection, {record.family: candidate.security_counter})
        return self.move(connection, record, UpdateState.COMMITTED, at_ms=at_ms, detail=detail)

    def forget(self, connection: sqlite3.Connection, family: str, *, at_ms: int) -> None:
        """Remove what is known of a family that is no longer assigned; its floor stays."""
        removed = 0
        for table in ("updates", "committed"):
            removed += connection.execute(
                f"DELETE FROM {table} WHERE family = ?",  # noqa: S608 (two literals)
                (family,),
            ).rowcount
        if removed:
            self._outbox.append_event(
                connection,
                EventDraft(
                    at_ms=at_ms,
                    kind=EventKind.UPDATE_STATE,
                    detail=f"{family} is no longer assigned and was removed",
                    family=family,
                    state=UpdateState.IDLE,
                ),
            )


def files_needed(
    committed: Mapping[str, Committed], records: Mapping[str, UpdateRecord]
) -> frozenset[str]:
    """Return the hashes of the files that committed releases and updates under way refer to."""
    needed = set[str]()
    for entry in committed.values():
        needed.update((entry.manifest.sha256, entry.release.sha256))
    for record in records.values():
        if record.settled:
            continue
        needed.add(record.manifest.sha256)
        if record.candidate is not None:
            releases = [record.candidate.release, *record.candidate.contenders]
            needed.update(release.sha256 for release in releases)
    return frozenset(needed)


def candidate_of(record: UpdateRecord) -> Candidate:
    """Return the candidate of a record from `VERIFIED` on."""
    if record.candidate is None:
        raise AssertionError(f"{record.family} is in {record.state} without a candidate")
    return record.candidate
