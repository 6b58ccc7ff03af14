"""The evaluation report: one HTML file without anything to load from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from models.training.evaluation.breakdown import Group
from models.training.evaluation.classification import Classified, Confusion, Operating, Scores, Truths, precision_recall
from models.training.evaluation.detection import NAMED, Detected, Matched, match
from models.training.evaluation.lesions import LESION_WORDS, lesion_rows
from models.training.evaluation.measure import Measured
from models.training.evaluation.overlays import overlays
from models.training.evaluation.predict_as_node import EvaluatedModel
from models.training.evaluation.result import Evaluation
from models.training.evaluation.segmentation import Segmented, dice
from models.training.metrics import calibration_curve, roc_points
from models.training.pages import (
    facts,
    interval,
    joined,
    note,
    number,
    page,
    pictures,
    plots,
    problem_list,
    share,
    table,
)
from models.training.plots import Axis, Line, curves, histogram
from models.training.truths import LabelNames

_BINS = 20


def evaluation_page(found: Evaluation, network: EvaluatedModel, label_names: LabelNames) -> str:
    """The whole page; ``network`` shows its best and its worst images once more."""
    spec, measured = found.spec, found.measured
    sections = [("Summary", _summary(found))]
    if found.places:
        sections.append(("Places", _places_summary(found)))
    if lesions := [item for kinds in found.lesions.values() for item in kinds.values()]:
        head, *rows = lesion_rows(lesions, interval)
        sections.append(("Lesions", table(head, rows) + note(LESION_WORDS)))
    if found.boxes:
        sections.append(("Boxes", _boxes_summary(found)))
    sections += [("Several classes", joined(map(_matrix, found.confusions)))] if found.confusions else []
    shown = overlays(found, network, label_names)
    for column, label in enumerate(spec.labels):
        parts = []
        if label.name in found.classified:
            parts.append(_classified(found.classified[label.name], measured, column))
        if label.name in found.places:
            parts.append(_place(found.places[label.name], measured))
        if label.name in found.boxes:
            parts.append(_boxes(found.boxes[label.name], measured, column))
        if found.groups.get(label.name):
            parts.append(_groups(found.groups[label.name]))
        if shown.get(label.name):
            words = "Green: what readers marked. Orange: what the model marks. Chosen for being extreme, not typical."
            parts.append(note(words) + pictures(shown[label.name]))
        if parts:
            sections.append((label.name, joined(parts)))
    if found.not_evaluated:
        sections.append(("Not evaluated", table(("finding", "why"), list(found.not_evaluated.items()))))
    sections.append(("Left out", problem_list(found.problems)))
    return page(f"{spec.title} {spec.version} on {found.split}", _lead(found), sections)


def _lead(found: Evaluation) -> Markup:
    spec, samples = found.spec, found.measured.samples
    table = facts(
        (
            ("images", len(samples)),
            ("patients", len({item.patient for item in samples})),
            ("findings analysed", len(found.classified)),
            ("left out", len(found.problems)),
        )
    )
    words = (
        f"{spec.kind.value.capitalize()} {spec.name} {spec.version}, weights {spec.digest[:16]}…; data set of the "
        f"layout {found.layout}. Intervals hold 95 %: bootstrap over patients for areas and means, Wilson for shares."
    )
    warning = note(found.warning) if found.warning else Markup("")
    return table + warning + note(words)


def _summary(found: Evaluation) -> Markup:
    means = ("AUC", "AP", "cut-off", "sensitivity", "specificity", "mean of both", "accuracy", "ECE", "Brier")
    rows = []
    for label, item in found.classified.items():
        figures, point = item.figures, item.chosen
        rows.append(
            (
                label,
                f"{figures.positives} / {figures.images}",
                interval(figures.auc),
                number(figures.average_precision),
                number(point.threshold),
                interval(point.sensitivity),
                interval(point.specificity),
                number(point.balanced_accuracy),
                number(point.accuracy),
                number(figures.calibration_error),
                number(figures.brier),
            )
        )
    words = (
        "At the model's own cut-offs. A score at the cut-off counts as positive. AP is the average precision; ECE the "
        "expected calibration error over ten bins. Accuracy is the share of images called rightly; the mean of "
        "sensitivity and specificity is what the first work of the literature calls accuracy."
    )
    return table(("finding", "positives / images", *means), rows) + note(words)


def _places_summary(found: Evaluation) -> Markup:
    overlap = ("Dice, positives", "IoU, positives", "Dice, all", "marking nothing")
    head = ("finding", "positives / images", *overlap, "strongest place is true", "negatives marked")
    rows = []
    for label, item in found.places.items():
        rows.append(
            (
                label,
                f"{item.positives} / {item.images}",
                interval(item.served.dice),
                interval(item.served.iou),
                interval(item.served.dice_all),
                number(item.nothing),
                interval(item.pointing),
                interval(item.marked_negatives),
            )
        )
    words = (
        "Masks as the node delivers them, in the pixels of the image. Over all images two empty masks count as 1, so a "
        "model that marks nothing scores the share of images without the finding (marking nothing): only the columns "
        "of positives tell whether places are found. Where readers drew boxes, the boxes are the truth."
    )
    return table(head, rows) + note(words)


def _classified(item: Classified, measured: Measured, column: int) -> Markup:
    scores, truths, _ = measured.labelled(column)
    false, true, _ = roc_points(scores, truths)
    point = (1 - item.chosen.specificity.value, item.chosen.sensitivity.value)
    roc = curves(
        "ROC",
        Axis("1 - specificity"),
        Axis("sensitivity"),
        [
            Line("", [(0, 0), (1, 1)], dashed=True),
            Line("", list(zip(false.tolist(), true.tolist(), strict=True))),
            Line("cut-off", [point], dots=True),
        ],
    )
    recall = curves(
        "precision and recall",
        Axis("recall"),
        Axis("precision"),
        [Line("", precision_recall(scores, truths))],
    )
    curve = [(a, b) for a, b, _ in calibration_curve(scores, truths)]
    calibration = curves(
        "calibration",
        Axis("probability said"),
        Axis("share seen"),
        [Line("", [(0, 0), (1, 1)], dashed=True), Line("", curve, dots=True)],
    )
    return plots([roc, recall, calibration, _spread(scores, truths)]) + _points(item)


def _spread(scores: Scores, truths: Truths) -> Markup:
    """How the probabilities of those with and without a finding lie, as shares of each."""
    edges = np.linspace(0, 1, _BINS + 1)
    heights = [
        (np.histogram(np.clip(scores[who], 0, 1), edges)[0] / max(1, who.sum())).tolist() for who in (truths, ~truths)
    ]
    series = list(zip(("present", "absent"), heights, strict=True))
    return histogram("probabilities", "probability said", edges.tolist(), series)


def _points(item: Classified) -> Markup:
    head = (
        "cut-off",
        "at",
        "sensitivity",
        "specificity",
        "mean of both",
        "accuracy",
        "precision",
        "TP",
        "FN",
        "FP",
        "TN",
    )
    rows = [_point("the model's own", item.chosen), _point("Youden's", item.best)]
    words = "Youden's cut-off was chosen on these very images: its figures flatter."
    return table(head, rows) + note(words)


def _point(name: str, point: Operating) -> tuple[str, ...]:
    return (
        name,
        number(point.threshold),
        interval(point.sensitivity),
        interval(point.specificity),
        number(point.balanced_accuracy),
        number(point.accuracy),
        interval(point.precision),
        *map(str, (point.true_positives, point.false_negatives, point.false_positives, point.true_negatives)),
    )


def _place(item: Segmented, measured: Measured) -> Markup:
    _, marked = measured.marked[item.label]
    positive = marked.true > 0
    charts = []
    if positive.any():
        values = dice(marked.served, marked.true, marked.served_both)[positive]
        edges = np.linspace(0, 1, _BINS + 1)
        counts = np.histogram(values, edges)[0].tolist()
        charts.append(histogram("Dice of positives", "Dice", edges.tolist(), [("images", counts)]))
        swept = list(zip(item.cuts, item.scheduler, strict=True))
        lines = [
            Line("", swept),
            Line("cut-off", [(item.threshold, item.scheduler[item.cuts.index(item.threshold)])], True),
        ]
        charts.append(curves("map threshold", Axis("map threshold"), Axis("mean Dice, positives"), lines))
    head = ("mask", "Dice, positives", "IoU, positives", "Dice, all", "IoU, all", "Dice, all pixels together")
    rows = [
        (
            name,
            interval(own.dice),
            interval(own.iou),
            interval(own.dice_all),
            interval(own.iou_all),
            number(own.pooled_dice),
        )
        for name, own in (("as delivered", item.served), (f"map at {item.threshold:g}", item.map))
    ]
    return plots(charts) + table(head, rows)


def _boxes_summary(found: Evaluation) -> Markup:
    head = ("finding", "boxes", "positives / images", "AP 0.40, all images", "AP 0.50, all images")
    more = ("AP 0.50, positives", "AP 0.75, positives", "mean AP 0.50 to 0.95, all", "competition, all", "boxes hit")
    rows = [
        (
            label,
            str(item.boxes),
            f"{item.positives} / {item.images}",
            interval(item.all_images.at[0.4]),
            interval(item.all_images.at[0.5]),
            interval(item.positive_images.at[0.5]),
            interval(item.positive_images.at[0.75]),
            number(item.all_images.coco),
            interval(item.competition),
            interval(item.sensitivity),
            interval(item.false_per_hundred, 1),
            interval(item.pointing),
        )
        for label, item in found.boxes.items()
    ]
    words = (
        "AP is COCO's average precision at the named overlap (IoU). Over positives alone, marks on images without the "
        "finding cost nothing: such a figure says little of a model that is to be used. Competition: the figure of the "
        "RSNA challenge of 2018, at the model's cut-off. Boxes hit: IoU 0.40 at the cut-off."
    )
    last = ("false marks on 100 normals", "strongest place is true")
    return table((*head, *more, *last), rows) + note(words)


def _boxes(item: Detected, measured: Measured, column: int) -> Markup:
    """The free-response curve, and precision against recall at three overlaps."""
    points = list(item.froc.items())
    most = points[-1][0]
    cut = (item.false_per_hundred.value / 100, item.sensitivity.value)
    froc = curves(
        "boxes hit by false marks", Axis("false marks an image", 0, most), Axis("boxes hit"), [Line("", points)]
    )
    marks, _ = measured.marks(column)
    lines = [Line(f"IoU {at:g}", box_precision([match(image, at) for image in marks])) for at in NAMED]
    recall = curves("precision and recall of boxes", Axis("recall"), Axis("precision"), lines)
    words = (
        f"At the cut-off {item.cut:g}: {number(cut[1])} of all boxes are hit, with {number(cut[0], 2)} false marks on "
        f"an image without the finding; mean of the curve {number(item.froc_mean)}."
    )
    return plots([froc, recall]) + note(words)


def box_precision(matched: Sequence[Matched]) -> list[tuple[float, float]]:
    """Recall and precision after each detection, from the most probable on; empty without boxes or detections."""
    boxes = sum(image.boxes for image in matched)
    scores = np.concatenate([image.scores for image in matched]) if matched else np.zeros(0)
    if not boxes or not len(scores):
        return []
    hits = np.concatenate([image.hits for image in matched])[np.argsort(-scores, kind="stable")]
    found = np.cumsum(hits)
    return list(zip((found / boxes).tolist(), (found / np.arange(1, len(hits) + 1)).tolist(), strict=True))


def _groups(groups: Sequence[Group]) -> Markup:
    places = ("Dice, positives",) if any(item.dice for item in groups) else ()
    head = ("group", "positives / images", "AUC", "sensitivity", "specificity", *places)
    rows = [
        (
            f"{item.kind} {item.name}",
            f"{item.positives} / {item.images}",
            interval(item.auc),
            interval(item.sensitivity),
            interval(item.specificity),
            *((interval(item.dice),) if item.dice else ()),
        )
        for item in groups
    ]
    return table(head, rows, "By group")


def _matrix(item: Confusion) -> Markup:
    head = ("truth", *(f"called {name}" for name in item.classes), "images")
    rows = [
        (name, *(share(count, sum(row)) for count in row), str(sum(row)))
        for name, row in zip(item.classes, item.counts, strict=True)
    ]
    how = f"{item.how}; {item.accuracy:.1%} on the diagonal"
    return table(head, rows) + note(how[:1].upper() + how[1:] + ".")
