"""The latest warnings of every part of the node, from the small files that they keep beside their locks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from workers.worker_id import WARNINGS

SHOWN = 40
_REMEMBERED = timedelta(days=7)
_LARGEST = 128 * 1024


@dataclass(frozen=True, slots=True)
class LoggedWarning:
    """A line that a part of the node logged, ``count`` times since ``first_at``. ``place``: host, part and number."""

    place: str
    level: str
    logger: str
    message: str
    first_at: datetime
    last_at: datetime
    count: int = 1


def recent_warnings(folder: Path, now: datetime) -> tuple[LoggedWarning, ...]:
    """The warnings of the last week in the store ``folder``, the same ones as one, the latest first."""
    found: dict[tuple[str, str, str], LoggedWarning] = {}
    for one in _lines(sorted(folder.glob(f"*{WARNINGS}*"), reverse=True)):
        key = (one.place, one.level, one.message)
        known = found.get(key, one)
        if one.last_at > now - _REMEMBERED:
            first, last = min(known.first_at, one.first_at), max(known.last_at, one.last_at)
            count = known.count + 1 if key in found else 1
            found[key] = replace(one, first_at=first, last_at=last, count=count)
    return tuple(sorted(found.values(), key=lambda one: one.last_at, reverse=True)[:SHOWN])


def _lines(paths: Iterable[Path]) -> Iterator[LoggedWarning]:
    """What can be read of these files: a process may just be writing, or have died while it did."""
    for path in paths:
        place = path.name.partition(WARNINGS)[0].partition("-")[2]
        try:
            with path.open(encoding="utf-8", errors="replace") as lines:
                text = lines.read(_LARGEST)
        except OSError:
            continue
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                at = datetime.fromisoformat(entry["time"])
                yield LoggedWarning(place, entry["level"], entry["logger"], entry["message"], at, at)
            except (ValueError, KeyError, TypeError):
                continue
