"""What a served network answers for images that it has not seen, kept small: no map outlives its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from models.architectures.base import Architecture, Batch
from models.architectures.calibration import sigmoid
from models.contract import ModelKind
from models.training.cached_dataset import CachedDataset
from models.training.data_loader import DataLoader, Wanted
from models.training.evaluation.segmentation import areas_above
from models.training.learn import Progress, silent
from models.training.recipe import Recipe
from models.training.truths import Question, label_truths, place_known

Array = NDArray[np.float32]
MARKED, TRUE, BOTH = 0, 1, 2
"""Last axis of :attr:`Predicted.areas`."""
MAP_CUTS = tuple(float(cut) for cut in np.round(np.geomspace(0.03, 0.7, 20), 3))
"""Among these a recipe's ``map_cut_off = "best"`` is chosen."""


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """Answers and truths of ``n`` images and ``L`` served labels.

    ``scores`` are probabilities of an image as the node takes them, ``truths`` and ``known`` as in
    :func:`models.training.truth.label_truths`, ``placed`` whether the place of a label is known. Where the network has
    maps: ``areas [n, L, cuts, 3]`` are pixels in the network's input that it marks at each of ``cuts``, that are marked
    in truth, and that are both (``NaN`` where the truth about places is not known), and ``hits`` whether its strongest
    place is marked in truth (``NaN`` where nothing is). ``members [n, members, L]`` are the logits of several answers
    for one image, where a network gives them. A detector has ``boxes [n, D, 6]`` (left, top, right, bottom, score,
    label) and ``true_boxes [n, most, 5]`` (label -1: none).
    """

    names: tuple[str, ...]
    patients: tuple[str, ...]
    groups: tuple[str, ...]
    labels: tuple[str, ...]
    scores: Array
    truths: Array
    known: Array
    placed: Array
    cuts: Array | None = None
    areas: Array | None = None
    hits: Array | None = None
    boxes: Array | None = None
    true_boxes: Array | None = None
    members: Array | None = None

    @property
    def prevalent(self) -> NDArray[np.bool_]:
        """``bool[n, L]``: who has each label."""
        return self.truths >= 0.5


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
        for name, values in _batch(served, loader[index], columns, cuts).items():
            rows.setdefault(name, []).append(values)
        progress("evaluating", index + 1, len(loader))
    question = Question(recipe.data.labels, recipe.data.classes)
    values, sure = label_truths(unseen.samples, question)
    return Predicted(
        names=tuple(sample.name for sample in unseen.samples),
        patients=tuple(sample.patient for sample in unseen.samples),
        groups=(group,) * len(unseen),
        labels=labels,
        truths=values[:, columns],
        known=sure[:, columns],
        placed=np.stack([place_known(sample, question) for sample in unseen.samples])[:, columns],
        cuts=cuts if wants.masks else None,
        **{name: np.concatenate(parts) for name, parts in rows.items()},
    )


def _batch(served: keras.Model, batch: Batch, columns: Sequence[int], cuts: Array) -> dict[str, Array]:
    """What is kept of one batch, by the fields of :class:`Predicted`."""
    answer = {name: np.asarray(value, np.float32) for name, value in served.predict_on_batch(batch.pixels).items()}
    found = {"scores": image_scores(answer, len(columns))}
    if "members" in answer:
        found["members"] = answer["members"]
    if batch.masks is not None and batch.mask_known is not None:
        truths, known = batch.masks[..., columns] > 0, batch.mask_known[:, columns] > 0
        pairs = [compare_maps(*row, cuts) for row in zip(answer["maps"], truths, known, strict=True)]
        found["areas"], found["hits"] = (np.stack(parts) for parts in zip(*pairs, strict=True))
    if batch.boxes is not None:
        found["boxes"], found["true_boxes"] = box_rows(answer), batch.boxes
    return found


def image_scores(answer: dict[str, Array], labels: int) -> Array:
    """The probability of each label for each image, as the node takes it from any kind of network."""
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


def compare_maps(maps: Array, truth: NDArray[np.bool_], known: NDArray[np.bool_], cuts: Array) -> tuple[Array, Array]:
    """Areas ``[L, cuts, 3]`` and hits ``[L]`` of one image's maps ``[h, w, L]`` with its truth ``[side, side, L]``."""
    labels, side = truth.shape[-1], truth.shape[0]
    areas, hits = np.full((labels, len(cuts), 3), np.nan, np.float32), np.full(labels, np.nan, np.float32)
    for label in np.flatnonzero(known):
        place, true = maps[..., label], truth[..., label]
        fine = enlarged(place, side) if place.shape != (side, side) else place
        marked, both = areas_above(fine, true, cuts)
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


def keep(predicted: Predicted, file: Path) -> None:
    """Keep what was predicted; written whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part.npz")
    arrays = {
        name: getattr(predicted, name)
        for name in Predicted.__dataclass_fields__
        if getattr(predicted, name) is not None
    }
    np.savez_compressed(partial, **arrays)
    partial.replace(file)


def kept(file: Path) -> Predicted:
    """What :func:`keep` kept."""
    values: dict[str, Any] = {}
    with np.load(file) as found:
        for name in found.files:
            texts = name in ("names", "patients", "groups", "labels")
            values[name] = tuple(str(item) for item in found[name]) if texts else found[name]
    return Predicted(**values)


def gathered(parts: Sequence[Predicted]) -> Predicted:
    """Several groups as one; boxes are filled up to the longest list."""

    def joined(name: str) -> Any:
        found = [getattr(part, name) for part in parts]
        if any(item is None for item in found):
            return None
        if isinstance(found[0], tuple):
            return sum(found, ())
        if found[0].ndim == 3 and name.endswith("boxes"):
            longest = max(item.shape[1] for item in found)
            found = [_filled(item, longest, name) for item in found]
        return np.concatenate(found)

    values: dict[str, Any] = {name: joined(name) for name in Predicted.__dataclass_fields__}
    return Predicted(**(values | {"labels": parts[0].labels, "cuts": parts[0].cuts}))


def _filled(boxes: Array, longest: int, name: str) -> Array:
    filled = np.zeros((len(boxes), longest, boxes.shape[2]), np.float32)
    filled[..., -1] = -1 if name == "true_boxes" else 0
    filled[:, : boxes.shape[1]] = boxes
    return filled
