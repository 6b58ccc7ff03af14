"""Checks of routing: mistakes in rules, what they did lately, and comparisons that no destination takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from config.routing import routing_warnings
from config.settings import Settings
from node.monitoring.check import Check

_ENOUGH = 10
_REMEDY = "`pleura route FILE --explain` says how each rule decides"


def check_rules(settings: Settings) -> Iterator[Check]:
    """What the rules of the configuration say by themselves; nothing without rules."""
    rules, eligibility = settings.routing, settings.eligibility
    if not rules:
        return
    if not rules[0].analyse and rules[0].matches_everything:
        found = f"rule `{rules[0].name}` excludes every image: nothing is analysed"
        yield Check("routing", False, found, "give it conditions, or remove it")
    listener = settings.listener
    if settings.dicomweb.enabled:
        # Senders by STOW-RS are named by their tokens, which are in the database: any name may call.
        listener = listener.model_copy(update={"peers": ()})
    warnings = routing_warnings(
        rules, listener, settings.destinations, eligibility.modalities, eligibility.minimum_age_years
    )
    yield from (Check("routing", True, each, "correct or remove the rule") for each in warnings)


def check_comparisons(settings: Settings) -> Iterator[Check]:
    """Whether anybody gets the summary, which alone tells of the comparison with a prior."""
    if settings.priors.archive and not any("summary" in each.kinds for each in settings.destinations):
        found = "priors are pulled and compared, but no destination takes the summary, which alone tells of it"
        yield Check("priors", True, found, "add `summary` to destinations[].kinds, or leave priors.archive empty")


def check_decisions(settings: Settings, images: Mapping[str, tuple[int, bool]]) -> Iterator[Check]:
    """What the rules decided in the last 24 hours, as :func:`db.queries.routing.images_by_rule` counts it."""
    if not settings.routing:
        return
    texts = ", ".join(
        f"{rule or 'no rule'} {count}{' (not analysed)' if excluded else ''}"
        for rule, (count, excluded) in images.items()
    )
    count = sum(each for each, _ in images.values())
    if count >= _ENOUGH and all(excluded for _, excluded in images.values()):
        yield Check("routing", False, f"rules excluded all {count} images of the last 24 hours: {texts}", _REMEDY)
    else:
        yield Check("routing", True, f"{len(settings.routing)} rules; images of the last 24 hours: {texts or 'none'}")
