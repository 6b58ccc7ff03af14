"""How well the bundled classifier finds what *experts* say, beside what NIH's reports say, on the same unseen images.

``python -P -m benchmarks.experts --data DIR [--evidence DIR] [--rounds 1000]``

``DIR`` holds ``cxr/`` and ``cxr_expert/``. NIH's labels were mined from reports and are often wrong. Experts are the
three radiologists of ChestX-Det, and the adjudicated labels of Majkowska et al. (2019), on the images that they have
read. No network is run: the evidence has the logits of networks that had not seen the patient. The threshold is the
manifest's, on its calibrated probability.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.manifest import read_manifest
from models.model_registry import BUNDLED
from models.training.datasets.layout import read_table
from models.training.evaluation.predictions import read_predictions
from models.training.metrics import Interval, auc, by_patients, proportion

FINDINGS = {
    "pneumothorax": ("Pneumothorax", "Pneumothorax"),
    "effusion": ("Effusion", ""),
    "cardiomegaly": ("Cardiomegaly", ""),
    "atelectasis": ("Atelectasis", ""),
}
"""What both know: the classifier's label, and what ChestX-Det and Majkowska et al. call it (empty: not read)."""
_CHESTXDET, _ADJUDICATED = "ChestX-Det", "Majkowska et al."


def readings(data: Path, label: str) -> Iterator[tuple[str, dict[str, bool]]]:
    """Who says of which images whether they have a finding: experts, and NIH on the same images and on all."""
    nih_name = label.capitalize()
    rows = read_table(data / "cxr" / "labels.csv", ("image", nih_name))
    nih = {row["image"]: row[nih_name] == "1" for row in rows}
    named = FINDINGS[label]
    tables = ((_CHESTXDET, "chestxdet.csv", named[0], "1"), (_ADJUDICATED, "google2019.csv", named[1], "YES"))
    for who, file, column, yes in tables:
        if column:
            rows = read_table(data / "cxr_expert" / file, ("image", column))
            read = {row["image"]: row[column] == yes for row in rows if row["image"] in nih}
            yield who, read
            yield f"NIH, on the images of {who}", {image: nih[image] for image in read}
    yield "NIH, all images", nih


def line(
    truth: Mapping[str, bool], said: Mapping[str, float], patients: Mapping[str, str], threshold: float, rounds: int
) -> tuple[str, ...]:
    """Images with it, AUC, sensitivity and specificity of probabilities ``said`` against ``truth``, by image."""
    images = [image for image in truth if image in said]
    scores, ill = np.array([said[image] for image in images]), np.array([truth[image] for image in images])
    called: NDArray[np.bool_] = scores >= threshold
    area = Interval(math.nan, math.nan, math.nan)
    if ill.any() and not ill.all():
        area = by_patients(auc, scores, ill, [patients[image] for image in images], rounds=rounds)
    shares = (
        proportion(int(called[ill].sum()), int(ill.sum())),
        proportion(int((~called[~ill]).sum()), int((~ill).sum())),
    )
    return (f"{int(ill.sum())} / {len(images)}", *map(_text, (area, *shares)))


def _text(item: Interval) -> str:
    return "not known" if math.isnan(item.value) else f"{item.value:.2f} ({item.low:.2f} to {item.high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--evidence", type=Path, default=BUNDLED / "evidence")
    parser.add_argument("--rounds", type=int, default=1000)
    options = parser.parse_args()
    predicted = read_predictions(options.evidence / "chest-classifier.csv")
    thresholds = {label.name: label.threshold for label in read_manifest(BUNDLED / "chest-classifier.toml").labels}
    patients = dict(zip(predicted.images, predicted.patients, strict=True))
    print("| finding | by whom | with it / images | AUC | sensitivity | specificity |\n|---|---|---|---|---|---|")
    for label in FINDINGS:
        scores = predicted.scores[:, predicted.labels.index(label)]
        said = dict(zip(predicted.images, map(float, scores), strict=True))
        for who, truth in readings(options.data, label):
            cells = line(truth, said, patients, thresholds[label], options.rounds)
            print(f"| {label} | {who} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
