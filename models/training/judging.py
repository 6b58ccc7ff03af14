"""What a served network says about images that it has not seen, kept small: no map outlives its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from models.architectures.base import Architecture
from models.contract import ModelKind
from models.training.feed import Feed, Wanted
from models.training.fit import Progress, silent
from models.training.literature_recipe import LiteratureRecipe
from models.training.predictions import enlarged
from models.training.store import Stored
from models.training.truth import Question, label_truths, place_known

Array = NDArray[np.float32]
SAID, TRUE, BOTH = 0, 1, 2
"""Columns of :attr:`Judged.areas`."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Answers and truths of ``n`` images and ``L`` served labels.

    ``scores`` are probabilities of an image as the node takes them, ``truths`` and ``known`` as in
    :func:`models.training.truth.label_truths`, ``placed`` whether the place of a label is known. Where the network has
    maps: ``areas`` are pixels in the network's input that it marks, that are marked in truth, and that are both
    (``NaN`` where the truth about places is not known), and ``hits`` whether its strongest place is marked in truth
    (``NaN`` where nothing is). A detector has ``boxes [n, D, 6]`` (left, top, right, bottom, score, label) and
    ``true_boxes [n, most, 5]`` (label -1: none).
    """

    names: tuple[str, ...]
    patients: tuple[str, ...]
    groups: tuple[str, ...]
    labels: tuple[str, ...]
    scores: Array
    truths: Array
    known: Array
    placed: Array
    areas: Array | None = None
    hits: Array | None = None
    boxes: Array | None = None
    true_boxes: Array | None = None

    @property
    def prevalent(self) -> NDArray[np.bool_]:
        """``bool[n, L]``: who has each label."""
        return self.truths >= 0.5


def judge(
    architecture: Architecture,
    recipe: LiteratureRecipe,
    served: keras.Model,
    unseen: Stored,
    group: str,
    progress: Progress = silent,
) -> Judged:
    """Run the served network over ``unseen`` (at the network's own size); ``group`` names who trained it."""
    labels = architecture.served(recipe.plan)
    columns = [recipe.data.labels.index(label) for label in labels]
    detects = architecture.kind is ModelKind.DETECTOR
    feed = Feed(recipe, unseen, Wanted(masks="maps" in served.output, boxes=detects), change=False)
    scores: list[Array] = []
    areas: list[Array] = []
    hits: list[Array] = []
    boxes: list[Array] = []
    true_boxes: list[Array] = []
    for index in range(len(feed)):
        batch = feed[index]
        answer = {name: np.asarray(value, np.float32) for name, value in served.predict_on_batch(batch.pixels).items()}
        scores.append(image_scores(answer, len(labels)))
        if batch.masks is not None and batch.mask_known is not None:
            known = batch.mask_known[:, columns] > 0
            for row, truth in enumerate(batch.masks[..., columns] > 0):
                area, hit = compare_maps(answer["maps"][row], truth, known[row], recipe.evaluation.map_cut_off)
                areas.append(area)
                hits.append(hit)
        if batch.boxes is not None:
            boxes.append(said_boxes(answer))
            true_boxes.append(batch.boxes)
        progress("judging", index + 1, len(feed))
    question = Question(recipe.data.labels, recipe.data.classes)
    values, sure = label_truths(unseen.samples, question)
    return Judged(
        names=tuple(sample.name for sample in unseen.samples),
        patients=tuple(sample.patient for sample in unseen.samples),
        groups=(group,) * len(unseen),
        labels=labels,
        scores=np.concatenate(scores),
        truths=values[:, columns],
        known=sure[:, columns],
        placed=np.stack([place_known(sample, question) for sample in unseen.samples])[:, columns],
        areas=np.stack(areas) if areas else None,
        hits=np.stack(hits) if hits else None,
        boxes=np.concatenate(boxes) if boxes else None,
        true_boxes=np.concatenate(true_boxes) if true_boxes else None,
    )


def image_scores(answer: dict[str, Array], labels: int) -> Array:
    """The probability of each label for each image, as the node takes it from any kind of network."""
    if "probabilities" in answer:
        return answer["probabilities"]
    if "maps" in answer and "scores" not in answer:
        highest: Array = answer["maps"].max(axis=(1, 2))
        return highest
    own = np.rint(answer["classes"])[..., np.newaxis] == np.arange(labels)
    found: Array = np.where(own, answer["scores"][..., np.newaxis], 0).max(axis=1, initial=0).astype(np.float32)
    return found


def compare_maps(maps: Array, truth: NDArray[np.bool_], known: NDArray[np.bool_], cut: float) -> tuple[Array, Array]:
    """Areas ``[L, 3]`` and hits ``[L]`` of one image's maps ``[h, w, L]`` against its truth ``[side, side, L]``."""
    labels, side = truth.shape[-1], truth.shape[0]
    areas, hits = np.full((labels, 3), np.nan, np.float32), np.full(labels, np.nan, np.float32)
    for label in np.flatnonzero(known):
        place = maps[..., label]
        said = enlarged(place, side) if place.shape != (side, side) else place
        marked = said >= cut
        true = truth[..., label]
        areas[label] = marked.sum(), true.sum(), (marked & true).sum()
        if true.any():
            hits[label] = float(true.ravel()[int(np.argmax(said))])
    return areas, hits


def said_boxes(answer: dict[str, Array]) -> Array:
    """A detector's answer ``[n, D, 6]``: left, top, right, bottom, score, label."""
    parts = (answer["boxes"], answer["scores"][..., np.newaxis], answer["classes"][..., np.newaxis])
    return np.concatenate(parts, axis=-1)


def keep(judged: Judged, file: Path) -> None:
    """Keep what was judged; written whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part.npz")
    arrays = {name: getattr(judged, name) for name in Judged.__dataclass_fields__ if getattr(judged, name) is not None}
    np.savez_compressed(partial, **arrays)
    partial.replace(file)


def kept(file: Path) -> Judged:
    """What :func:`keep` kept."""
    values: dict[str, Any] = {}
    with np.load(file) as found:
        for name in found.files:
            texts = name in ("names", "patients", "groups", "labels")
            values[name] = tuple(str(item) for item in found[name]) if texts else found[name]
    return Judged(**values)


def gathered(parts: Sequence[Judged]) -> Judged:
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

    values: dict[str, Any] = {name: joined(name) for name in Judged.__dataclass_fields__}
    return Judged(**(values | {"labels": parts[0].labels}))


def _filled(boxes: Array, longest: int, name: str) -> Array:
    filled = np.zeros((len(boxes), longest, boxes.shape[2]), np.float32)
    filled[..., -1] = -1 if name == "true_boxes" else 0
    filled[:, : boxes.shape[1]] = boxes
    return filled
