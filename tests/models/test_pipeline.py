"""The digest of a pipeline names an analysis: it follows values, and no names in the code."""

from __future__ import annotations

from dataclasses import make_dataclass, replace

from models.pipeline import Condition, Pipeline, Processing, _as_json
from tests.models.test_gate import GATE


def test_another_value_is_another_analysis() -> None:
    pipeline = Pipeline(gate=GATE, models=())
    assert GATE.gate is not None
    changed = (
        replace(pipeline, processing=Processing(minimum_fraction=1e-3)),
        replace(pipeline, gate=replace(GATE, gate=replace(GATE.gate, min_probability=0.71))),
        replace(pipeline, gate=replace(GATE, labels=GATE.labels[:-1])),
        replace(pipeline, gate=replace(GATE, input=replace(GATE.input, height=64))),
        replace(pipeline, gate=None),
    )
    digests = {each.digest() for each in (pipeline, *changed)} | {pipeline.digest("seg 4")}
    assert len(digests) == len(changed) + 2


def test_a_renamed_field_or_class_is_the_same_analysis() -> None:
    renamed = make_dataclass("Rule", ["network", "question", "answer"])
    assert _as_json((Condition("a", "b", "c"),)) == _as_json((renamed("a", "b", "c"),))
