"""From a recipe and a folder of radiographs to a model that the node can serve: ``pleura train``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from models.contract import ModelSpec
from models.efficientnet.panel import Linear, panel_network
from models.training.batches import served_batch
from models.training.bundle import EvidenceBase, bundle_classifier, bundle_gate
from models.training.crossval import Judge, cross_validate, gather, keep_fold, recipe_features, trained_judge
from models.training.dataset import Example, Problem, load_images, read_cxr
from models.training.fit import OVERSIZE, Progress, fit_gate, silent
from models.training.gate_data import load_others, source_folders
from models.training.gate_fit import fit_rule, measure_gate, unchanged
from models.training.panel import unchanged_network
from models.training.recipe import Recipe, read_recipe

Array = NDArray[np.floating]
PROBES = 8
TRAIN, HELD_OUT = "train", "val"


class TrainingError(ValueError):
    """The data cannot carry this training; the message says why."""


def train(recipe: Path, data: Path, out: Path, *, folds: int = 0, progress: Progress = silent) -> ModelSpec:
    """Train the recipe on the split ``train`` of ``data`` and leave a servable model with its evidence in ``out``.

    With ``folds`` above 1, calibration, cut-offs and evidence come from cross-validation by patient over everything,
    otherwise from the split ``val``. Started again after an interruption it goes on where it stopped. Rows that cannot
    be used are listed in ``problems.json``.

    Raises:
        RecipeError: the recipe cannot be used.
        TrainingError: a split is empty, or ``out`` holds another training.
    """
    plan = read_recipe(recipe)
    examples, problems = usable(data)
    out.mkdir(parents=True, exist_ok=True)
    listed = [{"image": item.image, "reason": item.reason} for item in problems]
    (out / "problems.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    seen = [item for item in examples if item.split == TRAIN]
    unseen = [item for item in examples if item.split == HELD_OUT]
    if not seen or not unseen:
        raise TrainingError(f"{data} needs images in the splits '{TRAIN}' and '{HELD_OUT}'")
    _note_training(plan, examples, folds, out)
    if plan.kind == "gate":
        return train_gate(plan, seen, unseen, out, progress)
    return train_classifier(plan, examples, seen, unseen, out, folds, progress)


def _note_training(recipe: Recipe, examples: Sequence[Example], folds: int, out: Path) -> None:
    """Say in ``out`` what is trained there; what another training has left must never pass for this one's.

    Raises:
        TrainingError: ``out`` holds a training with other options, other images or another number of folds.
    """
    note = out / "training.json"
    options = asdict(replace(recipe, version="", title=""))
    names = "\n".join(sorted(item.image for item in examples))
    now = {"recipe": options, "folds": folds, "images": hashlib.sha256(names.encode()).hexdigest()}
    text = json.dumps(now, indent=1) + "\n"
    if note.is_file() and note.read_text(encoding="utf-8") != text:
        raise TrainingError(
            f"{out} holds a training with another recipe, other images or other folds: name another folder with --out,"
            f" or remove {out} to start anew"
        )
    note.write_text(text, encoding="utf-8")


def usable(data: Path) -> tuple[list[Example], list[Problem]]:
    """Examples of ``data`` whose images can be decoded, and everything that was left out."""
    examples, problems = read_cxr(data)
    _, undecodable = load_images(examples, 32)
    broken = {item.image for item in undecodable}
    return [item for item in examples if item.image not in broken], problems + undecodable


def train_classifier(
    recipe: Recipe,
    examples: Sequence[Example],
    seen: Sequence[Example],
    unseen: Sequence[Example],
    out: Path,
    folds: int,
    progress: Progress,
) -> ModelSpec:
    """The final network and its evidence: from cross-validation with a network of all examples, or from ``unseen``.

    With folds nothing need be held back: every figure comes from networks that had not seen the patient, and the
    network that ships, which nothing judges any more, may learn from everybody.
    """
    learners = examples if folds > 1 else seen
    place = {item.image: number for number, item in enumerate(examples)}
    features = recipe_features(recipe, examples, out, progress)

    def of(chosen: Sequence[Example]) -> Array | None:
        return None if features is None else features[[place[item.image] for item in chosen]]

    judge = trained_judge(recipe, learners, of(learners), out / "final", progress=progress)
    if folds > 1:
        evidence = cross_validate(recipe, examples, out / "folds", folds, features=features, progress=progress)
        how = f"{folds}-fold cross-validation by patient; the network that ships was trained on all {len(examples)}"
        how += " images with the same recipe"
    else:
        file = out / "held-out" / "predictions.npz"
        keep_fold(file, unseen, *judge.say(unseen, of(unseen)))
        evidence = gather(unseen, [file])
        how = f"the split '{HELD_OUT}', not seen in training but used to fit calibration and cut-offs"
    model = served_network(judge, evidence.mean)
    model.save(out / f"{recipe.name}.keras")
    base = EvidenceBase(evidence.said, evidence.examples, evidence.map_threshold, how, folds)
    return bundle_classifier(model, recipe, base, served_batch(unseen[:PROBES], recipe.network.size), out)


def served_network(judge: Judge, mean: Linear) -> keras.Model:
    """All that a judge's recipe asks for as one network with ``logits`` and ``maps``."""
    unchanged = None if judge.opinion is None else (unchanged_network(judge.recipe), judge.opinion)
    if unchanged is None and not judge.recipe.panel.mirrored:
        return judge.network
    return panel_network(judge.network, judge.recipe.panel.mirrored, unchanged, mean)


def train_gate(
    recipe: Recipe, seen: Sequence[Example], unseen: Sequence[Example], out: Path, progress: Progress
) -> ModelSpec:
    """The gate from ``seen`` chests and pictures of installed packages, measured on ``unseen`` chests."""
    size = round(recipe.network.size * OVERSIZE)
    images, _ = load_images(seen, size)
    others = [picture for _, picture in load_others(source_folders())]
    model = fit_gate(recipe, seen, images, others, out / "final", progress=progress)
    model.save(out / f"{recipe.name}.keras")
    distance, rule = fit_rule(model, recipe, seen, images, others)
    held_out, _ = load_images(unseen, size)
    summary = measure_gate(model, distance, rule, recipe, unseen, held_out, others)
    summary["others"] = len(others)
    return bundle_gate(model, recipe, distance, rule, summary, unchanged(held_out[:PROBES], recipe.network.size), out)
