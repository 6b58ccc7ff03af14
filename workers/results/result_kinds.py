"""The kinds of result objects: one line a kind, in the order in which objects are stored.

A SEG is stored before the SR that refers to it. The place in this list is also the offset of the kind's Series Number.
A new kind is an encoder of its own, a line here, and its word in :data:`config.value_types.Kind`, so that a destination
can ask for it. It goes to the end, for a PACS may sort and hang by the series numbers of the others. The version of an
encoder is increased with every change of its output: the versions are part of the pipeline's digest, so that different
content never has an old UID.
"""

from __future__ import annotations

from dataclasses import dataclass

from db.records import NOTE


@dataclass(frozen=True, slots=True)
class ResultKind:
    """``name`` in settings and database, ``label`` on pages, ``series`` in Series Description (0008,103E).

    ``modality`` is that of its series (0008,0060). ``encoder``: the module of this package that makes it of an image,
    with its ``version``; empty for what is made of a study.
    """

    name: str
    label: str
    series: str
    modality: str
    encoder: str = ""
    version: int = 0


LUNGS = "lungs"
"""Both lungs of an image: anatomy, of which no report speaks."""

RESULT_KINDS = (
    ResultKind("seg", "Segmentation", "segmentation", "SEG", "segmentation", 3),
    ResultKind("sr", "Structured report", "report", "SR", "structured_report", 5),
    ResultKind("sc", "Overlay capture", "overlay", "OT", "secondary_capture", 3),
    ResultKind("gsps", "Presentation state", "outlines", "PR", "presentation_state", 3),
    ResultKind("summary", "Summary", "study summary", "SR"),
    ResultKind(NOTE, "Rejection note", "rejection note", "KO"),
    ResultKind(LUNGS, "Lung fields", "lung fields", "SEG", "lung_segmentation", 1),
)
STORING_ORDER = tuple(kind.name for kind in RESULT_KINDS)
LABELS = {kind.name: kind.label for kind in RESULT_KINDS}
MODALITIES = {kind.name: kind.modality for kind in RESULT_KINDS}
_SERIES = {kind.name: kind.series for kind in RESULT_KINDS}


def series_number(kind: str, base: int) -> int:
    """Series Number (0020,0011) of a kind of result."""
    return base + 1 + STORING_ORDER.index(kind)


def series_description(kind: str, revision: int = 1) -> str:
    """Series Description (0008,103E) of a kind of result, with the revision number from the second one on."""
    revised = f", revision {revision}" if revision > 1 else ""
    return f"Pleura AI {_SERIES[kind]}{revised} (research use)"
