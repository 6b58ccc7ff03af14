"""Triage: priority and due time of a study, by a pure policy of what is known about it.

Three rules hold whatever the configuration says, and are property-tested:

* a further finding never lowers the priority, and never moves ``due_at`` back but for a study that only models in
  shadow had analysed: it was due as *not analysed*, and now it is analysed;
* the hospital's own priority is never lowered, and findings in shadow do not count;
* the wait is bounded: every study is due no later than a routine one, and one that could not be analysed is due
  earlier than a negative one, so that an algorithm that fails hides no study.

And three that keep notifications rare: a finding that the patient's last film had too counts one step less; findings of
a study that was sent long after it was acquired do not raise its priority; a study that comes back to the list because
of an image after its report is urgent, and its findings do not raise it further. docs/triage.md says why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from config.triage import Triage
from db.not_eligible_codes import NO_CHEST_RADIOGRAPH, NotEligibleCode
from db.records import FindingRecord, StudyFacts, TriageDecision
from db.states import Analysis, Priority
from workers.laterality import BOTH, NO_PLACE, UNKNOWN

COULD_NOT_TELL = "no model could tell"
_STEP_DOWN = {Priority.CRITICAL: Priority.URGENT, Priority.URGENT: Priority.ROUTINE, Priority.ROUTINE: Priority.ROUTINE}


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A finding that the rules name, the priority that it gives here, and the words for it."""

    finding: FindingRecord
    priority: Priority
    text: str


def decide(facts: StudyFacts, rules: Triage, now: datetime) -> TriageDecision:
    """Decide priority, due time and reason of a study from ``facts`` under ``rules``."""
    weighed = _weighed(facts, rules)
    floor = hospital_floor(facts)
    found = _highest(each.priority for each in weighed)
    analysis = analysis_of(facts)
    asked = _highest([floor, Priority.URGENT]) if facts.returned_at else floor
    minutes = minutes_until_due(asked, found, analysis, rules, chest=not shows_no_chest(facts))
    # A sender's or our own clock may have jumped; a study must not become due in a far future because of that.
    since = min(facts.returned_at or facts.first_received_at, now)
    return TriageDecision(
        priority=_highest([asked, found]),
        due_at=since + timedelta(minutes=minutes),
        analysis=analysis,
        reason=_reason(facts, weighed, floor, analysis, backfilled=is_backfilled(facts, rules)),
        notifications=()
        if facts.reported or facts.pulled
        else tuple(each.finding for each in weighed if each.priority is Priority.CRITICAL),
    )


def is_backfilled(facts: StudyFacts, rules: Triage) -> bool:
    """Whether the study was made so long before it was sent that its findings need no notification."""
    made_on = _day(facts.study_date)
    if not rules.backfill_days or made_on is None:
        return False
    return facts.first_received_at.date() - made_on > timedelta(days=rules.backfill_days)


def known_from(finding: FindingRecord, facts: StudyFacts, rules: Triage) -> date | None:
    """The day of the patient's film from which ``finding`` is known; None where it is new.

    Only the last film that was analysed for it counts: what went and came back is new, and so is the other side.
    """
    ours = _day(facts.study_date) or facts.first_received_at.date()
    days = [
        (_day(prior.study_date) or prior.received_at.date(), prior.received_at, prior.present, prior.side)
        for prior in facts.priors
        if prior.label == finding.label
    ]
    near = [each for each in days if abs(each[0] - ours) <= timedelta(days=rules.known_days)]
    if not rules.known_days or not near:
        return None
    day, _, present, side = max(near)
    # A model that shows no place cannot tell the other side; a place whose side nobody knows may be on the other one.
    same_side = finding.side == NO_PLACE or (finding.side != UNKNOWN and side in (NO_PLACE, BOTH, finding.side))
    return day if present and same_side else None


def hospital_floor(facts: StudyFacts) -> Priority:
    """What the hospital itself has asked for: STAT is urgent at least, nothing said is routine.

    Critical is left to findings and to a priority that the hospital sets itself: where half of all orders are STAT, a
    pneumothorax must still stand out.
    """
    asked = facts.hospital_priority or Priority.ROUTINE
    return _highest([asked, Priority.URGENT]) if facts.stat else asked


def analysis_of(facts: StudyFacts) -> Analysis:
    """What the analysis has come to: one analysed image makes a study analysed, unless another one failed.

    What only models in shadow (or switched off) have analysed is not analysed, nor is that of which no model could
    tell: it must not be taken for a negative.
    """
    if facts.jobs_waiting:
        return Analysis.WAITING
    if facts.jobs_failed:
        return Analysis.FAILED
    if facts.jobs_done > facts.images_not_analysed and not without_answer(facts.findings):
        return Analysis.ANALYSED
    return Analysis.NOT_ANALYSED


def only_in_shadow(findings: Collection[FindingRecord]) -> bool:
    """Whether only models in shadow have analysed a study: then the absence of findings has no meaning."""
    return bool(findings) and all(finding.shadow for finding in findings)


def without_answer(findings: Collection[FindingRecord]) -> bool:
    """Whether no finding that counts has an answer: models are in shadow, or a vendor's program could not tell."""
    return bool(findings) and not any(each.answered for each in findings)


def shows_no_chest(facts: StudyFacts) -> bool:
    """Whether the headers of all images show that they are no chest radiographs (a hip, a hand, a scanned page).

    Such a study needs no analysis. What only the pixels spoke against may be a chest all the same.
    """
    reasons = facts.not_eligible_reasons
    return not facts.jobs_done and bool(reasons) and all(each.code in NO_CHEST_RADIOGRAPH for each in reasons)


def minutes_until_due(
    floor: Priority, found: Priority, analysis: Analysis, rules: Triage, *, chest: bool = True
) -> float:
    """Minutes from the first image until a study is due: ``floor`` is what the hospital asks, ``found`` what we find.

    A higher priority is never due after a lower one, even where the configuration says so by mistake. What is no
    ``chest`` is due like any routine study: it could not be analysed, but no chest of its kind was missed.
    """
    limits = [rules.routine_minutes]
    if found is not Priority.ROUTINE:
        limits.append(rules.urgent_finding_minutes)
    if floor is not Priority.ROUTINE:
        limits.append(rules.urgent_minutes)
    if Priority.CRITICAL in (floor, found):
        limits.append(rules.critical_minutes)
    if chest and analysis in (Analysis.NOT_ANALYSED, Analysis.FAILED):
        limits.append(rules.not_analysed_minutes)
    return min(limits)


def _weighed(facts: StudyFacts, rules: Triage) -> list[_Weighed]:
    """Present findings that the rules name, outside of shadow, the most pressing first."""
    named = {*rules.critical, *rules.urgent}
    chosen = [finding for finding in facts.findings if finding.present and not finding.shadow]
    weighed = [_weigh(finding, facts, rules) for finding in chosen if finding.label in named]
    return sorted(
        weighed,
        key=lambda each: (-each.priority.rank, -(each.finding.probability or 0), each.finding.label),
    )


def _weigh(finding: FindingRecord, facts: StudyFacts, rules: Triage) -> _Weighed:
    priority, text = _priority_of(finding, rules), _describe(finding)
    known = known_from(finding, facts, rules)
    if known is not None:
        priority, text = _STEP_DOWN[priority], f"{text}, known since the film of {known.isoformat()}"
    if is_backfilled(facts, rules):
        priority = Priority.ROUTINE
    elif facts.returned_at and priority is Priority.CRITICAL:
        priority = Priority.URGENT
    return _Weighed(finding, priority, text)


def _priority_of(finding: FindingRecord, rules: Triage) -> Priority:
    if finding.label in rules.critical:
        return Priority.CRITICAL
    return Priority.URGENT if finding.label in rules.urgent else Priority.ROUTINE


def _highest(priorities: Iterable[Priority]) -> Priority:
    return max(priorities, key=lambda each: each.rank, default=Priority.ROUTINE)


def _day(value: str) -> date | None:
    """Read a DICOM date (VR DA, PS3.5 6.2); None where it is none."""
    try:
        return datetime.strptime(value.strip(), "%Y%m%d").date()
    except ValueError:
        return None


def _reason(
    facts: StudyFacts, weighed: list[_Weighed], floor: Priority, analysis: Analysis, *, backfilled: bool
) -> str:
    """Say in words what decided, most important first; no patient data."""
    parts = []
    if facts.returned_at:
        parts.append("an image came after the report")
    if facts.stat:
        parts.append("STAT")
    elif floor is not Priority.ROUTINE:
        parts.append(f"the hospital's own priority is {floor}")
    parts.extend(dict.fromkeys(each.text for each in weighed))
    made_on = _day(facts.study_date)
    if backfilled and made_on:
        parts.append(f"sent in later, the study is of {made_on.isoformat()}")
    if facts.pulled:
        why = "pulled only to compare a newer study with it" if facts.only_prior else "pulled by a backfill"
        parts.append(f"{why}, nobody is notified")
    parts.append(_describe_analysis(facts, analysis, bool(weighed)))
    return "; ".join(part for part in parts if part)


def _describe(finding: FindingRecord) -> str:
    name = finding.label.replace("_", " ")
    return f"{name} {finding.probability:.0%}" if finding.probability is not None else name


def _describe_analysis(facts: StudyFacts, analysis: Analysis, alarming: bool) -> str:
    match analysis:
        case Analysis.WAITING:
            return f"waiting for {_count(facts.jobs_waiting, 'image')}"
        case Analysis.FAILED:
            return f"the analysis of {_count(facts.jobs_failed, 'image')} failed"
        case Analysis.NOT_ANALYSED:
            if only_in_shadow(facts.findings):
                return "every model is in shadow or switched off"
            return COULD_NOT_TELL if without_answer(facts.findings) else _why_nothing(facts)
        case Analysis.ANALYSED:
            return "; ".join(part for part in ("" if alarming else "no urgent finding", _why_one(facts)) if part)


def _why_nothing(facts: StudyFacts) -> str:
    """Why no image was analysed, by the most telling reason: that of a lateral view or of a hand comes last."""
    reasons = sorted(
        facts.not_eligible_reasons,
        key=lambda each: (each.code in NO_CHEST_RADIOGRAPH, each.code == NotEligibleCode.NOT_FRONTAL),
    )
    first = reasons[0] if reasons else None
    text = "no chest radiograph" if shows_no_chest(facts) else "no image could be analysed"
    return text if first is None else f"{text}: {_without_stop(first.sentence)}"


def _why_one(facts: StudyFacts) -> str:
    """That images beside the analysed ones were tried in vain; one that was not to be tried is no loss."""
    if not facts.images_not_analysed or not facts.not_eligible_reasons:
        return ""
    why = _without_stop(facts.not_eligible_reasons[0].sentence)
    return f"{_count(facts.images_not_analysed, 'image')} not analysed: {why}"


def _without_stop(sentence: str) -> str:
    return sentence.strip().rstrip(".")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
