"""From a recipe that names an architecture, and a data set, to a model that the node can serve: ``pleura train``."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from models.architectures import catalogue
from models.architectures.base import Architecture, Array, check_plan
from models.contract import ModelSpec
from models.similar import StoredCase
from models.training.datasets import read_dataset as datasets
from models.training.datasets.sample import Dataset, Sample
from models.training.datasets.split import TRAINING, VALIDATION, by_patient, folds, named
from models.training.delivery import Told, deliver
from models.training.feed import geometric
from models.training.fit import OVERSIZE, Progress, silent
from models.training.judging import Judged, gathered, judge, keep, kept
from models.training.learning import Material, learn
from models.training.literature_cards import CREDITS
from models.training.literature_recipe import LiteratureRecipe
from models.training.store import Problems, Stored, store
from models.training.train import TrainingError
from models.training.truth import Question, label_truths

PROBES = 4
OWN_DATA = "Where the images come from, and on what terms, is known to those who trained it."
WORK = "work"
"""Folder in ``--out`` for what an interrupted training needs; it is removed at the end."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Who learns and who judges."""

    seen: tuple[Sample, ...]
    unseen: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Shelf:
    """Decoded pixels of all samples: somewhat larger than the network's input for augmentation, and at its size."""

    large: Stored
    exact: Stored


def train_literature(
    recipe: LiteratureRecipe, data: Path, out: Path, *, command: str = "", progress: Progress = silent
) -> ModelSpec:
    """Train, judge on images of patients that were not seen, export, and leave a servable model in ``out``.

    Evidence is from cross-validation by patient over all images where the recipe names folds, else from the data set's
    split ``val``, or a fixed fifth of the patients where it has none. Started again with the same arguments after an
    interruption, it goes on where it stopped. What could not be used is listed in ``problems.json``.

    Raises:
        UnknownArchitecture: the recipe names none of the registry.
        DatasetError: the folder is not of the layout.
        TrainingError: the data cannot carry this training, or the architecture not this recipe; the message says why.
    """
    architecture = catalogue.find(recipe.architecture)
    dataset = datasets.read(data, recipe.data.layout, progress)
    try:
        check_plan(architecture, recipe.plan)
        shares = choose(recipe, dataset, data, architecture.served(recipe.plan))
        work = out / WORK / fingerprint(recipe, shares)
        shelf, problems = fill_shelf(recipe, shares, work, progress)
        _list_problems(out, [*dataset.problems, *problems])
        for part, what in ((shares.seen, "learn from"), (shares.unseen, "be judged by")):
            if not shelf.exact.only(part):
                raise TrainingError(f"no image to {what} can be decoded; {out / 'problems.json'} says why")
        judged, served = _trained(architecture, recipe, shares, shelf, work, progress)
    except ValueError as error:
        raise TrainingError(f"{recipe.name}: {error}") from error
    told = Told(_how(recipe, shares, judged), command, _about(dataset, recipe))
    learners = material(recipe, shares.seen, shelf).exact.samples if architecture.keeps_index else ()
    stored = stored_cases(learners, Question(recipe.data.labels, recipe.data.classes))
    spec = deliver(architecture, recipe, served, judged, probe(shelf.exact), out, told, stored=stored)
    shutil.rmtree(out / WORK)
    return spec


def choose(recipe: LiteratureRecipe, dataset: Dataset, data: Path, served: Sequence[str]) -> Shares:
    """The samples that say anything about the ``served`` labels, split by patient, and cut to the recipe's limit.

    Raises:
        TrainingError: a label is nowhere known, or only present or only absent among those that learn.
    """
    question = Question(tuple(served), recipe.data.classes)
    _, known = label_truths(dataset.samples, question)
    telling = [dataset.samples[place] for place in np.flatnonzero(known.any(axis=1))]
    if not telling:
        there = ", ".join(sorted({name for sample in dataset.samples for name in sample.labels})) or "none"
        raise TrainingError(f"{data} says nothing about {', '.join(served)} (its labels are: {there})")
    seen, unseen = named(telling, TRAINING), named(telling, VALIDATION)
    limit = recipe.data.limit
    if 0 < limit < len(seen) + len(unseen):
        share = limit / (len(seen) + len(unseen))
        rng = np.random.default_rng(recipe.schedule.seed)
        seen, unseen = _drawn(seen, share, rng), _drawn(unseen, share, rng)
    learners = positives(seen, question) if recipe.data.use == "positives" else seen
    _check_truths(learners, question, recipe)
    return Shares(tuple(seen if recipe.evaluation.folds else learners), tuple(unseen))


def _drawn(samples: Sequence[Sample], share: float, rng: np.random.Generator) -> list[Sample]:
    count = max(1, round(share * len(samples)))
    return [samples[place] for place in sorted(rng.permutation(len(samples))[:count])]


def positives(samples: Sequence[Sample], question: Question) -> list[Sample]:
    """Those with any of the findings."""
    values, _ = label_truths(samples, question)
    return [sample for sample, row in zip(samples, values, strict=True) if (row >= 0.5).any()]


def _check_truths(seen: Sequence[Sample], question: Question, recipe: LiteratureRecipe) -> None:
    values, known = label_truths(seen, question)
    for column, label in enumerate(question.labels):
        positive = int((values[:, column] >= 0.5).sum())
        negative = int(known[:, column].sum()) - positive
        if not positive or (not negative and recipe.data.use == "all"):
            raise TrainingError(
                f"'{label}' has {positive} positive and {negative} negative images to learn from; both are needed"
            )


def fingerprint(recipe: LiteratureRecipe, shares: Shares) -> str:
    """A name for exactly this training: another recipe or other images never go on with this one's state."""
    names = [[sample.name for sample in part] for part in (shares.seen, shares.unseen)]
    return hashlib.sha256(f"{recipe!r} {json.dumps(names)}".encode()).hexdigest()[:16]


def fill_shelf(recipe: LiteratureRecipe, shares: Shares, work: Path, progress: Progress) -> tuple[Shelf, Problems]:
    """Decode everything once, in the sizes that are needed."""
    question = Question(recipe.data.labels, recipe.data.classes)
    samples = (*shares.seen, *shares.unseen)
    size, equalise = recipe.network.size, recipe.data.equalise
    exact, problems = store(samples, size, equalise, question, work / "pixels", progress)
    large = exact
    if geometric(recipe.augmentation):
        large, _ = store(samples, round(size * OVERSIZE), equalise, question, work / "pixels", progress)
    return Shelf(large, exact), problems


def _trained(
    architecture: Architecture,
    recipe: LiteratureRecipe,
    shares: Shares,
    shelf: Shelf,
    work: Path,
    progress: Progress,
) -> tuple[Judged, keras.Model]:
    """Evidence, and the network that is served."""
    count = recipe.evaluation.folds
    parts = []
    if count:
        samples = (*shares.seen, *shares.unseen)
        fold_of = folds(samples, count, recipe.schedule.seed)
        for fold in range(count):
            seen = [item for item, place in zip(samples, fold_of, strict=True) if place != fold]
            unseen = [item for item, place in zip(samples, fold_of, strict=True) if place == fold]
            told = _numbered(progress, fold, count)
            parts.append(_fold(architecture, recipe, Shares(tuple(seen), tuple(unseen)), shelf, work, fold, told))
            keras.utils.clear_session()
    network = learn(architecture, recipe, material(recipe, shares.seen, shelf), work / "final", progress)
    served = architecture.serve(network, recipe.plan)
    if not parts:
        parts = [judge(architecture, recipe, served, shelf.exact.only(shares.unseen), VALIDATION, progress)]
    return gathered(parts), served


def _fold(
    architecture: Architecture,
    recipe: LiteratureRecipe,
    shares: Shares,
    shelf: Shelf,
    work: Path,
    fold: int,
    progress: Progress,
) -> Judged:
    """What a network that has not seen a fold says about it; kept, so that it is never made twice."""
    folder = work / f"fold-{fold}"
    file = folder / "judged.npz"
    if not file.is_file():
        network = learn(architecture, recipe, material(recipe, shares.seen, shelf), folder, progress)
        served = architecture.serve(network, recipe.plan)
        judged = judge(architecture, recipe, served, shelf.exact.only(shares.unseen), folder.name, progress)
        keep(judged, file)
    return kept(file)


def _numbered(progress: Progress, fold: int, count: int) -> Progress:
    def told(what: str, done: int, total: int) -> None:
        progress(f"fold-{fold + 1} of {count}: {what}", done, total)

    return told


def material(recipe: LiteratureRecipe, seen: Sequence[Sample], shelf: Shelf) -> Material:
    """What learns; with patience, a share of its patients is set aside to watch."""
    question = Question(recipe.data.labels, recipe.data.classes)
    learners = positives(seen, question) if recipe.data.use == "positives" else list(seen)
    stopping = None
    if recipe.schedule.patience:
        learners, watched = by_patient(learners, recipe.schedule.stopping, recipe.schedule.seed)
        stopping = shelf.exact.only(watched)
    return Material(shelf.large.only(learners), shelf.exact.only(learners), stopping)


def stored_cases(samples: Sequence[Sample], question: Question) -> tuple[StoredCase, ...]:
    """What a retrieval model may show of the images it has learnt: their names in the data set, and what is known."""
    values, known = label_truths(samples, question)
    return tuple(
        StoredCase(
            sample.name,
            {label: float(value) for label, value, sure in zip(question.labels, row, certain, strict=True) if sure},
        )
        for sample, row, certain in zip(samples, values, known, strict=True)
    )


def probe(stored: Stored) -> Array:
    """A few images on which Keras and ONNX must agree: ``float32[n, size, size, 1]``."""
    pixels = np.stack([stored.pixels(place) for place in range(min(PROBES, len(stored)))])
    return (pixels[..., np.newaxis] / np.float32(255)).astype(np.float32)


def _list_problems(out: Path, problems: Sequence[tuple[str, str]]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    listed = [{"image": name, "reason": reason} for name, reason in problems]
    (out / "problems.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


def _how(recipe: LiteratureRecipe, shares: Shares, judged: Judged) -> str:
    count = recipe.evaluation.folds
    people = f"{len(judged.names)} images of {len(set(judged.patients))} patients"
    if count:
        return f"{count}-fold cross-validation by patient over {people}, with the recipe of the final network"
    return f"{people} of the split '{VALIDATION}', none of whom was seen in training ({len(shares.seen)} images)"


def _about(dataset: Dataset, recipe: LiteratureRecipe) -> str:
    asked = "; ".join(
        f"{label} is {' or '.join(recipe.data.classes[label])}" if label in recipe.data.classes else label
        for label in recipe.data.labels
    )
    limited = f" About {recipe.data.limit} of its images were drawn." if recipe.data.limit else ""
    only = " Only images with a finding were trained on." if recipe.data.use == "positives" else ""
    return (
        f"A data set in the layout `{dataset.layout}` ({len(dataset.samples)} images; rows left out: "
        f"{len(dataset.problems)}). Labels: {asked}.{limited}{only} {CREDITS.get(dataset.layout, OWN_DATA)}"
    )
