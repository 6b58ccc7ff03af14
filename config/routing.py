"""Routing rules: which images are analysed by which models, and who gets their results (docs/routing.md)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from pydantic import Field, model_validator

from config.destinations import Destination
from config.listener import Listener
from config.section import Part as _Part
from config.value_types import AETitle, Kind, Pattern

_LISTS = (
    "calling_ae_titles",
    "called_ae_titles",
    "station_names",
    "institutions",
    "modalities",
    "body_parts",
    "study_descriptions",
    "series_descriptions",
    "views",
    "sexes",
)
_CASE_COUNTS = ("calling_ae_titles", "called_ae_titles")


class RoutingRule(_Part):
    """What happens to the images that match all conditions of a rule. The first rule that matches decides."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    """Its name in log, worklist and database."""
    calling_ae_titles: tuple[AETitle, ...] = ()
    """Condition: AE titles of senders, compared exactly. Every condition: empty matches any image, several values match
    if one does, and a value that the image lacks matches none."""
    called_ae_titles: tuple[AETitle, ...] = ()
    """Condition: AE titles that senders call this node by, compared exactly."""
    station_names: tuple[Pattern, ...] = ()
    """Condition: regular expressions (case is ignored) on Station Name (0008,1010)."""
    institutions: tuple[Pattern, ...] = ()
    """Condition: regular expressions (case is ignored) on Institution Name (0008,0080)."""
    modalities: tuple[str, ...] = ()
    """Condition: values of Modality (0008,0060)."""
    body_parts: tuple[str, ...] = ()
    """Condition: values of Body Part Examined (0018,0015), without regard to case and punctuation. CHEST stands for the
    words for it in common languages, too."""
    study_descriptions: tuple[Pattern, ...] = ()
    """Condition: regular expressions (case is ignored) on Study Description (0008,1030)."""
    series_descriptions: tuple[Pattern, ...] = ()
    """Condition: regular expressions (case is ignored) on Series Description (0008,103E)."""
    views: tuple[Literal["PA", "AP"], ...] = ()
    """Condition: views, by every word for them in View Position (0018,5101) or View Code Sequence (0054,0220)."""
    sexes: tuple[Literal["M", "F", "O"], ...] = ()
    """Condition: values of Patient's Sex (0010,0040)."""
    minimum_age_years: float | None = Field(default=None, ge=0)
    """Condition: the patient is at least so old at the study. An unknown age does not match."""
    below_age_years: float | None = Field(default=None, gt=0)
    """Condition: the patient is younger than this at the study. An unknown age does not match."""
    models: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Outcome: models of models.active and models.shadow that run; left out: all of them."""
    destinations: tuple[str, ...] | None = None
    """Outcome: names of the destinations that get results; left out: all of them; []: none."""
    kinds: tuple[Kind, ...] | None = None
    """Outcome: kinds of results that they get, where their own kinds have them too; left out: as they say."""
    analyse: bool = True
    """Outcome: false stores the image and analyses it not."""
    reason: str = Field(default="", max_length=200)
    """Why it is not analysed, for the worklist; required with analyse = false, and for nothing else."""

    @model_validator(mode="after")
    def _can_match(self) -> RoutingRule:
        low, high = self.minimum_age_years, self.below_age_years
        if low is not None and high is not None and low >= high:
            raise ValueError(f"no age is at least {low:g} and below {high:g}: the rule can never match")
        if not self.analyse and not self.reason.strip():
            raise ValueError("analyse = false needs a reason, which the worklist shows")
        if not self.analyse and (self.models is not None or self.kinds is not None):
            raise ValueError("models and kinds have no meaning with analyse = false")
        if self.analyse and self.reason:
            raise ValueError("reason is for analyse = false only")
        return self

    @property
    def matches_everything(self) -> bool:
        """Whether it has no condition."""
        return not any(getattr(self, name) for name in _LISTS) and self._ages == (None, None)

    @property
    def _ages(self) -> tuple[float | None, float | None]:
        return self.minimum_age_years, self.below_age_years

    def covers(self, other: RoutingRule) -> bool:
        """Whether it surely matches every image that ``other`` matches: each of its conditions is as wide."""
        return all(self._is_as_wide(other, name) for name in _LISTS) and self._spans(other)

    def _is_as_wide(self, other: RoutingRule, name: str) -> bool:
        ours, theirs = ({_plain(name, each) for each in getattr(one, name)} for one in (self, other))
        return not ours or (bool(theirs) and theirs <= ours)

    def _spans(self, other: RoutingRule) -> bool:
        (low, high), (other_low, other_high) = self._ages, other._ages
        # A bound of 0 still asks for a known age.
        known = other_low is not None or other_high is not None
        reaches_down = low is None or (known and (other_low or 0) >= low)
        return reaches_down and (high is None or (other_high is not None and other_high <= high))


def _plain(name: str, value: str) -> str:
    return value if name in _CASE_COUNTS else value.casefold()


def check_rules(
    rules: Sequence[RoutingRule], destinations: Collection[str], models: Sequence[str], after: dict[str, str]
) -> None:
    """Check that rules name what there is, and that each can be reached; ``after`` is that of ``[models]``.

    Raises:
        ValueError: the first mistake.
    """
    names = [rule.name for rule in rules]
    for number, rule in enumerate(rules):
        where = f"routing `{rule.name}`"
        if rule.name in names[:number]:
            raise ValueError(f"{where}: two rules have this name")
        for name in rule.destinations or ():
            if name not in destinations:
                raise ValueError(f"{where}: there is no destination '{name}'")
        _check_models(where, rule.models or (), models, after)
        before = next((each.name for each in rules[:number] if each.covers(rule)), None)
        if before is not None:
            raise ValueError(f"{where} is never reached: `{before}` comes before it and matches all that it matches")


def _check_models(where: str, chosen: Sequence[str], models: Sequence[str], after: dict[str, str]) -> None:
    for name in chosen:
        if name not in models:
            raise ValueError(f"{where}: '{name}' is neither in models.active nor in models.shadow")
        asked = after.get(name, "").partition("/")[0]
        if asked and asked not in chosen:
            raise ValueError(f"{where}: '{name}' runs after '{asked}' (models.after), which is not among its models")


def routing_warnings(
    rules: Sequence[RoutingRule],
    listener: Listener,
    destinations: Sequence[Destination],
    modalities: Collection[str],
    minimum_age_years: float,
) -> Iterator[str]:
    """What is allowed and may be a mistake: rules that can never match at this node, and those that hide results.

    ``modalities`` and ``minimum_age_years`` are those of ``[eligibility]``.
    """
    admitted = {peer.ae_title for peer in listener.peers}
    analysed = {each.upper() for each in modalities}
    for rule in rules:
        where = f"rule `{rule.name}`"
        if rule.called_ae_titles and listener.ae_title not in rule.called_ae_titles:
            yield f"{where} never matches: this node is called {listener.ae_title}"
        if admitted and rule.calling_ae_titles and not admitted.intersection(rule.calling_ae_titles):
            yield f"{where} never matches: listener.peers admits none of its calling AE titles"
        if rule.modalities and not analysed.intersection(each.upper() for each in rule.modalities):
            yield f"{where} never matches: eligibility.modalities has none of its modalities"
        if rule.below_age_years is not None and rule.below_age_years <= minimum_age_years:
            yield f"{where} never matches: patients below {minimum_age_years:g} years are not eligible"
        if not rule.analyse and rule.matches_everything:
            yield f"{where} excludes every image that no rule before it matches"
        if rule.analyse and destinations and not _takes_anything(rule, destinations):
            yield f"{where} sends results nowhere"


def _takes_anything(rule: RoutingRule, destinations: Sequence[Destination]) -> bool:
    chosen = [each for each in destinations if rule.destinations is None or each.name in rule.destinations]
    return any(rule.kinds is None or set(rule.kinds) & set(each.kinds) for each in chosen)
