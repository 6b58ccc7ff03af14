"""Findings have a side, so that one on the other side is not taken for the one that is known."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("findings", sa.Column("side", sa.String(length=8), server_default="", nullable=False))


def downgrade() -> None:
    op.drop_column("findings", "side")
