"""How long the first page of the worklist takes with a million studies, on SQLite and on PostgreSQL.

    python -m benchmarks.worklist [--studies 1000000] [--rounds 2000] [--database sqlite|postgresql|both]
                                  [--keep FOLDER]

Prints the query plan and p50 and p99 of ``Worklist.page(limit=50)`` as the page of the worklist asks for it: all of it,
from the call to the finished rows with their findings and counts of deliveries. Also of searches in all studies, and of
recording an instance into the filled database (one durable transaction). PostgreSQL is the installed one, started for
this run on a socket of its own, with fsync on. Two databases of a million studies take 9 GB; a user ``postgres`` must
be able to reach FOLDER.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqlalchemy import Engine, event, text

from benchmarks.figures import Figure, Measurement
from config.garbage_collection import keep_what_is_loaded
from config.settings import Settings
from db.engine import connect, migrate, writing
from db.prepared_statements import Prepared
from db.queries.worklist import Order, Worklist, WorklistPart, page_statement
from db.queries.worklist_filters import Filters
from db.records import ReceivedInstance
from db.tables import Base
from tests.commands import record_instance
from tests.postgres import PostgresServer, start, start_again
from workers.open_database import database_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@contextmanager
def filled(kind: str, studies: int, keep: Path | None = None) -> Iterator[Engine]:
    """A database of so many studies; one in the folder ``keep`` is used again, for it takes minutes to fill."""
    folder = keep / f"{kind}-{studies}" if keep else Path(tempfile.mkdtemp(prefix="pleura-bench-"))
    done = folder / "filled"
    try:
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with _opened(kind, folder, start, *_FAST_SERVER) as engine:
                migrate(engine)
                fill(engine, studies)
            done.touch()
        with _opened(kind, folder, start_again) as engine:
            yield engine
    finally:
        if not keep:
            shutil.rmtree(folder)


# Only while filling: nothing waits for the disk, and nothing is written twice.
_FAST_SERVER = tuple(
    each
    for setting in ("fsync=off", "full_page_writes=off", "autovacuum=off", "max_wal_size=16GB", "shared_buffers=1GB")
    for each in ("-c", setting)
)


@contextmanager
def _opened(kind: str, folder: Path, start: Callable[..., subprocess.Popen[bytes]], *options: str) -> Iterator[Engine]:
    """The database in ``folder``, for PostgreSQL with a server of its own."""
    server = start(folder, *options) if kind == "postgresql" else None
    # The database that initdb makes is as good as another one.
    url = PostgresServer(folder).url("postgres") if server else f"sqlite:///{folder}/bench.sqlite"
    engine = connect(url, answer_seconds=3600)
    try:
        yield engine
    finally:
        engine.dispose()
        if server:
            server.send_signal(signal.SIGINT)
            server.wait(600)


def fill(engine: Engine, studies: int) -> None:
    """One analysed image a study with three findings, two results and two deliveries.

    Every tenth study is open, and two in ten are unreported: the others have been reported. The database makes the rows
    itself, which takes a tenth of the time that it takes to send them.
    """
    sqlite = engine.dialect.name == "sqlite"
    # References are not checked, and SQLite does not wait for the disk either.
    fast = (
        ("PRAGMA synchronous=OFF", "PRAGMA foreign_keys=OFF", "PRAGMA cache_size=-400000")
        if sqlite
        else ("SET session_replication_role=replica", "SET maintenance_work_mem='512MB'")
    )
    rows = tuple(_rows(engine.dialect.name))
    indexes = [index for name in dict(rows) for index in Base.metadata.tables[name].indexes]
    with writing(engine).connect() as connection:
        for statement in fast:
            # On the driver's own connection: in a transaction SQLite ignores or refuses these.
            connection.connection.cursor().execute(statement)
            connection.connection.commit()
        for index in indexes:  # made at the end, from rows in their order: less work than row by row
            index.drop(connection)
        connection.execute(text("INSERT INTO destinations (name) VALUES ('pacs')"))
        for name, (each, values) in rows:
            numbered = _NUMBERED.format(last=studies * each - 1, each=each)
            columns, made = ", ".join(values), ", ".join(values.values())
            statement = f"INSERT INTO {name} ({columns}) {numbered} SELECT {made} FROM numbered"
            connection.execute(text(statement))
            connection.commit()
        for index in indexes:
            index.create(connection)
        connection.commit()
        connection.invalidate()
    if not sqlite:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for name in ("studies", "series", "instances", "jobs", "findings", "results", "deliveries"):
                connection.execute(text(f"SELECT setval('{name}_id_seq', (SELECT max(id) FROM {name}))"))
            connection.execute(text("VACUUM ANALYZE"))


def _date(n: int) -> str:
    """A department of a thousand studies a day."""
    return f"{NOW - timedelta(days=n // 1000):%Y%m%d}"


_NUMBERED = (
    "WITH RECURSIVE counted(i) AS (SELECT CAST(0 AS BIGINT) UNION ALL SELECT i + 1 FROM counted WHERE i < {last}),"
    " numbered AS (SELECT i / {each} + 1 AS n, i % {each} AS k FROM counted)"
)
"""Each study's number ``n``, ``each`` times, with ``k`` from 0."""


def _rows(dialect: str) -> Iterator[tuple[str, tuple[int, dict[str, str]]]]:
    """For each table: how many rows a study has, and the columns as SQL of its number ``n`` and the row's ``k``."""
    begin = int(NOW.timestamp())
    # Times are spread as by a hash, so that the order of rows is not the order in which they are due.
    received = f"({begin} - n * 2654435761 % 100000000)"
    if dialect == "sqlite":
        time_of, date = "strftime('%Y-%m-%d %H:%M:%S.000000', {}, 'unixepoch')", "strftime('%Y%m%d', {}, 'unixepoch')"
    else:
        time_of, date = "to_timestamp({})", "to_char(to_timestamp({}) AT TIME ZONE 'UTC', 'YYYYMMDD')"
    came, now, day = time_of.format(received), time_of.format(begin), date.format(f"{begin} - n / 1000 * 86400")
    study = {"study_id": "n"}
    job = {**study, "job_id": "n", "revision": "1"}
    yield "studies", (1, {
        "id": "n",
        "study_instance_uid": "'1.2.826.0.1.3680043.8.498.' || n",
        "patient_id": "'P' || (n % 300000)",
        "patient_name": "'Name' || n || '^Given'",
        "accession_number": "'A' || n",
        "study_date": day,
        "study_description": "'CHEST PA'",
        "modalities": "'DX'",
        "state": "CASE WHEN n % 10 = 0 THEN 'open' ELSE 'complete' END",
        "priority": "CASE n % 3 WHEN 0 THEN 'critical' WHEN 1 THEN 'urgent' ELSE 'routine' END",
        "analysis": "'analysed'",
        "due_at": time_of.format(f"{received} + CASE n % 3 WHEN 0 THEN 900 WHEN 1 THEN 3600 ELSE 28800 END"),
        "first_received_at": came,
        "last_activity_at": came,
        "reported_at": f"CASE WHEN n % 10 > 1 THEN {came} END",
        "images": "1",
        **dict.fromkeys(("issuer_of_patient_id", "patient_birth_date", "patient_sex", "study_time", "reason"), "''"),
    })  # fmt: skip
    for word in ("'name' || n", "'given'", "'p' || (n % 300000)", "'a' || n", "'chest'", "'pa'", day):
        yield "study_words", (1, {**study, "word": word})
    yield "series", (1, {
        **study,
        "id": "n",
        "series_instance_uid": "'1.3.' || n",
        "modality": "'DX'",
        **dict.fromkeys(("body_part", "series_description"), "'CHEST'"),
    })  # fmt: skip
    texts = ("sop_class_uid", "transfer_syntax_uid", "path", "patient_id", "view", "calling_ae_title")
    yield "instances", (1, {
        **study,
        "id": "n",
        "series_id": "n",
        "sop_instance_uid": "'1.4.' || n",
        "digest": "'digest' || n",
        "byte_count": "1",
        "state": "'eligible'",
        "received_at": now,
        **dict.fromkeys(texts, "'1.2'"),
    })  # fmt: skip
    yield "jobs", (1, {
        **study,
        "id": "n",
        "instance_id": "n",
        "pipeline": f"'{'f' * 64}'",
        "revision": "1",
        "state": "'done'",
        "stat": "false",
        "attempts": "1",
        "timings": "'{}'",
        "created_at": now,
        "queued_at": now,
    })  # fmt: skip
    yield "findings", (3, {
        **job,
        "id": "3 * n + k",
        "label": "CASE k WHEN 0 THEN 'pneumothorax' WHEN 1 THEN 'lung_opacity' ELSE 'effusion' END",
        "model": "'chest-classifier'",
        "model_version": "'1'",
        "probability": "0.7",
        "threshold": "0.5",
        "present": "(n + k) % 4 = 0",
        "shadow": "false",
        "reason": "''",
    })  # fmt: skip
    yield "results", (2, {
        **job,
        "id": "2 * n + k",
        "ordinal": "k",
        "kind": "CASE k WHEN 0 THEN 'seg' ELSE 'sr' END",
        "sop_class_uid": "'1.2'",
        "sop_instance_uid": "'1.5.' || (2 * n + k)",
        "series_instance_uid": "'1.6'",
        "digest": "'digest' || (2 * n + k)",
        "path": "'results/x'",
        "byte_count": "1",
        "patient_id": "'P' || (n % 300000)",
        "created_at": now,
    })  # fmt: skip
    yield "deliveries", (2, {
        **study,
        "id": "2 * n + k",
        "result_id": "2 * n + k",
        "destination": "'pacs'",
        "state": "CASE WHEN n % 10 = 0 THEN 'pending' ELSE 'sent' END",
        "attempts": "1",
        "created_at": now,
    })  # fmt: skip


def plan(engine: Engine, unreported: bool) -> str:
    """How the database finds the studies of a page."""
    statement = page_statement(WorklistPart.UNREPORTED, Order.DUE, False, not unreported)
    sql = str(statement.compile(engine, compile_kwargs={"literal_binds": True}))
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN (COSTS OFF) "
    with engine.connect() as connection:
        return "\n".join(f"    {row[-1]}" for row in connection.exec_driver_sql(explain + sql))


def measure(work: Callable[[], object], rounds: int) -> str:
    """Milliseconds at p50, p99 and the largest, after a tenth of the rounds to warm up.

    The CPU time of this process tells how much of that is work, where the machine does other things too.
    """
    walls, cpus = [], []
    for _ in range(rounds + rounds // 10):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append((time.perf_counter() - wall) * 1000)
        cpus.append((time.process_time() - cpu) * 1000)
    return "; ".join(_spread(name, times[rounds // 10 :]) for name, times in (("wall", walls), ("own CPU", cpus)))


def _spread(name: str, times: list[float]) -> str:
    high = statistics.quantiles(times, n=100)[98]
    return f"{name} p50 {statistics.median(times):.2f} ms, p99 {high:.2f} ms, max {max(times):.2f} ms"


def pages(worklist: Worklist, studies: int) -> dict[str, Callable[[], object]]:
    """What is asked, by name."""
    middle = studies // 2 + 1
    searches = {
        "name": Filters(f"name{middle} given"),
        "UID": Filters(f"1.2.826.0.1.3680043.8.498.{middle}"),
        "date": Filters(date_from=_date(middle), date_to=_date(middle)),
    }
    listed = partial(worklist.page, as_listed=True)  # as the page asks
    asked: dict[str, Callable[[], object]] = {"first page of the unreported": listed}
    for name, filters in searches.items():
        asked[f"search by {name}"] = partial(listed, show=WorklistPart.ALL, filters=filters)
    return asked


def run(kind: str, studies: int, rounds: int, keep: Path | None) -> None:
    with filled(kind, studies, keep) as engine:
        print(f"{kind}: {studies:,} studies", flush=True)
        for name, unreported in (("unreported", True), ("open", False)):
            print(f"  plan of the first page of the {name}:\n{plan(engine, unreported)}")
        worklist, database = Worklist(engine), database_of(Settings(), engine)
        keep_what_is_loaded()  # as the page does
        asked = pages(worklist, studies)
        asked["first page of the open"] = partial(worklist.page, only_open=True, as_listed=True)
        common = Filters("chest given")
        asked["search by words that all studies have"] = partial(
            worklist.page, show=WorklistPart.ALL, filters=common, as_listed=True
        )
        for name, work in asked.items():
            print(f"  {name}: {measure(work, rounds)}", flush=True)
        numbers = count(time.time_ns())  # a database that was kept has those of earlier runs

        def record() -> object:
            number = next(numbers)
            uids = (f"9.1.{number}", "1.2", "1.2.840.10008.1.2.1", f"{number:064x}", "path", 1, f"9.2.{number}", "9.3")
            return record_instance(database, ReceivedInstance(*uids), None, "f" * 64, NOW)

        print(f"  record_instance (durable, a new study each): {measure(record, min(rounds, 1000))}", flush=True)


def bare_driver(engine: Engine, work: Callable[[], object]) -> Callable[[], object]:
    """The statements of ``work``, sent again by the database's driver alone, to the last row."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_rest: object) -> None:
        if not statement.startswith("BEGIN"):
            sent.append((statement, values))

    def note_prepared(prepared: Prepared, on: Any, compiled: Any, *several: Any) -> Any:
        sent.extend((compiled.text, compiled.parameters(values)) for values in several)
        return execute(prepared, on, compiled, *several)

    execute = Prepared._execute
    event.listen(engine, "before_cursor_execute", note)
    with patch.object(Prepared, "_execute", note_prepared):
        work()
    event.remove(engine, "before_cursor_execute", note)
    connection = engine.raw_connection()

    def again() -> None:
        for statement, values in sent:
            cursor = connection.cursor()
            cursor.execute(statement, values)
            cursor.fetchall()
            cursor.close()

    return again


def in_turn(mine: Callable[[], object], theirs: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    """Milliseconds of both in every round."""
    found = []
    for number in range(rounds + rounds // 10):
        times = {}
        for work in (mine, theirs) if number % 2 else (theirs, mine):
            began = time.perf_counter()
            work()
            times[work] = (time.perf_counter() - began) * 1000
        found.append((times[mine], times[theirs]))
    return found[rounds // 10 :]


def figures(kind: str, studies: int, rounds: int, keep: Path | None = None) -> list[Figure]:
    """Page and searches beside the driver alone."""
    found = []
    with filled(kind, studies, keep) as engine:
        keep_what_is_loaded()  # as the page does
        for name, work in pages(Worklist(engine), studies).items():
            pairs = in_turn(work, bare_driver(engine, work), rounds)
            high = [statistics.quantiles(each, n=100)[98] for each in zip(*pairs, strict=True)]
            what = f"worklist of {studies:,} studies, {kind}, {name}, 99th percentile"
            ratios = statistics.quantiles([other / own for own, other in pairs], n=20)
            ratio = (statistics.median(ratios), ratios[0], ratios[-1])
            found.append(Figure(what, "ms", high[0], "the same statements by the driver", high[1], ratio))
    return found


def measurement(studies: int, rounds: int) -> Measurement:
    """Both databases."""
    before = os.getloadavg()[0]
    found = tuple(figure for kind in ("sqlite", "postgresql") for figure in figures(kind, studies, rounds))
    command = f"python -P -m benchmarks.worklist --studies {studies} --rounds {rounds}"
    return Measurement("worklist", command, found, rounds, (before, os.getloadavg()[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where filled databases are kept and used again")
    arguments = parser.parse_args()
    keep = arguments.keep.resolve() if arguments.keep else None
    for kind in ("sqlite", "postgresql") if arguments.database == "both" else (arguments.database,):
        run(kind, arguments.studies, arguments.rounds, keep)


if __name__ == "__main__":
    main()
