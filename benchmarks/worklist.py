"""How long the first page of the worklist takes with a million studies, on SQLite and on PostgreSQL.

    python -m benchmarks.worklist [--studies 1000000] [--rounds 2000] [--database sqlite|postgresql|both]

Prints the query plan and p50 and p99 of ``Worklist.page(limit=50)``: all of it, from the call to the finished rows
with their findings and counts of deliveries. Also of a search in all studies, and of recording an instance into the
filled database (one durable transaction). PostgreSQL is the installed one, started for this run on a socket of its own,
with fsync on.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqlalchemy import Engine, event, insert, text

from benchmarks.figures import Figure, Measurement
from config.settings import Settings
from db.database import Database
from db.engine import connect, migrate, writing
from db.prepared_statements import Prepared
from db.queries.worklist import Filters, Order, Worklist, WorklistPart, page_statement
from db.records import ReceivedInstance
from db.search_words import study_texts, words_of
from db.states import Analysis, DeliveryState, JobState, Priority, StudyState
from db.tables import Delivery, Destination, Finding, Instance, Job, Result, Series, Study, StudyWord
from tests.commands import record_instance
from tests.postgres import PostgresServer, start
from workers.open_database import database_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CHUNK = 5000


@contextmanager
def prepared(kind: str) -> Iterator[Engine]:
    folder = Path(tempfile.mkdtemp(prefix="pleura-bench-"))
    process = start(folder) if kind == "postgresql" else None
    url = PostgresServer(folder).create_database() if process else f"sqlite:///{folder}/bench.sqlite"
    engine = connect(url)
    try:
        migrate(engine)
        yield engine
    finally:
        engine.dispose()
        if process:
            process.send_signal(signal.SIGQUIT)
            process.wait(60)
        shutil.rmtree(folder)


def fill(engine: Engine, studies: int) -> None:
    """One analysed image a study with three findings, two results and two deliveries.

    Every tenth study is open, and two in ten are unreported: the others have been reported.
    """
    # Only while filling: nothing waits for the disk, and references are not checked.
    fast = (
        ("PRAGMA synchronous=OFF", "PRAGMA cache_size=-400000")
        if engine.dialect.name == "sqlite"
        else ("SET synchronous_commit=off", "SET session_replication_role=replica")
    )
    with writing(engine).connect() as connection:
        for statement in fast:
            # On the driver's own connection: in a transaction SQLite ignores or refuses these.
            connection.connection.cursor().execute(statement)
            connection.connection.commit()
        connection.execute(insert(Destination), [{"name": "pacs"}])
        connection.commit()
        for first in range(1, studies + 1, CHUNK):
            numbers = range(first, min(first + CHUNK, studies + 1))
            for table, row in ROWS:
                connection.execute(insert(table), [one for number in numbers for one in row(number)])
            connection.commit()
        connection.invalidate()
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for name in ("studies", "series", "instances", "jobs", "findings", "results", "deliveries"):
                connection.execute(text(f"SELECT setval('{name}_id_seq', (SELECT max(id) FROM {name}))"))
            connection.execute(text("VACUUM ANALYZE"))


def _date(n: int) -> str:
    """A department of a thousand studies a day."""
    return f"{NOW - timedelta(days=n // 1000):%Y%m%d}"


def _study(n: int) -> list[dict[str, object]]:
    # Times are spread as by a hash, so that the order of rows is not the order in which they are due.
    received = NOW - timedelta(seconds=n * 2_654_435_761 % 100_000_000)
    texts = ("issuer_of_patient_id", "patient_birth_date", "patient_sex", "study_time", "reason")
    return [
        {
            "id": n,
            "study_instance_uid": f"1.2.826.0.1.3680043.8.498.{n}",
            "patient_id": f"P{n % 300_000}",
            "patient_name": f"Name{n}^Given",
            "accession_number": f"A{n}",
            "study_date": _date(n),
            "study_description": "CHEST PA",
            "state": StudyState.COMPLETE if n % 10 else StudyState.OPEN,
            "priority": list(Priority)[n % 3],
            "analysis": Analysis.ANALYSED,
            "due_at": received + timedelta(minutes=(15, 60, 480)[n % 3]),
            "first_received_at": received,
            "last_activity_at": received,
            "reported_at": None if n % 10 in (0, 1) else received,
            "images": 1,
            **dict.fromkeys(texts, ""),
        }
    ]


def _series(n: int) -> list[dict[str, object]]:
    return [{"id": n, "study_id": n, "series_instance_uid": f"1.3.{n}", "modality": "DX", **dict.fromkeys(
        ("body_part", "series_description"), "CHEST")}]  # fmt: skip


def _instance(n: int) -> list[dict[str, object]]:
    texts = ("sop_class_uid", "transfer_syntax_uid", "path", "patient_id", "view", "calling_ae_title")
    return [
        {
            "id": n,
            "study_id": n,
            "series_id": n,
            "sop_instance_uid": f"1.4.{n}",
            "digest": f"{n:064x}",
            "byte_count": 1,
            "state": "eligible",
            "received_at": NOW,
            **dict.fromkeys(texts, "1.2"),
        }
    ]


def _job(n: int) -> list[dict[str, object]]:
    return [
        {
            "id": n,
            "study_id": n,
            "instance_id": n,
            "pipeline": "f" * 64,
            "revision": 1,
            "state": JobState.DONE,
            "stat": False,
            "attempts": 1,
            "timings": {},
            "created_at": NOW,
            "queued_at": NOW,
        }
    ]


def _findings(n: int) -> list[dict[str, object]]:
    return [
        {
            "id": 3 * n + k,
            "study_id": n,
            "job_id": n,
            "revision": 1,
            "label": label,
            "model": "chest-classifier",
            "model_version": "1",
            "probability": 0.7,
            "threshold": 0.5,
            "present": (n + k) % 4 == 0,
            "shadow": False,
            "reason": "",
        }
        for k, label in enumerate(("pneumothorax", "lung_opacity", "effusion"))
    ]


def _results(n: int) -> list[dict[str, object]]:
    return [
        {
            "id": 2 * n + k,
            "study_id": n,
            "job_id": n,
            "revision": 1,
            "ordinal": k,
            "kind": kind,
            "sop_class_uid": "1.2",
            "sop_instance_uid": f"1.5.{2 * n + k}",
            "series_instance_uid": "1.6",
            "digest": f"{2 * n + k:064x}",
            "path": "results/x",
            "byte_count": 1,
            "patient_id": f"P{n % 300_000}",
            "created_at": NOW,
        }
        for k, kind in enumerate(("seg", "sr"))
    ]


def _deliveries(n: int) -> list[dict[str, object]]:
    return [
        {
            "id": 2 * n + k,
            "study_id": n,
            "result_id": 2 * n + k,
            "destination": "pacs",
            "state": DeliveryState.SENT if n % 10 else DeliveryState.PENDING,
            "attempts": 1,
            "created_at": NOW,
        }
        for k in range(2)
    ]


def _words(n: int) -> list[dict[str, object]]:
    return [{"word": word, "study_id": n} for word in words_of(study_texts(_study(n)[0]))]


ROWS = (
    (Study, _study),
    (StudyWord, _words),
    (Series, _series),
    (Instance, _instance),
    (Job, _job),
    (Finding, _findings),
    (Result, _results),
    (Delivery, _deliveries),
)


def plan(engine: Engine, unreported: bool) -> str:
    """The database's plan for the very statement that the worklist sends."""
    statement = page_statement(WorklistPart.UNREPORTED, Order.DUE, False, not unreported)
    sql = str(statement.compile(engine, compile_kwargs={"literal_binds": True}))
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN (COSTS OFF) "
    with engine.connect() as connection:
        return "\n".join(f"    {row[-1]}" for row in connection.exec_driver_sql(explain + sql))


def measure(work: Callable[[int], object], rounds: int) -> str:
    """Milliseconds at p50, p99 and the largest, after a tenth of the rounds to warm up.

    The CPU time of this process tells how much of that is work, where the machine does other things too.
    """
    walls, cpus = [], []
    for number in range(rounds + rounds // 10):
        wall, cpu = time.perf_counter(), time.process_time()
        work(number)
        walls.append((time.perf_counter() - wall) * 1000)
        cpus.append((time.process_time() - cpu) * 1000)
    return "; ".join(_spread(name, times[rounds // 10 :]) for name, times in (("wall", walls), ("own CPU", cpus)))


def _spread(name: str, times: list[float]) -> str:
    high = statistics.quantiles(times, n=100)[98]
    return f"{name} p50 {statistics.median(times):.2f} ms, p99 {high:.2f} ms, max {max(times):.2f} ms"


def page(database: Database, unreported: bool, _number: int) -> object:
    return Worklist(database.engine).page(only_open=not unreported)


def search(database: Database, search: str, studies: int, number: int) -> object:
    wanted = Filters(search.format(1 + number * 7919 % studies))
    return Worklist(database.engine).page(show=WorklistPart.ALL, filters=wanted)


def run(kind: str, studies: int, rounds: int) -> None:
    with prepared(kind) as engine:
        begin = time.perf_counter()
        fill(engine, studies)
        print(f"{kind}: {studies:,} studies, filled in {time.perf_counter() - begin:.0f} s", flush=True)
        database = database_of(Settings(), engine)
        for name, unreported in (("top 50 of the unreported", True), ("top 50 of the open", False)):
            print(f"  {name}:\n{plan(engine, unreported)}")
            print(f"    {measure(partial(page, database, unreported), rounds)}", flush=True)
        for name, words in (("a rare word", "name{}"), ("a common word", "chest"), ("both", "chest name{}")):
            print(f"  search for {name}: {measure(partial(search, database, words, studies), min(rounds, 500))}")

        def record(number: int) -> object:
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


def figures(kind: str, studies: int, rounds: int) -> list[Figure]:
    """Page and searches beside the driver alone."""
    with prepared(kind) as engine:
        fill(engine, studies)
        worklist, middle = Worklist(engine), studies // 2 + 1
        asked: dict[str, Callable[[], object]] = {
            "first page of the unreported": worklist.page,
            **{
                f"search by {name}": partial(worklist.page, show=WorklistPart.ALL, filters=filters)
                for name, filters in (
                    ("name", Filters(f"name{middle} given")),
                    ("UID", Filters(f"1.2.826.0.1.3680043.8.498.{middle}")),
                    ("date", Filters(date_from=_date(middle), date_to=_date(middle))),
                )
            },
        }
        found = []
        for name, work in asked.items():
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
    arguments = parser.parse_args()
    for kind in ("sqlite", "postgresql") if arguments.database == "both" else (arguments.database,):
        run(kind, arguments.studies, arguments.rounds)


if __name__ == "__main__":
    main()
