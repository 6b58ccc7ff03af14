"""The bundled classifier on further images of NIH, of patients from whom it has not learnt: do its figures hold there?

``python -P -m benchmarks.further --data DIR [--rounds 1000]``

``DIR`` holds ``cxr/`` and ``cxr_extra/``. Of ``cxr_extra/`` those images count whose patients are not in the evidence.
The network that ships analyses them as a node does. Truths are NIH's labels, and for lung opacity what ChestX-Det's
radiologists say. The opacity network has learnt from the images that were read: of it stand the answers of the folds
that had not seen the patient. The last lines ask how well the *size of the file* alone tells which images have any of
NIH's findings: what is more than a half there is no anatomy, but where the images come from.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.experts import line
from models.model_registry import BUNDLED, read_registry
from models.model_spec import ModelSpec
from models.runtime.loading import load
from models.training.datasets import read_dataset
from models.training.datasets.cxr import ABNORMAL, LUNG_OPACITY, NIH_FINDINGS
from models.training.datasets.sample import Sample
from models.training.evaluation.predict_as_node import Shown, run
from models.training.evaluation.predictions import read_predictions
from models.training.metrics import auc, calibration_error

EVIDENCE = BUNDLED / "evidence"
LEAST = 2
"""Images with a finding without which nothing is told of it."""


def parted(data: Path) -> tuple[list[Sample], list[Sample]]:
    """The images that the classifier has learnt from, and those of patients that it does not know."""
    known = read_predictions(EVIDENCE / "chest-classifier.csv")
    images, patients = set(known.images), {patient.lstrip("0") for patient in known.patients}
    samples = read_dataset.read(data, "readings").samples
    return (
        [sample for sample in samples if sample.name in images],
        [sample for sample in samples if sample.patient not in patients],
    )


def answers(spec: ModelSpec, samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """For each label, the probability of each image that can be read."""
    found: dict[str, dict[str, float]] = {label.name: {} for label in spec.labels}
    for item in run(load(spec, device="cpu"), samples):
        for finding in item.findings if isinstance(item, Shown) else ():
            if finding.probability is not None:
                found[finding.label][item.sample.name] = finding.probability
    return found


def unseen_opacity() -> dict[str, float]:
    """What the opacity network's folds say of each image."""
    with (EVIDENCE / "chest-opacity.csv").open(newline="", encoding="utf-8") as stream:
        return {row["image"]: float(row[LUNG_OPACITY]) for row in csv.DictReader(stream)}


def cells(
    label: str, samples: Sequence[Sample], said: Mapping[str, float], threshold: float, rounds: int
) -> tuple[str, ...]:
    """With it / images, AUC, sensitivity, specificity, mean probability, ECE; nothing where hardly any image has it."""
    truth = {item.name: item.labels[label] >= 0.5 for item in samples if label in item.labels and item.name in said}
    if sum(truth.values()) < LEAST:
        return ()
    scores = np.array([said[name] for name in truth])
    error = calibration_error(scores, np.array(list(truth.values())))
    patients = {item.name: item.patient for item in samples}
    return (*line(truth, said, patients, threshold, rounds), f"{scores.mean():.3f}", f"{error:.3f}")


def area(label: str, samples: Sequence[Sample], said: Mapping[str, float]) -> float:
    """AUC of one label."""
    known = [item for item in samples if label in item.labels and item.name in said]
    return auc(np.array([said[item.name] for item in known]), np.array([item.labels[label] >= 0.5 for item in known]))


def any_finding(samples: Sequence[Sample], said: Mapping[str, float]) -> float:
    """AUC for *any of NIH's findings*, whatever other readers say."""
    return auc(np.array([said[item.name] for item in samples]), has_any(samples))


def has_any(samples: Sequence[Sample]) -> NDArray[np.bool_]:
    """Which images have any of NIH's findings."""
    return np.array([max(item.labels[name.lower()] for name in NIH_FINDINGS) >= 0.5 for item in samples])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=1000)
    options = parser.parse_args()
    learnt, samples = parted(options.data)
    spec, opacity = (read_registry().find(name) for name in ("chest-classifier", "chest-opacity"))
    said = answers(spec, samples)
    rows = [(label.name, label.threshold, said[label.name], label.name) for label in spec.labels]
    rows.append((LUNG_OPACITY, opacity.labels[0].threshold, unseen_opacity(), f"{LUNG_OPACITY}, {opacity.name}"))
    table = {title: cells(label, samples, found, cut, options.rounds) for label, cut, found, title in rows}
    print(f"{len(samples)} images of {len({sample.patient for sample in samples})} patients")
    print("| finding | with it / images | AUC | sensitivity | specificity | mean probability | ECE |")
    print("|---|---|---|---|---|---|---|")
    for title, found in table.items():
        if found:
            print(f"| {title} | {' | '.join(found)} |")
    told = [name.lower() for name in NIH_FINDINGS if table[name.lower()]]
    mean = np.mean([area(label, samples, said[label]) for label in told])
    print(f"mean AUC of the {len(told)} of NIH's 14 findings in this table: {mean:.3f}")
    print("AUC for any of NIH's findings | by the size of the file alone | by the classifier, unseen")
    evidence = read_predictions(EVIDENCE / "chest-classifier.csv")
    folds = dict(zip(evidence.images, evidence.scores[:, evidence.labels.index(ABNORMAL)], strict=True))
    for where, own, by_classifier in (("cxr", learnt, folds), ("further images", samples, said[ABNORMAL])):
        sizes = {sample.name: float(sample.image.stat().st_size) for sample in own}
        print(f"{where} | {any_finding(own, sizes):.2f} | {any_finding(own, by_classifier):.2f}")


if __name__ == "__main__":
    main()
