"""Destinations have a circuit breaker and a limit of associations; what has been removed or taken is noted."""

import sqlalchemy as sa
from alembic import op

revision = "0105"
down_revision = "0102"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
ZERO = sa.text("0")
KEPT = sa.text("files_removed_at IS NULL")


def upgrade() -> None:
    op.add_column("destinations", sa.Column("failures", sa.Integer(), server_default=ZERO, nullable=False))
    op.add_column("destinations", sa.Column("open_until", MOMENT, nullable=True))
    op.create_table(
        "associations",
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("lease_until", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["destination"], ["destinations.name"], name="fk_associations_destination"),
        sa.PrimaryKeyConstraint("worker", name="pk_associations"),
    )
    op.add_column("deliveries", sa.Column("lost", sa.Integer(), server_default=ZERO, nullable=False))
    op.add_column("studies", sa.Column("files_removed_at", MOMENT, nullable=True))
    op.create_index("ix_studies_settled_at", "studies", ["completed_at"], sqlite_where=KEPT, postgresql_where=KEPT)
    op.add_column("notifications", sa.Column("taken_by", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("notifications", "taken_by")
    op.drop_index("ix_studies_settled_at", "studies")
    op.drop_column("studies", "files_removed_at")
    op.drop_column("deliveries", "lost")
    op.drop_table("associations")
    for name in ("open_until", "failures"):
        op.drop_column("destinations", name)
