"""`pleura db migrate`: what the Job of the Helm chart runs before the parts of a new version start."""

from __future__ import annotations

import os
from pathlib import Path

from click.testing import CliRunner
from sqlalchemy import text

from config.settings import load
from db.engine import connect, schema_problem, writing
from node.cli.main import cli


def test_it_makes_the_tables_twice_without_harm_and_leaves_a_newer_database_alone(tmp_path: Path) -> None:
    file = tmp_path / "pleura.toml"
    file.write_text(f'[store]\nfolder = "{tmp_path / "var"}"\n', encoding="utf-8")
    engine = connect(load(file).database_url)
    for _ in range(2):
        done = CliRunner().invoke(cli, ["--config", str(file), "db", "migrate"])
        assert (done.exit_code, done.stdout) == (0, "The database is that of this version.\n"), done.stderr
        assert schema_problem(engine) is None
    with writing(engine).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'r9999'"))
    done = CliRunner().invoke(cli, ["--config", str(file), "db", "migrate"])
    assert done.exit_code == os.EX_CONFIG
    assert "which a newer version of Pleura has made" in done.stderr
    engine.dispose()
