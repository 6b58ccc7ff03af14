"""How Alembic runs here: from :func:`db.engine.migrate`, on its connection and inside its transaction.

Views and comments are no data: a change of the schema drops the views first, so that none is in its way, and makes
views and comments anew at the newest revision. A start without a change leaves them, and who may read them, alone.
"""

from alembic import context
from sqlalchemy import Connection

import db.audit_tables
import db.order_tables
import db.user_tables  # noqa: F401  (each puts its tables into the metadata)
from db.comments import write_comments
from db.tables import Base
from db.views import create_views, drop_views

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata)
wanted = context.get_revision_argument()
with context.begin_transaction():
    changes = context.get_context().get_current_revision() != wanted
    if changes:
        drop_views(connection)
    context.run_migrations()
    if changes and wanted == context.get_head_revision():
        create_views(connection)
        write_comments(connection)
