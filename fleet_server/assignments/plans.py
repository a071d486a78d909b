"""Plans of assignments: the complete list that each device shall run next, and its version.

What is wanted meets what is stored here; signing and storing belong to `issuing`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Row, Select, or_, select

from fleet_protocol import names
from fleet_protocol.errors import ProtocolError
from fleet_server.assignments import ahead, entries
from fleet_server.assignments.entries import Entry
from fleet_server.assignments.tables import Assignment
from fleet_server.devices.tables import Device
from fleet_server.errors import NotFoundError, RefusedError

_LISTED = 5
_PUSHED = 2**30
"""No device was assigned to so often by its owner."""

Known = Row[str, int | None, str, int, int, str, str | None]
"""A row of `known`; the assignment's columns are null where there is none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one device shall run next.

    Attributes:
        base: version of the assignment that it was made from; 0 for none.
    """

    device_id: str
    version: int
    entries: list[Entry]
    base: int
    claim: str
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What one device shall run of one family from now on; None for nothing."""

    device_id: str
    family: str
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of a change: version of the new assignment, release of the one before."""

    version: int
    before: Entry | None


def known() -> Select[str, int | None, str, int, int, str, str | None]:
    """Return the query for devices with what is assigned to them and what they report."""
    return select(
        Device.id,
        Device.decommissioned_ms,
        Device.claim,
        Assignment.version,
        Assignment.root_version,
        Assignment.entries,
        Device.reported,
    ).outerjoin(Assignment, Assignment.device_id == Device.id)


def outdated(
    epoch: int, expires_before_ms: int, *, after: str, limit: int
) -> Select[Assignment, str | None, str]:
    """Return the query for a page of assignments that expire soon or whose key was replaced."""
    return (
        select(Assignment, Device.reported, Device.claim)
        .join(Device, Device.id == Assignment.device_id)
        .where(
            or_(Assignment.expires_ms < expires_before_ms, Assignment.root_version < epoch),
            Assignment.device_id > after,
        )
        .where(Device.decommissioned_ms.is_(None))
        .order_by(Assignment.device_id)
        .limit(limit)
    )


def with_release(
    rows: Sequence[Known], entry: Entry, wanted: Sequence[str] | None, *, epoch: int
) -> list[Plan]:
    """Plan one release for some devices (None: for all that are not decommissioned).

    Args:
        rows: every device, as `known` finds them.
        entry: the release.
        wanted: ids of devices.
        epoch: of the director's root.

    Raises:
        NotFoundError: a device does not exist.
        RefusedError: a device was decommissioned, or there is none.
    """
    by_id = {row.id: row for row in rows}
    return [
        _plan(row, entries.with_release(_listed(row), entry), epoch=epoch)
        for row in (by_id[device_id] for device_id in _chosen(by_id, wanted))
    ]


def changed(row: Known, change: Change, *, epoch: int) -> tuple[Plan, Entry | None]:
    """Plan a change of one device; return the release that it had of that family, too."""
    listed = _listed(row)
    before = next((entry for entry in listed if entry.family == change.family), None)
    if change.entry is not None:
        return _plan(row, entries.with_release(listed, change.entry), epoch=epoch), before
    kept = [entry for entry in listed if entry.family != change.family]
    return _plan(row, kept, epoch=epoch, removed=(change.family,)), before


def renewed(row: Assignment, claim: str, *, epoch: int) -> Plan:
    """Plan the same list once more."""
    return Plan(
        row.device_id,
        _next(row.version, row.root_version, None, epoch=epoch),
        entries.decode(row.entries),
        row.version,
        claim,
    )


def _plan(row: Known, wanted: list[Entry], *, epoch: int, removed: tuple[str, ...] = ()) -> Plan:
    base = row.version or 0
    version = _next(base, row.root_version or 1, row.reported, epoch=epoch)
    return Plan(row.id, version, wanted, base, row.claim, removed)


def _listed(row: Known) -> list[Entry]:
    return entries.decode(row.entries or "[]")


def _next(version: int, root_version: int, reported: str | None, *, epoch: int) -> int:
    """Return the version after one that was signed under a root, and after the device's own.

    Where a thief had pushed it, it begins anew with the key that replaced the stolen one.
    """
    begins_anew = root_version < epoch and version >= _PUSHED
    return 1 if begins_anew else ahead.next_version(version, reported)


def _chosen(by_id: Mapping[str, Known], wanted: Sequence[str] | None) -> list[str]:
    if wanted is not None and not wanted:
        raise RefusedError("`devices` is empty: name devices, or give null for all of them")
    if wanted is None:
        chosen = sorted(name for name, row in by_id.items() if row.decommissioned_ms is None)
    else:
        chosen = sorted(set(wanted))
        _check_known(chosen, by_id)
    if not chosen:
        raise RefusedError("there is no device to assign to; enrol one first")
    return chosen


def _check_known(chosen: Sequence[str], by_id: Mapping[str, Known]) -> None:
    for device_id in chosen:
        try:
            names.device_id(device_id)
        except ProtocolError as error:
            raise RefusedError(str(error)) from error
    unknown = [device_id for device_id in chosen if device_id not in by_id]
    if unknown:
        raise NotFoundError(f"there is no device {', '.join(unknown[:_LISTED])}")
    gone = [device_id for device_id in chosen if by_id[device_id].decommissioned_ms is not None]
    if gone:
        raise RefusedError(f"decommissioned: {', '.join(gone[:_LISTED])}")
