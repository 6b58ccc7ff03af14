"""Measure a model on one split of a data set: ``metrics.json``, the predictions, and a report that is one file.

The model is run as the node runs it, from its manifest: any kind, any input, ONNX or Keras, on an inference server too.
ONNX needs no Keras. Of a vendor's program the probabilities are measured, and not the places.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.lung_fields import LUNG, LUNG_FIELDS
from models.manifest import ManifestError, read_manifest, verify_digest
from models.model_registry import BUNDLED, read_registry
from models.model_spec import ModelKind, ModelSpec
from models.remote.findings_server import FindingsServer
from models.runtime.executor import Device, ModelLoadError, ModelOutputError, ModelUnavailableError
from models.runtime.loading import load
from models.training.datasets import read_dataset, split
from models.training.datasets.cxr import ABNORMAL, LUNG_OPACITY, NORMAL, OTHER_ABNORMALITY
from models.training.datasets.layout import Progress
from models.training.datasets.sample import Dataset, DatasetError, Sample
from models.training.evaluation.breakdown import Group, break_down
from models.training.evaluation.classification import (
    Classified,
    Confusion,
    classify,
    exclusive_confusion,
    reading_confusion,
)
from models.training.evaluation.detection import Detected, detect
from models.training.evaluation.evaluation_report import evaluation_page
from models.training.evaluation.lesions import LesionFigures, kind_of, lesion_figures
from models.training.evaluation.measure import Measured, measure
from models.training.evaluation.predict_as_node import EvaluatedModel, WithLungs, run
from models.training.evaluation.predictions import LEARNT, Predictions, image_names, write_predictions
from models.training.evaluation.result import Evaluation
from models.training.evaluation.segmentation import Segmented, segment
from models.training.evaluation.write_results import write_truths, write_where
from models.training.truths import LabelNames

_MATCHES = 2_000_000


class EvaluationError(ValueError):
    """The model cannot be measured on this data; the message says why."""


def find_manifest(model: str, folder: Path | None = None) -> Path:
    """The manifest of ``model``: a manifest, a network file beside its manifest, ``bundled``, or a name.

    Names are those of bundled models and of the models in a site's ``folder``.

    Raises:
        EvaluationError: there is no such manifest.
    """
    path = Path(model)
    choices = [path if path.suffix == ".toml" else path.with_suffix(".toml")]
    choices += [place / f"{model}.toml" for place in (BUNDLED, folder) if place is not None]
    if model == "bundled":
        choices = [BUNDLED / "chest-classifier.toml"]
    for choice in choices:
        if choice.is_file():
            return choice
    raise EvaluationError(f"no model '{model}': looked for {', '.join(map(str, choices))}")


def evaluate(
    model: str | Path,
    data: Path,
    split_name: str,
    out: Path,
    *,
    layout: str = read_dataset.AUTO,
    truths: Mapping[str, tuple[str, ...]] | None = None,
    patient: str = "",
    folder: Path | None = None,
    device: Device = "auto",
    threads: int = 0,
    progress: Progress | None = None,
    rounds: int = 1000,
) -> Evaluation:
    """Run ``model`` over a split of ``data`` and write figures, predictions and report to the folder ``out``.

    ``truths`` names, for a label of the model, the data set's own labels that mean it.

    Raises:
        EvaluationError: no such model or split, a gate, nothing in common between model and data, a network that
            cannot be loaded or believed, or a server that cannot be asked.
        DatasetError: ``data`` is no data set of that layout.
    """
    spec = _spec(str(model), folder)
    dataset = read_dataset.read(data, layout, progress, patient=patient)
    if not dataset.samples:
        first = f", the first ({dataset.problems[0][0]}) because {dataset.problems[0][1]}" if dataset.problems else ""
        raise EvaluationError(f"no image can be used: {len(dataset.problems)} rows were left out{first}")
    try:
        samples = split.named(dataset.samples, split_name)
    except DatasetError as error:
        raise EvaluationError(str(error)) from error
    label_names = LabelNames(tuple(label.name for label in spec.labels), truths or {})
    _check_label_names(label_names, samples)
    try:
        network = _as_served(spec, device, threads)
        measured = measure_network(network, samples, label_names, progress)
    except (ModelLoadError, ModelOutputError, ModelUnavailableError) as error:
        raise EvaluationError(str(error)) from error
    found = summarise(spec, dataset, split_name, measured, out, label_names, progress=progress, rounds=rounds)
    _write(found, network, label_names)
    return found


def _as_served(spec: ModelSpec, device: Device, threads: int) -> EvaluatedModel:
    """The model, loaded: with the bundled lungs where a network shows masks of what lies in them."""
    if spec.kind is ModelKind.FINDINGS:
        return FindingsServer(spec)
    network = load(spec, device=device, threads=threads)
    if not any(label.localised and label.site == LUNG for label in network.spec.labels):
        return network
    return WithLungs(network, load(read_registry(verify=False).find(LUNG_FIELDS), device=device, threads=threads))


def _spec(model: str, folder: Path | None) -> ModelSpec:
    try:
        spec = read_manifest(find_manifest(model, folder))
        verify_digest(spec)
    except ManifestError as error:
        raise EvaluationError(str(error)) from error
    if spec.kind is ModelKind.GATE:
        raise EvaluationError(f"{spec.name} is a gate: it reports no findings that could be measured")
    return spec


def _check_label_names(label_names: LabelNames, samples: Sequence[Sample]) -> None:
    """Refuse where nothing can be analysed, and where a truth is named that nobody has."""
    there = sorted({name for item in samples for name in (*item.labels, *item.runs, *item.boxed)})
    for label, names in label_names.classes.items():
        if label not in label_names.labels:
            raise EvaluationError(f"the model has no label '{label}' (it has: {', '.join(label_names.labels)})")
        for name in set(names) - set(there):
            raise EvaluationError(f"the data set says nothing of '{name}' (it knows: {', '.join(there) or 'nothing'})")
    if not {name for label in label_names.labels for name in label_names.names(label)} & set(there):
        raise EvaluationError(
            f"the data set says nothing of what the model reports ({', '.join(label_names.labels)}); "
            f"it knows {', '.join(there) or 'nothing'}: say which means what with --truth LABEL=NAME"
        )


def measure_network(
    network: EvaluatedModel, samples: Sequence[Sample], label_names: LabelNames, progress: Progress | None = None
) -> Measured:
    """Run a loaded network over samples.

    Raises:
        ModelOutputError: an answer cannot be believed.
        ModelUnavailableError: the model runs elsewhere and cannot be asked now.
    """
    return measure(network.spec, run(network, samples), label_names, _ticking(progress, len(samples)))


def _ticking(progress: Progress | None, total: int) -> Callable[[], None]:
    counter: Iterator[int] = iter(range(1, total + 1))

    def _tick() -> None:
        if progress is not None:
            progress("images", next(counter), total)

    return _tick


def summarise(
    spec: ModelSpec,
    dataset: Dataset,
    split_name: str,
    measured: Measured,
    out: Path,
    label_names: LabelNames,
    *,
    progress: Progress | None = None,
    rounds: int = 1000,
) -> Evaluation:
    """All figures of what was measured."""
    classified: dict[str, Classified] = {}
    groups: dict[str, list[Group]] = {}
    not_evaluated: dict[str, str] = {}
    for column, label in enumerate(spec.labels):
        scores, truths, samples = measured.labelled(column)
        found = classify(label.name, scores, truths, [item.patient for item in samples], label.threshold, rounds)
        if found is None:
            not_evaluated[label.name] = _why_not(truths)
        else:
            classified[label.name] = found
            dices, fewer = measured.dices(label.name), max(20, rounds // 5)
            groups[label.name] = break_down(scores, truths, samples, label.threshold, fewer, dices)
        if progress is not None:
            progress("figures", column + 1, len(spec.labels))
    return Evaluation(
        spec=spec,
        layout=dataset.layout,
        split=split_name,
        measured=measured,
        classified=classified,
        places=_places(spec, measured, rounds),
        lesions=_lesions(measured, label_names, rounds),
        boxes=_boxes(spec, measured, rounds),
        confusions=_confusions(spec, measured),
        groups=groups,
        not_evaluated=not_evaluated,
        problems=(*dataset.problems, *measured.problems),
        folder=out,
        learnt=learnt_from(spec, measured.samples),
    )


def learnt_from(spec: ModelSpec, samples: Sequence[Sample]) -> int:
    """How many of the samples the network has learnt from, as far as the evidence beside it tells."""
    folder = spec.file.parent / "evidence"
    try:
        summary = json.loads((folder / f"{spec.name}.json").read_text(encoding="utf-8"))
        if summary.get(LEARNT) != "all":
            return 0
        known = image_names(folder / f"{spec.name}.csv")
    except (OSError, ValueError):
        return 0
    return sum(item.name in known for item in samples)


def _why_not(truths: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    if not len(truths):
        return "the data set says nothing of it"
    return f"all {len(truths)} images that are known {'have' if truths.all() else 'lack'} it"


def _places(spec: ModelSpec, measured: Measured, rounds: int) -> dict[str, Segmented]:
    places = {}
    for label in spec.labels:
        if label.name in measured.marked:
            chosen, marked = measured.marked[label.name]
            patients = [measured.samples[number].patient for number in chosen]
            places[label.name] = segment(label.name, marked, patients, label.map_threshold, rounds)
    return places


def _lesions(measured: Measured, label_names: LabelNames, rounds: int) -> dict[str, dict[str, LesionFigures]]:
    lesions = {}
    for label, rows in measured.lesions.items():
        samples = [measured.samples[number] for number in measured.marked[label][0]]
        kinds = [kind_of(sample, label_names.names(label)) for sample in samples]
        lesions[label] = lesion_figures(label, rows, kinds, [sample.patient for sample in samples], rounds)
    return lesions


def _boxes(spec: ModelSpec, measured: Measured, rounds: int) -> dict[str, Detected]:
    """Figures of a detector's boxes; fewer rounds where there are very many images, each of which is matched again."""
    fewer = min(rounds, max(50, _MATCHES // max(1, len(measured.samples))))
    boxes = {}
    for column, label in enumerate(spec.labels if measured.boxes else ()):
        marks, patients = measured.marks(column)
        if marks:
            boxes[label.name] = detect(label.name, marks, patients, label.threshold, fewer)
    return boxes


def _confusions(spec: ModelSpec, measured: Measured) -> tuple[Confusion, ...]:
    """The matrices of several classes that this model and this data allow."""
    labelled = [column for column in range(len(spec.labels)) if measured.known[:, column].any()]
    labels = [spec.labels[column].name for column in labelled]
    cuts = [spec.labels[column].threshold for column in labelled]
    own = exclusive_confusion(
        labels, measured.scores[:, labelled], measured.truths[:, labelled], measured.known[:, labelled], cuts
    )
    read = _readers_classes(spec, measured)
    return tuple(item for item in (own, read) if item is not None)


def _readers_classes(spec: ModelSpec, measured: Measured) -> Confusion | None:
    """RSNA's three classes, for a model that reports opacities and abnormality."""
    numbers = {label.name: number for number, label in enumerate(spec.labels)}
    if LUNG_OPACITY not in numbers or ABNORMAL not in numbers or NORMAL in numbers:
        return None
    names = (NORMAL, OTHER_ABNORMALITY, LUNG_OPACITY)
    rows = [row for row, item in enumerate(measured.samples) if OTHER_ABNORMALITY in item.labels]
    truths = [[measured.samples[row].labels[name] for name in names].index(1.0) for row in rows]
    opacity, abnormal = (measured.scores[rows, numbers[name]] for name in (LUNG_OPACITY, ABNORMAL))
    cuts = (spec.labels[numbers[LUNG_OPACITY]].threshold, spec.labels[numbers[ABNORMAL]].threshold)
    return reading_confusion(opacity, abnormal, truths, cuts) if rows else None


def predictions_of(measured: Measured) -> Predictions:
    """Scores as they are kept; places of the first label that has a map."""
    hits, overlaps = np.full(len(measured.samples), np.nan), np.full(len(measured.samples), np.nan)
    for chosen, marked in list(measured.marked.values())[:1]:
        union = marked.served + marked.true - marked.served_both
        ill = marked.true > 0
        hits[chosen] = marked.hits
        overlaps[chosen[ill]] = marked.served_both[ill] / union[ill]
    return Predictions(
        images=tuple(item.name for item in measured.samples),
        patients=measured.patients,
        groups=tuple(item.split for item in measured.samples),
        labels=measured.labels,
        scores=measured.scores,
        hits=hits,
        overlaps=overlaps,
    )


def _write(found: Evaluation, network: EvaluatedModel, label_names: LabelNames) -> None:
    out = found.folder
    out.mkdir(parents=True, exist_ok=True)
    write_predictions(out / "predictions.csv", predictions_of(found.measured))
    write_truths(out / "truths.csv", found.measured)
    write_where(out, found.measured)
    (out / "metrics.json").write_text(json.dumps(_plain(found.as_dict()), indent=1) + "\n", encoding="utf-8")
    (out / "report.html").write_text(evaluation_page(found, network, label_names), encoding="utf-8")


def _plain(value: Any) -> Any:
    """JSON has no NaN: what could not be measured is null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
