"""A tiny data set in the layout of the real one: grey squares, some with a bright patch where lungs have opacities."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from models.training.datasets.cxr import NIH_FINDINGS

COLUMNS = ["image", "split", "patient_id", "age", "sex", "view", "original_width", "original_height", "pixel_spacing"]
COLUMNS += ["rsna_patient_id", "rsna_class", "rsna_boxes", *NIH_FINDINGS]
SIDE = 96


def draw_chest(rng: np.random.Generator, box: Sequence[int] | None) -> np.ndarray:
    pixels = np.full((SIDE, SIDE), 90.0) + rng.normal(0, 6, (SIDE, SIDE))
    if box is not None:
        x, y, width, height = (value * SIDE // 1024 for value in box)
        pixels[y : y + height, x : x + width] += 110
    return np.clip(pixels, 1, 255).astype(np.uint8)


def write_drawn(folder: Path, count: int, *, seed: int = 0) -> Path:
    """``count`` images, every second with a patch; every fourth is for ``val``."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    boxes = [tuple(int(v) for v in (*rng.integers(80, 600, 2), 320, 320)) if i % 2 else None for i in range(count)]
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="0")
        writer.writeheader()
        for index in range(count):
            name = f"{index:04d}.png"
            Image.fromarray(draw_chest(rng, boxes[index])).save(folder / "images" / name)
            ill = boxes[index] is not None
            writer.writerow(
                {
                    "image": name,
                    "split": "val" if index % 4 in (2, 3) and index % 8 > 3 else "train",
                    "patient_id": str(index),
                    "age": "50",
                    "sex": "F" if index % 3 else "M",
                    "view": "PA",
                    "original_width": "2000",
                    "original_height": "2000",
                    "rsna_class": "Lung Opacity" if ill else "Normal",
                    "rsna_boxes": json.dumps([boxes[index]] if ill else []),
                    "Pneumonia": "1" if ill else "0",
                    "Pneumothorax": "1" if index % 5 == 0 else "0",
                }
            )
    return folder
