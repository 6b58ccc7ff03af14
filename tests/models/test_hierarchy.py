"""Findings made consistent: a parent is at least as probable as its parts, and present where one of them is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.hierarchy import Consistent, HierarchyError, check_parents, consistent
from models.manifest import read_manifest
from models.model_registry import BUNDLED
from models.model_spec import Code, LabelSpec, Mode

CODE = Code("1", "99TEST", "a finding")


def label(name: str, threshold: float, parent: str = "", mode: Mode = Mode.ACTIVE) -> LabelSpec:
    return LabelSpec(name, CODE, threshold, mode=mode, parent=parent)


OPACITY, ABNORMAL = label("opacity", 0.3, "abnormal"), label("abnormal", 0.5)


@pytest.mark.parametrize(
    ("opacity", "abnormal", "expected"),
    [
        (0.43, 0.40, Consistent(0.43, "opacity")),  # the report that contradicted itself
        (0.60, 0.40, Consistent(0.60)),
        (0.20, 0.10, Consistent(0.20)),
        (0.20, 0.90, Consistent(0.90)),
        (0.31, 0.45, Consistent(0.45, "opacity")),
    ],
)
def test_what_is_part_of_it_raises_a_parent(opacity: float, abnormal: float, expected: Consistent) -> None:
    assert consistent((OPACITY, ABNORMAL), (opacity, abnormal)) == (Consistent(opacity), expected)


def test_what_is_in_shadow_raises_nothing_that_is_delivered() -> None:
    shadow = replace(OPACITY, mode=Mode.SHADOW)

    assert consistent((shadow, ABNORMAL), (0.9, 0.1)) == (Consistent(0.9), Consistent(0.1))
    both = (shadow, replace(ABNORMAL, mode=Mode.SHADOW))
    assert consistent(both, (0.45, 0.1)) == (Consistent(0.45), Consistent(0.45, "opacity"))


def test_a_grandparent_is_raised_too() -> None:
    labels = (label("nodule", 0.2, "opacity"), OPACITY, ABNORMAL)

    nodule = Consistent(0.25, "nodule")
    assert consistent(labels, (0.25, 0.1, 0.1)) == (Consistent(0.25), nodule, nodule)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((label("a", 0.5, "b"),), "no label of this model"),
        ((label("a", 0.5, "a"),), "its own ancestor"),
        ((label("a", 0.5, "b"), label("b", 0.5, "a")), "its own ancestor"),
        ((label("c", 0.5, "a"), label("a", 0.5, "b"), label("b", 0.5, "a")), "its own ancestor"),
    ],
)
def test_parents_that_cannot_be(labels: tuple[LabelSpec, ...], message: str) -> None:
    with pytest.raises(HierarchyError, match=message):
        check_parents(labels)


_SHARE = st.floats(0, 1)


@given(st.lists(st.tuples(_SHARE, st.floats(0.01, 0.99), st.booleans()), min_size=2, max_size=6))
def test_no_report_contradicts_itself(values: list[tuple[float, float, bool]]) -> None:
    """The first label is the parent of the others, some of which are in shadow."""
    labels = tuple(
        label(f"l{number}", threshold, "l0" if number else "", Mode.SHADOW if shadow and number else Mode.ACTIVE)
        for number, (_, threshold, shadow) in enumerate(values)
    )
    whole, *parts = consistent(labels, [probability for probability, _, _ in values])
    present = bool(whole.implied_by) or whole.probability >= labels[0].threshold
    for spec, part, (probability, _, _) in zip(labels[1:], parts, values[1:], strict=True):
        assert part == Consistent(probability)
        if spec.mode is Mode.ACTIVE:
            assert whole.probability >= part.probability
            assert present or part.probability < spec.threshold


def test_the_bundled_classifier_declares_what_abnormal_is_made_of() -> None:
    labels = read_manifest(BUNDLED / "chest-classifier.toml").labels

    assert {item.name: item.parent for item in labels} == {
        item.name: "" if item.name == "abnormal" else "abnormal" for item in labels
    }
