"""Decoded radiographs on disk: a data set is decoded once for a training, and is never in memory as a whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.training.datasets import pixels
from models.training.datasets.layout import Progress
from models.training.datasets.pixels import Equalisation, UnreadableImage
from models.training.datasets.rle import RleError
from models.training.datasets.sample import Sample
from models.training.truths import LabelNames, boxes_of, masks_of

Grey = NDArray[np.uint8]
Problems = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, eq=False)
class CachedDataset:
    """Samples, and where their pixels are: ``rows`` of ``whole``, ``uint8[all, side, side]``, letterboxed as served."""

    samples: tuple[Sample, ...]
    rows: tuple[int, ...]
    whole: Grey

    @property
    def side(self) -> int:
        """Side of the square pixels."""
        return int(self.whole.shape[1])

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.samples)

    def pixels(self, place: int) -> Grey:
        """``uint8[side, side]`` of one sample."""
        return np.asarray(self.whole[self.rows[place]])

    def only(self, wanted: Sequence[Sample]) -> CachedDataset:
        """Those of ``wanted`` that could be decoded, in their order."""
        row = {sample.name: number for sample, number in zip(self.samples, self.rows, strict=True)}
        kept = tuple(sample for sample in wanted if sample.name in row)
        return CachedDataset(kept, tuple(row[sample.name] for sample in kept), self.whole)


def cache(
    samples: Sequence[Sample],
    side: int,
    equalise: Equalisation,
    label_names: LabelNames,
    folder: Path,
    progress: Progress,
) -> tuple[CachedDataset, Problems]:
    """Decode ``samples`` into ``folder`` (or find them there), and list those that cannot be used with the reason."""
    parts = json.dumps([side, equalise, label_names.labels, [sample.name for sample in samples]])
    name = hashlib.sha256(parts.encode()).hexdigest()[:16]
    file, listing = folder / f"{name}.npy", folder / f"{name}.json"
    if not listing.is_file():
        _decode(samples, side, equalise, label_names, file, listing, progress)
    listed = json.loads(listing.read_text(encoding="utf-8"))
    by_name = {sample.name: sample for sample in samples}
    kept = tuple(by_name[item] for item in listed["kept"])
    whole = np.load(file, mmap_mode="r")
    return CachedDataset(kept, tuple(range(len(kept))), whole), [(name, reason) for name, reason in listed["problems"]]


def _decode(
    samples: Sequence[Sample],
    side: int,
    equalise: Equalisation,
    label_names: LabelNames,
    file: Path,
    listing: Path,
    progress: Progress,
) -> None:
    """Write pixels row by row, and at last the listing, which says that they are complete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(max(1, len(samples)), side, side))
    kept: list[str] = []
    problems: Problems = []
    for number, sample in enumerate(samples, start=1):
        try:
            whole[len(kept)] = np.rint(pixels.load(sample, side, equalise) * 255)
            masks_of(sample, label_names, side)
            boxes_of(sample, label_names, side)
        except (UnreadableImage, RleError) as error:
            problems.append((sample.name, str(error)))
        else:
            kept.append(sample.name)
        if number % 16 == 0 or number == len(samples):
            progress("decoding", number, len(samples))
    whole.flush()
    partial = listing.with_suffix(".part")
    partial.write_text(json.dumps({"kept": kept, "problems": problems}), encoding="utf-8")
    partial.replace(listing)
