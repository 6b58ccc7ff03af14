"""Two networks that know lung opacity, on images that neither has learnt from: who tells better, what goes out.

``python -P -m benchmarks.opacity [--evidence DIR] [--rounds 1000] [--data DIR]``

Reads the evidence of both (``chest-classifier.csv``, ``chest-opacity.csv``: five folds by patient each), so no network
is run. With ``--data`` (``cxr/`` beside ``cxr_extra/``) the opacity network's AUC is told for each view apart as well:
a patient who is imaged in bed (AP) is more often ill, so telling AP from PA alone is worth something over all images.
The first table compares the classifier, the opacity network and the mean of both logits, each brought to the same
spread, which asks no truth. AUC and gains are of logits as they are, on the same images, with intervals from one
bootstrap over patients. For the other figures scaling (Platt) and cut-off (Youden's index) are fitted on the other
folds. The second table shows the masks of the opacity network where each of these says that the finding is present; the
cut of the masks themselves was chosen on all folds. The last line tells on whom *abnormal* is called present, at the
cut-offs of the bundled manifests, where it is raised to the probability of the opacity network.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.calibration import logit
from models.model_registry import BUNDLED, read_registry
from models.training.calibrate import crossed, crossed_probabilities, fit_mean
from models.training.datasets import read_dataset
from models.training.evaluation.lesions import (
    ABSENT,
    BOXES,
    COLUMN_NAMES,
    NORMAL,
    OUTLINES,
    Values,
    lesion_figures,
    lesion_rows,
    silenced,
)
from models.training.evaluation.predictions import read_predictions
from models.training.metrics import Interval, auc, by_patients, calibration_error, proportion, youden_threshold

LABEL, ABNORMAL = "lung_opacity", "abnormal"
CLASSIFIER, OPACITY, MEAN = "classifier", "opacity network", "mean of both logits"


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What both networks say about ``n`` images, the truth, what it is about (boxes, normal …), and what is marked.

    ``classifier`` and ``opacity`` are logits; ``groups`` are the opacity network's folds. ``rows [n, COLUMNS]`` are NaN
    where no place is known.
    """

    patients: tuple[str, ...]
    groups: tuple[str, ...]
    classifier: Values
    opacity: Values
    truths: NDArray[np.bool_]
    kinds: tuple[str, ...]
    rows: Values
    abnormal: Values

    def where(self, *kinds: str) -> NDArray[np.bool_]:
        """The images of some kinds."""
        return np.isin(self.kinds, kinds)


def read(folder: Path) -> Answers:
    """The images that both networks have answered and whose truth is known."""
    known = read_predictions(folder / "chest-classifier.csv")
    column = known.labels.index(LABEL)
    place = {name: row for row, name in enumerate(known.images)}
    with (folder / "chest-opacity.csv").open(newline="", encoding="utf-8") as stream:
        both = [row for row in csv.DictReader(stream) if row["image"] in place and row[f"{LABEL} truth"]]
    cells = [[float(row[f"{LABEL} {name}"] or "nan") for name in COLUMN_NAMES] for row in both]
    return Answers(
        patients=tuple(row["patient"] for row in both),
        groups=tuple(row["group"] for row in both),
        classifier=logit(np.array([known.scores[place[row["image"]], column] for row in both])).astype(np.float64),
        opacity=logit(np.array([float(row[f"{LABEL} unscaled"]) for row in both])).astype(np.float64),
        truths=np.array([float(row[f"{LABEL} truth"]) >= 0.5 for row in both]),
        kinds=tuple(row[f"{LABEL} against"] for row in both),
        rows=np.array(cells),
        abnormal=known.scores[[place[row["image"]] for row in both], known.labels.index(ABNORMAL)].astype(np.float64),
    )


def ways_of(answers: Answers) -> dict[str, Values]:
    """The logits of each image in each way."""
    both = np.stack([answers.classifier, answers.opacity], axis=1)
    mean = fit_mean(both[..., np.newaxis], np.zeros(1, np.bool_))(both)[:, 0].astype(np.float64)
    return {CLASSIFIER: answers.classifier, OPACITY: answers.opacity, MEAN: mean}


def scaled(logits: Values, answers: Answers) -> Values:
    """Probabilities, each fold scaled as the other folds say."""
    truths = answers.truths[:, np.newaxis]
    return crossed_probabilities(logits[:, np.newaxis], truths, np.ones_like(truths), answers.groups)[:, 0].astype(
        np.float64
    )


def called(logits: Values, answers: Answers) -> NDArray[np.bool_]:
    """Which images are called present, each fold at the cut-off that is best on the others."""
    scores, found = scaled(logits, answers), np.zeros(len(logits), np.bool_)
    for inside, others in crossed(answers.groups):
        found[inside] = scores[inside] >= youden_threshold(scores[others], answers.truths[others])
    return found


def gain(better: Values, than: Values, answers: Answers, rounds: int) -> Interval:
    """The difference of two AUCs on the same images."""
    return by_patients(
        lambda drawn, truths: auc(drawn[:, 0], truths) - auc(drawn[:, 1], truths),
        np.stack([better, than], axis=1),
        answers.truths,
        answers.patients,
        rounds=rounds,
    )


def whether(answers: Answers, ways: Mapping[str, Values], rounds: int) -> list[tuple[str, ...]]:
    """The first table, its head first."""
    head = ("who says whether", "AUC", "gain over the classifier", "gain over the opacity network", "ECE",
            "sensitivity", "specificity, normal", "specificity, neither normal nor opacity")  # fmt: skip
    table: list[tuple[str, ...]] = [head]
    for name, logits in ways.items():
        present = called(logits, answers)
        gains = [_text(gain(logits, ways[base], answers, rounds)) if base != name else ""
                 for base in (CLASSIFIER, OPACITY)]  # fmt: skip
        shares = [proportion(int(present[answers.truths].sum()), int(answers.truths.sum()))]
        shares += [proportion(int((~present[own]).sum()), int(own.sum()))
                   for own in (answers.where(NORMAL), answers.where(ABSENT))]  # fmt: skip
        area = by_patients(auc, logits, answers.truths, answers.patients, rounds=rounds)
        error = f"{calibration_error(scaled(logits, answers), answers.truths):.3f}"
        table.append((name, _text(area), *gains, error, *map(_text, shares)))
    return table


def shown(answers: Answers, ways: Mapping[str, Values], against: str, rounds: int) -> list[tuple[str, ...]]:
    """The second table, against boxes or outlines: what goes out where each way says *present*."""
    known = ~np.isnan(answers.rows[:, 0])
    patients = [patient for patient, use in zip(answers.patients, known, strict=True) if use]
    kinds = [kind for kind, use in zip(answers.kinds, known, strict=True) if use]
    found = [
        lesion_figures(name, silenced(answers.rows[known], called(logits, answers)[known]), kinds, patients, rounds)
        for name, logits in ways.items()
    ]
    return lesion_rows([each[against] for each in found], _text)


def abnormal(answers: Answers, opacity: Values, cut_offs: Mapping[str, float]) -> dict[str, Interval]:
    """How often *abnormal* is called present, by what readers say; ``opacity`` are probabilities of the network."""
    present = (np.maximum(answers.abnormal, opacity) >= cut_offs[ABNORMAL]) | (opacity >= cut_offs[LABEL])
    groups = {
        "opacity": answers.truths,
        "neither normal nor opacity": answers.where(ABSENT),
        "normal": answers.where(NORMAL),
    }
    return {name: proportion(int(present[own].sum()), int(own.sum())) for name, own in groups.items()}


def by_view(evidence: Path, views: Mapping[str, str], rounds: int) -> list[tuple[str, ...]]:
    """The opacity network's AUC within each view, of scaled answers, on all images whose truth is known."""
    with (evidence / "chest-opacity.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row[f"{LABEL} truth"]]
    scores = np.array([float(row[LABEL]) for row in rows])
    truths = np.array([float(row[f"{LABEL} truth"]) >= 0.5 for row in rows])
    seen = np.array([views.get(row["image"], "") or "unknown" for row in rows])
    table: list[tuple[str, ...]] = [("view", "with an opacity / images", "AUC")]
    for view in sorted(set(seen)):
        own = seen == view
        patients = [row["patient"] for row, use in zip(rows, own, strict=True) if use]
        figure = by_patients(auc, scores[own], truths[own], patients, rounds=rounds)
        table.append((view, f"{int(truths[own].sum())} / {int(own.sum())}", _text(figure)))
    return table


def _text(item: Interval) -> str:
    return f"{item.value:.3f} ({item.low:.3f} to {item.high:.3f})"


def _print(table: Sequence[tuple[str, ...]]) -> None:
    head, *rows = table
    for row in (head, ("---",) * len(head), *rows):
        print(f"| {' | '.join(row)} |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evidence", type=Path, default=BUNDLED / "evidence")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--data", type=Path, help="the images' data set, for its views (layout readings)")
    options = parser.parse_args()
    answers = read(options.evidence)
    ways = ways_of(answers)
    numbers = ", ".join(f"{int(answers.where(kind).sum())} {kind}" for kind in (BOXES, OUTLINES, NORMAL, ABSENT))
    print(f"{len(answers.truths)} images of {len(set(answers.patients))} patients: {numbers}\n")
    _print(whether(answers, ways, options.rounds))
    for against in (BOXES, OUTLINES):
        if answers.where(against).any():
            _print(shown(answers, ways, against, options.rounds))
    specs = [read_registry().find(name) for name in ("chest-classifier", "chest-opacity")]
    cut_offs = {label.name: label.threshold for spec in specs for label in spec.labels}
    if options.data:
        views = {sample.name: sample.view for sample in read_dataset.read(options.data, "readings").samples}
        _print(by_view(options.evidence, views, options.rounds))
    shares = abnormal(answers, scaled(ways[OPACITY], answers), cut_offs)
    print(f"abnormal is called present: {'; '.join(f'{name} {_text(share)}' for name, share in shares.items())}")


if __name__ == "__main__":
    main()
