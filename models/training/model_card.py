"""Model cards: what a network was made from, what was measured, what it cannot do. Figures come from the evidence."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from models.architectures.base import Architecture
from models.model_spec import GateSpec, LabelSpec
from models.training.evaluation.lesions import LESION_WORDS, lesion_rows
from models.training.figures import LEAST_AUC, LEAST_DICE, LEAST_POINTING, LEAST_POSITIVES, Figures
from models.training.metrics import Interval
from models.training.recipe import Recipe

NOTICE = "**Research use only. Not a medical device.** Not for diagnosis, triage or treatment of patients."
NIH = (
    "NIH ChestX-ray14, provided by the NIH Clinical Center, free to use with attribution: X. Wang et al., ChestX-ray8: "
    "Hospital-scale Chest X-ray Database and Benchmarks, CVPR 2017."
)
RSNA = "Radiologists' classes and boxes: RSNA Pneumonia Detection Challenge, 2018."
CHESTXDET = "Outlines by three radiologists: ChestX-Det (J. Lian et al., 2021; Apache 2.0)."
CREDITS = {
    "cxr": f"{NIH} {RSNA}",
    "readings": f"{NIH} {RSNA} {CHESTXDET}",
    "nih": NIH,
    "rsna": f"{RSNA} The radiographs are from NIH ChestX-ray14 (NIH Clinical Center).",
    "lungs": "Radiographs: CC BY 3.0 and 4.0, sources in its index.csv. Lungs drawn by V7 (CC BY 4.0).",
    "siim": "SIIM-ACR Pneumothorax Segmentation Challenge, 2019; its own terms of use hold.",
}
"""Whom the known layouts' images and labels are from."""


LIMITS = """\
- Measured on this data set only; other hospitals, detectors and age groups were not seen.
- The labels are those of the data set, with its errors and confounders (drains, tubes, bedside views).
- A method of the literature, kept for comparison. It was not built to be used on patients."""


def findings_card(
    architecture: Architecture,
    recipe: Recipe,
    labels: Sequence[LabelSpec],
    found: Figures,
    texts: tuple[str, str, str],
    *,
    calibrated: bool,
) -> str:
    """Markdown for whatever reports findings; ``texts``: how it was measured, the command that makes it, its data."""
    how, command, data = texts
    calibration = "Probabilities are as the network says them, not calibrated."
    if calibrated:
        calibration = (
            "Calibration: Platt scaling, with folds measured on groups of patients other than those it was fitted on."
        )
    measured = [
        "## Measured",
        "",
        _text(
            f"Evidence: {how}. Intervals: 95 %, bootstrap over patients (Wilson for shares).",
            calibration,
            "A cut-off by Youden's index was chosen on the same images, so its sensitivity and specificity",
            "are flattering.",
        ),
        "",
        *_findings(labels, found),
        "",
        *_places(found),
        *_lesions(found),
        *_boxes(found),
        f"What was said about each image: `evidence/{recipe.name}.csv`. Again from scratch:",
        "",
        *_code(command),
        _text(
            f"A finding is *active* only if at least {LEAST_POSITIVES} positive patients stand behind its figure,",
            f"the interval of its AUC lies above {LEAST_AUC:g}, and it is one of those that the node may deliver;",
            "otherwise it runs in *shadow*: stored, never sent. A place is shown only if on as many images the lower",
            f"bound of *strongest place inside* is above {LEAST_POINTING:g} and, of masks, that of Dice above",
            f"{LEAST_DICE:g}; segmenters and detectors that miss this run in shadow too.",
        ),
        "",
    ]
    return _card(architecture, recipe, measured, data)


def gate_card(
    architecture: Architecture,
    recipe: Recipe,
    rule: GateSpec,
    summary: Mapping[str, Any],
    command: str,
    data: str,
) -> str:
    """Markdown for a gate; ``summary`` is its evidence file."""
    rows = [f"| made into | let through, of {summary['images']} |", "|---|---|"]
    for name, item in summary.items():
        if isinstance(item, dict):
            rows.append(f"| {name} | {_share(Interval(**item['let_through']))} |")
    measured = [
        _text(
            f"An image passes if *{recipe.data.labels[0]}* is the most probable class with at least",
            f"{rule.min_probability:.2f}, and if its features lie within a Mahalanobis distance of",
            f"{rule.distance_threshold:.3f} from those of the training chests (which",
            f"{summary['distance_percentile']} % of them do, changed and unchanged). Unsure means not analysed.",
        ),
        "",
        "## Measured on chests of patients not seen in training (split `val`)",
        "",
        *rows,
        "",
        "Intervals: Wilson. *unchanged* is how the node sees them; *frontal* adds tilt, shift and other tones.",
        "Again from scratch:",
        "",
        *_code(command),
    ]
    return _card(architecture, recipe, measured, data)


def lungs_card(architecture: Architecture, recipe: Recipe, summary: Mapping[str, Any], command: str, data: str) -> str:
    """Markdown for lung fields; ``summary`` is their evidence file."""
    shares = {name: _share(Interval(**item)) for name, item in summary.items() if isinstance(item, dict)}
    how = f"{summary['folds']}-fold cross-validation by patient" if summary["folds"] else "The held-out split"
    measured = [
        "## Measured",
        "",
        _text(
            f"{how}, {summary['images']} images of {summary['patients']} patients; a lung that was not found counts as",
            "Dice 0. The network that ships has learnt from all of them." if summary["folds"] else "Dice 0.",
            "Intervals: 95 %, bootstrap over patients (Wilson for shares). *Mirrored*: the same images, left and right",
            "exchanged.",
        ),
        "",
        "| figure | value |",
        "|---|---|",
        f"| Dice, both lungs together | {shares['dice']}; 10th percentile {summary['tenth_percentile']:.3f}, "
        f"lowest {summary['lowest']:.3f} |",
        f"| Dice, left lung / right lung | {shares['left']} / {shares['right']} |",
        f"| both lungs found | {shares['found']} |",
        f"| sides told by the anatomy: rightly / wrongly (else: unsure) | {shares['sides_right']} / "
        f"{shares['sides_wrong']} |",
        f"| mirrored image: noticed / taken for a usual one | {shares['mirrored_noticed']} / "
        f"{shares['mirrored_missed']} |",
        "",
        f"Each image: `evidence/{recipe.name}.csv`. Again from scratch:",
        "",
        *_code(command),
    ]
    return _card(architecture, recipe, measured, data)


def _card(architecture: Architecture, recipe: Recipe, measured: Sequence[str], data: str) -> str:
    network = recipe.network
    encoder = f", encoder {network.encoder}" if network.encoder else ""
    return "\n".join(
        [
            f"# {recipe.title} {recipe.version}",
            "",
            NOTICE,
            "",
            _text(
                f"{architecture.title} (`{architecture.name}`{encoder}; {architecture.source}).",
                f"Input {network.size} px, one channel in [0, 1], air dark, letterboxed with black;",
                f"equalisation: {recipe.data.equalise}. Filters: {network.width:g} of the published number.",
                f"Weights before training: {network.initial}.",
                recipe.card.about,
            ),
            "",
            *measured,
            "## Data",
            "",
            _text(data),
            *(["", recipe.card.data.strip()] if recipe.card.data else []),
            "",
            "## Limits",
            "",
            recipe.card.limits.strip() or LIMITS,
            "",
        ]
    )


def _code(command: str) -> list[str]:
    return ["```", command, "```", ""]


def _text(*sentences: str) -> str:
    return textwrap.fill(" ".join(" ".join(sentences).split()), 116)


def _share(item: Interval) -> str:
    return f"{item.value:.3f} ({item.low:.3f} to {item.high:.3f})"


def _findings(labels: Sequence[LabelSpec], found: Figures) -> list[str]:
    rows = [
        "| finding | mode | positives / images | AUC | cut-off | sensitivity | specificity | mean of both | ECE |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for label in labels:
        item = found.labels[label.name]
        if item is None:
            rows.append(f"| {label.name} | {label.mode} | not measured: both classes are needed | | | | | | |")
            continue
        both = (item.sensitivity.value + item.specificity.value) / 2
        rows.append(
            f"| {label.name} | {label.mode} | {item.positives} / {item.images} | {_share(item.auc)} "
            f"| {item.threshold:.3f} | {_share(item.sensitivity)} | {_share(item.specificity)} | {both:.3f} "
            f"| {item.calibration_error:.3f} |"
        )
    return rows


def _places(found: Figures) -> list[str]:
    measured = [item for item in found.places.values() if item is not None]
    if not measured:
        return []
    rows = [
        "| finding | images with it | Dice | IoU | strongest place inside | Dice over all images, empty as 1 |",
        "|---|---|---|---|---|---|",
    ]
    for item in measured:
        rows.append(
            f"| {item.label} | {item.positives} | {_share(item.dice)} | {_share(item.iou)} | {_share(item.pointing)} "
            f"| {item.dice_all:.3f} ({item.images} images) |"
        )
    return [*rows, ""]


def _lesions(found: Figures) -> list[str]:
    measured = [item for kinds in found.lesions.values() for item in kinds.values()]
    if not measured:
        return []
    head, *rows = lesion_rows(measured, _share)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [
        _text("As delivered by the node.", LESION_WORDS),
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
        *lines,
        "",
    ]


def _boxes(found: Figures) -> list[str]:
    measured = [item for item in found.boxes.values() if item is not None]
    if not measured:
        return []
    rows = [
        "| finding | images / with boxes | AP at IoU 0.5, all images | AP at IoU 0.5, positives only "
        "| AP, COCO, all images | boxes hit (IoU 0.4) | false marks per 100 normals | most probable box inside |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for item in measured:
        rows.append(
            f"| {item.label} | {item.images} / {item.positives} | {_share(item.all_images.at[0.5])} "
            f"| {_share(item.positive_images.at[0.5])} | {item.all_images.coco:.3f} | {_share(item.sensitivity)} "
            f"| {item.false_per_hundred.value:.0f} | {_share(item.pointing)} |"
        )
    return [*rows, ""]
