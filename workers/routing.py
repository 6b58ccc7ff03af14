"""Which routing rule decides about an image, and what follows from it: pure functions of its header and the rules.

Listener, workers, `pleura route` and *Try it* ask the same functions (docs/routing.md). What an image lacks, or what
cannot be read of it, matches no condition, so that a broken header falls to the next rule, and at last to the default:
every model and every destination.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from config.destinations import Destination
from config.routing import RoutingRule
from db.not_eligible_codes import NotEligibleCode
from db.records import NotEligible, Route
from models.radiograph.age import age_at_study
from models.radiograph.body_parts import speaks_of_chest
from models.radiograph.tolerant_header import TolerantHeader
from models.radiograph.views import views_in
from models.radiograph.words import plain_words

NO_RULE_MATCHES = "no rule matches"
_LONGEST_SHOWN = 40


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What rules may look at; empty, or None, where the header and the association do not say it.

    ``views``: PA and AP, as far as the header names them.
    """

    calling_ae_title: str = ""
    called_ae_title: str = ""
    station_name: str = ""
    institution: str = ""
    modality: str = ""
    body_part: str = ""
    study_description: str = ""
    series_description: str = ""
    views: tuple[str, ...] = ()
    sex: str = ""
    age_years: float | None = None


@dataclass(frozen=True, slots=True)
class RuleCheck:
    """Whether a rule matches an image, and why: the conditions that do, or the first one that does not."""

    rule: str
    matches: bool
    why: str


def facts_of(header: Dataset, calling_ae_title: str = "", called_ae_title: str = "") -> ImageFacts:
    """Read from a header what rules may look at."""
    values = TolerantHeader(header)
    views = views_in(_text(values, "ViewPosition")).union(
        *(views_in(meaning) for _, _, meaning in values.codes("ViewCodeSequence"))
    )
    return ImageFacts(
        calling_ae_title=calling_ae_title.strip(),
        called_ae_title=called_ae_title.strip(),
        station_name=_text(values, "StationName"),
        institution=_text(values, "InstitutionName"),
        modality=_text(values, "Modality"),
        body_part=_text(values, "BodyPartExamined"),
        study_description=_text(values, "StudyDescription"),
        series_description=_text(values, "SeriesDescription"),
        views=tuple(sorted(view.value for view in views if view.value in ("PA", "AP"))),
        sex=_text(values, "PatientSex").upper(),
        age_years=age_at_study(values),
    )


def _text(header: TolerantHeader, keyword: str) -> str:
    """All values of an attribute as one printable text, backslashes between them as in the data set."""
    joined = "\\".join(header.texts(keyword))
    printable = "".join(letter if letter.isprintable() else " " for letter in joined)
    return printable.encode("utf-8", "replace").decode().strip()


def route(facts: ImageFacts, rules: Sequence[RoutingRule]) -> Route | None:
    """What the rules decide about an image; None without rules."""
    if not rules:
        return None
    for rule, check in zip(rules, checks(facts, rules), strict=False):
        if check.matches:
            return Route(rule.name, check.why, rule.models, rule.destinations, rule.kinds, rule.reason)
    return Route("", NO_RULE_MATCHES)


def checks(facts: ImageFacts, rules: Sequence[RoutingRule]) -> Iterator[RuleCheck]:
    """Check the rules in their order, up to and with the first that matches."""
    for rule in rules:
        check = check_rule(facts, rule)
        yield check
        if check.matches:
            return


def check_rule(facts: ImageFacts, rule: RoutingRule) -> RuleCheck:
    """Check one rule."""
    matched = []
    for name, fits, value in _conditions(facts, rule):
        if not value or not fits:
            return RuleCheck(rule.name, False, f"{name} is {_shown(value)}" if value else f"{name} is unknown")
        matched.append(f"{name} {_shown(value)}")
    return RuleCheck(rule.name, True, "; ".join(matched) or "it has no conditions")


_Fits = Callable[[str, Sequence[str]], bool]


def _conditions(facts: ImageFacts, rule: RoutingRule) -> Iterator[tuple[str, bool, str]]:
    """The conditions of a rule: what is compared, whether it fits, and what the image says (empty: nothing)."""
    texts: tuple[tuple[str, Sequence[str], str, _Fits], ...] = (
        ("calling AE title", rule.calling_ae_titles, facts.calling_ae_title, _is_one_of),
        ("called AE title", rule.called_ae_titles, facts.called_ae_title, _is_one_of),
        ("station name", rule.station_names, facts.station_name, _is_found),
        ("institution", rule.institutions, facts.institution, _is_found),
        ("modality", rule.modalities, facts.modality, _is_same_word),
        ("body part", rule.body_parts, facts.body_part, _is_body_part),
        ("study description", rule.study_descriptions, facts.study_description, _is_found),
        ("series description", rule.series_descriptions, facts.series_description, _is_found),
        ("sex", rule.sexes, facts.sex, _is_one_of),
    )
    yield from ((name, fits(value, wanted), value) for name, wanted, value, fits in texts if wanted)
    if rule.views:
        yield "view", bool(set(rule.views) & set(facts.views)), " and ".join(facts.views)
    low, high, age = rule.minimum_age_years, rule.below_age_years, facts.age_years
    if low is not None or high is not None:
        fits = age is not None and age >= (low or 0) and (high is None or age < high)
        yield "age", fits, "" if age is None else f"{age:.0f}" if age == int(age) else f"{age:.1f}"


def _is_one_of(value: str, wanted: Sequence[str]) -> bool:
    return value in wanted


def _is_found(value: str, wanted: Sequence[str]) -> bool:
    return any(re.search(pattern, value, re.IGNORECASE) for pattern in wanted)


def _is_same_word(value: str, wanted: Sequence[str]) -> bool:
    return plain_words(value) in {plain_words(each) for each in wanted}


def _is_body_part(value: str, wanted: Sequence[str]) -> bool:
    chest = any(plain_words(each).strip() == "CHEST" for each in wanted)
    return _is_same_word(value, wanted) or (chest and speaks_of_chest(value, (), ()) is True)


def _shown(value: str) -> str:
    return value if len(value) <= _LONGEST_SHOWN else f"{value[: _LONGEST_SHOWN - 1]}…"


def excluded_by(decision: Route | None) -> NotEligible | None:
    """Why a rule keeps an image from being analysed; None where it is analysed."""
    if decision is None or not decision.excluded:
        return None
    sentence = f"Routing rule {decision.rule} stores it without analysis: {decision.excluded.strip().rstrip('.')}."
    return NotEligible(NotEligibleCode.EXCLUDED_BY_RULE.value, sentence)


def models_that_run(decision: Route | None, configured: Sequence[str]) -> tuple[str, ...]:
    """The models that analyse an image, in the configured order.

    Models that are not configured any more do not run; where none is left, the decision says nothing about today's
    models, and all of them run.
    """
    chosen = None if decision is None else decision.models
    left = tuple(name for name in configured if chosen is None or name in chosen)
    return left or tuple(configured)


def routed_destinations(destinations: Sequence[Destination], decision: Route | None) -> tuple[Destination, ...]:
    """The destinations that get results of an image, each with the kinds that it takes of them."""
    if decision is None:
        return tuple(destinations)
    return tuple(
        each if decision.kinds is None else each.model_copy(update={"kinds": kinds_in(each.kinds, decision.kinds)})
        for each in destinations
        if decision.destinations is None or each.name in decision.destinations
    )


def kinds_in(kinds: Iterable[str], wanted: Collection[str]) -> tuple[str, ...]:
    """Those of ``kinds`` that are ``wanted``, in their order."""
    return tuple(kind for kind in kinds if kind in wanted)


def study_destinations(
    destinations: Sequence[Destination], decisions: Sequence[Route | None]
) -> tuple[Destination, ...]:
    """The destinations that get what a study as a whole leaves: those that get results of at least one of its images.

    ``decisions`` are those about its images; without any, every destination is meant.
    """
    taken: dict[str, set[str]] = {}
    for decision in decisions or (None,):
        for each in routed_destinations(destinations, decision):
            taken.setdefault(each.name, set()).update(each.kinds)
    return tuple(
        each.model_copy(update={"kinds": kinds_in(each.kinds, tuple(taken[each.name]))})
        for each in destinations
        if each.name in taken
    )
