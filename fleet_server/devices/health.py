"""Whether a device is well: the one place that says so, for one device and, in SQL, for all.

The words exclude each other; the first that applies counts. Silence is never health: a device that
was not heard of for `SILENT_AFTER_MS` is offline, whatever the broker believes of its connection.
"""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, or_

from fleet_server.devices.tables import Device

SILENT_AFTER_MS = 15 * 60_000
"""Three times as long as an agent waits between two reports by default."""


class Health(StrEnum):
    """One word for a device."""

    DECOMMISSIONED = "decommissioned"
    REVOKED = "revoked"
    """Its key is refused: it needs a new claim."""
    EXPIRED = "expired"
    """Its certificate is no longer valid: it needs a new claim."""
    NEW = "new"
    """Enrolled and not heard of yet."""
    OFFLINE = "offline"
    DEGRADED = "degraded"
    """It talks, and says that its runtime does not run."""
    HEALTHY = "healthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What health is derived from; the columns of `Device` of the same names."""

    decommissioned_ms: int | None
    revoked_ms: int | None
    certificate_expires_ms: int
    last_seen_ms: int | None
    runtime_up: bool | None


def of(signs: Signs, *, now_ms: int) -> Health:
    """Derive the health of a device."""
    if signs.decommissioned_ms is not None:
        return Health.DECOMMISSIONED
    if signs.revoked_ms is not None:
        return Health.REVOKED
    if signs.certificate_expires_ms <= now_ms:
        return Health.EXPIRED
    if signs.last_seen_ms is None:
        return Health.NEW
    if signs.last_seen_ms < now_ms - SILENT_AFTER_MS:
        return Health.OFFLINE
    return Health.DEGRADED if signs.runtime_up is False else Health.HEALTHY


def condition(health: Health, *, now_ms: int) -> ColumnElement[bool]:
    """Return the condition on `Device` for a word; `of` in SQL."""
    enrolled = Device.decommissioned_ms.is_(None)
    in_service = and_(enrolled, Device.revoked_ms.is_(None))
    valid = and_(in_service, Device.certificate_expires_ms > now_ms)
    heard_since = now_ms - SILENT_AFTER_MS
    heard = and_(valid, Device.last_seen_ms >= heard_since)
    conditions = {
        Health.DECOMMISSIONED: Device.decommissioned_ms.is_not(None),
        Health.REVOKED: and_(enrolled, Device.revoked_ms.is_not(None)),
        Health.EXPIRED: and_(in_service, Device.certificate_expires_ms <= now_ms),
        Health.NEW: and_(valid, Device.last_seen_ms.is_(None)),
        Health.OFFLINE: and_(valid, Device.last_seen_ms < heard_since),
        Health.DEGRADED: and_(heard, Device.runtime_up.is_(False)),
        Health.HEALTHY: and_(heard, or_(Device.runtime_up.is_(None), Device.runtime_up.is_(True))),
    }
    return conditions[health]
