"""Cross-validation by patient: every example is judged by a network that has never seen its patient.

Each fold's predictions are kept in its folder, so an interrupted run goes on with the fold that it was in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from models.efficientnet.panel import Linear
from models.training.dataset import Example, folds_by_patient, load_images
from models.training.fit import OVERSIZE, Progress, fit_classifier, predict, silent
from models.training.panel import crossed_means, described, fit_mean, fit_opinion, unchanged_network
from models.training.predictions import Predictions, best_map_threshold, compare_places
from models.training.recipe import Recipe
from models.training.targets import LABELS, LUNG_OPACITY

Array = NDArray[np.floating]
FOLD_SEED = 1


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFold:
    """Examples in the order of their folds, what was said about them, and what a final network takes from that.

    ``map_threshold`` is where the opacity map is best cut; ``mean`` turns members' logits into one a label.
    """

    examples: tuple[Example, ...]
    said: Predictions
    map_threshold: float
    mean: Linear


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """A trained network, and the regression beside it where the recipe asks for one."""

    recipe: Recipe
    network: keras.Model
    opinion: Linear | None

    def say(self, examples: Sequence[Example], features: Array | None) -> tuple[Array, Array]:
        """Logits ``[n, members, labels]`` and opacity maps ``[n, h, w]`` of examples, prepared as the node does."""
        logits, maps = predict(self.network, examples, mirrored=self.recipe.panel.mirrored)
        members = [logits]
        if self.opinion is not None and features is not None:
            members.append(self.opinion(features).astype(np.float32))
        return np.stack(members, axis=1), maps[..., LABELS.index(LUNG_OPACITY)]


def trained_judge(
    recipe: Recipe,
    seen: Sequence[Example],
    features: Array | None,
    out: Path,
    *,
    progress: Progress = silent,
) -> Judge:
    """Train on ``seen`` (``features`` are theirs), or take the network that ``out`` holds from an earlier start."""
    file = out / "network.keras"
    if file.is_file():
        network = keras.saving.load_model(file, compile=False)
    else:
        images, problems = load_images(seen, round(recipe.network.size * OVERSIZE))
        if problems:
            raise ValueError(f"{len(problems)} images cannot be decoded: leave them out first")
        network = fit_classifier(recipe, seen, out, images=images, progress=progress)
        partial = out / "unfinished.keras"
        network.save(partial)
        partial.replace(file)
    opinion = None if features is None else fit_opinion(features, seen, recipe.panel.unchanged)
    return Judge(recipe, network, opinion)


def recipe_features(
    recipe: Recipe, examples: Sequence[Example], out: Path, progress: Progress = silent
) -> Array | None:
    """Unchanged features ``[n, channels]`` of all examples, if the recipe asks for them."""
    if not recipe.panel.unchanged:
        return None

    def tell(done: int) -> None:
        progress("features", done, len(examples))

    return described(unchanged_network(recipe), examples, out / "features.npz", tell).astype(np.float32)


def cross_validate(
    recipe: Recipe,
    examples: Sequence[Example],
    out: Path,
    folds: int = 5,
    *,
    features: Array | None = None,
    progress: Progress = silent,
) -> OutOfFold:
    """Train ``folds`` networks with the recipe and return all their predictions on what they have not seen."""
    fold_of = np.array(folds_by_patient(examples, folds, FOLD_SEED))
    for fold in range(folds):
        file = out / f"fold-{fold}" / "predictions.npz"
        if file.is_file():
            continue

        def tell(what: str, done: int, total: int, fold: int = fold) -> None:
            progress(f"fold {fold + 1} of {folds}, {what}", fold * total + done, folds * total)

        inside = fold_of == fold
        seen, unseen = _chosen(examples, ~inside), _chosen(examples, inside)
        judge = trained_judge(recipe, seen, _rows(features, ~inside), file.parent, progress=tell)
        keep_fold(file, unseen, *judge.say(unseen, _rows(features, inside)))
    return gather(examples, sorted(out.glob("fold-*/predictions.npz")))


def _chosen(examples: Sequence[Example], chosen: NDArray[np.bool_]) -> list[Example]:
    return [item for item, use in zip(examples, chosen, strict=True) if use]


def _rows(features: Array | None, chosen: NDArray[np.bool_]) -> Array | None:
    return None if features is None else features[chosen]


def keep_fold(file: Path, examples: Sequence[Example], logits: Array, maps: Array) -> None:
    """Keep logits ``[n, members, labels]`` and opacity maps ``[n, h, w]`` of one fold; written whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part.npz")
    np.savez(partial, images=[item.image for item in examples], logits=logits, maps=maps)
    partial.replace(file)


def gather(examples: Sequence[Example], files: Sequence[Path]) -> OutOfFold:
    """All kept predictions together; ``examples`` may hold more than were predicted.

    How loud a member is in a fold's final logits is judged by the other folds; the mean that is returned is made from
    all of them, for a network that is to be served.
    """
    by_name = {item.image: item for item in examples}
    chosen: list[Example] = []
    groups: list[str] = []
    logits, maps = [], []
    for file in files:
        with np.load(file) as kept:
            names = [str(name) for name in kept["images"]]
            logits.append(kept["logits"])
            maps.append(kept["maps"])
        chosen += [by_name[name] for name in names]
        groups += [file.parent.name] * len(names)
    members, places = np.concatenate(logits), np.concatenate(maps)
    threshold = best_map_threshold(chosen, places)
    hits, overlaps = compare_places(chosen, places, threshold)
    said = Predictions(
        images=tuple(item.image for item in chosen),
        patients=tuple(item.patient for item in chosen),
        groups=tuple(groups),
        labels=LABELS,
        scores=crossed_means(members, groups),
        hits=hits,
        overlaps=overlaps,
    )
    return OutOfFold(tuple(chosen), said, threshold, fit_mean(members))
