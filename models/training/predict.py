"""What a served network answers for images that it has not seen, kept small: no map outlives its image."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from models.architectures.base import Architecture, Batch
from models.architectures.calibration import sigmoid
from models.contract import ModelKind
from models.training.cached_dataset import CachedDataset
from models.training.data_loader import DataLoader, Wanted
from models.training.datasets.layout import Progress
from models.training.evaluation.segmentation import areas_above
from models.training.fit import silent
from models.training.predicted import Predicted
from models.training.recipe import Recipe
from models.training.truths import LabelNames, label_truths, place_known

Array = NDArray[np.float32]
MAP_CUTS = tuple(float(cut) for cut in np.round(np.geomspace(0.03, 0.7, 20), 3))
"""Among these a recipe's ``map_cut_off = "best"`` is chosen."""


def predict(
    architecture: Architecture,
    recipe: Recipe,
    served: keras.Model,
    unseen: CachedDataset,
    group: str,
    progress: Progress = silent,
) -> Predicted:
    """Run the served network over ``unseen`` (at the network's own size); ``group`` names who trained it."""
    labels = architecture.served(recipe.plan)
    columns = [recipe.data.labels.index(label) for label in labels]
    cut = recipe.evaluation.map_cut_off
    cuts = np.asarray(MAP_CUTS if cut == "best" else [cut], np.float32)
    wants = Wanted(masks="maps" in served.output, boxes=architecture.kind is ModelKind.DETECTOR)
    loader = DataLoader(recipe, unseen, wants, change=False)
    rows: dict[str, list[Array]] = {}
    for index in range(len(loader)):
        for name, values in _batch(
            served, loader[index], columns, cuts, recipe.evaluation.map_relative_cut_off
        ).items():
            rows.setdefault(name, []).append(values)
        progress("evaluating", index + 1, len(loader))
    label_names = LabelNames(recipe.data.labels, recipe.data.classes)
    values, sure = label_truths(unseen.samples, label_names)
    return Predicted(
        names=tuple(sample.name for sample in unseen.samples),
        patients=tuple(sample.patient for sample in unseen.samples),
        groups=(group,) * len(unseen),
        labels=labels,
        truths=values[:, columns],
        known=sure[:, columns],
        placed=np.stack([place_known(sample, label_names) for sample in unseen.samples])[:, columns],
        cuts=cuts if wants.masks else None,
        **{name: np.concatenate(parts) for name, parts in rows.items()},
    )


def _batch(served: keras.Model, batch: Batch, columns: Sequence[int], cuts: Array, relative: float) -> dict[str, Array]:
    """What is kept of one batch, by the fields of :class:`Predicted`."""
    answer = {name: np.asarray(value, np.float32) for name, value in served.predict_on_batch(batch.pixels).items()}
    found = {"scores": image_scores(answer, len(columns))}
    if "members" in answer:
        found["members"] = answer["members"]
    if batch.masks is not None and batch.mask_known is not None:
        truths, known = batch.masks[..., columns] > 0, batch.mask_known[:, columns] > 0
        pairs = [compare_maps(*row, cuts, relative) for row in zip(answer["maps"], truths, known, strict=True)]
        found["areas"], found["hits"] = (np.stack(parts) for parts in zip(*pairs, strict=True))
    if batch.boxes is not None:
        found["boxes"], found["true_boxes"] = box_rows(answer), batch.boxes
    return found


def image_scores(answer: dict[str, Array], labels: int) -> Array:
    """The probability of each label for each image, as the node takes it; of a segmenter here with the padding."""
    if "probabilities" in answer:
        return answer["probabilities"]
    if "members" in answer:
        return sigmoid(answer["members"].mean(axis=1)).astype(np.float32)
    if "maps" in answer and "scores" not in answer:
        highest: Array = answer["maps"].max(axis=(1, 2))
        return highest
    own = np.rint(answer["classes"])[..., np.newaxis] == np.arange(labels)
    found: Array = np.where(own, answer["scores"][..., np.newaxis], 0).max(axis=1, initial=0).astype(np.float32)
    return found


def compare_maps(
    maps: Array, truth: NDArray[np.bool_], known: NDArray[np.bool_], cuts: Array, relative: float = 0.0
) -> tuple[Array, Array]:
    """Areas ``[L, cuts, 3]`` and hits ``[L]`` of one image's maps ``[h, w, L]`` with its truth ``[side, side, L]``.

    No cut is lower than the share ``relative`` of a map's own highest value.
    """
    labels, side = truth.shape[-1], truth.shape[0]
    areas, hits = np.full((labels, len(cuts), 3), np.nan, np.float32), np.full(labels, np.nan, np.float32)
    for label in np.flatnonzero(known):
        place, true = maps[..., label], truth[..., label]
        fine = enlarged(place, side) if place.shape != (side, side) else place
        marked, both = areas_above(fine, true, np.maximum(cuts, relative * float(fine.max())))
        areas[label] = np.stack([marked, np.full(len(cuts), true.sum()), both], axis=-1)
        if true.any():
            hits[label] = float(true.ravel()[int(np.argmax(fine))])
    return areas, hits


def enlarged(place: Array, side: int) -> Array:
    """A map ``[h, w]`` on a finer grid, interpolated between the middles of its cells."""
    rows = np.clip((np.arange(side) + 0.5) * place.shape[0] / side - 0.5, 0, place.shape[0] - 1)
    columns = np.clip((np.arange(side) + 0.5) * place.shape[1] / side - 0.5, 0, place.shape[1] - 1)
    down = np.stack([np.interp(rows, np.arange(place.shape[0]), column) for column in place.T], axis=1)
    return np.stack([np.interp(columns, np.arange(place.shape[1]), row) for row in down])


def box_rows(answer: dict[str, Array]) -> Array:
    """A detector's answer ``[n, D, 6]``: left, top, right, bottom, score, label."""
    parts = (answer["boxes"], answer["scores"][..., np.newaxis], answer["classes"][..., np.newaxis])
    return np.concatenate(parts, axis=-1)
