"""Cross-validation by patient: every example is judged by a network that has never seen its patient.

Each fold's predictions are kept in its folder, so an interrupted run goes on with the fold that it was in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.training.dataset import Example, folds_by_patient, load_images
from models.training.fit import OVERSIZE, Progress, fit_classifier, predict, silent
from models.training.predictions import Predictions, best_map_threshold, compare_places
from models.training.recipe import Recipe
from models.training.targets import LABELS, LUNG_OPACITY

Array = NDArray[np.float32]
FOLD_SEED = 1


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFold:
    """Examples in the order of their folds, what was said about them, and where the opacity map is best cut."""

    examples: tuple[Example, ...]
    said: Predictions
    map_threshold: float


def cross_validate(
    recipe: Recipe, examples: Sequence[Example], out: Path, folds: int = 5, *, progress: Progress = silent
) -> OutOfFold:
    """Train ``folds`` networks with the recipe and return all their predictions on what they have not seen."""
    fold_of = folds_by_patient(examples, folds, FOLD_SEED)
    for fold in range(folds):
        file = out / f"fold-{fold}" / "predictions.npz"
        if file.is_file():
            continue
        unseen = [item for item, place in zip(examples, fold_of, strict=True) if place == fold]
        seen = [item for item, place in zip(examples, fold_of, strict=True) if place != fold]
        oversized, problems = load_images(seen, round(recipe.network.size * OVERSIZE))
        if problems:
            raise ValueError(f"{len(problems)} images cannot be decoded: leave them out first")

        def tell(what: str, done: int, total: int, fold: int = fold) -> None:
            progress(f"fold {fold + 1} of {folds}, {what}", fold * total + done, folds * total)

        model = fit_classifier(recipe, seen, file.parent, images=oversized, progress=tell)
        model.save(file.parent / "network.keras")
        logits, maps = predict(model, unseen)
        keep_fold(file, unseen, logits, maps[..., LABELS.index(LUNG_OPACITY)])
    return gather(examples, sorted(out.glob("fold-*/predictions.npz")))


def keep_fold(file: Path, examples: Sequence[Example], logits: Array, maps: Array) -> None:
    """Keep logits ``[n, labels]`` and opacity maps ``[n, h, w]`` of one fold; written whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part.npz")
    np.savez(partial, images=[item.image for item in examples], logits=logits, maps=maps)
    partial.replace(file)


def gather(examples: Sequence[Example], files: Sequence[Path]) -> OutOfFold:
    """All kept predictions together; ``examples`` may hold more than were predicted."""
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
    places = np.concatenate(maps)
    threshold = best_map_threshold(chosen, places)
    hits, overlaps = compare_places(chosen, places, threshold)
    said = Predictions(
        images=tuple(item.image for item in chosen),
        patients=tuple(item.patient for item in chosen),
        groups=tuple(groups),
        labels=LABELS,
        scores=np.concatenate(logits),
        hits=hits,
        overlaps=overlaps,
    )
    return OutOfFold(tuple(chosen), said, threshold)
