"""Where a classifier looks: a sheet of the images of a finding that it is surest of, with its map in red.

``python -P -m benchmarks.where --data DIR --label pneumothorax --out sheet.png [--model bundled] [--count 24]``

Patients' images are on the sheet: it belongs beside the data, not into a repository.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from models.contract import Pixels
from models.manifest import read_manifest
from models.radiograph.contrast import letterbox_for, prepare
from models.runtime.loading import load
from models.training.datasets import pixels, read_dataset
from models.training.evaluation.evaluate import find_manifest

TILE = 320
ACROSS = 6


def tile(image: Pixels, seen: Pixels) -> NDArray[np.uint8]:
    """The image in grey, brightest red where the map is at its own highest."""
    strength = seen / max(float(seen.max()), 1e-6)
    size = (TILE, TILE)
    red = np.asarray(Image.fromarray(strength).resize(size, Image.Resampling.BILINEAR)) ** 2
    grey = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)) * 0.8
    return (255 * np.stack([np.clip(grey + 0.6 * red, 0, 1), grey, grey], axis=-1)).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--label", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--count", type=int, default=24)
    options = parser.parse_args()
    spec = read_manifest(find_manifest(options.model))
    column = [label.name for label in spec.labels].index(options.label)
    executor = load(spec, device="cpu")
    positives = [item for item in read_dataset.read(options.data).samples if item.labels.get(options.label, 0.0) >= 0.5]
    found = []
    for item in track(positives, description="looking"):
        image = pixels.read(item.image)
        given = prepare(image, letterbox_for(image, spec.input), spec.input)
        answer = executor.run(given[np.newaxis])
        found.append(
            (float(answer["probabilities"][0, column]), item.name, given[..., 0], answer["maps"][0, ..., column])
        )
    found.sort(key=lambda each: -each[0])
    sheet = Image.new("RGB", (ACROSS * TILE, -(-min(options.count, len(found)) // ACROSS) * TILE))
    for place, (probability, name, shown, seen) in enumerate(found[: options.count]):
        sheet.paste(Image.fromarray(tile(shown, seen)), ((place % ACROSS) * TILE, (place // ACROSS) * TILE))
        print(f"{place + 1:3} {probability:.3f} {name}")
    sheet.save(options.out)


if __name__ == "__main__":
    main()
