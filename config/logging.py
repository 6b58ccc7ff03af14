"""Log lines: one format for people and one for machines, the job in every line, and no patient in any.

A line names rows of the database (``job 12``, ``instance 7``), never a patient, an accession number or a UID: whoever
may read the log need not be allowed to read the worklist.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from config.settings import Logs

_job: ContextVar[int | None] = ContextVar("job", default=None)
# Libraries that would put data sets, identifiers or every message of an association into the log.
_CHATTY = (
    "kombu",
    "amqp",
    "celery.bootsteps",
    "celery.worker.strategy",
    "alembic",
)


_OURS = ("pleura", "node", "workers", "models", "db", "config")
_LONGEST_MESSAGE = 500

# Their messages and warnings quote what they read.
_QUOTING = ("pydicom", "highdicom")


def escaped(text: str) -> str:
    """Untrusted text as one line of printable characters."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def quieten_libraries() -> None:
    """Keep values of headers, which may name patients, out of warnings and logs of this process."""
    for name in _QUOTING:
        warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pynetdicom(\.|$)")
    logging.getLogger("pynetdicom").setLevel(logging.ERROR)
    logging.getLogger("pynetdicom.transport").addFilter(_is_news)


_TOLD_BY_US = ("Association request failed", "TCP Initialisation Error")


def _is_news(record: logging.LogRecord) -> bool:
    """Whether nobody else tells it: that a peer cannot be reached is a line of ours, with its consequence."""
    return not record.getMessage().startswith(_TOLD_BY_US)


def silence_libraries() -> None:
    """Keep a command that answers at once free of what libraries write: its own sentence says what is wrong."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name in (*_QUOTING, "pynetdicom", "kombu", "amqp", "absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def job_in_log(job_id: int) -> Iterator[None]:
    """Name ``job_id`` in every line that is logged inside the block."""
    token = _job.set(job_id)
    try:
        yield
    finally:
        _job.reset(token)


class _JobFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.job = _job.get()
        return True


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO worker job=12 message``."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one line; an exception follows on lines of its own."""
        job = getattr(record, "job", None)
        head = f"{_time(record)} {record.levelname:<7} {record.name}" + (f" job={job}" if job is not None else "")
        text = f"{head} {escaped(_message(record))}"
        return text if not record.exc_info else f"{text}\n{_indented(self.formatException(record.exc_info))}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and job and exception where there are any."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one line."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        if getattr(record, "job", None) is not None:
            entry["job"] = getattr(record, "job", None)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def _message(record: logging.LogRecord) -> str:
    """The text of a line. Celery breaks its own into several, which would be seen as an escaped line break here."""
    text = record.getMessage()
    return " ".join(text.split()) if record.name.partition(".")[0] == "celery" else text


def _indented(text: str) -> str:
    """Indented lines, so that text that an exception quotes cannot pass for a line of the log."""
    return "\n".join(f"  {escaped(line)}" for line in text.splitlines())


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class RecentWarnings(RotatingFileHandler):
    """The latest warnings of this process in a small file, for the system page: a line each, and no traceback.

    Only our own lines: nobody can promise that a library names no patient. Two files of 64 KiB at most. A disk that is
    full must not make more lines.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=64 * 1024, backupCount=1, encoding="utf-8", delay=True)
        self.setLevel(logging.WARNING)
        self.addFilter(lambda record: record.name.partition(".")[0] in _OURS)

    def format(self, record: logging.LogRecord) -> str:
        """Format one line of JSON."""
        message = escaped(record.getMessage())[:_LONGEST_MESSAGE]
        entry = {"time": _time(record), "level": record.levelname, "logger": record.name, "message": message}
        return json.dumps(entry, ensure_ascii=False)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Say nothing: the line is in the log of the process."""


def keep_warnings(path: Path) -> RecentWarnings:
    """Keep the warnings of this process in ``path``, too, from now on."""
    handler = RecentWarnings(path)
    logging.getLogger().addHandler(handler)
    return handler


@contextmanager
def keeping_warnings(path: Path) -> Iterator[None]:
    """The same while something runs."""
    handler = keep_warnings(path)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def configure(logs: Logs) -> None:
    """Send the log of this process to standard error as ``logs`` says. Called once, by a composition root."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if logs.format == "json" else TextFormatter())
    handler.addFilter(_JobFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler, *(one for one in root.handlers if isinstance(one, RecentWarnings))]
    root.setLevel(logs.level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    quieten_libraries()
    logging.captureWarnings(True)
