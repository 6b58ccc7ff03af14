"""A database of each released revision, with work under way, is migrated by this version and gone on with, on both
systems. ``head`` is made now, and shows that the dumps hold all that there is.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from db.database import Database
from db.engine import _alembic_config, connect, migrate, schema_problem, writing
from db.tables import Base
from tests.db.revisions import work_under_way
from tests.db.revisions.dumps import RELEASED, dump, load, made, path_of
from tests.rules import NO_RULES

_NEXT = '''
"""A revision that nobody has released: a column with a value for every row that is there."""
from alembic import op
import sqlalchemy as sa

revision, down_revision, branch_labels, depends_on = "next", "{head}", None, None


def upgrade():
    op.add_column("jobs", sa.Column("tried_on", sa.String(), nullable=False, server_default=""))
    op.execute("UPDATE jobs SET tried_on = worker WHERE state = 'running'")
'''


@pytest.mark.parametrize("revision", ["head", *RELEASED])
def test_a_database_with_work_under_way_is_migrated_and_gone_on_with(
    revision: str, empty_url: str, second_url: str
) -> None:
    system = "sqlite" if empty_url.startswith("sqlite") else "postgresql"
    sql = made(second_url) if revision == "head" else path_of(revision, system).read_text(encoding="utf-8")
    load(sql, empty_url)
    engine = connect(empty_url)
    migrate(engine)
    assert schema_problem(engine) is None
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    if revision == "head":
        assert dump(empty_url) == sql or system == "postgresql", "the dump of SQLite is the same again"
    work_under_way.finish(Database(engine, NO_RULES))
    engine.dispose()


def test_a_later_revision_takes_what_is_under_way_with_it(empty_url: str, tmp_path: Path) -> None:
    """The way of every revision to come, tried with one that does not exist."""
    made(empty_url)
    config = _alembic_config()
    engine = connect(empty_url)
    with engine.connect() as connection:
        head = MigrationContext.configure(connection).get_current_revision()
    (tmp_path / "next.py").write_text(_NEXT.format(head=head))
    config.set_main_option("path_separator", "os")
    versions = Path(config.get_main_option("script_location") or "") / "versions"
    config.set_main_option("version_locations", f"{versions}:{tmp_path}")
    with writing(engine).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "next")
    assert "tried_on" in {column["name"] for column in inspect(engine).get_columns("jobs")}
    with engine.connect() as connection:
        kept = connection.execute(text("select count(*) from jobs where tried_on = 'w1'")).scalar_one()
    assert kept == 1, "the value of the job that was running"
    assert "newer version" in str(schema_problem(engine)), "and this version leaves such a database alone"
    work_under_way.finish(Database(engine, NO_RULES))
    engine.dispose()
