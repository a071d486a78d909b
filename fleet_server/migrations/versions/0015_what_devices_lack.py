"""What lists find by what devices lack, and by the words of their ids: two more terms for each.

All devices have to be read for it, some thousand at a time: about a minute for a million of them.
"""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_AT_ONCE = 5000
_TERMS = sa.table(
    "device_terms",
    sa.column("device_id", sa.String()),
    sa.column("tenant", sa.String()),
    sa.column("name", sa.String()),
    sa.column("value", sa.String()),
)
_DEVICES = sa.table("devices", sa.column("id", sa.String()), sa.column("tenant", sa.String()))
_IDS = sa.select(_DEVICES.c.id).where(_DEVICES.c.id > sa.bindparam("after")).order_by(_DEVICES.c.id)
_NAMES = (
    sa.select(_DEVICES.c.id, _DEVICES.c.tenant, sa.func.aggregate_strings(_TERMS.c.name, ","))
    .outerjoin_from(
        _DEVICES, _TERMS, (_TERMS.c.device_id == _DEVICES.c.id) & (_TERMS.c.name != "id")
    )
    .where(_DEVICES.c.id > sa.bindparam("after"), _DEVICES.c.id <= sa.bindparam("last"))
    .group_by(_DEVICES.c.id, _DEVICES.c.tenant)
)


def upgrade() -> None:
    """Make the change."""
    connection = op.get_bind()
    after, some = "", _IDS.limit(_AT_ONCE)
    while ids := connection.scalars(some, {"after": after}).all():
        rows = connection.execute(_NAMES, {"after": after, "last": ids[-1]})
        connection.execute(sa.insert(_TERMS), [term for row in rows for term in _terms(*row)])
        after = ids[-1]


def downgrade() -> None:
    """Take it back."""
    op.execute(sa.delete(_TERMS).where(_TERMS.c.name.in_(("~names", "~stem"))))


def _terms(device_id: str, tenant: str, names: str | None) -> list[dict[str, str]]:
    distinct = sorted(set(names.split(","))) if names else []
    key = hashlib.sha256(",".join(distinct).encode()).hexdigest()[:32]
    values = {"~names": key, "~stem": device_id.rstrip("0123456789")}
    return [
        {"device_id": device_id, "tenant": tenant, "name": name, "value": value}
        for name, value in values.items()
    ]
