"""Which CA issued a device's certificate, and which fleet CA the device trusts."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.add_column("issued_certificates", sa.Column("issuer", sa.String(length=40), nullable=True))
    op.add_column("devices", sa.Column("fleet_ca", sa.String(length=40), nullable=True))
