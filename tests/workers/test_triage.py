"""Triage: a table of cases, and the three rules that hold for every study and every configuration."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from config.triage import Triage
from db.records import FindingRecord, NotEligible, PriorFinding, StudyFacts
from db.states import Analysis, Priority
from tests.workers.builders import NOON, facts, finding
from workers.triage import decide, known_from

RULES = Triage()
CORRUPT = NotEligible("corrupt", "The pixel data is damaged.")
LATERAL = NotEligible("not-frontal", "View Position is LL, not a frontal view.")
CHILD = NotEligible("too-young", "The patient is younger than 18 years.")
HAND = NotEligible("not-a-chest", "Body Part Examined is HAND, not a chest.")
RANK = [Priority.ROUTINE, Priority.URGENT, Priority.CRITICAL]

TABLE: list[tuple[str, dict[str, Any], Priority, float, Analysis, str]] = [
    ("waiting", {"jobs_waiting": 2, "jobs_done": 0}, Priority.ROUTINE, 480, Analysis.WAITING, "waiting for 2 images"),
    ("negative", {}, Priority.ROUTINE, 480, Analysis.ANALYSED, "no urgent finding"),
    ("critical", {"findings": (finding(),)}, Priority.CRITICAL, 15, Analysis.ANALYSED, "pneumothorax 93%"),
    (
        "urgent",
        {"findings": (finding("lung_opacity", 0.7),)},
        Priority.URGENT,
        420,
        Analysis.ANALYSED,
        "lung opacity 70%",
    ),
    (
        "an urgent finding in a study for which the hospital asks urgency",
        {"findings": (finding("lung_opacity", 0.7),), "stat": True},
        Priority.URGENT,
        60,
        Analysis.ANALYSED,
        "STAT; lung opacity 70%",
    ),
    (
        "the most pressing finding is told first",
        {"findings": (finding("lung_opacity", 0.99), finding("pneumothorax", 0.6))},
        Priority.CRITICAL,
        15,
        Analysis.ANALYSED,
        "pneumothorax 60%; lung opacity 99%",
    ),
    (
        "below the threshold",
        {"findings": (finding(probability=0.4),)},
        Priority.ROUTINE,
        480,
        Analysis.ANALYSED,
        "no urgent finding",
    ),
    (
        "a finding in shadow beside a negative",
        {"findings": (finding(shadow=True), finding("lung_opacity", 0.1))},
        Priority.ROUTINE,
        480,
        Analysis.ANALYSED,
        "no urgent finding",
    ),
    (
        "nothing but shadow is no analysis",
        {"findings": (finding(shadow=True), finding("lung_opacity", 0.1, shadow=True))},
        Priority.ROUTINE,
        120,
        Analysis.NOT_ANALYSED,
        "every model is in shadow or switched off",
    ),
    (
        "a finding that no rule names",
        {"findings": (finding("nodule"),)},
        Priority.ROUTINE,
        480,
        Analysis.ANALYSED,
        "no urgent finding",
    ),
    ("STAT", {"stat": True}, Priority.URGENT, 60, Analysis.ANALYSED, "STAT; no urgent finding"),
    (
        "the hospital knows better",
        {"hospital_priority": Priority.CRITICAL},
        Priority.CRITICAL,
        15,
        Analysis.ANALYSED,
        "the hospital's own priority is critical; no urgent finding",
    ),
    (
        "STAT does not lower it",
        {"hospital_priority": Priority.CRITICAL, "stat": True},
        Priority.CRITICAL,
        15,
        Analysis.ANALYSED,
        "STAT; no urgent finding",
    ),
    (
        "failed is due early",
        {"jobs_failed": 1, "jobs_done": 0},
        Priority.ROUTINE,
        120,
        Analysis.FAILED,
        "the analysis of 1 image failed",
    ),
    (
        "not analysed is due early",
        {"images_not_analysed": 1},
        Priority.ROUTINE,
        120,
        Analysis.NOT_ANALYSED,
        "no image could be analysed",
    ),
    (
        "refused at the door",
        {"images_not_eligible": 3, "jobs_done": 0},
        Priority.ROUTINE,
        120,
        Analysis.NOT_ANALYSED,
        "no image could be analysed",
    ),
    (
        "what was tried says why",
        {"images_not_analysed": 1, "not_eligible_reasons": (CORRUPT, LATERAL)},
        Priority.ROUTINE,
        120,
        Analysis.NOT_ANALYSED,
        "no image could be analysed: The pixel data is damaged",
    ),
    (
        "a child's lateral is not the question",
        {"images_not_eligible": 2, "jobs_done": 0, "not_eligible_reasons": (LATERAL, CHILD)},
        Priority.ROUTINE,
        120,
        Analysis.NOT_ANALYSED,
        "no image could be analysed: The patient is younger than 18 years",
    ),
    (
        "no chest waits like any routine study",
        {"images_not_eligible": 2, "jobs_done": 0, "not_eligible_reasons": (HAND, HAND)},
        Priority.ROUTINE,
        480,
        Analysis.NOT_ANALYSED,
        "no chest radiograph: Body Part Examined is HAND, not a chest",
    ),
    (
        "what the hospital asks for a hip holds",
        {"images_not_eligible": 1, "jobs_done": 0, "not_eligible_reasons": (HAND,), "stat": True},
        Priority.URGENT,
        60,
        Analysis.NOT_ANALYSED,
        "STAT; no chest radiograph: Body Part Examined is HAND, not a chest",
    ),
    (
        "a hand beside a chest that was refused",
        {"images_not_eligible": 2, "jobs_done": 0, "not_eligible_reasons": (HAND, CHILD)},
        Priority.ROUTINE,
        120,
        Analysis.NOT_ANALYSED,
        "no image could be analysed: The patient is younger than 18 years",
    ),
    (
        "an image that was tried in vain beside an analysed one",
        {"jobs_done": 2, "images_not_analysed": 1, "not_eligible_reasons": (CORRUPT, LATERAL)},
        Priority.ROUTINE,
        480,
        Analysis.ANALYSED,
        "no urgent finding; 1 image not analysed: The pixel data is damaged",
    ),
    (
        "one analysed image is enough",
        {"jobs_done": 2, "images_not_analysed": 1, "images_not_eligible": 1},
        Priority.ROUTINE,
        480,
        Analysis.ANALYSED,
        "no urgent finding",
    ),
    (
        "a finding counts while other images wait",
        {"findings": (finding(),), "jobs_waiting": 1},
        Priority.CRITICAL,
        15,
        Analysis.WAITING,
        "pneumothorax 93%; waiting for 1 image",
    ),
]


@pytest.mark.parametrize(
    ("changes", "priority", "minutes", "analysis", "reason"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_decisions(
    changes: dict[str, Any], priority: Priority, minutes: float, analysis: Analysis, reason: str
) -> None:
    decision = decide(facts(**changes), RULES, NOON)
    assert decision.priority is priority
    assert decision.due_at == NOON + timedelta(minutes=minutes)
    assert decision.analysis is analysis
    assert decision.reason == reason


def test_a_clock_that_jumped_back_does_not_put_a_study_off() -> None:
    ahead = facts(first_received_at=NOON + timedelta(days=400))
    assert decide(ahead, RULES, NOON).due_at == NOON + timedelta(minutes=RULES.routine_minutes)


findings = st.builds(
    finding,
    label=st.sampled_from(["pneumothorax", "lung_opacity", "nodule"]),
    probability=st.none() | st.floats(0, 1),
    shadow=st.booleans(),
)
counts = st.integers(0, 3)
studies = st.builds(
    facts,
    stat=st.booleans(),
    hospital_priority=st.none() | st.sampled_from(list(Priority)),
    findings=st.lists(findings, max_size=4).map(tuple),
    jobs_waiting=counts,
    jobs_done=counts,
    jobs_failed=counts,
    images_not_eligible=counts,
    images_not_analysed=counts,
    study_date=st.sampled_from(["", "20260131", "20260110", "nonsense"]),
    returned_at=st.none() | st.just(NOON),
    reported=st.booleans(),
    priors=st.lists(
        st.builds(
            PriorFinding,
            label=st.sampled_from(["pneumothorax", "lung_opacity"]),
            present=st.booleans(),
            study_date=st.sampled_from(["", "20260130", "20250101"]),
            received_at=st.just(NOON - timedelta(hours=5)),
            side=st.sampled_from(["", "left", "right", "both", "unknown"]),
        ),
        max_size=3,
    ).map(tuple),
)
minutes = st.floats(0.1, 10_000)
rules = st.builds(
    Triage,
    critical_minutes=minutes,
    urgent_minutes=minutes,
    urgent_finding_minutes=minutes,
    routine_minutes=minutes,
    not_analysed_minutes=minutes,
)


@given(studies, findings, rules)
@example(
    facts(findings=(finding(present=False, shadow=True),), jobs_done=1), finding("nodule", present=False), Triage()
)
def test_a_further_finding_never_puts_a_study_back(study: StudyFacts, more: FindingRecord, policy: Triage) -> None:
    before = decide(study, policy, NOON)
    after = decide(replace(study, findings=(*study.findings, more)), policy, NOON)
    assert RANK.index(after.priority) >= RANK.index(before.priority)
    if (before.analysis, after.analysis) == (Analysis.NOT_ANALYSED, Analysis.ANALYSED):
        # Until now only models in shadow had analysed it, and what they say does not exist here.
        assert after == decide(replace(study, findings=(more,)), policy, NOON)
    else:
        assert after.due_at <= before.due_at


def test_a_study_that_only_shadow_models_analysed_is_due_soon_until_an_active_model_has_analysed_it() -> None:
    shadowed = facts(findings=(finding(present=False, shadow=True),), jobs_done=1)
    assert decide(shadowed, RULES, NOON).due_at == NOON + timedelta(minutes=RULES.not_analysed_minutes)
    classified = replace(shadowed, findings=(*shadowed.findings, finding(present=False)))
    assert decide(classified, RULES, NOON).due_at == NOON + timedelta(minutes=RULES.routine_minutes)
    critical = replace(shadowed, findings=(*shadowed.findings, finding(present=True)))
    assert decide(critical, RULES, NOON).due_at == NOON + timedelta(minutes=RULES.critical_minutes)


def test_a_study_of_which_no_model_could_tell_is_no_negative() -> None:
    """A vendor's program may have no answer for any label of an image."""
    unanswered = facts(findings=(finding(probability=None, present=False), finding(shadow=True)), jobs_done=1)
    decision = decide(unanswered, RULES, NOON)
    assert (decision.analysis, decision.reason) == (Analysis.NOT_ANALYSED, "no model could tell")
    assert decision.due_at == NOON + timedelta(minutes=RULES.not_analysed_minutes)
    one = replace(unanswered, findings=(*unanswered.findings, finding("nodule", 0.1, present=False)))
    assert decide(one, RULES, NOON).analysis is Analysis.ANALYSED


@given(studies, rules)
def test_nothing_lowers_what_the_hospital_asked_for(study: StudyFacts, policy: Triage) -> None:
    decision = decide(study, policy, NOON)
    if study.hospital_priority:
        assert RANK.index(decision.priority) >= RANK.index(study.hospital_priority)
    if study.stat:
        assert decision.priority is not Priority.ROUTINE


@given(studies, rules)
def test_the_wait_is_bounded(study: StudyFacts, policy: Triage) -> None:
    decision = decide(study, policy, NOON)
    assert decision.due_at <= NOON + timedelta(minutes=policy.routine_minutes)
    if decision.analysis in (Analysis.FAILED, Analysis.NOT_ANALYSED):
        assert decision.due_at <= NOON + timedelta(minutes=policy.not_analysed_minutes)


@given(studies, findings, rules)
def test_a_finding_in_shadow_changes_nothing(study: StudyFacts, more: FindingRecord, policy: Triage) -> None:
    study = replace(study, findings=(*study.findings, replace(more, label="absent", present=False, shadow=False)))
    shadowed = replace(study, findings=(*study.findings, replace(more, shadow=True)))
    assert decide(shadowed, policy, NOON) == decide(study, policy, NOON)


def prior(label: str = "pneumothorax", days: int = 1, **changes: Any) -> PriorFinding:
    """What the patient's film of so many days ago says."""
    at = NOON - timedelta(days=days)
    values: dict[str, Any] = {"present": True, "study_date": at.strftime("%Y%m%d"), "received_at": at, "side": ""}
    return PriorFinding(label, **(values | changes))


TODAY = NOON.strftime("%Y%m%d")
KNOWN: list[tuple[str, dict[str, Any], tuple[PriorFinding, ...], bool]] = [
    ("yesterday's film had it", {}, (prior(),), True),
    ("no film before", {}, (), False),
    ("too long ago", {}, (prior(days=4),), False),
    ("as long ago as may be", {}, (prior(days=3),), True),
    ("another label", {}, (prior("lung_opacity"),), False),
    ("absent yesterday", {}, (prior(present=False),), False),
    ("it went and came back", {}, (prior(days=3), prior(days=1, present=False)), False),
    ("it came yesterday", {}, (prior(days=3, present=False), prior(days=1)), True),
    ("the other side", {"side": "left"}, (prior(side="right"),), False),
    ("the same side", {"side": "left"}, (prior(side="left"),), True),
    ("one of two sides", {"side": "left"}, (prior(side="both"),), True),
    ("now on both sides", {"side": "both"}, (prior(side="left"),), False),
    ("the prior's model shows no place", {"side": "left"}, (prior(side=""),), True),
    ("the prior's side is unknown", {"side": "left"}, (prior(side="unknown"),), False),
    ("a place on nobody knows which side", {"side": "unknown"}, (prior(side="left"),), False),
    ("neither side is known", {"side": "unknown"}, (prior(side="unknown"),), False),
    ("a film without a date", {}, (prior(study_date=""),), True),
    ("tomorrow's film came before", {}, (prior(days=-1),), True),
]


@pytest.mark.parametrize(("changes", "priors", "known"), [row[1:] for row in KNOWN], ids=[row[0] for row in KNOWN])
def test_a_known_finding_does_not_notification_again(
    changes: dict[str, Any], priors: tuple[PriorFinding, ...], known: bool
) -> None:
    study = facts(findings=(finding(**changes),), priors=priors, study_date=TODAY)
    decision = decide(study, RULES, NOON)
    assert decision.priority is (Priority.URGENT if known else Priority.CRITICAL)
    assert bool(decision.notifications) is not known
    assert ("known since" in decision.reason) is known
    assert (known_from(study.findings[0], study, RULES) is not None) is known


def test_the_reason_names_the_day() -> None:
    study = facts(findings=(finding(), finding("lung_opacity", 0.7)), priors=(prior(),), study_date=TODAY)
    decision = decide(study, RULES, NOON)
    assert decision.reason == "lung opacity 70%; pneumothorax 93%, known since the film of 2026-01-30" or (
        decision.reason == "pneumothorax 93%, known since the film of 2026-01-30; lung opacity 70%"
    )
    assert known_from(finding(), study, RULES) == date(2026, 1, 30)


def test_a_known_urgent_finding_is_routine() -> None:
    study = facts(findings=(finding("lung_opacity", 0.7),), priors=(prior("lung_opacity"),), study_date=TODAY)
    assert decide(study, RULES, NOON).priority is Priority.ROUTINE


def test_every_film_may_speak_for_itself() -> None:
    study = facts(findings=(finding(),), priors=(prior(),), study_date=TODAY)
    assert decide(study, Triage(known_days=0), NOON).notifications == study.findings


@pytest.mark.parametrize(("days", "late"), [(0, False), (2, False), (3, True), (400, True), (-1, False)])
def test_a_study_that_was_sent_in_later_notifies_nobody(days: int, late: bool) -> None:
    made_on = (NOON - timedelta(days=days)).strftime("%Y%m%d")
    decision = decide(facts(findings=(finding(),), study_date=made_on), RULES, NOON)
    assert decision.priority is (Priority.ROUTINE if late else Priority.CRITICAL)
    assert bool(decision.notifications) is not late
    assert ("sent in later" in decision.reason) is late
    assert decide(facts(findings=(finding(),), study_date=made_on), Triage(backfill_days=0), NOON).notifications


def test_a_study_that_was_sent_in_later_keeps_what_the_hospital_asked_for() -> None:
    decision = decide(facts(findings=(finding(),), study_date="20240101", stat=True), RULES, NOON)
    assert decision.priority is Priority.URGENT


def test_nothing_of_a_reported_study_notifies() -> None:
    decision = decide(facts(findings=(finding(),), reported=True), RULES, NOON)
    assert decision.notifications == ()
    assert decision.priority is Priority.CRITICAL


def test_a_study_that_a_late_image_brought_back_is_urgent_from_then_on_and_notifies_nobody() -> None:
    late = NOON + timedelta(hours=30)
    for findings_there in ((), (finding(),)):
        decision = decide(facts(findings=findings_there, returned_at=late), RULES, late)
        assert decision.priority is Priority.URGENT
        assert decision.due_at == late + timedelta(minutes=RULES.urgent_minutes)
        assert decision.notifications == ()
        assert decision.reason.startswith("an image came after the report; ")


def test_a_hip_is_not_read_before_an_urgent_chest_that_comes_with_it() -> None:
    hip = decide(facts(jobs_done=0, images_not_eligible=1, not_eligible_reasons=(HAND,)), RULES, NOON)
    later = NOON + timedelta(minutes=RULES.routine_minutes - RULES.urgent_finding_minutes - 1)
    chest = decide(facts(findings=(finding("lung_opacity", 0.7),), first_received_at=later), RULES, later)

    assert chest.due_at < hip.due_at


def test_what_only_the_pixels_spoke_against_may_be_a_chest() -> None:
    doubted = NotEligible("not_frontal_chest", "The image does not look like a frontal chest radiograph.")
    due = decide(facts(images_not_analysed=1, not_eligible_reasons=(doubted,)), RULES, NOON).due_at

    assert due == NOON + timedelta(minutes=RULES.not_analysed_minutes)


def test_a_study_that_a_backfill_has_pulled_notifies_nobody_and_keeps_its_priority() -> None:
    decision = decide(facts(findings=(finding(),), pulled=True), Triage(), NOON)
    assert decision.notifications == ()
    assert decision.priority is decide(facts(findings=(finding(),)), Triage(), NOON).priority
    assert "pulled by a backfill" in decision.reason
    prior = decide(facts(findings=(finding(),), pulled=True, only_prior=True), Triage(), NOON)
    assert "pulled only to compare a newer study with it, nobody is notified" in prior.reason
