"""What lists of a million devices are answered from: terms by tenant, ids as terms, parts of ids.

The index over parts of ids needs the extension ``pg_trgm`` of PostgreSQL, which the owner of a
database may make. Where that is refused, searches read ids in their order instead.
"""

import logging

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

logger = logging.getLogger(__name__)

_NUMBERS = sa.text("number IS NOT NULL")
_FEW = {
    "ix_device_gone": "decommissioned_ms IS NOT NULL",
    "ix_device_revoked": "revoked_ms IS NOT NULL",
    "ix_device_new": "last_seen_ms IS NULL",
    "ix_device_down": "runtime_up IS false",
    "ix_device_silent": "silent IS true",
}


def upgrade() -> None:
    """Make the change."""
    _terms()
    op.drop_index("ix_device_seen", "devices")
    op.drop_index("ix_device_runtime", "devices")
    op.add_column(
        "devices",
        sa.Column("silent", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.create_index(
        "ix_device_heard",
        "devices",
        ["last_seen_ms", "id"],
        postgresql_where=sa.text("silent IS false"),
        sqlite_where=sa.text("silent IS 0"),
    )
    op.create_index("ix_device_expires", "devices", ["tenant", "certificate_expires_ms"])
    for name, where in _FEW.items():
        # The words in which queries ask it.
        sqlite = where.replace("IS false", "IS 0").replace("IS true", "IS 1")
        op.create_index(
            name,
            "devices",
            ["tenant", "id"],
            postgresql_where=sa.text(where),
            sqlite_where=sa.text(sqlite),
        )
    if op.get_context().dialect.name == "postgresql":
        _search()


def _terms() -> None:
    op.drop_index("ix_term_value", "device_terms")
    op.drop_index("ix_term_number", "device_terms")
    tenant = sa.Column("tenant", sa.String(length=63), server_default="default", nullable=False)
    op.add_column("device_terms", tenant)
    op.execute(
        "UPDATE device_terms SET tenant = "
        "(SELECT tenant FROM devices WHERE devices.id = device_terms.device_id) "
        "WHERE device_id IN (SELECT id FROM devices WHERE tenant <> 'default')"
    )
    op.execute(
        "INSERT INTO device_terms (device_id, tenant, name, value) "
        "SELECT id, tenant, 'id', id FROM devices"
    )
    op.create_index(
        "ix_term_value", "device_terms", ["tenant", "name", "value", "device_id"], unique=True
    )
    op.create_index(
        "ix_term_number",
        "device_terms",
        ["tenant", "name", "number", "device_id"],
        postgresql_where=_NUMBERS,
        sqlite_where=_NUMBERS,
    )


def _search() -> None:
    connection = op.get_bind()
    try:
        with connection.begin_nested():
            connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS pg_trgm"))
            connection.execute(
                sa.text(
                    "CREATE INDEX ix_term_search ON device_terms USING gin (value gin_trgm_ops) "
                    "WHERE name = 'id'"
                )
            )
    except sa.exc.DBAPIError as error:
        logger.warning("search_index_not_made", extra={"reason": str(error.orig)})
