"""Deliveries know when their destination is asked whether it holds the object, and how often it was."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
ASKED = sa.text("proof_due_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("proof_due_at", MOMENT, nullable=True))
    op.add_column("deliveries", sa.Column("proof_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("deliveries", sa.Column("proof_missing", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("deliveries", sa.Column("transaction_uid", sa.String(length=64), nullable=True))
    op.create_index(
        "ix_deliveries_proof_due_at", "deliveries", ["proof_due_at"], sqlite_where=ASKED, postgresql_where=ASKED
    )


def downgrade() -> None:
    op.drop_index("ix_deliveries_proof_due_at", "deliveries")
    for name in ("transaction_uid", "proof_missing", "proof_attempts", "proof_due_at"):
        op.drop_column("deliveries", name)
