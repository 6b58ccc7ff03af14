"""An index of the unread studies alone, in the order in which they are due.

PostgreSQL does not take ``reported_at IS NULL`` for an equality, so an index that begins with ``reported_at`` gives it
no order; it walked all studies by ``due_at`` instead, and the first of those are the oldest, reported long ago.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UNREAD = sa.text("reported_at IS NULL")


def upgrade() -> None:
    op.drop_index("ix_studies_reported_at_due_at_id", "studies")
    op.create_index(
        "ix_studies_unread_due_at_id", "studies", ["due_at", "id"], sqlite_where=UNREAD, postgresql_where=UNREAD
    )


def downgrade() -> None:
    op.drop_index("ix_studies_unread_due_at_id", "studies")
    op.create_index("ix_studies_reported_at_due_at_id", "studies", ["reported_at", "due_at", "id"])
