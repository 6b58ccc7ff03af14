"""The kinds of result objects: one line a kind, in the order in which objects are stored.

A SEG is stored before the SR that refers to it. The place in this list is also the offset of the kind's Series Number.
A new kind is an encoder of its own (:mod:`workers.results.encoders`), a line here, and its word in the setting
``kinds`` of a destination (:data:`config.settings.Kind`).
"""

from __future__ import annotations

from dataclasses import dataclass

from db.records import NOTE


@dataclass(frozen=True, slots=True)
class ResultKind:
    """``name`` in settings and database, ``label`` on pages, ``series`` in Series Description (0008,103E)."""

    name: str
    label: str
    series: str


RESULT_KINDS = (
    ResultKind("seg", "Segmentation", "segmentation"),
    ResultKind("sr", "Structured report", "report"),
    ResultKind("sc", "Overlay capture", "overlay"),
    ResultKind("gsps", "Presentation state", "outlines"),
    ResultKind("summary", "Summary", "study summary"),
    ResultKind(NOTE, "Rejection note", "rejection note"),
)
STORING_ORDER = tuple(kind.name for kind in RESULT_KINDS)
LABELS = {kind.name: kind.label for kind in RESULT_KINDS}
_SERIES = {kind.name: kind.series for kind in RESULT_KINDS}


def series_number(kind: str, base: int) -> int:
    """Series Number (0020,0011) of a kind of result."""
    return base + 1 + STORING_ORDER.index(kind)


def series_description(kind: str, revision: int = 1) -> str:
    """Series Description (0008,103E) of a kind of result, with the revision number from the second one on."""
    revised = f", revision {revision}" if revision > 1 else ""
    return f"Pleura AI {_SERIES[kind]}{revised} (research use)"
