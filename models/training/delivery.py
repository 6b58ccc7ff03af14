"""Put a trained network of the literature into the shape that the node serves, with the evidence behind it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from models.architectures.base import Architecture, Array
from models.contract import Activation, Evidence, InputSpec, LabelSpec, Mode, ModelKind, ModelSpec
from models.manifest import file_digest, read_manifest
from models.manifest_text import manifest_text
from models.similar import StoredCase, write_index
from models.training.codes import code_of
from models.training.export import export_onnx, training_uid
from models.training.figures import LEAST_POSITIVES, LabelFigures, label_spec
from models.training.judging import Judged
from models.training.literature_cards import literature_card
from models.training.literature_figures import Figures, PlaceFigures, figures, write_judged
from models.training.literature_recipe import LiteratureRecipe

UNMEASURED_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Told:
    """What a card says beside figures: where the evidence comes from, how to make it again, and from what data."""

    how: str
    command: str
    data: str


def deliver(
    architecture: Architecture,
    recipe: LiteratureRecipe,
    served: keras.Model,
    judged: Judged,
    probe: Array,
    out: Path,
    told: Told,
    *,
    stored: Sequence[StoredCase] = (),
    rounds: int = 1000,
) -> ModelSpec:
    """Write network (Keras and ONNX), manifest, card and evidence; returns the spec as a node reads it.

    ``probe`` are images ``float32[n, size, size, 1]`` on which both files must agree. ``stored`` are the cases of an
    architecture that keeps an index, in the order in which its fit saw them.

    Raises:
        ExportError: they do not.
    """
    out.mkdir(parents=True, exist_ok=True)
    keras_file, onnx_file = out / f"{recipe.name}.keras", out / f"{recipe.name}.onnx"
    served.save(keras_file)
    difference = export_onnx(served, onnx_file, probe)
    cut_off = None if recipe.evaluation.cut_off == "youden" else float(recipe.evaluation.cut_off)
    found = figures(judged, cut_off, rounds)
    labels = label_specs(architecture, recipe, found, maps="maps" in served.output)
    _evidence(recipe, judged, found, difference, told, out / "evidence")
    card = out / f"{recipe.name}.md"
    card.write_text(
        literature_card(architecture, recipe, labels, found, told.how, told.command, told.data), encoding="utf-8"
    )
    index = out / f"{recipe.name}.index.csv" if architecture.keeps_index else None
    if index is not None:
        write_index(index, [label.name for label in labels], stored)
    digest = file_digest(keras_file)
    spec = ModelSpec(
        name=recipe.name,
        version=recipe.version,
        title=recipe.title,
        kind=architecture.kind,
        file=keras_file,
        digest=digest,
        device_uid=training_uid(digest),
        input=InputSpec(recipe.network.size, recipe.network.size, equalise=recipe.data.equalise),
        activation=Activation.PROBABILITY,
        labels=labels,
        card=card,
        mode=Mode.ACTIVE if any(label.mode is Mode.ACTIVE for label in labels) else Mode.SHADOW,
        onnx=onnx_file,
        onnx_digest=file_digest(onnx_file),
        index=index,
    )
    manifest = out / f"{recipe.name}.toml"
    manifest.write_text(manifest_text(spec), encoding="utf-8")
    return read_manifest(manifest)


def label_specs(
    architecture: Architecture, recipe: LiteratureRecipe, found: Figures, *, maps: bool
) -> tuple[LabelSpec, ...]:
    """How each served label ships: in shadow until enough patients stand behind a figure that is clearly not chance."""
    specs = []
    for label in architecture.served(recipe.plan):
        localised = architecture.kind is not ModelKind.CLASSIFIER or (maps and places_hold(found.places[label]))
        specs.append(_label(label, found.labels[label], localised, recipe.evaluation.map_cut_off))
    return tuple(specs)


def places_hold(item: PlaceFigures | None) -> bool:
    """Whether a classifier's map may be shown: on enough marked images it points inside more often than not."""
    return item is not None and item.positives >= LEAST_POSITIVES and item.pointing.low > 0.5


def _label(label: str, item: LabelFigures | None, localised: bool, map_cut_off: float) -> LabelSpec:
    if item is None:
        return LabelSpec(label, code_of(label), UNMEASURED_THRESHOLD, localised, map_cut_off, Mode.SHADOW)
    spec = label_spec(item, localised=localised, map_threshold=map_cut_off)
    area = item.auc
    low, high = min(area.low, area.value), max(area.high, area.value)
    return replace(spec, evidence=Evidence(item.positives, area.value, low, high, item.sensitivity.value))


def _evidence(
    recipe: LiteratureRecipe, judged: Judged, found: Figures, difference: float, told: Told, folder: Path
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_judged(folder / f"{recipe.name}.csv", judged)
    summary = {
        "how": told.how,
        "command": told.command,
        "images": len(judged.names),
        "patients": len(set(judged.patients)),
        "onnx_difference": difference,
        "map_cut_off": recipe.evaluation.map_cut_off,
        **found.as_dict(),
    }
    (folder / f"{recipe.name}.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
