"""Measure a model on one split of a data set: ``metrics.json``, ``predictions.csv`` and a report that is one file.

The network is run as the node runs it, from its ONNX file; nothing here needs Keras.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract import ModelKind, ModelSpec
from models.manifest import read_manifest, verify_digest
from models.training.dataset import Example, Problem, load_images, read_cxr
from models.training.figures import LabelFigures, as_dict, label_figures, place_figures
from models.training.onnx_session import open_session, run_session
from models.training.predictions import Predictions, compare_places, write_predictions
from models.training.report import html_report

Progress = Callable[[str, int, int], None]
BATCH = 32
BUNDLED = Path(__file__).parent.parent / "bundled"


class EvaluationError(ValueError):
    """The model cannot be measured on this data; the message says why."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured, and the files that hold it."""

    figures: dict[str, LabelFigures]
    places: dict[str, Any]
    problems: tuple[Problem, ...]
    folder: Path


def find_manifest(model: str) -> Path:
    """The manifest of ``model``: a manifest, a network file beside its manifest, a bundled name, or ``bundled``.

    Raises:
        EvaluationError: there is no such manifest.
    """
    path = Path(model)
    choices = [path if path.suffix == ".toml" else path.with_suffix(".toml"), BUNDLED / f"{model}.toml"]
    if model == "bundled":
        choices = [BUNDLED / "chest-classifier.toml"]
    for choice in choices:
        if choice.is_file():
            return choice
    raise EvaluationError(f"no model '{model}': looked for {', '.join(map(str, choices))}")


def evaluate(
    model: str | Path,
    data: Path,
    split: str,
    out: Path,
    *,
    progress: Progress | None = None,
    rounds: int = 1000,
) -> Evaluation:
    """Run ``model`` over the examples of ``split`` in ``data`` and write the figures to the folder ``out``.

    Raises:
        EvaluationError: no such model, not a classifier, another layout of pixels than 1 x ``[0, 1]``, or no example.
    """
    spec = read_manifest(find_manifest(str(model)))
    verify_digest(spec)
    _check(spec)
    everything, problems = read_cxr(data)
    examples = [item for item in everything if item.split == split]
    if not examples:
        known = sorted({item.split for item in everything})
        raise EvaluationError(f"{data} has no split '{split}' (it has: {', '.join(known) or 'none'})")
    said, undecodable = run_model(spec, examples, progress)
    problems += undecodable
    out.mkdir(parents=True, exist_ok=True)
    figures = measured(said, examples, spec, rounds)
    places = place_figures(said)
    write_predictions(out / "predictions.csv", said)
    summary = {
        "model": {"name": spec.name, "version": spec.version, "digest": spec.digest},
        "data": {"split": split, "images": len(examples), "patients": len({item.patient for item in examples})},
        "lung_opacity_places": places,
        "labels": {label: as_dict(item) for label, item in figures.items()},
        "left_out": [{"image": item.image, "reason": item.reason} for item in problems],
    }
    (out / "metrics.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    page = html_report(spec, split, said, examples, figures, places, problems)
    (out / "report.html").write_text(page, encoding="utf-8")
    return Evaluation(figures, places, tuple(problems), out)


def _check(spec: ModelSpec) -> None:
    if spec.kind is not ModelKind.CLASSIFIER:
        raise EvaluationError(f"{spec.name} is a {spec.kind}; only classifiers are measured here")
    if spec.file.suffix != ".onnx":
        raise EvaluationError(f"{spec.file.name} is no ONNX file; export it first")
    plain = spec.input.channels == 1 and spec.input.value_range == (0.0, 1.0) and spec.input.equalise == "none"
    if not plain or spec.input.height != spec.input.width:
        raise EvaluationError(f"{spec.name} does not take square grey images in [0, 1]")


def run_model(
    spec: ModelSpec, examples: Sequence[Example], progress: Progress | None = None
) -> tuple[Predictions, list[Problem]]:
    """Probabilities of all examples; the opacity map is compared with boxes where the model has one."""
    images, problems = load_images(examples, spec.input.height)
    session = open_session(spec.file)
    names = [spec.outputs.probabilities]
    localised = [place for place, label in enumerate(spec.labels) if label.localised and label.name == "lung_opacity"]
    if localised:
        names.append(spec.outputs.maps)
    scores, maps = [], []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH, :, :, np.newaxis].astype(np.float32) / np.float32(255)
        answer = run_session(session, batch, names)
        scores.append(answer[names[0]])
        if localised:
            maps.append(answer[names[1]][..., localised[0]])
        if progress is not None:
            progress("images", min(start + BATCH, len(images)), len(images))
    empty = np.full(len(examples), np.nan)
    hits, overlaps = empty, empty
    if localised:
        hits, overlaps = compare_places(examples, np.concatenate(maps), spec.labels[localised[0]].map_threshold)
    said = Predictions(
        images=tuple(item.image for item in examples),
        patients=tuple(item.patient for item in examples),
        groups=tuple(item.split for item in examples),
        labels=tuple(label.name for label in spec.labels),
        scores=np.concatenate(scores),
        hits=hits,
        overlaps=overlaps,
    )
    return said, problems


def measured(
    said: Predictions, examples: Sequence[Example], spec: ModelSpec, rounds: int = 1000
) -> dict[str, LabelFigures]:
    """Figures of every label that has positives and negatives here, at the manifest's thresholds."""
    figures = {}
    for column, label in enumerate(spec.labels):
        scores: NDArray[np.floating] = said.scores[:, column]
        item = label_figures(label.name, scores, examples, label.threshold, rounds)
        if item is not None:
            figures[label.name] = item
    return figures
