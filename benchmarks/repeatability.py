"""How much a region changes where nothing has changed: the noise below which no finding is called larger or smaller.

``python -P -m benchmarks.repeatability --data DIR [--images 200] [--seed 1]``

Each radiograph is analysed several times, each time as another film of the same chest would look: turned by up to 3
degrees, shifted by up to 3 % of its size, 4 % larger or smaller, with a gamma of 0.85 to 1.15, and noise. Of each
finding that is present twice, the ratio of its larger share of the lung to the smaller one is counted, whether it was
found again, and how often ``workers.comparison`` would call it larger or smaller. A second film of a real patient
differs in more than that (inspiration, projection), so its threshold lies above the 95th percentile printed here.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.random import Generator
from rich.progress import track
from scipy import ndimage

from config.settings import Settings
from models.contract import Finding, ModelInput
from models.predictor import load_predictor
from models.training.datasets import pixels, read_dataset
from workers.comparison import size_change
from workers.pipeline_digest import active_pipeline
from workers.results.study_account import ChangeKind

FILMS = 4


def another_film(image: ModelInput, chance: Generator) -> ModelInput:
    """The same chest, as it might look on another film."""
    angle, scale = np.deg2rad(chance.uniform(-3, 3)), chance.uniform(0.96, 1.04)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    middle = np.array(image.shape) / 2
    offset = middle - turn @ (middle + chance.uniform(-0.03, 0.03, 2) * image.shape)
    moved = ndimage.affine_transform(image.pixels, turn, offset, order=1, mode="nearest")
    noisy = np.clip(moved, 0, 1) ** chance.uniform(0.85, 1.15) + chance.normal(0, 0.01, image.shape)
    return replace(image, pixels=np.clip(noisy, 0, 1).astype(np.float32))


def share_of(finding: Finding) -> float:
    """The share of the lung that is involved more; 0 where no lung is known."""
    return max(lung.share for lung in finding.lungs.both) if finding.lungs is not None else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    chance = np.random.default_rng(asked.seed)
    predictor = load_predictor(active_pipeline(Settings()))
    samples = [one for one in read_dataset.read(asked.data).samples if one.split == "val"]
    chosen = [samples[at] for at in chance.permutation(len(samples))[: asked.images]]
    ratios: defaultdict[str, list[float]] = defaultdict(list)
    claimed: defaultdict[str, int] = defaultdict(int)
    again: defaultdict[str, list[bool]] = defaultdict(list)
    for sample in track(chosen, description="radiographs"):
        image = pixels.read(sample.image)
        films = predictor.predict_all([another_film(image, chance) for _ in range(FILMS)])
        for one, other in pairwise([{each.label: each for each in film.findings} for film in films]):
            for label in one.keys() & other.keys():
                if not one[label].present:
                    continue
                again[label].append(other[label].present)
                shares = share_of(one[label]), share_of(other[label])
                if other[label].present and min(shares) > 0:
                    ratios[label].append(max(shares) / min(shares))
                    claimed[label] += size_change(*shares) is not ChangeKind.KNOWN
    for label in sorted(ratios):
        median, most, extreme = np.percentile(ratios[label], (50, 95, 99))
        print(
            f"{label}: {len(ratios[label])} pairs, ratio of the shares: median {median:.2f}, 95 % below {most:.2f}, "
            f"99 % below {extreme:.2f}; found again {np.mean(again[label]):.2f}; "
            f"called larger or smaller {claimed[label]} times"
        )


if __name__ == "__main__":
    main()
