"""Mistakes in routing rules are told at the start, by the name of the rule; what may be one is a warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config.destinations import Destination
from config.listener import Listener, Peer
from config.routing import RoutingRule, routing_warnings
from config.settings import Settings, SettingsError, load

PACS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, kinds=("sr",))


def rule(name: str = "r", **values: Any) -> RoutingRule:
    return RoutingRule.model_validate({"name": name, **values})


def settings(*rules: RoutingRule, **changes: Any) -> Settings:
    return Settings.model_validate({"destinations": (PACS,), "routing": rules, **changes})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([rule(destinations=["vna"])], "routing `r`: there is no destination 'vna'"),
        ([rule(models=["my-unet"])], "'my-unet' is neither in models.active nor in models.shadow"),
        ([rule(modalities=["CR"]), rule(modalities=["DX"])], "routing `r`: two rules have this name"),
        ([rule("all"), rule(modalities=["CR"])], "routing `r` is never reached: `all` comes before it"),
        (
            [
                rule("wide", modalities=["CR", "DX"], minimum_age_years=18),
                rule(modalities=["dx"], minimum_age_years=40),
            ],
            "`wide` comes before it and matches all that it matches",
        ),
    ],
)
def test_a_rule_that_cannot_be_followed_stops_the_start(rules: list[RoutingRule], message: str) -> None:
    with pytest.raises(ValidationError, match=message.replace("(", r"\(")):
        settings(*rules)


def test_a_model_that_runs_after_another_needs_it() -> None:
    models = {"active": ("a", "b"), "after": {"b": "a/pneumothorax"}}
    with pytest.raises(ValidationError, match="'b' runs after 'a'"):
        settings(rule(models=["b"]), models=models)
    assert settings(rule(models=["a", "b"]), models=models).routing[0].models == ("a", "b")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"minimum_age_years": 40, "below_age_years": 40}, "no age is at least 40 and below 40"),
        ({"analyse": False}, "needs a reason"),
        ({"analyse": False, "reason": "x", "kinds": ["sr"]}, "have no meaning with analyse = false"),
        ({"reason": "x"}, "reason is for analyse = false only"),
        ({"models": []}, "at least 1 item"),
        ({"station_names": ["("]}, "is not a regular expression"),
        ({"views": ["LATERAL"]}, "'PA' or 'AP'"),
        ({"stations": ["X"]}, "Extra inputs"),
    ],
)
def test_a_rule_that_says_nothing_sensible_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        rule(**values)


@pytest.mark.parametrize(
    ("first", "second", "covers"),
    [
        ({}, {"sexes": ["F"]}, True),
        ({"sexes": ["F"]}, {}, False),
        ({"sexes": ["F"]}, {"sexes": ["F", "M"]}, False),
        ({"calling_ae_titles": ["A"]}, {"calling_ae_titles": ["a"]}, False),
        ({"minimum_age_years": 18}, {"minimum_age_years": 40, "below_age_years": 50}, True),
        ({"minimum_age_years": 0}, {}, False),
        ({"minimum_age_years": 0}, {"below_age_years": 5}, True),
        ({"below_age_years": 50}, {"minimum_age_years": 40}, False),
    ],
)
def test_a_rule_is_shadowed_only_where_the_earlier_one_surely_matches(
    first: dict[str, Any], second: dict[str, Any], covers: bool
) -> None:
    assert rule(**first).covers(rule(**second)) is covers


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"called_ae_titles": ["OTHER"]}, "this node is called PLEURA"),
        ({"calling_ae_titles": ["OTHER"]}, "listener.peers admits none"),
        ({"modalities": ["CT"]}, "eligibility.modalities has none"),
        ({"below_age_years": 18}, "patients below 18 years are not eligible"),
        ({"analyse": False, "reason": "x"}, "excludes every image that no rule before it matches"),
        ({"destinations": []}, "sends results nowhere"),
        ({"kinds": ["gsps"]}, "sends results nowhere"),
        ({"modalities": ["cr"], "calling_ae_titles": ["DX1"], "sexes": ["F"]}, ""),
    ],
)
def test_what_may_be_a_mistake_is_told(values: dict[str, Any], message: str) -> None:
    listener = Listener(peers=(Peer(ae_title="DX1"),))
    (found,) = list(routing_warnings([rule(**values)], listener, [PACS], ["CR", "DX"], 18)) or [""]
    assert message in found
    assert bool(message) == bool(found)


def test_a_mistake_in_a_file_is_told_by_the_rule_s_name(tmp_path: Path) -> None:
    path = tmp_path / "pleura.toml"
    path.write_text("[[routing]]\nname = 'bedside'\nminimum_age_years = -1\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"routing `bedside`: minimum_age_years: must be 0.0 or more"):
        load(path)
