"""A study may have several accession numbers; what a destination holds may be stale, until a rejection note says so."""

import sqlalchemy as sa
from alembic import op

revision = "0102"
down_revision = "0107"
branch_labels = None
depends_on = None

STALE = sa.text("stale_code <> '' AND note_id IS NULL")


def upgrade() -> None:
    op.create_table(
        "study_accessions",
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("studies.id"), primary_key=True),
        sa.Column("accession_number", sa.Text(), primary_key=True),
    )
    op.create_index("ix_study_accessions_accession_number", "study_accessions", ["accession_number"])
    op.add_column("deliveries", sa.Column("stale_code", sa.String(length=16), server_default="", nullable=False))
    op.add_column("deliveries", sa.Column("note_id", sa.Integer(), nullable=True))
    op.create_index("ix_deliveries_stale", "deliveries", ["study_id"], sqlite_where=STALE, postgresql_where=STALE)


def downgrade() -> None:
    op.drop_index("ix_deliveries_stale", "deliveries")
    op.drop_column("deliveries", "note_id")
    op.drop_column("deliveries", "stale_code")
    op.drop_table("study_accessions")
