"""Which study is read next: a pure policy of what is known about a study.

Three rules hold whatever the configuration says, and are property-tested:

* a further finding never lowers the priority and never moves ``due_at`` back;
* nothing of ours lowers what the hospital has asked for, and a finding in shadow does not exist here;
* the wait is bounded: every study is due no later than a routine one, and one that could not be analysed is due
  earlier than a negative one, so that a broken algorithm hides nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from config.settings import Triage
from db.records import Analysis, FindingRecord, Priority, StudyFacts, TriageDecision

_RANK = {Priority.ROUTINE: 0, Priority.URGENT: 1, Priority.CRITICAL: 2}


def decide(facts: StudyFacts, rules: Triage, now: datetime) -> TriageDecision:
    """Decide priority, due time and reason of a study from ``facts`` under ``rules``."""
    alarming = _alarming(facts.findings, rules)
    floor = hospital_floor(facts)
    found = _highest(_priority_of(finding, rules) for finding in alarming)
    priority = _highest([floor, found])
    analysis = analysis_of(facts)
    minutes = minutes_until_due(floor, found, analysis, rules)
    # A sender's or our own clock may have jumped; a study must not become due in a far future because of that.
    since = min(facts.first_received_at, now)
    return TriageDecision(
        priority=priority,
        due_at=since + timedelta(minutes=minutes),
        analysis=analysis,
        reason=_reason(facts, alarming, floor, analysis),
        alarms=tuple(finding for finding in alarming if _priority_of(finding, rules) is Priority.CRITICAL),
    )


def hospital_floor(facts: StudyFacts) -> Priority:
    """What the hospital itself has asked for: STAT is urgent at least, nothing said is routine.

    Critical is left to findings and to a priority that the hospital sets itself: where half of all orders are STAT, a
    pneumothorax must still stand out.
    """
    asked = facts.hospital_priority or Priority.ROUTINE
    return _highest([asked, Priority.URGENT]) if facts.stat else asked


def analysis_of(facts: StudyFacts) -> Analysis:
    """What the analysis has come to: one analysed image makes a study analysed, unless another one failed."""
    if facts.jobs_waiting:
        return Analysis.WAITING
    if facts.jobs_failed:
        return Analysis.FAILED
    if facts.jobs_done > facts.images_unfit:
        return Analysis.ANALYSED
    return Analysis.NOT_ANALYSED


def minutes_until_due(floor: Priority, found: Priority, analysis: Analysis, rules: Triage) -> float:
    """Minutes from the first image until a study is due: ``floor`` is what the hospital asks, ``found`` what we find.

    A higher priority is never due after a lower one, even where the configuration says so by mistake.
    """
    limits = [rules.routine_minutes]
    if found is not Priority.ROUTINE:
        limits.append(rules.urgent_finding_minutes)
    if floor is not Priority.ROUTINE:
        limits.append(rules.urgent_minutes)
    if Priority.CRITICAL in (floor, found):
        limits.append(rules.critical_minutes)
    if analysis in (Analysis.NOT_ANALYSED, Analysis.FAILED):
        limits.append(rules.not_analysed_minutes)
    return min(limits)


def _alarming(findings: Iterable[FindingRecord], rules: Triage) -> list[FindingRecord]:
    """Present findings that the rules name, outside of shadow, the most pressing first."""
    named = {*rules.critical, *rules.urgent}
    chosen = [finding for finding in findings if finding.present and not finding.shadow and finding.label in named]
    return sorted(chosen, key=lambda each: (-_RANK[_priority_of(each, rules)], -(each.probability or 0), each.label))


def _priority_of(finding: FindingRecord, rules: Triage) -> Priority:
    if finding.label in rules.critical:
        return Priority.CRITICAL
    return Priority.URGENT if finding.label in rules.urgent else Priority.ROUTINE


def _highest(priorities: Iterable[Priority]) -> Priority:
    return max(priorities, key=_RANK.__getitem__, default=Priority.ROUTINE)


def _reason(facts: StudyFacts, alarming: list[FindingRecord], floor: Priority, analysis: Analysis) -> str:
    """Say in words what decided, most important first; no patient data."""
    parts = []
    if facts.stat:
        parts.append("STAT")
    elif floor is not Priority.ROUTINE:
        parts.append(f"the hospital's own priority is {floor}")
    parts.extend(dict.fromkeys(_words(finding) for finding in alarming))
    parts.append(_analysis_words(facts, analysis, bool(alarming)))
    return "; ".join(part for part in parts if part)


def _words(finding: FindingRecord) -> str:
    name = finding.label.replace("_", " ")
    return f"{name} {finding.probability:.0%}" if finding.probability is not None else name


def _analysis_words(facts: StudyFacts, analysis: Analysis, alarming: bool) -> str:
    match analysis:
        case Analysis.WAITING:
            return f"waiting for {_count(facts.jobs_waiting, 'image')}"
        case Analysis.FAILED:
            return f"the analysis of {_count(facts.jobs_failed, 'image')} failed"
        case Analysis.NOT_ANALYSED:
            return "no image could be analysed"
        case Analysis.ANALYSED:
            return "" if alarming else "no urgent finding"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
