"""Measure lung fields as the node finds them: how well they cover what was drawn, and which side each lung is.

Every image is evaluated by a network that has not seen its patient, as it is and mirrored: a network that only knows
how pictures usually hang would call a mirrored chest's lungs the wrong way round.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np

from models.architectures.base import Array
from models.contract import Hanging, Mask
from models.lung_fields import LungFields, lung_fields
from models.radiograph.geometry import Letterbox
from models.training.cached_dataset import CachedDataset
from models.training.datasets import pixels
from models.training.datasets.lungs import LEFT_LUNG, RIGHT_LUNG
from models.training.evaluation.segmentation import dice, mean_by_patients
from models.training.metrics import proportion

BATCH = 16
LABELS = (LEFT_LUNG, RIGHT_LUNG)


@dataclass(frozen=True, slots=True)
class LungRow:
    """One image: Dice of both lungs together and of either (0 where the lungs were not found), and how it hangs."""

    image: str
    patient: str
    group: str
    found: bool
    dice: float
    left: float
    right: float
    hanging: str
    hanging_mirrored: str


def measure_lungs(served: keras.Model, unseen: CachedDataset, group: str) -> list[LungRow]:
    """What a network says about images of patients whom it has not seen."""
    rows: list[LungRow] = []
    for start in range(0, len(unseen), BATCH):
        places = range(start, min(start + BATCH, len(unseen)))
        batch = np.stack([unseen.pixels(place) for place in places])[..., np.newaxis].astype(np.float32)
        batch /= np.float32(255)
        for place, maps, mirrored in zip(places, _maps(served, batch), _maps(served, batch[:, :, ::-1]), strict=True):
            rows.append(_row(unseen, place, group, maps, mirrored))
    return rows


def _maps(served: keras.Model, batch: Array) -> Array:
    return np.asarray(served(np.ascontiguousarray(batch), training=False)["maps"], np.float32)


def _row(unseen: CachedDataset, place: int, group: str, maps: Array, mirrored: Array) -> LungRow:
    """Images are hung as usual, so the lung on the left of the picture is the patient's right one."""
    sample, side = unseen.samples[place], unseen.side
    letterbox = pixels.letterbox(sample, side)
    square = Letterbox(side, side, side, side)
    found, turned = lung_fields(maps, letterbox), lung_fields(mirrored, square)
    left, right = (pixels.mask(sample, label, side) for label in LABELS)
    both_dice = left_dice = right_dice = 0.0
    if found is not None:
        found_right, found_left = (square.mask_to_source(lung.astype(np.float32), 0.5) for lung in found.lungs)
        both_dice = _dice(found_left | found_right, left | right)
        left_dice, right_dice = _dice(found_left, left), _dice(found_right, right)
    return LungRow(
        image=sample.name,
        patient=sample.patient,
        group=group,
        found=found is not None,
        dice=both_dice,
        left=left_dice,
        right=right_dice,
        hanging=_hanging(found),
        hanging_mirrored=_hanging(turned),
    )


def _hanging(found: LungFields | None) -> str:
    return (found.hanging if found is not None else Hanging.UNSURE).value


def _dice(predicted: Mask, true: Mask) -> float:
    areas = (np.array([float(each.sum())]) for each in (predicted, true, predicted & true))
    return float(dice(*areas)[0])


def lung_figures(rows: Sequence[LungRow], rounds: int = 1000) -> dict[str, Any]:
    """The figures of a card, with intervals by patients (Wilson's for shares)."""
    patients = [row.patient for row in rows]
    means = {
        name: asdict(mean_by_patients(np.array([getattr(row, name) for row in rows]), patients, rounds))
        for name in ("dice", "left", "right")
    }
    count = len(rows)
    hung = {name: [getattr(row, name) for row in rows] for name in ("hanging", "hanging_mirrored")}
    return {
        "images": count,
        "patients": len(set(patients)),
        **means,
        "tenth_percentile": float(np.percentile([row.dice for row in rows], 10)),
        "lowest": min(row.dice for row in rows),
        "found": asdict(proportion(sum(row.found for row in rows), count)),
        "sides_right": asdict(proportion(hung["hanging"].count(Hanging.USUAL.value), count)),
        "sides_wrong": asdict(proportion(hung["hanging"].count(Hanging.MIRRORED.value), count)),
        "mirrored_noticed": asdict(proportion(hung["hanging_mirrored"].count(Hanging.MIRRORED.value), count)),
        "mirrored_missed": asdict(proportion(hung["hanging_mirrored"].count(Hanging.USUAL.value), count)),
    }


def keep_rows(rows: Sequence[LungRow], file: Path) -> None:
    """Keep rows; written whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
    partial.replace(file)


def kept_rows(file: Path) -> list[LungRow]:
    """What :func:`keep_rows` kept."""
    return [LungRow(**row) for row in json.loads(file.read_text(encoding="utf-8"))]


def write_rows(file: Path, rows: Sequence[LungRow]) -> None:
    """The evidence: one row an image."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([item.name for item in fields(LungRow)])
        for row in rows:
            writer.writerow([f"{cell:.4f}" if isinstance(cell, float) else cell for cell in astuple(row)])
