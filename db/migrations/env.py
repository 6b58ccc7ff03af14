"""How Alembic runs here: from :func:`db.engine.migrate`, on its connection and inside its transaction."""

from alembic import context
from sqlalchemy import Connection

import db.order_tables  # noqa: F401  (both put their tables into the metadata)
from db.tables import Base

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
