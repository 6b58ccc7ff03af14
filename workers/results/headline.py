"""The sentence at the beginning of every report, which summarises its result. Pure functions.

``AI: lung opacity right lower zone, 82 %``, ``AI: no finding above its threshold`` or
``AI: not analysed, lateral view``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from models.radiograph.views import not_frontal, views_in
from workers.laterality import place_text, zones_of
from workers.results import codes
from workers.results.encoder import Analysis
from workers.results.finding_text import LUNGS_CUT, Statement, side_text

NOT_NEGATIVE = "This is not a negative result."
NOTHING_FOUND = "AI: no finding above its threshold"


@dataclass(frozen=True, slots=True)
class NamedFinding:
    """A finding as the sentence names it: its name, its side and zone (empty if unknown), its probability."""

    name: str
    place: str
    probability: float


def sentence_of(analysis: Analysis, all_statements: Sequence[Statement]) -> str:
    """The sentence about one image; ``all_statements`` are its statements."""
    not_analysed = analysis.prediction.not_analysed
    if not_analysed is not None:
        return not_analysed_sentence(not_analysed.code, not_analysed.sentence)
    if all(item.finding.probability is None for item in all_statements):
        return not_analysed_sentence("", all_statements[0].remark if all_statements else "")
    wholes = {item.finding.parent for item in all_statements if item.finding.present}
    present = [item for item in all_statements if item.finding.present]
    # A finding that is implied by another one, of whichever model, adds no information.
    named = [item for item in present if item.finding.label not in wholes]
    open_questions = _open_questions(all_statements)
    if analysis.prediction.lungs_cut:
        open_questions.append(LUNGS_CUT)
    return found_sentence((_named(analysis, item) for item in named), open_questions)


def _named(analysis: Analysis, statement: Statement) -> NamedFinding:
    finding = statement.finding
    place = place_text(side_text(analysis, finding), zones_of(finding))
    return NamedFinding(finding.label.replace("_", " "), place, finding.probability or 0.0)


def _open_questions(all_statements: Iterable[Statement]) -> list[str]:
    """Findings that the sentence must name as not assessed or not excluded."""
    undetermined = [item for item in all_statements if item.answer == codes.UNDETERMINED]
    return [
        f"{item.finding.label.replace('_', ' ')} not {'assessed' if item.finding.probability is None else 'excluded'}"
        for item in undetermined
    ]


def found_sentence(found: Iterable[NamedFinding], open_questions: Collection[str] = ()) -> str:
    """The sentence about present findings, the most probable first, or about none."""
    ordered = sorted(dict.fromkeys(found), key=lambda one: -one.probability)
    parts = [f"{' '.join(filter(None, (one.name, one.place)))}, {percent(one.probability)}" for one in ordered]
    first = f"AI: {'; '.join(parts)}" if parts else NOTHING_FOUND
    return "; ".join([first, *open_questions])


def not_analysed_sentence(code: str, reason: str) -> str:
    """The sentence about an image that was not analysed, with the code and the text of the reason."""
    return f"AI: not analysed, {short_reason(code, reason)}"


def short_reason(code: str, reason: str) -> str:
    """``reason`` (a sentence) in lower case without the full stop; for a view that is not frontal only its name."""
    view = not_frontal(views_in(reason)) if code == "not-frontal" else None
    if view is not None:
        return f"{view} view"
    text = reason.strip().rstrip(".") or "no reason is known"
    return text[:1].lower() + text[1:]


def percent(probability: float) -> str:
    """A probability in percent; never 0 % and never 100 %."""
    if probability < 0.01:
        return "less than 1 %"
    return "more than 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"
