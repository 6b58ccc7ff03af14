"""Models are switched by people, jobs tell what they measured, findings can be named by a received assessment."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
FINISHED = sa.text("finished_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("modes", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("measures", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("ran_on", sa.Text(), server_default="", nullable=False))
    op.create_index("ix_jobs_finished_at", "jobs", ["finished_at"], sqlite_where=FINISHED, postgresql_where=FINISHED)
    op.add_column("findings", sa.Column("tracking_uid", sa.String(length=64), server_default="", nullable=False))
    op.add_column("findings", sa.Column("similar", sa.JSON(), nullable=True))
    _create_switches()
    _create_assessments()


def downgrade() -> None:
    op.drop_table("assessments")
    op.drop_table("model_switches")
    op.drop_column("findings", "similar")
    op.drop_column("findings", "tracking_uid")
    op.drop_index("ix_jobs_finished_at", "jobs")
    op.drop_column("jobs", "ran_on")
    op.drop_column("jobs", "measures")
    op.drop_column("jobs", "modes")


def _create_switches() -> None:
    op.create_table(
        "model_switches",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=False),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_switches"),
    )
    op.create_index("ix_model_switches_model", "model_switches", ["model"])


def _create_assessments() -> None:
    op.create_table(
        "assessments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("referenced_uid", sa.String(length=64), nullable=False),
        sa.Column("tracking_uid", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("observer", sa.Text(), nullable=False),
        sa.Column("feedback_id", sa.Integer(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["feedback_id"], ["feedback.id"], name="fk_assessments_feedback_id"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_assessments_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_assessments"),
        sa.UniqueConstraint("sop_instance_uid", "ordinal", name="uq_assessments_sop_instance_uid_ordinal"),
    )
    op.create_index("ix_assessments_study_id", "assessments", ["study_id"])
