"""Findings of one model made consistent: a parent, such as *abnormal*, is at least as probable as what is part of it.

A network has one output for each label and knows nothing of their meaning, and each label has a threshold of its own.
So a report could call a lung opacity present and the image not abnormal. A manifest declares ``parent`` for a label;
here the parent is raised before thresholds are applied, and it is present wherever something of it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from models.model_spec import LabelSpec, Mode


class HierarchyError(ValueError):
    """The parents of labels cannot be what a manifest says; the message says why."""


@dataclass(frozen=True, slots=True)
class Consistent:
    """A label's probability, and the label that makes it present although its own threshold is not reached, if any."""

    probability: float
    implied_by: str = ""


def check_parents(labels: Sequence[LabelSpec]) -> None:
    """Check that each parent is another label of the model, and that none is its own ancestor.

    Raises:
        HierarchyError: it is not so.
    """
    parents = {label.name: label.parent for label in labels}
    for label in labels:
        if label.parent and label.parent not in parents:
            raise HierarchyError(f"the parent '{label.parent}' of '{label.name}' is no label of this model")
        if label.name in _ancestors(label.name, parents):
            raise HierarchyError(f"'{label.name}' is its own ancestor")


def consistent(labels: Sequence[LabelSpec], probabilities: Sequence[float]) -> tuple[Consistent, ...]:
    """Evaluate every label from its raw probability: raise each parent to its most probable part, then imply parents.

    A label in shadow never raises one that is delivered: nothing that is sent may depend on it.
    """
    parts = _parts(labels)
    raised = [
        max([probability, *(probabilities[part] for part in parts[number])])
        for number, probability in enumerate(probabilities)
    ]
    return tuple(
        Consistent(probability, _implied_by(number, labels, raised, parts[number]))
        for number, probability in enumerate(raised)
    )


def _implied_by(number: int, labels: Sequence[LabelSpec], raised: Sequence[float], parts: Sequence[int]) -> str:
    if raised[number] >= labels[number].threshold:
        return ""
    present = [part for part in parts if raised[part] >= labels[part].threshold]
    return labels[max(present, key=lambda part: raised[part])].name if present else ""


def _parts(labels: Sequence[LabelSpec]) -> list[list[int]]:
    """For each label the numbers of those that may raise it: its descendants; of an active one only the active."""
    parents = {label.name: label.parent for label in labels}
    return [
        [
            number
            for number, label in enumerate(labels)
            if whole.name in _ancestors(label.name, parents)
            and (whole.mode is Mode.SHADOW or label.mode is Mode.ACTIVE)
        ]
        for whole in labels
    ]


def _ancestors(name: str, parents: Mapping[str, str]) -> set[str]:
    return set(_upwards(name, parents))


def _upwards(name: str, parents: Mapping[str, str]) -> Iterator[str]:
    """Parent, its parent and so on; each once, so that a circle ends."""
    seen: set[str] = set()
    while (name := parents.get(name, "")) and name not in seen:
        seen.add(name)
        yield name
