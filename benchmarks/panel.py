"""What each member of a classifier's panel is worth, from the folds that ``pleura train --folds`` has left in a folder.

``python -P -m benchmarks.panel --data DIR --out OUT``: ``OUT`` is the folder of that training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.training.crossval import gather
from models.training.dataset import Example
from models.training.metrics import auc
from models.training.panel import SHOWN, crossed_means
from models.training.predictions import known_truths
from models.training.targets import LABELS
from models.training.train import usable

SHOWN_COLUMNS = ("lung_opacity", "pneumothorax", "abnormal")
NIH = [label for label in LABELS if label not in ("lung_opacity", "abnormal")]


def row(name: str, logits: NDArray[np.floating], examples: tuple[Example, ...]) -> str:
    """One row of the table: three AUCs, and the mean over NIH's fourteen findings."""
    found = {}
    for column, label in enumerate(LABELS):
        judged, truths = known_truths(examples, label)
        found[label] = auc(logits[judged, column], truths[judged])
    cells = [found[label] for label in SHOWN_COLUMNS] + [float(np.mean([found[label] for label in NIH]))]
    return f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    files = sorted((options.out / "folds").glob("fold-*/predictions.npz"))
    if not files:
        parser.error(f"{options.out} holds no folds: run `pleura train RECIPE --folds 5 --out {options.out}` first")
    examples, _ = usable(options.data)
    found = gather(examples, files)
    logits = np.concatenate([np.load(file)["logits"] for file in files])
    names = ["the trained network alone", "the regression alone"]
    lines = [row(name, logits[:, place], found.examples) for place, name in enumerate(names[: logits.shape[1]])]
    everywhere = crossed_means(logits, found.said.groups, shown=())
    lines.append(row("their mean", everywhere, found.examples))
    lines.append(row(f"as it ships ({', '.join(SHOWN)} by the network)", found.said.scores, found.examples))
    print(f"| AUC | {' | '.join(SHOWN_COLUMNS)} | mean of NIH's 14 |\n|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
