"""Put a trained network into the shape the node serves: ONNX file, manifest, model card, and the evidence behind it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from models.architectures.calibration import Platt
from models.contract import Activation, Code, GateSpec, InputSpec, LabelSpec, Mode, ModelKind, ModelSpec
from models.manifest import file_digest, read_manifest
from models.manifest_text import manifest_text
from models.training.cards import classifier_card, gate_card
from models.training.codes import PRIVATE_SCHEME, code_of, in_hierarchy
from models.training.dataset import Example
from models.training.export import export_onnx, serving_classifier, serving_gate, training_uid
from models.training.figures import (
    LabelFigures,
    as_dict,
    calibrations,
    crossed_probabilities,
    label_figures,
    label_spec,
    place_figures,
)
from models.training.gate_data import GATE_LABELS
from models.training.predictions import LEARNT, Predictions, write_predictions
from models.training.recipe import Recipe
from models.training.targets import LUNG_OPACITY

Array = NDArray[np.float32]
UNMEASURED_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class EvidenceBase:
    """Predictions on examples that the predicting network had not seen, and how they came about (for the card).

    ``folds`` is the number of folds of the cross-validation behind them; 0: one split was held out.
    """

    said: Predictions
    examples: tuple[Example, ...]
    map_threshold: float
    how: str
    folds: int = 0


def classifier_figures(evidence: EvidenceBase, rounds: int = 1000) -> dict[str, LabelFigures | None]:
    """Figures of every label, with calibration fitted on other groups than those it is judged on."""
    probabilities = crossed_probabilities(evidence.said, evidence.examples)
    return {
        label: label_figures(label, probabilities[:, column], evidence.examples, rounds=rounds)
        for column, label in enumerate(evidence.said.labels)
    }


def bundle_classifier(model: keras.Model, recipe: Recipe, evidence: EvidenceBase, probe: Array, out: Path) -> ModelSpec:
    """Export ``model`` with calibration and thresholds from ``evidence``; returns the spec that was written to ``out``.

    Writes ``NAME.onnx``, ``NAME.toml``, ``evidence/NAME.csv`` (logits of unseen examples) and ``evidence/NAME.json``.
    """
    scaling = calibrations(evidence.said, evidence.examples)
    figures = classifier_figures(evidence)
    labels = in_hierarchy(
        tuple(_label(label, figures[label], evidence.map_threshold) for label in evidence.said.labels)
    )
    difference = export_onnx(serving_classifier(model, scaling), out / f"{recipe.name}.onnx", probe)
    folder = out / "evidence"
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / f"{recipe.name}.csv", evidence.said)
    summary = {
        "how": evidence.how,
        "folds": evidence.folds,
        LEARNT: "all" if evidence.folds else "others",
        "onnx_difference": difference,
        "map_threshold": evidence.map_threshold,
        "lung_opacity_places": place_figures(evidence.said),
        "calibration": _calibration(evidence.said.labels, scaling),
        "labels": {label: as_dict(item) for label, item in figures.items() if item is not None},
    }
    (folder / f"{recipe.name}.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (out / f"{recipe.name}.md").write_text(classifier_card(recipe, labels, summary), encoding="utf-8")
    return _write(recipe, ModelKind.CLASSIFIER, labels, None, out)


def _calibration(labels: Sequence[str], scaling: Sequence[Platt]) -> dict[str, Any]:
    pairs = zip(labels, scaling, strict=True)
    return {label: {"slope": item.slope, "offset": item.offset} for label, item in pairs}


def _label(label: str, figures: LabelFigures | None, map_threshold: float) -> LabelSpec:
    """How a label ships; one without positives or negatives in the evidence can only be a shadow."""
    localised = label == LUNG_OPACITY
    if figures is None:
        return LabelSpec(label, code_of(label), UNMEASURED_THRESHOLD, localised, map_threshold, Mode.SHADOW)
    return label_spec(figures, localised=localised, map_threshold=map_threshold)


def bundle_gate(
    model: keras.Model,
    recipe: Recipe,
    distance: tuple[Array, Array],
    rule: GateSpec,
    summary: dict[str, Any],
    probe: Array,
    out: Path,
) -> ModelSpec:
    """Export the gate ``model`` with its distance (mean, whitening) and decision rule into ``out``."""
    difference = export_onnx(serving_gate(model, *distance), out / f"{recipe.name}.onnx", probe)
    folder = out / "evidence"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"onnx_difference": difference, **summary}, indent=1)
    (folder / f"{recipe.name}.json").write_text(text + "\n", encoding="utf-8")
    (out / f"{recipe.name}.md").write_text(gate_card(recipe, rule, summary), encoding="utf-8")
    labels = tuple(LabelSpec(name, Code(name, PRIVATE_SCHEME, name), rule.min_probability) for name in GATE_LABELS)
    return _write(recipe, ModelKind.GATE, labels, rule, out)


def _write(
    recipe: Recipe, kind: ModelKind, labels: tuple[LabelSpec, ...], rule: GateSpec | None, out: Path
) -> ModelSpec:
    file, card = out / f"{recipe.name}.onnx", out / f"{recipe.name}.md"
    digest = file_digest(file)
    spec = ModelSpec(
        name=recipe.name,
        version=recipe.version,
        title=recipe.title,
        kind=kind,
        file=file,
        digest=digest,
        device_uid=training_uid(digest),
        input=InputSpec(recipe.network.size, recipe.network.size),
        activation=Activation.PROBABILITY,
        labels=labels,
        card=card if card.is_file() else None,
        gate=rule,
    )
    manifest = out / f"{recipe.name}.toml"
    manifest.write_text(manifest_text(spec), encoding="utf-8")
    return read_manifest(manifest)
