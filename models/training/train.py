"""From a recipe that names an architecture, and a data set, to a model that the node can serve: ``pleura train``."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from models.architectures import catalogue
from models.architectures.base import Architecture, Array, check_plan
from models.model_spec import ModelKind, ModelSpec
from models.similar import StoredCase
from models.training.cached_dataset import CachedDataset, Problems, cache
from models.training.calibrate import calibrate, calibrate_behind
from models.training.data_loader import geometric
from models.training.datasets import read_dataset as datasets
from models.training.datasets.layout import Progress
from models.training.datasets.sample import Dataset, Sample
from models.training.datasets.split import TRAINING, VALIDATION, by_patient, folds, named
from models.training.fit import TrainingData, fit_network, silent
from models.training.gate_data import GATE_LABELS, as_served
from models.training.gate_measure import gate_rule, measure_gate
from models.training.inside_lungs import InsideLungs
from models.training.lung_measure import LABELS, LungRow, keep_rows, kept_rows, measure_lungs
from models.training.model_card import CREDITS
from models.training.predict import predict
from models.training.predicted import Predicted, gathered, keep, kept
from models.training.publish import CardText, Served, publish, publish_gate, publish_lungs
from models.training.recipe import Recipe
from models.training.truths import LabelNames, label_truths

OVERSIZE = 1.25
"""Training images are kept this much larger than the network's input, so that augmentation has pixels to work with."""
PROBES = 4
OWN_DATA = "Where the images come from, and on what terms, is known to those who trained it."
WORK = "work"
"""Folder in ``--out`` for what an interrupted training needs; it is removed at the end."""


class TrainingError(ValueError):
    """The data cannot carry this training; the message says why."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Who is learnt from, who is measured on, and both in the order of the data set."""

    seen: tuple[Sample, ...]
    unseen: tuple[Sample, ...]
    everybody: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Decoded pixels of all samples: somewhat larger than the network's input for augmentation, and at its size."""

    large: CachedDataset
    exact: CachedDataset


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One training: architecture, recipe and data, the folder of its state, and a callback for progress."""

    architecture: Architecture
    recipe: Recipe
    shares: Shares
    pixels: Decoded
    work: Path
    progress: Progress

    def network(self, learners: Sequence[Sample], folder: str, progress: Progress) -> keras.Model:
        """The served network of those learners; ``folder`` keeps its state."""
        data = material(self.recipe, learners, self.pixels)
        fitted = fit_network(self.architecture, self.recipe, data, self.work / folder, progress)
        return self.architecture.serve(fitted, self.recipe.plan)

    def predictions(self, served: keras.Model, unseen: Sequence[Sample], group: str, progress: Progress) -> Predicted:
        """What a network answers for samples that it has not seen."""
        samples = self.pixels.exact.only(unseen)
        inside = InsideLungs() if self.architecture.kind is ModelKind.SEGMENTER else None
        return predict(self.architecture, self.recipe, served, samples, group, progress, inside)


def train(recipe: Recipe, data: Path, out: Path, *, command: str = "", progress: Progress = silent) -> ModelSpec:
    """Train, measure on images of patients that were not seen, export, and leave a servable model in ``out``.

    Evidence is from cross-validation by patient over all images where the recipe names folds, else from the data set's
    split ``val``, or a fixed fifth of the patients where it has none. Started again with the same arguments after an
    interruption, it goes on where it stopped. What could not be used is listed in ``problems.json``.

    Raises:
        UnknownArchitecture: the recipe names none of the catalogue.
        DatasetError: the folder is not of the layout.
        TrainingError: the data cannot carry this training, or the architecture not this recipe; the message says why.
    """
    architecture = catalogue.find(recipe.architecture)
    dataset = datasets.read(data, recipe.data.layout, progress)
    try:
        check_plan(architecture, recipe.plan)
        shares = choose(architecture, recipe, dataset, data)
        work = out / WORK / fingerprint(recipe, shares)
        pixels, problems = decode(recipe, shares, work, progress)
        _list_problems(out, [*dataset.problems, *problems])
        for part, what in ((shares.seen, "learn from"), (shares.unseen, "be measured on")):
            if not pixels.exact.only(part):
                raise TrainingError(f"no image to {what} can be decoded; {out / 'problems.json'} says why")
        run = Run(architecture, recipe, shares, pixels, work, progress)
        spec = _trainer(architecture, recipe)(run, CardText("", command, _about(dataset, recipe)), out)
    except ValueError as error:
        raise TrainingError(f"{recipe.name}: {error}") from error
    shutil.rmtree(out / WORK)
    return spec


def _trainer(architecture: Architecture, recipe: Recipe) -> Callable[[Run, CardText, Path], ModelSpec]:
    """What is made of a training: lung fields, a gate, or a network that reports findings."""
    if recipe.serves == "lungs":
        return _train_lungs
    return _train_gate if architecture.kind is ModelKind.GATE else _train_finder


def _train_lungs(run: Run, text: CardText, out: Path) -> ModelSpec:
    """The lung fields, measured in folds by patient (on the held-out split where the recipe names no folds)."""
    recipe, shares = run.recipe, run.shares
    if run.architecture.kind is not ModelKind.SEGMENTER or set(recipe.data.labels) != set(LABELS):
        raise TrainingError(f'serves = "lungs" needs a segmenter of {" and ".join(LABELS)}')
    rows: list[LungRow] = []
    for part in _fold_shares(run):
        file = run.work / part.name / "lungs.json"
        if not file.is_file():
            network = run.network(part.seen, part.name, part.progress)
            keep_rows(measure_lungs(network, run.pixels.exact.only(part.unseen), part.name), file)
        rows += kept_rows(file)
        keras.utils.clear_session()
    served = run.network(learners_of(recipe, shares), "final", run.progress)
    rows = rows or measure_lungs(served, run.pixels.exact.only(shares.unseen), VALIDATION)
    return publish_lungs(run.architecture, recipe, Served(served, probe(run.pixels.exact)), rows, out, text)


def _train_finder(run: Run, text: CardText, out: Path) -> ModelSpec:
    """A network that reports findings, with its evidence."""
    architecture, recipe, shares = run.architecture, run.recipe, run.shares
    predicted, network = _trained(run)
    if recipe.calibrated:
        calibrated = calibrate_behind(network, predicted)
    else:
        calibrated = calibrate(network, predicted, architecture.outlined(recipe.plan))
    learners: Sequence[Sample] = ()
    if architecture.keeps_index:
        learners = material(recipe, learners_of(recipe, shares), run.pixels).exact.samples
    return publish(
        architecture,
        recipe,
        Served(calibrated.network, probe(run.pixels.exact)),
        calibrated.predicted,
        out,
        replace(text, how=_how(recipe, shares, predicted)),
        fitted=calibrated.summary,
        calibration=calibrated.behind,
        stored=stored_cases(learners, LabelNames(recipe.data.labels, recipe.data.classes)),
    )


def _train_gate(run: Run, text: CardText, out: Path) -> ModelSpec:
    """The gate from chests and pictures of installed packages, measured on chests that it has not seen."""
    large, exact, seen, unseen = run.pixels.large, run.pixels.exact, run.shares.seen, run.shares.unseen
    served = run.network(seen, "final", run.progress)
    rule = gate_rule(served, run.recipe, large.only(seen), exact.only(seen))
    summary = measure_gate(served, rule, run.recipe, large.only(unseen), exact.only(unseen))
    return publish_gate(run.architecture, run.recipe, Served(served, probe(exact)), rule, summary, out, text)


def learners_of(recipe: Recipe, shares: Shares) -> tuple[Sample, ...]:
    """Whom the network that ships learns from.

    With folds nothing need be held back: every figure comes from networks that had not seen the patient, and the
    network that ships, which nothing measures any more, may learn from everybody.
    """
    return shares.everybody if recipe.evaluation.folds else shares.seen


def choose(architecture: Architecture, recipe: Recipe, dataset: Dataset, data: Path) -> Shares:
    """The samples that say anything about the served labels, split by patient, and cut to the recipe's limit.

    A gate makes its own classes from any chests.

    Raises:
        TrainingError: a label is nowhere known, or only present or only absent among those that learn.
    """
    if architecture.kind is ModelKind.GATE:
        _check_gate(recipe)
        return _shared(recipe, dataset.samples)
    served = architecture.served(recipe.plan)
    label_names = LabelNames(tuple(served), recipe.data.classes)
    _, known = label_truths(dataset.samples, label_names)
    telling = [dataset.samples[place] for place in np.flatnonzero(known.any(axis=1))]
    if not telling:
        there = ", ".join(sorted({name for sample in dataset.samples for name in sample.labels})) or "none"
        raise TrainingError(f"{data} says nothing about {', '.join(served)} (its labels are: {there})")
    shares = _shared(recipe, telling)
    learners = positives(shares.seen, label_names) if recipe.data.use == "positives" else list(shares.seen)
    if not recipe.data.rare:
        _check_truths(learners, label_names, recipe)
    return shares if recipe.evaluation.folds else Shares(tuple(learners), shares.unseen)


def _check_gate(recipe: Recipe) -> None:
    if recipe.data.labels != GATE_LABELS:
        raise TrainingError(f"the labels of a gate are {', '.join(GATE_LABELS)}")
    if recipe.evaluation.folds or recipe.schedule.patience:
        raise TrainingError("a gate is measured on a held-out split: evaluation.folds and schedule.patience must be 0")


def _shared(recipe: Recipe, samples: Sequence[Sample]) -> Shares:
    """Samples split by patient, and cut to the recipe's limit."""
    seen, unseen = named(samples, TRAINING), named(samples, VALIDATION)
    limit = recipe.data.limit
    if 0 < limit < len(seen) + len(unseen):
        share = limit / (len(seen) + len(unseen))
        rng = np.random.default_rng(recipe.schedule.seed)
        seen, unseen = _drawn(seen, share, rng), _drawn(unseen, share, rng)
    chosen = {sample.name for sample in (*seen, *unseen)}
    return Shares(tuple(seen), tuple(unseen), tuple(sample for sample in samples if sample.name in chosen))


def _drawn(samples: Sequence[Sample], share: float, rng: np.random.Generator) -> list[Sample]:
    count = max(1, round(share * len(samples)))
    return [samples[place] for place in sorted(rng.permutation(len(samples))[:count])]


def positives(samples: Sequence[Sample], label_names: LabelNames) -> list[Sample]:
    """Those with any of the findings."""
    values, _ = label_truths(samples, label_names)
    return [sample for sample, row in zip(samples, values, strict=True) if (row >= 0.5).any()]


def _check_truths(seen: Sequence[Sample], label_names: LabelNames, recipe: Recipe) -> None:
    values, known = label_truths(seen, label_names)
    for column, label in enumerate(label_names.labels):
        positive = int((values[:, column] >= 0.5).sum())
        negative = int(known[:, column].sum()) - positive
        if not positive or (not negative and recipe.data.use == "all"):
            raise TrainingError(
                f"'{label}' has {positive} positive and {negative} negative images to learn from; both are needed"
            )


def fingerprint(recipe: Recipe, shares: Shares) -> str:
    """A name for exactly this training: with another recipe or other images nothing goes on with this one's state.

    What it is called, what its card says and how it is measured decide nothing of what is learnt.
    """
    learnt = (recipe.architecture, recipe.data, recipe.network, recipe.schedule, recipe.augmentation, recipe.serves)
    names = [[sample.name for sample in part] for part in (shares.seen, shares.unseen)]
    return _digest(repr((*learnt, recipe.evaluation.folds)), json.dumps(names))


def _digest(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def decode(recipe: Recipe, shares: Shares, work: Path, progress: Progress) -> tuple[Decoded, Problems]:
    """Decode everything once, in the sizes that are needed."""
    label_names = LabelNames(recipe.data.labels, recipe.data.classes)
    samples = (*shares.seen, *shares.unseen)
    size, equalise = recipe.network.size, recipe.data.equalise
    exact, problems = cache(samples, size, equalise, label_names, work / "pixels", progress)
    large = exact
    if geometric(recipe.augmentation):
        large, _ = cache(samples, round(size * OVERSIZE), equalise, label_names, work / "pixels", progress)
    return Decoded(large, exact), problems


def _trained(run: Run) -> tuple[Predicted, keras.Model]:
    """Evidence, and the network that is served."""
    parts = []
    for fold in _fold_shares(run):
        parts.append(_fold(run, fold))
        keras.utils.clear_session()
    served = run.network(learners_of(run.recipe, run.shares), "final", run.progress)
    return gathered(parts or [run.predictions(served, run.shares.unseen, VALIDATION, run.progress)]), served


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold of a cross-validation: who learns, and who is then measured on."""

    name: str
    seen: tuple[Sample, ...]
    unseen: tuple[Sample, ...]
    progress: Progress


def _fold_shares(run: Run) -> Iterator[Fold]:
    """The folds that the recipe asks for, if any."""
    count, samples = run.recipe.evaluation.folds, (*run.shares.seen, *run.shares.unseen)
    fold_of = folds(samples, count, run.recipe.schedule.seed) if count else []
    for fold in range(count):
        seen = tuple(item for item, place in zip(samples, fold_of, strict=True) if place != fold)
        unseen = tuple(item for item, place in zip(samples, fold_of, strict=True) if place == fold)
        yield Fold(f"fold-{fold}", seen, unseen, _numbered(run.progress, fold, count))


def _fold(run: Run, fold: Fold) -> Predicted:
    """What a network that has not seen a fold answers for it; kept, so that it is never made twice.

    Measured in another way it is asked again; it is not trained again.
    """
    file = run.work / fold.name / f"predicted-{_digest(repr(run.recipe.evaluation))}.npz"
    if not file.is_file():
        network = run.network(fold.seen, fold.name, fold.progress)
        keep(run.predictions(network, fold.unseen, fold.name, fold.progress), file)
    return kept(file)


def _numbered(progress: Progress, fold: int, count: int) -> Progress:
    def report_progress(what: str, done: int, total: int) -> None:
        progress(f"fold-{fold + 1} of {count}: {what}", done, total)

    return report_progress


def material(recipe: Recipe, seen: Sequence[Sample], pixels: Decoded) -> TrainingData:
    """What learns; with patience, a share of its patients is set aside to watch."""
    label_names = LabelNames(recipe.data.labels, recipe.data.classes)
    learners = positives(seen, label_names) if recipe.data.use == "positives" else list(seen)
    stopping = None
    if recipe.schedule.patience:
        learners, watched = by_patient(learners, recipe.schedule.stopping, recipe.schedule.seed)
        stopping = pixels.exact.only(watched)
    return TrainingData(pixels.large.only(learners), pixels.exact.only(learners), stopping)


def stored_cases(samples: Sequence[Sample], label_names: LabelNames) -> tuple[StoredCase, ...]:
    """What a retrieval model may show of the images it has learnt: a number each, and what is known.

    Names of files in a hospital's own data set may hold names or IDs of patients, and reports would repeat them.
    """
    values, known = label_truths(samples, label_names)
    return tuple(
        StoredCase(
            f"case-{number}",
            {label: float(value) for label, value, sure in zip(label_names.labels, row, certain, strict=True) if sure},
        )
        for number, (row, certain) in enumerate(zip(values, known, strict=True), start=1)
    )


def probe(stored: CachedDataset) -> Array:
    """A few images on which Keras and ONNX must agree: ``float32[n, size, size, 1]``."""
    return as_served(stored.only(stored.samples[:PROBES]))


def _list_problems(out: Path, problems: Sequence[tuple[str, str]]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    listed = [{"image": name, "reason": reason} for name, reason in problems]
    (out / "problems.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


def _how(recipe: Recipe, shares: Shares, predicted: Predicted) -> str:
    count = recipe.evaluation.folds
    people = f"{len(predicted.names)} images of {len(set(predicted.patients))} patients"
    if count:
        return (
            f"{count}-fold cross-validation by patient over {people}; the network that ships was trained on all of them"
            " with the same recipe"
        )
    return f"{people} of the split '{VALIDATION}', none of whom was seen in training ({len(shares.seen)} images)"


def _about(dataset: Dataset, recipe: Recipe) -> str:
    asked = "; ".join(
        f"{label} is {' or '.join(recipe.data.classes[label])}" if label in recipe.data.classes else label
        for label in recipe.data.labels
    )
    limited = f" About {recipe.data.limit} of its images were drawn." if recipe.data.limit else ""
    positives_only = recipe.data.use == "positives" and recipe.serves == "findings"
    only = " Only images with a finding were trained on." if positives_only else ""
    return (
        f"A data set in the layout `{dataset.layout}` ({len(dataset.samples)} images; rows left out: "
        f"{len(dataset.problems)}). Labels: {asked}.{limited}{only} {CREDITS.get(dataset.layout, OWN_DATA)}"
    )
