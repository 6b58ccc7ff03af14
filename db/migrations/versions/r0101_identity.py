"""An order keeps every identifier of its patient: the image may carry another one than the first."""

import sqlalchemy as sa
from alembic import op

revision = "0101"
down_revision = "0105"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("orders", sa.Column("other_identifiers", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("orders", "other_identifiers")
