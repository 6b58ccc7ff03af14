"""Where a map should be cut: outlines of lung opacity on patients whom the network has not seen.

``python -P -m benchmarks.outlines folds --data DIR --work DIR [--folds 2] [--measured 2]``
``python -P -m benchmarks.outlines lungs --data LUNGS``
``python -P -m benchmarks.outlines boxes --data DIR``

*folds* trains the bundled classifier's recipe in folds by patient (what ``--work`` holds already is not trained again),
makes of each map the mask that the node would make, at several cuts, and compares it with the boxes of RSNA's readers.
The cut that is recommended for a fold is chosen on the *other* folds. Figures are of all images with a box, whether or
not the finding is called present there; intervals are from resampling patients.

*lungs* shows the bundled classifier radiographs of other hospitals on which people have drawn both lungs (the layout
``lungs``; none of these patients was in the training), and tells how much of its masks lies in a lung.

*boxes* compares what the bundled models mark with readers' boxes: at the flat cut alone, at the manifest's cut, and
clipped to the lungs. The classifier has learnt from these images, so the figures flatter; their differences do not.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.architectures import catalogue
from models.contract import Pixels
from models.localise import MapCut, mask_from_map, region_masks
from models.lung_fields import LungFields, lung_fields
from models.manifest import read_manifest
from models.model_registry import read_registry
from models.radiograph.contrast import letterbox_for, prepare
from models.radiograph.geometry import Letterbox
from models.runtime.loading import load
from models.training.datasets import pixels, read_dataset
from models.training.datasets.cxr import LUNG_OPACITY, NORMAL
from models.training.datasets.lungs import LEFT_LUNG, RIGHT_LUNG
from models.training.datasets.sample import Sample
from models.training.datasets.split import folds
from models.training.evaluation.evaluate import find_manifest
from models.training.evaluation.lesions import ACROSS, BOTH, HIT_AT, REGIONS, SAID, TRUE, Values, compare
from models.training.evaluation.segmentation import iou, mean_by_patients
from models.training.metrics import proportion, youden_threshold
from models.training.predict import image_scores
from models.training.recipe import RECIPES, Recipe, read_recipe
from models.training.train import Run, choose, decode

FLAT = (0.05, 0.08, 0.113, 0.16, 0.22, 0.3)
RELATIVE = (0.0, 0.3, 0.4, 0.5, 0.6)
SPECK = 5e-4
GRID = 512
HEAD = """\
| cut | IoU | precision of area | area ratio, median | IoU ≥ 0.3 | joined | regions on a normal called so |
|---|---|---|---|---|---|---|"""
BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a network that has not seen its patient answers for one image, and the fold that it was in."""

    sample: Sample
    fold: int
    score: float
    map: Pixels


def unseen_maps(recipe: Recipe, data: Path, work: Path, measured: int) -> list[Seen]:
    """The opacity map of every image that RSNA's readers have read, by a network that has not seen its patient.

    Only the first ``measured`` folds are trained and looked at.
    """
    architecture = catalogue.find(recipe.architecture)
    shares = choose(architecture, recipe, read_dataset.read(data, recipe.data.layout), data)
    decoded, _ = decode(recipe, shares, work, tell)
    run = Run(architecture, recipe, shares, decoded, work, tell)
    everybody = (*shares.seen, *shares.unseen)
    fold_of = folds(everybody, recipe.evaluation.folds, recipe.schedule.seed)
    found: list[Seen] = []
    for fold in range(min(measured, recipe.evaluation.folds)):
        pairs = list(zip(everybody, fold_of, strict=True))
        read = decoded.exact.only([item for item, own in pairs if own == fold and LUNG_OPACITY in item.boxed])
        file = work / f"fold-{fold}" / "maps.npz"
        if not file.is_file():
            network = run.network([item for item, own in pairs if own != fold], f"fold-{fold}", tell)
            scores, maps = _answers(network, recipe, [read.pixels(place) for place in range(len(read))])
            np.savez_compressed(file, scores=scores, maps=maps)
        with np.load(file) as kept:
            rows = zip(read.samples, kept["scores"], kept["maps"], strict=True)
            found += [Seen(sample, fold, float(score), place) for sample, score, place in rows]
    return found


def _answers(network: object, recipe: Recipe, greys: Sequence[NDArray[np.uint8]]) -> tuple[Pixels, Pixels]:
    column = recipe.data.labels.index(LUNG_OPACITY)
    scores, maps = [], []
    for start in range(0, len(greys), BATCH):
        batch = np.stack(greys[start : start + BATCH])[..., np.newaxis].astype(np.float32) / np.float32(255)
        answer = {name: np.asarray(value) for name, value in network.predict_on_batch(batch).items()}  # type: ignore[attr-defined]
        scores.append(image_scores(answer, len(recipe.data.labels))[:, column])
        maps.append(answer["maps"][..., column])
    return np.concatenate(scores), np.concatenate(maps)


def outline(seen: Seen, cut: MapCut, fields: LungFields | None = None) -> Values:
    """What :func:`models.training.evaluation.lesions.compare` says of the mask that the node would make of a map.

    The grid is :data:`GRID` pixels wide; the mask is clipped to the lungs if any are given.
    """
    letterbox = Letterbox(GRID, GRID, *(16 * side for side in seen.map.shape))
    mask = mask_from_map(seen.map, letterbox, cut).mask
    mask = np.zeros((GRID, GRID), np.bool_) if mask is None else mask
    if fields is not None:
        mask = cut.without_specks(
            replace(fields, letterbox=replace(fields.letterbox, rows=GRID, columns=GRID)).clipped(mask)
        )
    return compare(mask, pixels.source_lesions(seen.sample, LUNG_OPACITY, GRID, GRID))


def overlap(outlines: Sequence[Values]) -> Values:
    """Intersection over union of each image."""
    rows = np.stack(outlines)
    return iou(rows[:, SAID], rows[:, TRUE], rows[:, BOTH])


def row(name: str, ill: Sequence[Seen], outlines: Sequence[Values], false: Sequence[Values]) -> str:
    """One line of the table."""
    patients = [seen.sample.patient for seen in ill]
    marked = [(each, who) for each, who in zip(outlines, patients, strict=True) if each[SAID] > 0]
    inside = mean_by_patients(np.array([each[BOTH] / each[SAID] for each, _ in marked]), [who for _, who in marked])
    ratio = np.median([each[SAID] / each[TRUE] for each in outlines])
    ious = mean_by_patients(overlap(outlines), patients)
    count = sum(each[ACROSS] > 0 for each in outlines)
    joined = proportion(int(count), len(outlines))
    hit = np.mean(overlap(outlines) >= HIT_AT)
    cells = [f"{each.value:.2f} ({each.low:.2f} to {each.high:.2f})" for each in (ious, inside)]
    extra = f"{np.mean([each[REGIONS] for each in false]):.2f}" if false else ""
    return (
        f"| {name} | {cells[0]} | {cells[1]} | {ratio:.2f} | {hit:.2f} | "
        f"{count} of {len(outlines)} ({joined.low:.2f} to {joined.high:.2f}) | {extra} |"
    )


def cuts() -> Iterator[MapCut]:
    """All cuts that are compared."""
    return (MapCut(flat, relative, SPECK) for relative in RELATIVE for flat in FLAT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    by_folds = commands.add_parser("folds")
    for command in (by_folds, commands.add_parser("lungs"), commands.add_parser("boxes")):
        command.add_argument("--data", type=Path, required=True)
    by_folds.add_argument("--work", type=Path, required=True)
    by_folds.add_argument("--folds", type=int, default=2)
    by_folds.add_argument("--measured", type=int, default=10, help="train and measure only so many of the folds")
    options = parser.parse_args()
    if options.command != "folds":
        (report_lungs if options.command == "lungs" else report_boxes)(options.data)
        return
    recipe = read_recipe(RECIPES / "bundled-classifier.toml", folds=options.folds)
    answers = unseen_maps(recipe, options.data, options.work, options.measured)
    report(answers)


def report(answers: Sequence[Seen]) -> None:
    """Print the table."""
    truths = np.array([seen.sample.labels[LUNG_OPACITY] >= 0.5 for seen in answers])
    called = youden_threshold(np.array([seen.score for seen in answers]), truths)
    ill = [seen for seen, has in zip(answers, truths, strict=True) if has]
    well = [seen for seen in answers if seen.sample.labels[NORMAL] >= 0.5]
    flagged = [seen for seen in well if seen.score >= called]
    print(f"{len(ill)} images with boxes; called present on {len(flagged)} of {len(well)} normal images\n")
    print(HEAD)
    table = {cut: [outline(seen, cut) for seen in ill] for cut in cuts()}
    for cut, outlines in table.items():
        name = f"max({cut.threshold:g}, {cut.relative:g} · maximum)"
        print(row(name, ill, outlines, [outline(seen, cut) for seen in flagged]))
    of = np.array([seen.fold for seen in ill])
    crossed: list[Values] = list(table[next(iter(table))])
    for fold in sorted(set(of.tolist())) if len(set(of.tolist())) > 1 else ():
        best = max(table, key=lambda cut: float(overlap(table[cut])[of != fold].mean()))
        print(f"\nfold {fold}: the other folds prefer max({best.threshold:g}, {best.relative:g} · maximum)")
        for place in np.flatnonzero(of == fold):
            crossed[place] = table[best][place]
    if len(set(of.tolist())) > 1:
        print(row("chosen on the other folds", ill, crossed, ()))


def report_boxes(data: Path) -> None:
    """Print what the bundled models mark on the images with boxes, in three ways."""
    spec, lungs = read_registry().find("chest-classifier"), read_registry().find("chest-lungs")
    column = [label.name for label in spec.labels].index(LUNG_OPACITY)
    label = spec.labels[column]
    ways = {
        f"{label.map_threshold:g}": MapCut(label.map_threshold, 0.0, SPECK),
        "the manifest's": MapCut(label.map_threshold, label.map_relative_threshold, SPECK),
    }
    executors = [load(each, device="cpu", threads=1) for each in (spec, lungs)]
    found: dict[str, list[Values]] = {name: [] for name in (*ways, "clipped to the lungs")}
    ill = [item for item in read_dataset.read(data).samples if item.labels.get(LUNG_OPACITY) and item.boxes]
    for sample in ill:
        image = pixels.read(sample.image)
        places = [letterbox_for(image, each.input) for each in (spec, lungs)]
        answers = [
            executor.run(prepare(image, place, each.input)[np.newaxis])
            for executor, place, each in zip(executors, places, (spec, lungs), strict=True)
        ]
        seen = Seen(sample, 0, float(answers[0]["probabilities"][0, column]), answers[0]["maps"][0, ..., column])
        fields = lung_fields(answers[1]["maps"][0], places[1])
        for name, cut in ways.items():
            found[name].append(outline(seen, cut))
        found["clipped to the lungs"].append(outline(seen, ways["the manifest's"], fields))
    print(HEAD)
    for name, outlines in found.items():
        print(row(name, [Seen(sample, 0, 0.0, np.zeros((1, 1), np.float32)) for sample in ill], outlines, ()))


def report_lungs(data: Path) -> None:
    """Print how the bundled classifier's masks lie on radiographs with both lungs drawn."""
    spec = read_manifest(find_manifest("bundled"))
    column = [label.name for label in spec.labels].index(LUNG_OPACITY)
    executor = load(spec, device="cpu", threads=1)
    found: list[tuple[Sample, Letterbox, Pixels]] = []
    samples = read_dataset.read(data, "lungs").samples
    for sample in samples:
        image = pixels.read(sample.image)
        letterbox = letterbox_for(image, spec.input)
        answer = executor.run(prepare(image, letterbox, spec.input)[np.newaxis])
        if answer["probabilities"][0, column] >= spec.labels[column].threshold:
            found.append((sample, letterbox, answer["maps"][0, ..., column]))
    print(f"lung opacity is called present on {len(found)} of {len(samples)} images\n")
    print("| cut | share of the mask in a lung | share of the lungs marked, median | masks that join both lungs |")
    print("|---|---|---|---|")
    patients = [sample.patient for sample, _, _ in found]
    for cut in cuts():
        rows = [_in_lungs(sample, letterbox, seen, cut) for sample, letterbox, seen in found]
        inside = mean_by_patients(np.array([row[0] for row in rows]), patients)
        joined = sum(row[2] for row in rows)
        print(
            f"| max({cut.threshold:g}, {cut.relative:g} · maximum) | {inside.value:.2f} ({inside.low:.2f} to "
            f"{inside.high:.2f}) | {np.median([row[1] for row in rows]):.2f} | {joined} of {len(rows)} |"
        )


def _in_lungs(sample: Sample, letterbox: Letterbox, seen: Pixels, cut: MapCut) -> tuple[float, float, bool]:
    """The share of a mask inside the drawn lungs, the share of these that it marks, and whether a region joins both."""
    mask = mask_from_map(seen, letterbox, cut).mask
    lungs = [pixels.source_mask(sample, label, letterbox.rows, letterbox.columns) for label in (LEFT_LUNG, RIGHT_LUNG)]
    both = lungs[0] | lungs[1]
    if mask is None:
        return 1.0, 0.0, False
    joined = any(bool((region & lungs[0]).any() and (region & lungs[1]).any()) for region in region_masks(mask))
    return float((mask & both).sum() / mask.sum()), float((mask & both).sum() / both.sum()), joined


def tell(what: str, done: int, total: int) -> None:
    """Progress as lines, for a log."""
    print(f"{what} {done}/{total}", flush=True)


if __name__ == "__main__":
    main()
