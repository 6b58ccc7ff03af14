"""The one sentence that stands first in every report: what a reader must know who reads nothing else. Pure.

``AI: lung opacity right, 82 %``, ``AI: no finding above its threshold`` or ``AI: not analysed, lateral view``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from models.radiograph.views import not_frontal, views_in
from workers.results import codes
from workers.results.encoder import Analysis
from workers.results.finding_text import Statement, side_code

NOT_NEGATIVE = "This is not a negative result."
NOTHING_FOUND = "AI: no finding above its threshold"


@dataclass(frozen=True, slots=True)
class Told:
    """A finding as the sentence names it: its words, its side (empty where it is not known), its probability."""

    words: str
    side: str
    probability: float


def sentence_of(analysis: Analysis, said: Sequence[Statement]) -> str:
    """The sentence about one image; ``said`` are its statements."""
    not_analysed = analysis.prediction.not_analysed
    if not_analysed is not None:
        return not_analysed_sentence(not_analysed.code, not_analysed.sentence)
    if all(item.finding.probability is None for item in said):
        return not_analysed_sentence("", said[0].remark if said else "")
    wholes = {(item.finding.model, item.finding.parent) for item in said if item.finding.present}
    present = [item for item in said if item.finding.present]
    # What only follows from another finding tells a reader nothing that the other one does not.
    named = [item for item in present if (item.finding.model, item.finding.label) not in wholes]
    return found_sentence((_told(analysis, item) for item in named), _open_questions(said))


def _told(analysis: Analysis, statement: Statement) -> Told:
    side = side_code(analysis, statement.finding)
    words = statement.finding.label.replace("_", " ")
    return Told(words, side.meaning.lower() if side is not None else "", statement.finding.probability or 0.0)


def _open_questions(said: Iterable[Statement]) -> list[str]:
    """What a negative sentence must not be read as."""
    undetermined = [item for item in said if item.answer == codes.UNDETERMINED]
    return [
        f"{item.finding.label.replace('_', ' ')} not {'assessed' if item.finding.probability is None else 'excluded'}"
        for item in undetermined
    ]


def found_sentence(found: Iterable[Told], open_questions: Collection[str] = ()) -> str:
    """The sentence about findings that are present, the most probable first, or about none."""
    ordered = sorted(dict.fromkeys(found), key=lambda told: -told.probability)
    parts = [f"{' '.join(filter(None, (told.words, told.side)))}, {percent(told.probability)}" for told in ordered]
    first = f"AI: {'; '.join(parts)}" if parts else NOTHING_FOUND
    return "; ".join([first, *open_questions])


def not_analysed_sentence(code: str, reason: str) -> str:
    """The sentence about an image that was not analysed; ``code`` and ``reason`` are those of its reason for not
    eligible.
    """
    return f"AI: not analysed, {short_reason(code, reason)}"


def short_reason(code: str, reason: str) -> str:
    """``reason`` (a sentence) as it goes on after a comma; a view that is not frontal by its name."""
    view = not_frontal(views_in(reason)) if code == "not-frontal" else None
    if view is not None:
        return f"{view} view"
    words = reason.strip().rstrip(".") or "no reason is known"
    return words[:1].lower() + words[1:]


def percent(probability: float) -> str:
    """A probability as people say it; never 0 % and never 100 %."""
    if probability < 0.01:
        return "less than 1 %"
    return "more than 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"
