"""A study may have several accession numbers, and is found by each of them."""

import sqlalchemy as sa
from alembic import op

revision = "0102"
down_revision = "0107"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "study_accessions",
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("studies.id"), primary_key=True),
        sa.Column("accession_number", sa.Text(), primary_key=True),
    )
    op.create_index("ix_study_accessions_accession_number", "study_accessions", ["accession_number"])


def downgrade() -> None:
    op.drop_table("study_accessions")
