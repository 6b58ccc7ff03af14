"""Softmax against a linear support vector machine on the same deep features and folds.

``python -P -m benchmarks.heads --data DIR [--encoder efficientnet-lite0] [--size 256] [--folds 5]``

The question of source C (accuracy 75 % with softmax, 79 % with a machine, CLAHE images) with what can be had offline:
features of an ImageNet encoder that stands still, once on plain and once on CLAHE images, and on top of them either
head, each at the exact minimum of its own objective with the same C and the same balanced costs. Every image is
analysed by heads that have not seen its patient. Printed for each finding: AUC and accuracy with bootstrap intervals
over patients, and the difference between the two heads with the interval of the *paired* difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray
from rich.progress import track
from sklearn.linear_model import LogisticRegression

from models.encoders.table import encode
from models.svm.losses import solve
from models.training.datasets import pixels, read_dataset, split
from models.training.datasets.sample import Sample
from models.training.metrics import Interval, auc

COST = 0.01
FOLD_SEED = 1
BATCH = 32
ROUNDS = 1000
Array = NDArray[np.floating]


def features(samples: Sequence[Sample], encoder: str, size: int, equalise: pixels.Equalisation) -> Array:
    image = keras.Input((size, size, 1))
    deepest = encode(encoder, image, 1.0, "imagenet")[32]
    network = keras.Model(image, layers.GlobalAveragePooling2D()(deepest))
    found = []
    for start in track(range(0, len(samples), BATCH), description=f"features, {equalise}"):
        batch = np.stack([pixels.load(item, size, equalise) for item in samples[start : start + BATCH]])
        found.append(np.asarray(network(batch[..., np.newaxis], training=False)))
    return np.concatenate(found).astype(np.float64)


def scores(given: Array, truths: NDArray[np.bool_], fold_of: Sequence[int]) -> dict[str, Array]:
    """Signed scores of both heads (above 0: present), each image by heads that have not seen its patient."""
    margins: dict[str, Array] = {"softmax": np.zeros(len(truths)), "machine": np.zeros(len(truths))}
    folds = np.asarray(fold_of)
    for fold in sorted(set(fold_of)):
        seen, unseen = folds != fold, folds == fold
        mean, spread = given[seen].mean(axis=0), given[seen].std(axis=0) + 1e-6
        standard = (given - mean) / spread
        softmax = LogisticRegression(C=COST, class_weight="balanced", max_iter=5000).fit(standard[seen], truths[seen])
        margins["softmax"][unseen] = softmax.decision_function(standard[unseen])
        plane = solve(standard[seen], truths[seen], COST, balanced=True)
        margins["machine"][unseen] = standard[unseen] @ plane[:-1] + plane[-1]
    return margins


def accuracy(margins: Array, truths: NDArray[np.bool_]) -> float:
    return float(np.mean((margins > 0) == truths))


def compared(
    margins: dict[str, Array], truths: NDArray[np.bool_], patients: Sequence[str]
) -> dict[str, tuple[Interval, Interval, Interval]]:
    """AUC and accuracy of softmax, of the machine, and the paired difference, by one bootstrap over patients."""
    names = sorted(set(patients))
    members = [np.flatnonzero(np.asarray(patients) == name) for name in names]
    rng = np.random.default_rng(0)
    draws: dict[str, list[tuple[float, float]]] = {"AUC": [], "accuracy": []}
    for _ in range(ROUNDS):
        rows = np.concatenate([members[index] for index in rng.integers(len(members), size=len(members))])
        for name, figure in (("AUC", auc), ("accuracy", accuracy)):
            draws[name].append(
                (figure(margins["softmax"][rows], truths[rows]), figure(margins["machine"][rows], truths[rows]))
            )
    intervals_of = {}
    for name, figure in (("AUC", auc), ("accuracy", accuracy)):
        both = np.array(draws[name])
        values = figure(margins["softmax"], truths), figure(margins["machine"], truths)
        columns = (both[:, 0], both[:, 1], both[:, 1] - both[:, 0])
        found = zip((*values, values[1] - values[0]), columns, strict=True)
        softmax, machine, difference = (
            Interval(value, *map(float, np.percentile(drawn, (2.5, 97.5)))) for value, drawn in found
        )
        intervals_of[name] = (softmax, machine, difference)
    return intervals_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--labels", nargs="+", default=["lung_opacity", "abnormal", "pneumothorax"])
    options = parser.parse_args()
    samples = read_dataset.read(options.data).samples
    fold_of = split.folds(samples, options.folds, FOLD_SEED)
    print(f"{options.encoder} at {options.size} px, {options.folds} folds by patient, C = {COST}")
    print("| images | finding | positives / images | figure | softmax | machine | difference, paired |")
    print("|---|---|---|---|---|---|---|")
    for equalise in ("none", "clahe"):
        given = features(samples, options.encoder, options.size, equalise)
        for label in options.labels:
            known = np.array([label in item.labels for item in samples])
            truths = np.array([item.labels.get(label, 0.0) >= 0.5 for item in samples])[known]
            patients = [item.patient for item, use in zip(samples, known, strict=True) if use]
            margins = scores(given[known], truths, [fold for fold, use in zip(fold_of, known, strict=True) if use])
            for figure, intervals in compared(margins, truths, patients).items():
                cells = " | ".join(f"{item.value:.3f} ({item.low:.3f} to {item.high:.3f})" for item in intervals)
                print(f"| {equalise} | {label} | {truths.sum()} / {len(truths)} | {figure} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
