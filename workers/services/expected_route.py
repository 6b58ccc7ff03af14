"""Dry run of an image: eligibility, models, triage and destinations as if a peer had sent it. Pure; nothing is kept.

The same functions decide that decide for received images. What depends on the rest of a study (another image, an order,
an earlier film) is not known here: the image is taken as the only one of a study that nobody has ordered.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from config.destinations import Destination
from config.settings import Settings
from db.not_eligible_codes import MAY_BE_CHEST
from db.records import FindingRecord, NotEligible, Route, StudyFacts, TriageDecision
from models.contract import Prediction
from workers.analysis_queues import queue_of
from workers.completion import NO_CHEST
from workers.job_outcome import kinds_by_destination, kinds_for, kinds_of_studies, kinds_wanted
from workers.results.result_kinds import LUNGS
from workers.routing import (
    ImageFacts,
    RuleCheck,
    checks,
    excluded_by,
    kinds_in,
    models_that_run,
    route,
    routed_destinations,
)
from workers.triage import decide

_STUDY_REPORT = frozenset({"sr", "sc"})
_SUMMARY = frozenset({"summary"})


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the header of a file says: ``facts`` are values of attributes by their name in the standard.

    ``refused``: why C-STORE would answer 0xC000, cannot understand; empty where it would be stored. ``stat``: its
    description makes its study STAT. ``shows_chest``: it names the chest in words or codes. ``routing`` is what the
    routing rules look at.
    """

    facts: tuple[tuple[str, str], ...] = ()
    refused: str = ""
    not_eligible: NotEligible | None = None
    stat: bool = False
    study_date: str = ""
    shows_chest: bool = False
    routing: ImageFacts = field(default_factory=ImageFacts)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the configuration says of an image before anything is analysed.

    ``checks`` are the routing rules that were looked at, ``route`` is what they decided: None where there are none, or
    the image is not eligible. ``models`` run, ``destinations`` get results, each of its ``kinds``. The job
    waits in ``queue``: empty where there is none.
    """

    not_eligible: NotEligible | None
    route: Route | None
    checks: tuple[RuleCheck, ...]
    models: tuple[str, ...]
    destinations: tuple[Destination, ...]
    queue: str = ""


@dataclass(frozen=True, slots=True)
class ExpectedDelivery:
    """Kinds of results that a destination would get of the image, and those of its study when that is complete."""

    destination: Destination
    image: tuple[str, ...]
    study: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExpectedRoute:
    """The way of an image through this node. ``models`` are names and versions of those that would analyse it.

    ``decision`` is that of triage for a study of this image alone; None where nothing of it is known yet.
    """

    header: ImageHeader
    not_analysed: NotEligible | None = None
    models: tuple[tuple[str, str], ...] = ()
    decision: TriageDecision | None = None
    deliveries: tuple[ExpectedDelivery, ...] = ()
    route: Route | None = None


def plan_of(header: ImageHeader, settings: Settings) -> Plan:
    """What becomes of an image with this ``header``, by eligibility and routing rules."""
    configured = (*settings.models.active, *settings.models.shadow)
    if header.refused or header.not_eligible is not None:
        return Plan(header.not_eligible, None, (), (), () if header.refused else settings.destinations)
    facts = replace(header.routing, called_ae_title=header.routing.called_ae_title or settings.listener.ae_title)
    decision = route(facts, settings.routing)
    excluded = excluded_by(decision)
    models = () if excluded is not None else models_that_run(decision, configured)
    queue = queue_of(decision, settings.models) if excluded is None else ""
    looked_at = tuple(checks(facts, settings.routing))
    return Plan(excluded, decision, looked_at, models, routed_destinations(settings.destinations, decision), queue)


def models_chosen(plan: Plan) -> tuple[str, ...] | None:
    """The models that a routing rule lets run; None where no rule chooses any."""
    return None if plan.route is None or plan.route.models is None else plan.models


def expected_route(
    header: ImageHeader,
    prediction: Prediction | None,
    findings: tuple[FindingRecord, ...],
    settings: Settings,
    now: datetime,
) -> ExpectedRoute:
    """Follow an image with this ``header``, of which the models say ``prediction`` (None: they were not asked)."""
    plan = plan_of(header, settings)
    if header.refused:
        return ExpectedRoute(header)
    header = replace(header, not_eligible=plan.not_eligible)
    settings = settings.model_copy(update={"destinations": plan.destinations})
    return replace(_followed(header, prediction, findings, settings, now), route=plan.route)


def _followed(
    header: ImageHeader,
    prediction: Prediction | None,
    findings: tuple[FindingRecord, ...],
    settings: Settings,
    now: datetime,
) -> ExpectedRoute:
    if header.not_eligible is not None:
        kinds = _STUDY_REPORT if header.not_eligible.code in MAY_BE_CHEST and header.shows_chest else frozenset()
        decision = decide(_facts(header, now, not_eligible=header.not_eligible), settings.triage, now)
        return ExpectedRoute(header, decision=decision, deliveries=_deliveries(settings, frozenset(), kinds))
    if prediction is None:
        return ExpectedRoute(header)
    models = tuple((use.name, use.version) for use in prediction.models)
    if prediction.not_analysed is not None:
        reason = NotEligible(prediction.not_analysed.code, prediction.not_analysed.sentence)
        kinds = frozenset() if reason.code in NO_CHEST else _STUDY_REPORT
        decision = decide(_facts(header, now, not_analysed=reason), settings.triage, now)
        return ExpectedRoute(header, reason, models, decision, _deliveries(settings, frozenset(), kinds))
    decision = decide(_facts(header, now, findings=findings), settings.triage, now)
    image = expected_kinds(prediction, settings)
    return ExpectedRoute(header, None, models, decision, _deliveries(settings, image, _SUMMARY))


def expected_kinds(prediction: Prediction, settings: Settings) -> frozenset[str]:
    """The kinds of results that the encoders make of an analysed image."""
    wanted = kinds_for(
        prediction, kinds_wanted(settings.destinations), capture_negatives=settings.results.capture_negatives
    )
    found = [finding for finding in prediction.reportable if finding.present]
    masked = any(finding.mask is not None and bool(finding.mask.any()) for finding in found)
    drawn = masked or any(finding.boxes for finding in found)
    made = {"sr": bool(prediction.reportable), "sc": bool(prediction.reportable), "seg": masked, "gsps": drawn}
    made[LUNGS] = prediction.lung_fields is not None
    return wanted & {kind for kind, is_made in made.items() if is_made}


def _deliveries(settings: Settings, image: frozenset[str], study: frozenset[str]) -> tuple[ExpectedDelivery, ...]:
    of_image, of_study = kinds_by_destination(settings.destinations), kinds_of_studies(settings.destinations)
    return tuple(
        ExpectedDelivery(one, kinds_in(of_image[one.name], image), kinds_in(of_study[one.name], study))
        for one in settings.destinations
    )


def _facts(
    header: ImageHeader,
    now: datetime,
    *,
    findings: tuple[FindingRecord, ...] = (),
    not_eligible: NotEligible | None = None,
    not_analysed: NotEligible | None = None,
) -> StudyFacts:
    """A study of this image alone, received now."""
    reason = not_eligible or not_analysed
    return StudyFacts(
        study_id=0,
        first_received_at=now,
        stat=header.stat,
        hospital_priority=None,
        findings=findings,
        jobs_waiting=0,
        jobs_done=0 if not_eligible else 1,
        jobs_failed=0,
        images_not_eligible=1 if not_eligible else 0,
        images_not_analysed=1 if not_analysed else 0,
        study_date=header.study_date,
        not_eligible_reasons=(reason,) if reason else (),
    )
