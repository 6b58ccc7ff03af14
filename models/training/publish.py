"""Put a trained network into the shape that the node serves, with the evidence behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from models.architectures.base import Architecture, Array
from models.manifest import file_digest, manifest_text, read_manifest, training_uid
from models.model_spec import (
    Activation,
    CalibrationSpec,
    Code,
    GateSpec,
    InputSpec,
    LabelSpec,
    Mode,
    ModelKind,
    ModelSpec,
)
from models.similar import StoredCase, write_index
from models.training.codes import LUNG_CODES, PRIVATE_SCHEME, code_of, in_hierarchy
from models.training.evaluation.detection import Detected
from models.training.evaluation.predictions import LEARNT
from models.training.figures import (
    LEAST_DICE,
    LEAST_POINTING,
    LEAST_POSITIVES,
    Figures,
    LabelFigures,
    PlaceFigures,
    best_map_cut,
    figures,
    label_spec,
    write_evidence,
)
from models.training.lung_measure import LungRow, lung_figures, write_rows
from models.training.model_card import findings_card, gate_card, lungs_card
from models.training.onnx_export import export_onnx
from models.training.predicted import Predicted
from models.training.recipe import Recipe

UNMEASURED_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class CardText:
    """What a card says beside figures: where the evidence comes from, how to make it again, and from what data."""

    how: str
    command: str
    data: str


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """The network that ships, and a few images ``float32[n, size, size, 1]`` on which its export must agree with it."""

    network: keras.Model
    probe: Array


def publish(
    architecture: Architecture,
    recipe: Recipe,
    served: Served,
    predicted: Predicted,
    out: Path,
    text: CardText,
    *,
    fitted: dict[str, Any] | None = None,
    calibration: Mapping[str, CalibrationSpec] | None = None,
    stored: Sequence[StoredCase] = (),
    rounds: int = 1000,
) -> ModelSpec:
    """Write network (Keras and ONNX), manifest, card and evidence; returns the spec as a node reads it.

    ``fitted`` is what calibration adds to the evidence, ``calibration`` what of it the manifest declares. ``stored``
    are the cases of an architecture that keeps an index, in the order in which its fit saw them.

    Raises:
        ExportError: the export does not answer as the network does.
    """
    difference = _export(recipe, served, out)
    asked = recipe.evaluation
    map_cut = best_map_cut(predicted) if asked.map_cut_off == "best" else asked.map_cut_off
    cut_off = None if asked.cut_off == "youden" else asked.cut_off
    found = figures(predicted, cut_off, map_cut, rounds, recipe.cut_offs)
    labels = tuple(
        replace(_as_asked(label, recipe), calibration=(calibration or {}).get(label.name))
        for label in label_specs(architecture, recipe, found, map_cut, maps="maps" in served.network.output)
    )
    write_evidence(out / "evidence" / f"{recipe.name}.csv", predicted, map_cut)
    summary = _summary(recipe, predicted, text) | {"onnx_difference": difference, "map_cut_off": map_cut}
    summary |= (fitted or {}) | found.as_dict()
    card = findings_card(
        architecture, recipe, labels, found, (text.how, text.command, text.data), calibrated=bool(fitted)
    )
    index = None
    if architecture.keeps_index:
        index = out / f"{recipe.name}.index.csv"
        write_index(index, [label.name for label in labels], stored)
    return _write(architecture, recipe, labels, summary, card, out, index=index)


def _as_asked(label: LabelSpec, recipe: Recipe) -> LabelSpec:
    """A label with what the recipe says of places and other models."""
    label = replace(label, replaces=recipe.replaces)
    if not label.localised:
        return label
    return replace(
        label,
        map_relative_threshold=recipe.evaluation.map_relative_cut_off,
        lesions=recipe.lesions,
        place_of=recipe.place_of,
    )


def _summary(recipe: Recipe, predicted: Predicted, text: CardText) -> dict[str, Any]:
    """Where the evidence comes from, for its file."""
    return {
        "how": text.how,
        "command": text.command,
        LEARNT: "all" if recipe.evaluation.folds else "others",
        "images": len(predicted.names),
        "patients": len(set(predicted.patients)),
    }


def publish_gate(
    architecture: Architecture,
    recipe: Recipe,
    served: Served,
    rule: GateSpec,
    summary: dict[str, Any],
    out: Path,
    text: CardText,
) -> ModelSpec:
    """The same for a gate, with its decision rule and what it lets through."""
    difference = _export(recipe, served, out)
    labels = tuple(
        LabelSpec(name, Code(name, PRIVATE_SCHEME, name), rule.min_probability) for name in recipe.data.labels
    )
    card = gate_card(architecture, recipe, rule, summary, text.command, text.data)
    return _write(architecture, recipe, labels, {"onnx_difference": difference, **summary}, card, out, rule=rule)


def publish_lungs(
    architecture: Architecture,
    recipe: Recipe,
    served: Served,
    rows: Sequence[LungRow],
    out: Path,
    text: CardText,
) -> ModelSpec:
    """The same for lung fields, with how well they cover what was drawn and how surely they tell the sides."""
    difference = _export(recipe, served, out)
    labels = tuple(
        LabelSpec(name, LUNG_CODES[name], UNMEASURED_THRESHOLD, localised=True) for name in recipe.data.labels
    )
    write_rows(out / "evidence" / f"{recipe.name}.csv", rows)
    summary = {"folds": recipe.evaluation.folds, "onnx_difference": difference, **lung_figures(rows)}
    card = lungs_card(architecture, recipe, summary, text.command, text.data)
    return _write(architecture, recipe, labels, summary, card, out, kind=ModelKind.LUNGS)


def _export(recipe: Recipe, served: Served, out: Path) -> float:
    out.mkdir(parents=True, exist_ok=True)
    served.network.save(out / f"{recipe.name}.keras")
    return export_onnx(served.network, out / f"{recipe.name}.onnx", served.probe)


def _write(
    architecture: Architecture,
    recipe: Recipe,
    labels: tuple[LabelSpec, ...],
    summary: dict[str, Any],
    card: str,
    out: Path,
    *,
    kind: ModelKind | None = None,
    rule: GateSpec | None = None,
    index: Path | None = None,
) -> ModelSpec:
    """Evidence, card and manifest of the exported network."""
    files = {suffix: out / f"{recipe.name}.{suffix}" for suffix in ("keras", "onnx", "md", "toml")}
    (out / "evidence").mkdir(exist_ok=True)
    text = json.dumps(summary, indent=1) + "\n"
    (out / "evidence" / f"{recipe.name}.json").write_text(text, encoding="utf-8")
    files["md"].write_text(card, encoding="utf-8")
    digest = file_digest(files[recipe.file])
    spec = ModelSpec(
        name=recipe.name,
        version=recipe.version,
        title=recipe.title,
        kind=kind or architecture.kind,
        file=files[recipe.file],
        digest=digest,
        device_uid=training_uid(digest),
        input=InputSpec(recipe.network.size, recipe.network.size, equalise=recipe.data.equalise),
        activation=Activation.PROBABILITY,
        labels=labels,
        card=files["md"],
        index=index,
        gate=rule,
        pooling=recipe.evaluation.pooling,
    )
    if rule is None and not any(label.mode is Mode.ACTIVE for label in labels):
        spec = replace(spec, mode=Mode.SHADOW)
    if recipe.file == "keras":
        spec = replace(spec, onnx=files["onnx"], onnx_digest=file_digest(files["onnx"]))
    files["toml"].write_text(manifest_text(spec), encoding="utf-8")
    return read_manifest(files["toml"])


def label_specs(
    architecture: Architecture, recipe: Recipe, found: Figures, map_cut: float, *, maps: bool
) -> tuple[LabelSpec, ...]:
    """How each served label ships: in shadow until enough patients stand behind a figure that is clearly not chance.

    No place goes out on the AUC of images alone: an active finding of a classifier whose map does not hold shows none,
    and a segmenter or detector whose places do not hold runs in shadow. In shadow a taught map is kept and measured.
    """
    specs = []
    for label in architecture.served(recipe.plan):
        holds = places_hold(found.places[label]) or boxes_hold(found.boxes[label])
        if architecture.kind is ModelKind.CLASSIFIER:
            spec = _label(label, found.labels[label], maps and holds, map_cut)
            taught = label in architecture.outlined(recipe.plan) and (holds or spec.mode is Mode.SHADOW)
            specs.append(_label(label, found.labels[label], True, map_cut) if taught else spec)
        else:
            spec = _label(label, found.labels[label], True, map_cut)
            specs.append(spec if holds else replace(spec, mode=Mode.SHADOW))
    return in_hierarchy(tuple(specs))


def places_hold(item: PlaceFigures | None) -> bool:
    """Whether masks may be shown: on enough marked images the strongest place is inside, and masks overlap."""
    if item is None or item.positives < LEAST_POSITIVES:
        return False
    return item.pointing.low > LEAST_POINTING and item.dice.low > LEAST_DICE


def boxes_hold(item: Detected | None) -> bool:
    """Whether boxes may be shown: on enough images with boxes the most probable one is inside of a reader's."""
    return item is not None and item.positives >= LEAST_POSITIVES and item.pointing.low > LEAST_POINTING


def _label(label: str, item: LabelFigures | None, localised: bool, map_cut: float) -> LabelSpec:
    if item is None:
        return LabelSpec(label, code_of(label), UNMEASURED_THRESHOLD, localised, map_cut, Mode.SHADOW)
    return label_spec(item, localised=localised, map_threshold=map_cut)
