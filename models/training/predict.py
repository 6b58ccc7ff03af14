"""Predictions of a served network for images that it was not trained on, kept small: maps are not kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from models.architectures.base import Architecture, Batch
from models.architectures.calibration import sigmoid
from models.contract import Mask
from models.localise import MapCut
from models.model_spec import ModelKind, PoolingSpec
from models.pipeline import Processing
from models.pooling import pooled
from models.training.cached_dataset import CachedDataset
from models.training.codes import SITES
from models.training.data_loader import DataLoader, Wanted
from models.training.datasets import pixels
from models.training.datasets.layout import Progress
from models.training.datasets.sample import Sample
from models.training.evaluation.lesions import COLUMNS, compare, kind_of
from models.training.evaluation.segmentation import areas_above
from models.training.fit import silent
from models.training.predicted import Predicted
from models.training.recipe import Evaluation, Recipe
from models.training.truths import LabelNames, label_truths, place_known

Array = NDArray[np.float32]
Inside = Callable[[Sample, int], Mask | None]
"""Where in an image the lungs are, on the network's grid ``bool[side, side]``; None where they are not found."""
MAP_CUTS = tuple(float(cut) for cut in np.round(np.geomspace(0.03, 0.7, 20), 3))
"""Among these a recipe's ``map_cut_off = "best"`` is chosen."""


def predict(
    architecture: Architecture,
    recipe: Recipe,
    served: keras.Model,
    unseen: CachedDataset,
    group: str,
    progress: Progress = silent,
    inside: Inside | None = None,
) -> Predicted:
    """Run the served network over ``unseen`` (at the network's own size); ``group`` names who trained it.

    ``inside`` says where in an image a finding that lies in the lungs can be: the rest of its map counts as nothing, as
    in the node. Of a segmenter each lesion is compared as well.
    """
    labels = architecture.served(recipe.plan)
    columns = [recipe.data.labels.index(label) for label in labels]
    cut = recipe.evaluation.map_cut_off
    cuts = np.asarray(MAP_CUTS if cut == "best" else [cut], np.float32)
    wants = Wanted(masks="maps" in served.output, boxes=architecture.kind is ModelKind.DETECTOR)
    loader = DataLoader(recipe, unseen, wants, change=False)
    label_names = LabelNames(recipe.data.labels, recipe.data.classes)
    asked = Asked(architecture.kind, columns, label_names, cuts, recipe.evaluation, inside)
    rows: dict[str, list[Array]] = {}
    for index in range(len(loader)):
        batch = loader[index]
        start = index * recipe.schedule.batch
        samples = unseen.samples[start : start + len(batch.pixels)]
        for name, found in _batch(served, batch, samples, asked).items():
            rows.setdefault(name, []).append(found)
        progress("evaluating", index + 1, len(loader))
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
        kinds=asked.kinds(unseen.samples) if "lesions" in rows else None,
        **{name: np.concatenate(parts) for name, parts in rows.items()},
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """What is measured of a network's answers: the numbers of its labels among the recipe's, cuts, and how."""

    kind: ModelKind
    columns: Sequence[int]
    label_names: LabelNames
    cuts: Array
    evaluation: Evaluation
    inside: Inside | None

    def names(self) -> list[tuple[str, ...]]:
        """For each label of the network the data set's own labels that mean it."""
        return [self.label_names.names(self.label_names.labels[column]) for column in self.columns]

    def kinds(self, samples: Sequence[Sample]) -> NDArray[np.str_]:
        """What the truth of each image's places is, ``[n, L]`` (:func:`models.training.evaluation.lesions.kind_of`)."""
        return np.array([[kind_of(sample, names) for names in self.names()] for sample in samples])


def _batch(served: keras.Model, batch: Batch, samples: Sequence[Sample], asked: Asked) -> dict[str, Array]:
    """What is kept of one batch, by the fields of :class:`Predicted`."""
    answer = {name: np.asarray(value, np.float32) for name, value in served.predict_on_batch(batch.pixels).items()}
    if asked.kind is ModelKind.SEGMENTER:
        found = {"scores": _pooled_scores(answer["maps"], samples, batch.pixels.shape[1], asked.evaluation.pooling)}
    else:
        found = {"scores": image_scores(answer, len(asked.columns))}
    if "members" in answer:
        found["members"] = answer["members"]
    if batch.masks is not None and batch.mask_known is not None:
        truths, known = batch.masks[..., asked.columns] > 0, batch.mask_known[:, asked.columns] > 0
        maps = [_placed_map(*pair, truths.shape[1], asked) for pair in zip(answer["maps"], samples, strict=True)]
        relative = asked.evaluation.map_relative_cut_off
        pairs = [compare_maps(*row, asked.cuts, relative) for row in zip(maps, truths, known, strict=True)]
        found["areas"], found["hits"] = (np.stack(parts) for parts in zip(*pairs, strict=True))
        if asked.kind is ModelKind.SEGMENTER:
            found["lesions"] = np.stack(
                [compare_lesions(*row, asked) for row in zip(maps, samples, known, strict=True)]
            )
    if batch.boxes is not None:
        found["boxes"], found["true_boxes"] = box_rows(answer), batch.boxes
    return found


def image_scores(answer: dict[str, Array], labels: int) -> Array:
    """The probability of each label for each image, as a classifier or detector says it."""
    if "probabilities" in answer:
        return answer["probabilities"]
    if "members" in answer:
        return sigmoid(answer["members"].mean(axis=1)).astype(np.float32)
    own = np.rint(answer["classes"])[..., np.newaxis] == np.arange(labels)
    found: Array = np.where(own, answer["scores"][..., np.newaxis], 0).max(axis=1, initial=0).astype(np.float32)
    return found


def _pooled_scores(maps: Array, samples: Sequence[Sample], side: int, pooling: PoolingSpec) -> Array:
    """The probability of each label for each image, as the node takes it from a segmenter's maps ``[n, h, w, L]``."""
    rows = []
    for image, sample in zip(maps, samples, strict=True):
        letterbox = pixels.letterbox(sample, side)
        rows.append([pooled(image[..., label], letterbox, pooling) for label in range(image.shape[-1])])
    return np.array(rows, np.float32)


def _placed_map(maps: Array, sample: Sample, side: int, asked: Asked) -> Array:
    """Maps ``[h, w, L]`` on the network's grid; of what lies in the lungs only what is there."""
    fine = np.stack([enlarged(place, side) for place in np.moveaxis(maps, -1, 0)], axis=-1)
    in_lungs = [number for number, column in enumerate(asked.columns) if asked.label_names.labels[column] in SITES]
    within = asked.inside(sample, side) if asked.inside is not None and in_lungs else None
    if within is not None:
        fine[..., in_lungs] *= within[..., np.newaxis]
    return fine


def compare_lesions(maps: Array, sample: Sample, known: NDArray[np.bool_], asked: Asked) -> Array:
    """Rows ``[L, cuts, COLUMNS]`` of one image's maps ``[side, side, L]``; NaN where a label's place is not known."""
    side = maps.shape[0]
    rows = np.full((maps.shape[-1], len(asked.cuts), COLUMNS), np.nan, np.float32)
    for label, names in enumerate(asked.names()):
        if not known[label]:
            continue
        true = [lesion for name in names for lesion in pixels.lesions(sample, name, side)]
        place, relative = maps[..., label], asked.evaluation.map_relative_cut_off
        for cut, threshold in enumerate(np.maximum(asked.cuts, relative * float(place.max()))):
            mask = MapCut(float(threshold), 0.0, Processing().minimum_fraction).without_specks(place >= threshold)
            rows[label, cut] = compare(mask, true)
    return rows


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
        fine = enlarged(place, side)
        marked, both = areas_above(fine, true, np.maximum(cuts, relative * float(fine.max())))
        areas[label] = np.stack([marked, np.full(len(cuts), true.sum()), both], axis=-1)
        if true.any():
            hits[label] = float(true.ravel()[int(np.argmax(fine))])
    return areas, hits


def enlarged(place: Array, side: int) -> Array:
    """A map ``[h, w]`` on a finer grid, interpolated between the middles of its cells."""
    if place.shape == (side, side):
        return place
    rows = np.clip((np.arange(side) + 0.5) * place.shape[0] / side - 0.5, 0, place.shape[0] - 1)
    columns = np.clip((np.arange(side) + 0.5) * place.shape[1] / side - 0.5, 0, place.shape[1] - 1)
    down = np.stack([np.interp(rows, np.arange(place.shape[0]), column) for column in place.T], axis=1)
    return np.stack([np.interp(columns, np.arange(place.shape[1]), row) for row in down])


def box_rows(answer: dict[str, Array]) -> Array:
    """A detector's answer ``[n, D, 6]``: left, top, right, bottom, score, label."""
    parts = (answer["boxes"], answer["scores"][..., np.newaxis], answer["classes"][..., np.newaxis])
    return np.concatenate(parts, axis=-1)
