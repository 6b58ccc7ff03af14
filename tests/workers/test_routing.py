"""Which rule decides about an image: pure decisions about headers, broken ones among them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from config.destinations import Destination
from config.routing import RoutingRule
from db.records import Route
from workers.routing import (
    NO_RULE_MATCHES,
    ImageFacts,
    checks,
    excluded_by,
    facts_of,
    models_that_run,
    route,
    routed_destinations,
    study_destinations,
)

PACS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, kinds=("seg", "sr", "summary"))
VNA = Destination(name="vna", ae_title="VNA", host="127.0.0.1", port=104, kinds=("sr",))
FULL = ImageFacts(
    calling_ae_title="ICU_DX",
    called_ae_title="PLEURA",
    station_name="MOBILE3",
    institution="St. Anna, Haus B",
    modality="DX",
    body_part="PORT CHEST",
    study_description="Thorax im Bett",
    series_description="AP liegend",
    views=("AP",),
    sex="F",
    age_years=61.5,
)
CONDITIONS: dict[str, Any] = {
    "calling_ae_titles": ["ICU_DX"],
    "called_ae_titles": ["PLEURA"],
    "station_names": ["^mobile"],
    "institutions": ["haus b"],
    "modalities": ["dx"],
    "body_parts": ["CHEST"],
    "study_descriptions": [r"\bbett\b"],
    "series_descriptions": ["liegend$"],
    "views": ["AP"],
    "sexes": ["F"],
    "minimum_age_years": 61.5,
    "below_age_years": 62,
}


def rule(name: str = "r", **values: Any) -> RoutingRule:
    return RoutingRule.model_validate({"name": name, **values})


@pytest.mark.parametrize("name", CONDITIONS)
def test_each_condition_matches_what_it_names_and_nothing_that_is_missing(name: str) -> None:
    only = rule(**{name: CONDITIONS[name]})
    decided = route(FULL, [only])
    assert decided is not None
    assert decided.rule == "r"
    empty = route(ImageFacts(), [only])
    assert empty == Route("", NO_RULE_MATCHES)


def test_all_conditions_must_match_and_the_decision_says_which_did() -> None:
    decided = route(FULL, [rule(**CONDITIONS)])
    assert decided is not None
    assert decided.why.startswith("calling AE title ICU_DX; called AE title PLEURA; station name MOBILE3; ")
    assert decided.why.endswith("sex F; view AP; age 61.5")
    for field in fields(ImageFacts):
        nothing: dict[str, Any] = {field.name: () if field.name == "views" else None if "age_" in field.name else ""}
        other = route(replace(FULL, **nothing), [rule(**CONDITIONS)])
        assert other is not None
        assert other.rule == "", field.name


def test_a_regular_expression_that_matches_anything_matches_nothing_that_is_missing() -> None:
    for pattern in ("", ".*", "^$", "^(?!North)"):
        (check,) = checks(ImageFacts(), [rule(institutions=[pattern], analyse=False, reason="x")])
        assert (check.matches, check.why) == (False, "institution is unknown")


def test_the_first_rule_that_matches_decides_and_none_after_it_is_looked_at() -> None:
    rules = [rule("hands", body_parts=["HAND"]), rule("icu", sexes=["F"]), rule("rest")]
    looked_at = list(checks(FULL, rules))
    assert [(each.rule, each.matches) for each in looked_at] == [("hands", False), ("icu", True)]
    assert looked_at[0].why == "body part is PORT CHEST"
    assert route(FULL, ()) is None


def header(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_a_header_is_read_as_it_is_written() -> None:
    coded = header(CodeValue="399348003", CodingSchemeDesignator="SCT", CodeMeaning="antero-posterior")
    made = header(
        StationName=" MOBILE3 ",
        ViewPosition="THORAX A.P.",
        ViewCodeSequence=[coded],
        PatientBirthDate="19650102",
        StudyDate="20260101",
        PatientSex="f",
        StudyDescription="Chest\\bed",
    )
    facts = facts_of(made, " ICU_DX ", "PLEURA")
    assert (facts.station_name, facts.views, facts.sex, facts.calling_ae_title) == ("MOBILE3", ("AP",), "F", "ICU_DX")
    assert facts.study_description == "Chest\\bed"
    assert facts.age_years == pytest.approx(60.99, abs=0.02)


@pytest.mark.filterwarnings("ignore")
@given(
    st.dictionaries(
        st.sampled_from(["StationName", "Modality", "PatientSex", "PatientAge", "ViewPosition", "StudyDate"]),
        st.text(max_size=20) | st.lists(st.text(max_size=5), max_size=3),
    )
)
def test_any_header_gets_a_decision(values: dict[str, Any]) -> None:
    rules = [rule("m", modalities=["DX"], views=["AP"], minimum_age_years=3), rule("s", station_names=["x"])]
    decided = route(facts_of(header(**values)), rules)
    assert decided is not None
    assert decided.why.isprintable()


def test_what_a_rule_excludes_says_by_which_rule_and_why() -> None:
    decided = route(FULL, [rule("icu", sexes=["F"], analyse=False, reason="no AI on this ward.")])
    not_eligible = excluded_by(decided)
    assert not_eligible is not None
    assert not_eligible.code == "excluded-by-rule"
    assert not_eligible.sentence == "Routing rule icu stores it without analysis: no AI on this ward."
    assert excluded_by(route(FULL, [rule("icu")])) is None
    assert excluded_by(None) is None


@pytest.mark.parametrize(
    ("chosen", "run"),
    [(None, ("a", "b")), (("b",), ("b",)), (("b", "gone"), ("b",)), (("gone",), ("a", "b"))],
)
def test_models_that_are_configured_no_more_leave_no_image_unanalysed(
    chosen: tuple[str, ...] | None, run: tuple[str, ...]
) -> None:
    assert models_that_run(Route("r", "", chosen), ("a", "b")) == run


def test_destinations_and_kinds_only_become_fewer() -> None:
    def taken(decision: Route | None) -> dict[str, tuple[str, ...]]:
        return {each.name: each.kinds for each in routed_destinations((PACS, VNA), decision)}

    assert taken(None) == {"pacs": PACS.kinds, "vna": VNA.kinds}
    assert taken(Route("r", "", destinations=("vna", "gone"))) == {"vna": ("sr",)}
    assert taken(Route("r", "", kinds=("sc", "seg"))) == {"pacs": ("seg",), "vna": ()}
    assert taken(Route("r", "", destinations=())) == {}


def test_a_study_goes_where_one_of_its_images_goes() -> None:
    def taken(*decisions: Route | None) -> dict[str, tuple[str, ...]]:
        return {each.name: each.kinds for each in study_destinations((PACS, VNA), decisions)}

    nowhere, to_vna, summary = (
        Route("n", "", destinations=()),
        Route("v", "", destinations=("vna",)),
        Route("s", "", destinations=("pacs",), kinds=("summary",)),
    )
    assert taken() == taken(None) == {"pacs": PACS.kinds, "vna": VNA.kinds}
    assert taken(nowhere) == {}
    assert taken(nowhere, to_vna) == {"vna": ("sr",)}
    assert taken(to_vna, summary) == {"pacs": ("summary",), "vna": ("sr",)}
    assert taken(to_vna, None) == taken()
