"""What several members say about an image, made one logit a label, and judged only on patients nobody learnt from.

The members are the trained network and, where a recipe asks for it, a logistic regression on ImageNet features that no
radiograph has changed. A small data set teaches the two different things, and their mean is better than either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from models.efficientnet.panel import Linear, feature_network
from models.efficientnet.weights import initialise, published_file, read_state
from models.training.batches import served_batch
from models.training.dataset import Example
from models.training.predictions import known_truths
from models.training.recipe import Recipe
from models.training.targets import LABELS, LUNG_OPACITY

Array = NDArray[np.floating]
STEPS = 1000
SHOWN = (LUNG_OPACITY,)
"""What is outlined on the image: its probability comes from the network that drew the map, and from nobody who saw
something else. The network has also met many makers' grey values in training; the regression only one hospital's."""
SILENT = 1e-6
"""Logits that vary less than this say nothing."""


def unchanged_network(recipe: Recipe) -> keras.Model:
    """The recipe's trunk with the weights that training starts from."""
    network = feature_network(recipe.network.size, recipe.network.plan)
    if recipe.network.initial == "imagenet":
        initialise(network, read_state(published_file()))
    return network


def described(
    network: keras.Model, examples: Sequence[Example], file: Path, tell: Callable[[int], None], batch: int = 32
) -> Array:
    """Features ``[n, channels]`` of examples as the node would show them, mean of image and mirror image; kept."""
    names = [item.image for item in examples]
    if file.is_file():
        with np.load(file) as kept:
            if [str(name) for name in kept["images"]] == names:
                return np.asarray(kept["features"])
    rows = []
    for start in range(0, len(examples), batch):
        images = served_batch(examples[start : start + batch], int(network.input_shape[1]))
        rows.append(network.predict_on_batch(images) + network.predict_on_batch(images[:, :, ::-1].copy()))
        tell(start)
    features = np.concatenate(rows) / 2
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part.npz")
    np.savez(partial, images=names, features=features)
    partial.replace(file)
    return features


def fit_opinion(
    features: Array, examples: Sequence[Example], strength: float, labels: Sequence[str] = LABELS
) -> Linear:
    """Logistic regressions of every label on standardised features ``[n, channels]``; zero where nothing is known."""
    columns = [_regression(features, *known_truths(examples, label), strength) for label in labels]
    return Linear(np.stack([weights for weights, _ in columns], axis=1), np.array([offset for _, offset in columns]))


def _regression(
    inputs: Array, judged: NDArray[np.bool_], truths: NDArray[np.bool_], strength: float
) -> tuple[Array, float]:
    """Weights and offset on the inputs as they come, fitted on standardised ones of the judged rows."""
    truth = truths[judged]
    if not truth.any() or truth.all():
        return np.zeros(inputs.shape[1]), 0.0
    middle, spread = inputs.mean(axis=0), inputs.std(axis=0) + 1e-9
    machine = LogisticRegression(C=strength, max_iter=STEPS)
    machine.fit((inputs[judged] - middle) / spread, truth)
    weights = machine.coef_[0] / spread
    return weights, float(machine.intercept_[0] - middle @ weights)


def fit_mean(logits: Array, labels: Sequence[str] = LABELS, shown: Sequence[str] = SHOWN) -> Linear:
    """From members' logits ``[n, members, labels]``, side by side, to one logit a label: their mean.

    Each member is first brought to the middle and spread that all have on average, so that none is louder than another
    and the mean is still a logit. A label in ``shown`` is the first member's alone.
    """
    members = logits.shape[1]
    middle, spread = logits.mean(axis=0), logits.std(axis=0)
    # A member that says the same of every image (nothing was known about a label) has no voice.
    common = np.divide(spread.mean(axis=0), spread * members, out=np.zeros_like(spread), where=spread > SILENT)
    offsets = middle.mean(axis=0) - (middle * common).sum(axis=0)
    alone = np.isin(labels, list(shown))
    common[:, alone], offsets[alone] = 0.0, 0.0
    common[0, alone] = 1.0
    return Linear(np.concatenate([np.diag(row) for row in common]), offsets)


def crossed_means(logits: Array, groups: Sequence[str], shown: Sequence[str] = SHOWN) -> Array:
    """Final logits ``[n, labels]``; each group is levelled by the others, if there are any."""
    places = np.array(groups)
    final = np.zeros((logits.shape[0], logits.shape[2]))
    for group in np.unique(places):
        inside = places == group
        others = logits if inside.all() else logits[~inside]
        final[inside] = fit_mean(others, shown=shown)(logits[inside].reshape(int(inside.sum()), -1))
    return final
