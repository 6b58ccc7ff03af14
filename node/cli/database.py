"""``pleura db``: the database for people who read it with their own tools."""

from __future__ import annotations

import click

from node.cli.common import database_opens, fail, settings_of, stop_on_signals


@click.group("db")
def database() -> None:
    """Describe the database, bring it to this version, compact it, and make a role for those who only read it."""


@database.command()
def schema() -> None:
    """Print tables, views, columns and states as Markdown: docs/database.md."""
    from db.reference import markdown

    click.echo(markdown(), nl=False)


@database.command("reader-role")
@click.argument("name", default="pleura_reader")
@click.option("--patients", is_flag=True, help="Also what names patients: the worklist, changes and the tables.")
def reader_role(name: str, patients: bool) -> None:
    """Print SQL that makes the PostgreSQL role NAME, which reads the views of reports and changes nothing.

    The owner of the database runs it, again after each upgrade. No role gets users, sessions, tokens or log-ins.
    """
    from db.reader_role import reader_role_sql

    try:
        click.echo(reader_role_sql(name, patients=patients), nl=False)
    except ValueError as error:
        fail(str(error), 2)


@database.command()
@click.pass_context
def migrate(context: click.Context) -> None:
    """Create the tables, or bring them to this version, and end. A database that is down is waited for.

    Every part does so when it starts; this does it before any part does, as the Helm chart's Job. An older version
    cannot use the database afterwards: stop the node and back up first.
    """
    with stop_on_signals() as stop:
        if not database_opens(settings_of(context), stop):
            fail("stopped before the database could be used")
    click.echo("The database is that of this version.")


@database.command("compact")
@click.pass_context
def compact_files(context: click.Context) -> None:
    """Make the database's files anew, so that nothing erased is left in their free space. For a quiet hour.

    SQLite: VACUUM; whoever writes waits, some seconds a gigabyte, and senders give up after half a minute. PostgreSQL:
    VACUUM FULL, which locks one table after the other; the user of the node must own them.
    """
    from db.compaction import CompactionError, compact
    from node.cli.worklist import open_engine

    try:
        compact(open_engine(settings_of(context)))
    except CompactionError as error:
        fail(f"the database is in use and stays as it is ({error}); try again")
    click.echo("The database's files are made anew.")
