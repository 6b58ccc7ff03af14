"""The model card of a network of the literature; every figure in it comes from its evidence."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from models.architectures.base import Architecture
from models.contract import LabelSpec
from models.training.cards import NOTICE
from models.training.figures import LEAST_AUC, LEAST_POSITIVES
from models.training.literature_figures import Figures
from models.training.literature_recipe import LiteratureRecipe
from models.training.metrics import Interval

NIH = (
    "NIH ChestX-ray14, provided by the NIH Clinical Center, free to use with attribution: X. Wang et al., ChestX-ray8: "
    "Hospital-scale Chest X-ray Database and Benchmarks, CVPR 2017."
)
RSNA = "Radiologists' classes and boxes: RSNA Pneumonia Detection Challenge, 2018."
CREDITS = {
    "cxr": f"{NIH} {RSNA}",
    "nih": NIH,
    "rsna": f"{RSNA} The radiographs are from NIH ChestX-ray14 (NIH Clinical Center).",
    "siim": "SIIM-ACR Pneumothorax Segmentation Challenge, 2019; its own terms of use hold.",
}
"""Whom the known layouts' images and labels are from."""


def literature_card(
    architecture: Architecture,
    recipe: LiteratureRecipe,
    labels: Sequence[LabelSpec],
    found: Figures,
    how: str,
    command: str,
    data: str,
) -> str:
    """Markdown: what it is, what was measured and how, from what, and what it cannot be used for."""
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
            ),
            "",
            "## Measured",
            "",
            _text(
                f"Evidence: {how}. Intervals: 95 %, bootstrap over patients (Wilson for shares).",
                "Probabilities are as the network says them, not calibrated.",
                "A cut-off by Youden's index was chosen on the same images, so its sensitivity and specificity",
                "are flattering.",
            ),
            "",
            *_findings(labels, found),
            "",
            *_places(found),
            *_boxes(found),
            f"What was said about each image: `evidence/{recipe.name}.csv`. Again from scratch:",
            "",
            "```",
            command,
            "```",
            "",
            _text(
                f"A finding is *active* only if at least {LEAST_POSITIVES} positive patients stand behind its figure,",
                f"the interval of its AUC lies above {LEAST_AUC:g}, and it is one of those that the node may deliver;",
                "otherwise it runs in *shadow*: stored, never sent.",
            ),
            "",
            *_data_and_limits(data),
        ]
    )


def _data_and_limits(data: str) -> list[str]:
    return [
        "## Data",
        "",
        _text(data),
        "",
        "## Limits",
        "",
        "- Measured on this data set only; other hospitals, detectors and age groups were not seen.",
        "- The labels are those of the data set, with its errors and confounders (drains, tubes, bedside views).",
        "- A method of the literature, kept for comparison. It was not built to be used on patients.",
        "",
    ]


def _text(*sentences: str) -> str:
    return textwrap.fill(" ".join(sentences), 116)


def _share(item: Interval) -> str:
    return f"{item.value:.3f} ({item.low:.3f} to {item.high:.3f})"


def _findings(labels: Sequence[LabelSpec], found: Figures) -> list[str]:
    rows = [
        "| finding | mode | positives / images | AUC | cut-off | sensitivity | specificity | mean of both |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for label in labels:
        item = found.labels[label.name]
        if item is None:
            rows.append(f"| {label.name} | {label.mode} | not measured: both classes are needed | | | | | |")
            continue
        both = (item.sensitivity.value + item.specificity.value) / 2
        rows.append(
            f"| {label.name} | {label.mode} | {item.positives} / {item.images} | {_share(item.auc)} "
            f"| {item.threshold:.3f} | {_share(item.sensitivity)} | {_share(item.specificity)} | {both:.3f} |"
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
