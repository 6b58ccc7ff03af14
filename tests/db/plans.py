"""How a database would find a page of the worklist."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine

from db.queries import worklist
from db.queries.worklist import Order, WorklistPart
from db.queries.worklist_filters import Filters, asked


def page_plan(engine: Engine, show: WorklistPart, filters: Filters, order: Order = Order.DUE) -> str:
    """The plan of the very statement of a page, as with many rows: PostgreSQL may not read a whole table."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET enable_seqscan = off")
        names, words, values = asked(connection, filters)
        sent = worklist._prepared_page(show, order, False, False, names, words, 50, 0, True)._for(engine.dialect)
        given: Any = sent.parameters(values)
        explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
        found = connection.exec_driver_sql(explain + sent.text, tuple(given) if sent.positional else given)
        return "\n".join(str(row[-1]) for row in found)
