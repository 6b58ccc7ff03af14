"""Which models analyse an image, with which thresholds and options: the value whose digest names an *analysis*.

Nothing here loads a network or imports what would: the listener computes digests too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from models.contract import ModelUse
from models.manifest import ManifestError
from models.model_registry import read_registry
from models.model_spec import LabelSpec, Mode, ModelKind, ModelSpec

PROCESSING_VERSION = 3
"""Raised with every change of the code between stored pixels and findings that may change a result."""


@dataclass(frozen=True, slots=True)
class Processing:
    """What is done with a network's answers: regions below ``minimum_fraction`` of the image are dropped from masks."""

    minimum_fraction: float = 5e-4
    version: int = PROCESSING_VERSION


@dataclass(frozen=True, slots=True)
class Condition:
    """``model`` runs only on images in which the model ``asked`` finds ``label``, whatever becomes of that finding."""

    model: str
    asked: str
    label: str


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A gate (or none), the models behind it and the processing options. A model's mode says what becomes of it.

    Models run in their order; ``conditions`` keep some from images in which an earlier one finds nothing. ``lungs``
    says where the lungs are; without it masks stay as the models draw them.
    """

    gate: ModelSpec | None
    models: tuple[ModelSpec, ...]
    processing: Processing = Processing()
    conditions: tuple[Condition, ...] = ()
    lungs: ModelSpec | None = None

    def __post_init__(self) -> None:
        if self.lungs is not None and self.lungs.kind is not ModelKind.LUNGS:
            raise ManifestError(f"'{self.lungs.name}' is a {self.lungs.kind} and does not say where the lungs are")
        if self.gate is not None and self.gate.kind is not ModelKind.GATE:
            raise ManifestError(f"'{self.gate.name}' is a {self.gate.kind} and cannot be the gate")
        for spec in self.models:
            if spec.kind in (ModelKind.GATE, ModelKind.LUNGS):
                raise ManifestError(f"'{spec.name}' is of the kind {spec.kind} and reports no findings")
        names = [spec.name for spec in self.models]
        for name in names:
            if names.count(name) > 1:
                raise ManifestError(f"the model '{name}' is to run twice on one image")
        for condition in self.conditions:
            _check_condition(condition, self.models)
        _check_places(self.models)

    def __iter__(self) -> Iterator[ModelSpec]:
        """All models, the gate first, the lungs last."""
        return iter(spec for spec in (self.gate, *self.models, self.lungs) if spec is not None)

    @property
    def uses(self) -> tuple[ModelUse, ...]:
        """How results and database name the models."""
        return tuple(ModelUse(spec.name, spec.version, spec.title, spec.digest, spec.device_uid) for spec in self)

    def digest(self, *others: str) -> str:
        """SHA-256 in hexadecimal over all that changes a result; ``others`` are the encoder versions of other rooms."""
        digest = hashlib.sha256()
        for part in (*self._parts(), *others):
            encoded = part.encode()
            digest.update(len(encoded).to_bytes(8, "big"))
            digest.update(encoded)
        return digest.hexdigest()

    def only(self, names: Collection[str]) -> Pipeline:
        """The same pipeline with those of its models; quality check and lungs stay.

        Raises:
            ManifestError: a model runs after one that is left out.
        """
        models = _bridged((spec for spec in self.models if spec.name in names), self.models)
        conditions = tuple(condition for condition in self.conditions if condition.model in names)
        return self if len(models) == len(self.models) else replace(self, models=models, conditions=conditions)

    def condition_of(self, name: str) -> Condition | None:
        """When the model of that name runs; None where it always does."""
        return next((condition for condition in self.conditions if condition.model == name), None)

    def _parts(self) -> Iterator[str]:
        yield _as_json(self.processing)
        yield _as_json(self.conditions)
        for spec in self:
            yield from (spec.name, spec.version, spec.title, spec.kind, spec.digest, spec.onnx_digest, spec.device_uid)
            yield from (_as_json(spec.input), spec.activation, spec.mode, _as_json(spec.gate))
            yield from (_as_json(spec.outputs), _as_json(spec.pooling))
            yield _as_json(spec.endpoint.identity if spec.endpoint is not None else None)
            for label in spec.labels:
                yield _as_json(replace(label, evidence=None))
                # The one figure of the card that a report repeats.
                yield _as_json(label.evidence.sensitivity if label.evidence is not None else None)


def _as_json(value: object) -> str:
    """The values of a part in the order of its fields: a renamed field or class gives no analysis another UID."""
    return json.dumps(_values(value), separators=(",", ":"))


def _values(value: Any) -> object:
    if is_dataclass(value):
        return [_values(getattr(value, field.name)) for field in fields(value)]
    return [_values(each) for each in value] if isinstance(value, tuple) else value


def load_pipeline(
    folder: Path | None,
    active: Iterable[str],
    *,
    shadow: Iterable[str] = (),
    gate: str = "",
    lungs: str = "",
    processing: Processing | None = None,
    verify: bool = True,
    switches: Mapping[str, Mode] | None = None,
    conditions: Iterable[Condition] = (),
) -> Pipeline:
    """Compose a pipeline from the names in a configuration: bundled models and those in ``folder``.

    ``shadow`` models run beside the active ones, and none of their findings is ever sent. A model that its own manifest
    puts in shadow stays there. ``switches`` are what people have decided since, by name: they outweigh the lists, not
    the manifests.

    Raises:
        UnknownModel: No manifest has one of the names.
        ManifestError: A manifest is wrong, a file has another digest, or a model cannot stand in its place.
    """
    registry = read_registry(folder, verify=verify)
    modes = dict.fromkeys(active, Mode.ACTIVE) | dict.fromkeys(shadow, Mode.SHADOW)
    modes |= {name: mode for name, mode in (switches or {}).items() if name in modes}
    specs = _bridged((*registry.active(active), *registry.active(shadow)), registry)
    return Pipeline(
        gate=registry.find(gate) if gate else None,
        lungs=registry.find(lungs) if lungs else None,
        models=tuple(replace(spec, mode=Mode.SHADOW) if modes[spec.name] is Mode.SHADOW else spec for spec in specs),
        processing=processing or Processing(),
        conditions=tuple(conditions),
    )


def _check_places(models: Sequence[ModelSpec]) -> None:
    """Raise ManifestError where two models would give a third one's finding a place or replace it, where that model
    runs and does not report it, or where no finding is left to send."""
    labels = {spec.name: {label.name: label for label in spec.labels} for spec in models}
    seen: set[tuple[str, str]] = set()
    for spec in models:
        for label in spec.labels:
            other = label.place_of or label.replaces
            what = f"has the place of '{label.name}'" if label.place_of else f"replaces '{label.name}'"
            if other in labels and label.name not in labels[other]:
                raise ManifestError(f"'{spec.name}' {what}, which '{other}' does not report")
            if other in labels and labels[other][label.name].place_of:
                raise ManifestError(f"'{spec.name}' {what} of '{other}', which is only a place")
            if other and (other, label.name) in seen:
                raise ManifestError(f"two models have the place of '{label.name}' of '{other}', or replace it")
            seen |= {(other, label.name)} if other else set()
            _check_circle(spec.name, label.name, labels)


def _check_circle(name: str, label: str, labels: Mapping[str, Mapping[str, LabelSpec]]) -> None:
    """Raise ManifestError where a model replaces a finding that, over others, replaces its own."""
    passed = [name]
    while own := labels.get(passed[-1], {}).get(label):
        if own.replaces in passed:
            raise ManifestError(f"each replaces '{label}' of the next one: {', '.join([*passed, own.replaces])}")
        passed.append(own.replaces)


def _bridged(chosen: Iterable[ModelSpec], known: Iterable[ModelSpec]) -> tuple[ModelSpec, ...]:
    """The models that are chosen of those that are known; a finding that would replace one of a model that is left out
    replaces what that one would replace, or the same finding would be sent twice."""
    chosen = tuple(chosen)
    names = {spec.name for spec in chosen}
    replaced = {(spec.name, label.name): label.replaces for spec in known for label in spec.labels}

    def bridged(label: LabelSpec) -> LabelSpec:
        other, left = label.place_of or label.replaces, dict(replaced)
        while other not in names and (other, label.name) in left:
            other = left.pop((other, label.name))
        if other in (label.place_of, label.replaces):
            return label
        return replace(label, place_of=other) if label.place_of else replace(label, replaces=other)

    return tuple(replace(spec, labels=tuple(bridged(label) for label in spec.labels)) for spec in chosen)


def _check_condition(condition: Condition, models: Sequence[ModelSpec]) -> None:
    """Raise ManifestError unless both models run, in that order, and the one that is asked knows the label."""
    names = [spec.name for spec in models]
    for name in (condition.model, condition.asked):
        if name not in names:
            raise ManifestError(f"'{condition.model}' is to run after '{condition.asked}', but '{name}' does not run")
    if names.index(condition.asked) >= names.index(condition.model):
        raise ManifestError(f"'{condition.model}' is to run after '{condition.asked}', which does not come before it")
    labels = [label.name for label in models[names.index(condition.asked)].labels]
    if condition.label not in labels:
        raise ManifestError(f"'{condition.asked}' has no label '{condition.label}' (it has: {', '.join(labels)})")
