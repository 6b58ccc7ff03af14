"""New, known, larger, smaller: what is claimed of two films, and what is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from db.records import ComparableFinding, PriorStudy
from models.model_spec import Code
from tests.workers.builders import finding
from workers.comparison import LEAST_RATIO, compare
from workers.results.study_account import Change, ChangeKind, Extent

CODES = {name: Code(name, "99", name) for name in ("pneumothorax", "lung_opacity", "abnormal")}
PARENTS = {"lung_opacity": "abnormal"}
NEW, KNOWN, LARGER, SMALLER = ChangeKind


def on_film(
    label: str = "pneumothorax",
    probability: float | None = 0.9,
    view: str = "PA",
    rejected: bool = False,
    **changes: Any,
) -> ComparableFinding:
    values = {"side": "right", "lung_share": 0.2, "area_mm2": 2000.0} | changes
    return ComparableFinding(finding(label, probability, **values), rejected, view, "1.2", "1.2.3", "1.2.4")


def changes(now: list[ComparableFinding], *then: ComparableFinding) -> tuple[Change, ...]:
    compared = compare(now, PriorStudy("1.2.9", "20260102", then), CODES, PARENTS)
    return () if compared is None else compared.changes


def kind(now: ComparableFinding, *then: ComparableFinding) -> ChangeKind | None:
    found = changes([now], *then)
    return found[0].kind if found else None


@pytest.mark.parametrize(
    ("now", "then", "expected"),
    [
        (0.2, 0.2, KNOWN),
        (0.2 * LEAST_RATIO * 0.99, 0.2, KNOWN),
        (0.2 * LEAST_RATIO * 1.01, 0.2, LARGER),
        (0.2, 0.2 * LEAST_RATIO * 1.01, SMALLER),
        (0.04, 0.01, KNOWN),
        (0.2, None, KNOWN),
        (None, 0.2, KNOWN),
        (0.2, 0.0, KNOWN),
    ],
)
def test_a_size_is_claimed_beyond_the_noise_alone(now: float | None, then: float | None, expected: ChangeKind) -> None:
    assert kind(on_film(lung_share=now), on_film(lung_share=then)) is expected


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ({"view": "PA"}, {"view": "AP"}),
        ({"view": ""}, {"view": ""}),
        ({"view": "FRONTAL"}, {"view": "FRONTAL"}),
        ({"side": "right"}, {"side": "both"}),
        ({"side": ""}, {"side": ""}),
    ],
)
def test_without_like_films_no_size_is_claimed(now: dict[str, Any], then: dict[str, Any]) -> None:
    assert kind(on_film(lung_share=0.9, **now), on_film(lung_share=0.1, **then)) is KNOWN


@pytest.mark.parametrize(
    ("now", "then", "expected"),
    [
        ("left", "right", NEW),
        ("left", "both", KNOWN),
        ("unknown", "right", None),
        ("right", "unknown", None),
    ],
)
def test_the_other_side_is_new_and_an_unknown_one_says_nothing(
    now: str, then: str, expected: ChangeKind | None
) -> None:
    assert kind(on_film(side=now), on_film(side=then)) is expected


def test_what_the_prior_did_not_show_is_new() -> None:
    assert kind(on_film(), on_film(probability=0.1)) is NEW
    assert kind(on_film(), on_film(rejected=True)) is NEW, "a reader saw that it was not there"
    assert kind(on_film(), on_film(probability=None)) is None, "the model could not tell then"
    assert kind(on_film(), on_film("lung_opacity")) is None, "nobody looked for it then"


def test_nothing_is_said_of_what_has_gone_and_of_a_whole_beside_its_part() -> None:
    assert changes([on_film(probability=0.1)], on_film()) == ()
    both = [on_film("lung_opacity"), on_film("abnormal", side="")]
    found = changes(both, on_film("lung_opacity"), on_film("abnormal", side=""))
    assert [each.words for each in found] == ["lung opacity"]
    assert changes([on_film("mass")], on_film("mass")) == (), "a label that may not leave the node"


def test_the_larger_of_two_images_is_compared() -> None:
    now = [on_film(lung_share=0.1, area_mm2=1000.0), on_film(lung_share=0.4, area_mm2=4000.0)]
    (found,) = changes(now, on_film(lung_share=0.1, area_mm2=None))
    assert (found.kind, found.now, found.before) == (LARGER, Extent(4000.0, 0.4), Extent(None, 0.1))


def test_what_was_on_one_side_and_is_on_both_is_not_called_known() -> None:
    """It is new on the other side, which "known" would hide."""
    assert kind(on_film(side="both"), on_film(side="right")) is None
    assert kind(on_film(side="both"), on_film(side="right"), on_film(side="left")) is KNOWN


def test_a_place_is_not_compared_with_none() -> None:
    assert kind(on_film(side="right"), on_film(side="")) is None
    assert kind(on_film(side=""), on_film(side="right")) is None


def test_the_area_of_the_other_side_is_not_the_area_before() -> None:
    before = on_film(side="right", area_mm2=500.0), on_film(side="left", lung_share=0.8, area_mm2=9000.0)
    (change,) = changes([on_film(side="right")], *before)
    assert change.before == Extent(500.0, 0.2)


@pytest.mark.parametrize("other", [{"model": "another"}, {"model_version": "0"}])
def test_what_another_network_left_out_is_not_new_and_its_sizes_are_not_compared(other: dict[str, Any]) -> None:
    assert kind(on_film(), on_film(probability=0.1, **other)) is None
    assert kind(on_film(side="left"), on_film(side="right", **other)) is None
    (change,) = changes([on_film(lung_share=0.9)], on_film(lung_share=0.1, **other))
    assert (change.kind, change.before) == (KNOWN, Extent())
    assert kind(on_film(), on_film(probability=0.1, **other), on_film(probability=0.1)) is NEW, "both looked for it"


@pytest.mark.parametrize(("now", "then"), [("", "unet 1.0"), ("unet 1.0", ""), ("unet 1.0", "unet 2.0")])
def test_the_sizes_of_places_that_different_networks_draw_are_not_compared(now: str, then: str) -> None:
    """One network says whether on both films, and its place is that of another one (``place_of``) on one of them."""
    film = on_film(lung_share=0.9, placed_by=now)
    (change,) = changes([film], on_film(lung_share=0.1, placed_by=then))
    assert (change.kind, change.before) == (KNOWN, Extent())
    assert kind(film, on_film(probability=0.1, placed_by=then)) is NEW
    assert kind(film, on_film(lung_share=0.1, placed_by=now)) is LARGER


@pytest.mark.parametrize(("now", "then"), [("", "lungs 1.0"), ("lungs 1.0", ""), ("lungs 2.0", "lungs 1.0")])
def test_shares_of_lungs_that_different_networks_draw_are_not_compared(now: str, then: str) -> None:
    film = on_film(lung_share=0.9, lungs_by=now)
    (change,) = changes([film], on_film(lung_share=0.1, lungs_by=then))
    assert (change.kind, change.before) == (KNOWN, Extent())
    assert kind(film, on_film(lung_share=0.1, lungs_by=now)) is LARGER


def test_what_a_lower_threshold_shows_is_not_new() -> None:
    now = on_film(probability=0.4, threshold=0.3)
    assert kind(now, on_film(probability=0.35, threshold=0.5)) is None
    assert kind(now, on_film(probability=0.2, threshold=0.5)) is NEW


def test_what_a_second_image_shows_on_the_other_side_is_not_called_known() -> None:
    now = [on_film(side="left", lung_share=0.4), on_film(side="right", lung_share=0.1)]
    assert changes(now, on_film(side="left")) == ()
    assert [each.kind for each in changes(now, *now)] == [KNOWN]


def test_the_film_that_showed_it_is_referred_to_and_no_other() -> None:
    without = replace(on_film(probability=0.1), sop_instance_uid="1.2.3.1")
    films = without, on_film()

    def images(*then: ComparableFinding) -> list[str]:
        compared = compare([on_film()], PriorStudy("1.2.9", "20260102", then), CODES, PARENTS)
        return [] if compared is None else [image.sop_instance_uid for image in compared.images]

    assert images(*films) == ["1.2.3"]
    assert images(without, replace(without, sop_instance_uid="1.2.3.4")) == ["1.2.3.1", "1.2.3.4"], "where it was not"
