"""Renewal and revocation of certificates; the log of changes for other processes."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    with op.batch_alter_table("devices", schema=None) as batch_op:
        batch_op.add_column(sa.Column("revoked_ms", sa.BigInteger(), nullable=True))
    op.create_table(
        "issued_certificates",
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("device_id", sa.String(length=63), nullable=False),
        sa.Column("public_key_sha256", sa.String(length=64), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"]),
        sa.PrimaryKeyConstraint("serial"),
    )
    with op.batch_alter_table("issued_certificates", schema=None) as batch_op:
        batch_op.create_index("ix_certificate_expires", ["expires_ms"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_issued_certificates_device_id"), ["device_id"], unique=False
        )
    op.execute(
        "INSERT INTO issued_certificates (serial, device_id, public_key_sha256, expires_ms) "
        "SELECT certificate_serial, id, public_key_sha256, certificate_expires_ms FROM devices"
    )
    op.create_table(
        "pending_certificates",
        sa.Column("device_id", sa.String(length=63), nullable=False),
        sa.Column("public_key_pem", sa.Text(), nullable=False),
        sa.Column("public_key_sha256", sa.String(length=64), nullable=False),
        sa.Column("certificate_pem", sa.Text(), nullable=False),
        sa.Column("certificate_serial", sa.String(length=40), nullable=False),
        sa.Column("certificate_expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("issued_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"]),
        sa.PrimaryKeyConstraint("device_id"),
    )
    counter = op.create_table(
        "device_change_counter",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.bulk_insert(counter, [{"id": 1, "number": 0}])
    op.create_table(
        "device_changes",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("device_id", sa.String(length=63), nullable=False),
        sa.PrimaryKeyConstraint("number", "device_id"),
    )


def downgrade() -> None:
    """Take it back."""
    op.drop_table("device_changes")
    op.drop_table("device_change_counter")
    op.drop_table("pending_certificates")
    op.drop_table("issued_certificates")
    with op.batch_alter_table("devices", schema=None) as batch_op:
        batch_op.drop_column("revoked_ms")
