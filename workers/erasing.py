"""Carrying out what :mod:`db.erasures` lists: rows in one transaction, then files, then what is left between rows.

The scheduler's process does it in a thread of its own, and so does ``pleura erase``: each step may be done twice, by
whoever goes on where another one was killed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from config.settings import Settings
from db import erasures
from db.compaction import CompactionError, compact, is_left_to_a_person
from db.database import Database
from db.erasures import DATABASE, RESULTS, SET_ASIDE, FileToRemove, Waiting
from workers.clock import Clock
from workers.durable_files import is_unfinished, sync_folder
from workers.repeat import repeat_until
from workers.services.erasure import noted_first
from workers.store_files import AWAY, is_away, remove_unless_recorded

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_ROUNDS_OF_REST = 60
_OLD_SECONDS = 600.0
"""What no row names after so long belongs to no process that still works."""


@dataclass(frozen=True, slots=True)
class Eraser:
    """Erases what was asked for. ``folder`` is that of the store; ``noting`` are the destinations that get a rejection
    note first."""

    database: Database
    folder: Path
    clock: Clock
    noting: tuple[str, ...] = ()

    def once(self) -> int:
        """Erase every study that nothing keeps any more, and remove the files of those that are erased; how many of
        these cannot be removed now."""
        for study_id in self.database.read(erasures.requested):
            self.erase(study_id)
        return self.remove_files()

    def erase(self, study_id: int) -> Waiting | None:
        """Delete the rows of a study whose erasure was asked for; what it waits for, or None where they are gone."""
        waiting = self.database.write(erasures.erase, study_id, self.clock(), self.noting)
        if waiting is None:
            log.info("study %d was erased", study_id)
        return waiting

    def remove_files(self) -> int:
        """Remove the files of erased studies; how many of the next ones cannot be removed now."""
        while files := self.database.read(erasures.files_to_remove):
            if is_away(self.folder):
                log.error("the files of erased studies cannot be removed: %s", AWAY)
                return len(files)
            gone = [file.path for file in files if self._is_gone(file)]
            self.database.write(erasures.forget_files, gone)
            if len(gone) < len(files):
                return len(files) - len(gone)
        return 0

    def _is_gone(self, file: FileToRemove) -> bool:
        try:
            self._remove(file)
        except OSError as error:
            log.error("a file of an erased study cannot be removed: %s; tried again", error.strerror)
            return False
        except CompactionError as error:
            log.warning("the database keeps parts of an erased study in its free space (%s); tried again", error)
            return False
        return True

    def _remove(self, file: FileToRemove) -> None:
        if file.path == DATABASE:
            if not is_left_to_a_person(self.database.engine):
                compact(self.database.engine)
        elif file.path == RESULTS:
            with self.database.engine.connect() as connection:
                recorded = {self.folder / path for path in erasures.result_paths(connection)}
            before = time.time() - _OLD_SECONDS
            self._search(path for path in self._below(RESULTS) if path not in recorded and _is_older(path, before))
        elif file.path == SET_ASIDE:
            self._search(self._below(SET_ASIDE))
        else:
            remove_unless_recorded(self.folder, file.path, lambda: self.database.read(erasures.is_recorded, file))

    def _below(self, folder: str) -> Iterator[Path]:
        return (path for path in (self.folder / folder).rglob("*") if path.is_file())

    def _search(self, paths: Iterable[Path]) -> None:
        """Remove those of the files, which no row names, that are of erased studies, or half written."""
        for path in paths:
            if is_unfinished(path) or self.database.read(erasures.erased_among, [_study_of(path)]):
                path.unlink(missing_ok=True)
                sync_folder(path.parent)


def _is_older(path: Path, before: float) -> bool:
    try:
        return path.stat().st_mtime < before
    except FileNotFoundError:
        return False


def _study_of(path: Path) -> str:
    """The Study Instance UID that a file names; empty where it cannot be read."""
    try:
        header = dcmread(path, specific_tags=["StudyInstanceUID"], stop_before_pixels=True)
        return str(header.get("StudyInstanceUID", ""))
    except Exception:  # pydicom may raise anything on a malformed file
        return ""


def eraser_of(settings: Settings, database: Database, clock: Clock) -> Eraser:
    """The eraser of a node."""
    return Eraser(database, settings.store.folder, clock, noted_first(settings))


@dataclass(slots=True)
class Rounds:
    """Calls of :meth:`Eraser.once`: after one that leaves something undone the next ones rest, as the log says why."""

    eraser: Eraser
    rest: int = 0

    def once(self) -> None:
        """Do a round, or rest."""
        if self.rest:
            self.rest -= 1
        elif self.eraser.once():
            self.rest = _ROUNDS_OF_REST


def start_erasing(settings: Settings, database: Database, clock: Clock, stop: threading.Event) -> threading.Thread:
    """Start the thread that looks whether a person has asked to erase something."""
    once = Rounds(eraser_of(settings, database, clock)).once
    thread = threading.Thread(target=repeat_until, args=(stop, once, _LOOK_SECONDS), name="erasing", daemon=True)
    thread.start()
    return thread
