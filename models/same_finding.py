"""Of two networks with the same finding one delivers it, since two answers may contradict each other.

The manifest decides which. ``place_of``: the other network says *whether* (probability, threshold, answer), this one
*where*. ``replaces``: this one says both, because it does so better. The finding that does not go out is stored in
shadow, so that the two can be compared (``pleura drift``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeGuard

from models.contract import Finding
from models.hierarchy import Consistent, consistent
from models.model_spec import LabelSpec, Mode, ModelSpec

_Findings = dict[tuple[str, str], Finding]


def reconciled(findings: Sequence[Finding], models: Sequence[ModelSpec]) -> tuple[Finding, ...]:
    """The findings of one image, of which no two that are sent are the same one.

    Nothing changes where the finding of the manifest that says so is in shadow: what has not been shown to hold changes
    nothing that is sent. One that has no answer is only stored where the other one has.
    """
    found = {(finding.model, finding.label): finding for finding in findings}
    for spec in models:
        for label in spec.labels if spec.mode is not Mode.SHADOW else ():
            whether, where = found.get((label.place_of, label.name)), found.get((spec.name, label.name))
            if _sent(whether) and _sent(where):
                found[label.place_of, label.name] = _with_place(whether, where)
                reason = f"its place is that of the finding of {whether.model}"
                found[spec.name, label.name] = _only_stored(where, reason)
    senders = {
        spec.name: {label.name: sender for label in spec.labels if (sender := _sender(found, spec.name, label, models))}
        for spec in models
        if spec.mode is not Mode.SHADOW
    }
    for spec in models:
        if by := senders.get(spec.name):
            _replace(found, spec, by)
    _store_unanswered(found, models)
    return tuple(found.values())


def sent_twice(models: Sequence[ModelSpec]) -> dict[str, tuple[str, ...]]:
    """The labels that several models send beside each other, with these models: no manifest says which is sent."""
    active = {
        (label.name, spec.name): label
        for spec in models
        for label in spec.labels
        if Mode.SHADOW not in (spec.mode, label.mode)
    }
    found: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys(label for label, _ in active):
        own = {model: label for (each, model), label in active.items() if each == name}
        stored = {other for label in own.values() for other in _replaced(label, models)}
        stored |= {model for model, label in own.items() if label.place_of in own}
        if len(own.keys() - stored) > 1:
            found[name] = tuple(model for model in own if model not in stored)
    return found


def _sent(finding: Finding | None) -> TypeGuard[Finding]:
    return finding is not None and finding.probability is not None and finding.mode is not Mode.SHADOW


def _sender(found: _Findings, name: str, label: LabelSpec, models: Sequence[ModelSpec]) -> str:
    """The model whose finding goes out in the place of this one: the last that does, where one replaces another."""
    for other in models:
        for own in other.labels:
            if (own.replaces, own.name) == (name, label.name):
                further = _sender(found, other.name, own, models)
                return further or (other.name if _sent(found.get((other.name, own.name))) else "")
    return ""


def _store_unanswered(found: _Findings, models: Sequence[ModelSpec]) -> None:
    """Only store a finding without an answer where one that it would replace goes out: "not assessed" contradicts each
    answer."""
    for spec in models:
        for label in spec.labels:
            own = found.get((spec.name, label.name))
            said_by = [name for name in _replaced(label, models) if _sent(found.get((name, label.name)))]
            if own is not None and own.probability is None and said_by:
                found[spec.name, label.name] = _only_stored(own, f"{said_by[0]} says it")


def _replaced(label: LabelSpec, models: Sequence[ModelSpec]) -> Iterator[str]:
    """The models whose finding a label replaces: the one that it names, the one that this one replaces, and so on."""
    replaces = {(spec.name, own.name): own.replaces for spec in models for own in spec.labels}
    name = label.replaces
    while name:
        yield name
        name = replaces.get((name, label.name), "")


def _only_stored(finding: Finding, why: str) -> Finding:
    return replace(finding, mode=Mode.SHADOW, reason=finding.reason or f"only stored: {why}")


def _with_place(whether: Finding, where: Finding) -> Finding:
    """A present finding with another one's place; an absent one has none, whatever the other marks."""
    finding = replace(
        whether, mask=None, boxes=(), lesions=(), lungs=None, heat_map=where.heat_map, placed_by=where.model
    )
    if not whether.present:
        return finding
    if where.mask is None:
        return replace(finding, reason=whether.reason or f"present, but {where.model} marks no region")
    return replace(finding, mask=where.mask, lesions=where.lesions, lungs=where.lungs, hanging=where.hanging)


def _replace(found: _Findings, spec: ModelSpec, senders: Mapping[str, str]) -> None:
    """Only store what other models say in a model's place; what that is part of follows from their findings.

    ``senders`` are those models by label.
    """
    own = {label.name: finding for label in spec.labels if (finding := found.get((spec.name, label.name)))}
    if not own:
        return
    by = {label: found[model, label] for label, model in senders.items()}
    labels = [_as_sent(label, by[label.name]) if label.name in by else label for label in spec.labels]
    scores = {name: by[name].probability if name in by else finding.own_probability for name, finding in own.items()}
    # A label without an answer raises no parent (models.findings.findings_answered).
    made = consistent(labels, [scores[label.name] or 0.0 for label in labels])
    for label, after in zip(labels, made, strict=True):
        finding = own[label.name]
        if label.name in by:
            sent = by[label.name]
            # It is part of what the finding that it replaces is part of, for the report's first sentence.
            sent = replace(sent, parent=label.parent or sent.parent)
            found[sent.model, label.name] = _raised(sent, after)
            reason = f"{sent.model} says it in the place of {spec.name}"
            found[spec.name, label.name] = _only_stored(finding, reason)
        elif scores[label.name] is not None:
            found[spec.name, label.name] = _made_consistent(finding, after)


def _as_sent(label: LabelSpec, sent: Finding) -> LabelSpec:
    """A label with the threshold that makes the finding that is sent present, or not."""
    reached = sent.probability if sent.present and sent.probability is not None else sent.threshold
    return replace(label, threshold=min(sent.threshold, reached), mode=Mode.ACTIVE)


def _raised(sent: Finding, after: Consistent) -> Finding:
    """The finding that is sent, made consistent with what the model that it replaces sends as a part of it."""
    return _made_consistent(sent, replace(after, implied_by=after.implied_by or sent.implied_by))


def _made_consistent(finding: Finding, after: Consistent) -> Finding:
    """A finding of which something else is part now."""
    if (finding.probability, finding.implied_by) == (after.probability, after.implied_by):
        return finding
    reason = "" if finding.implied_by else finding.reason
    if after.implied_by:
        reason = f"follows from {after.implied_by.replace('_', ' ')}"
    made = replace(finding, probability=after.probability, implied_by=after.implied_by, reason=reason)
    if made.present == finding.present:
        return made
    # No place was cut for this answer.
    return replace(made, mask=None, boxes=(), lesions=(), lungs=None)
