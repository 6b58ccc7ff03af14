"""Combines several outputs, and calibrates logits to probabilities; both are fitted on patients of other folds alone.

A network may answer ``members [n, members, labels]``. Their mean, and Platt scaling behind it, are fitted on what was
predicted for unseen images. For the figures each group (a fold) is treated with what the other groups say; for the
network that ships, with what all say.

Of other networks the manifest can say how their probabilities are scaled (``calibrated`` in a recipe).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from models.architectures.calibration import Platt, fit_platt
from models.architectures.linear import Linear
from models.calibration import logit
from models.model_spec import CalibrationSpec
from models.training.metrics import auc
from models.training.predicted import Predicted

Array = NDArray[np.floating]
Bools = NDArray[np.bool_]
SILENT = 1e-6
"""Logits that vary less than this say nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """Predictions as calibrated probabilities, the network that answers them, and what was fitted, for the evidence.

    ``behind`` is the scaling of labels that the network does not hold and the manifest has to declare.
    """

    predicted: Predicted
    network: keras.Model
    summary: dict[str, Any]
    behind: Mapping[str, CalibrationSpec] = field(default_factory=dict)


def calibrate(network: keras.Model, predicted: Predicted, outlined: Sequence[str]) -> Calibrated:
    """Average and calibrate where the network answers members; of other networks nothing is changed.

    ``outlined`` labels are analysed by the first member alone: what is outlined on the image must come from the network
    that drew the map, and from nobody who saw something else.
    """
    if predicted.members is None:
        return Calibrated(predicted, network, {})
    alone = np.isin(predicted.labels, list(outlined))
    logits = crossed_means(predicted.members, predicted.groups, alone)
    truths, known = predicted.prevalent, predicted.known > 0
    scaling = platt_scalings(logits, truths, known)
    scores = crossed_probabilities(logits, truths, known, predicted.groups)
    summary = {
        "calibration": {label: asdict(item) for label, item in zip(predicted.labels, scaling, strict=True)},
        "members": member_areas(predicted, known),
    }
    final = with_probabilities(network, fit_mean(predicted.members, alone), scaling)
    return Calibrated(replace(predicted, scores=scores.astype(np.float32)), final, summary)


def calibrate_behind(network: keras.Model, predicted: Predicted) -> Calibrated:
    """Platt scaling of what a network says, which is left as it is."""
    logits = logit(predicted.scores)
    truths, known = predicted.prevalent, predicted.known > 0
    scaling = dict(zip(predicted.labels, platt_scalings(logits, truths, known), strict=True))
    scores = crossed_probabilities(logits, truths, known, predicted.groups).astype(np.float32)
    return Calibrated(
        replace(predicted, scores=scores, unscaled=predicted.scores),
        network,
        {"calibration": {label: asdict(item) for label, item in scaling.items()}},
        {label: CalibrationSpec(item.slope, item.offset) for label, item in scaling.items()},
    )


def fit_mean(logits: Array, alone: Bools) -> Linear:
    """From members' logits ``[n, members, labels]``, side by side, to one logit a label: their mean.

    Each member is first brought to the middle and spread that all have on average, so that none is louder than another
    and the mean is still a logit. A label in ``alone [labels]`` is the first member's.
    """
    members = logits.shape[1]
    middle, spread = logits.mean(axis=0), logits.std(axis=0)
    # A member that says the same of every image (nothing was known about a label) has no voice.
    common = np.divide(spread.mean(axis=0), spread * members, out=np.zeros_like(spread), where=spread > SILENT)
    offsets = middle.mean(axis=0) - (middle * common).sum(axis=0)
    common[:, alone], offsets[alone] = 0.0, 0.0
    common[0, alone] = 1.0
    return Linear(np.concatenate([np.diag(row) for row in common]), offsets)


def crossed_means(logits: Array, groups: Sequence[str], alone: Bools) -> Array:
    """Final logits ``[n, labels]``; each group is levelled by the others, if there are any."""
    final = np.zeros((logits.shape[0], logits.shape[2]))
    for inside, others in crossed(groups):
        final[inside] = fit_mean(logits[others], alone)(logits[inside].reshape(int(inside.sum()), -1))
    return final


def platt_scalings(logits: Array, truths: Bools, known: Bools) -> list[Platt]:
    """Platt scaling of every label from logits ``[n, labels]`` of images that the network had not seen."""
    return [
        fit_platt(logits[known[:, column], column], truths[known[:, column], column])
        for column in range(logits.shape[1])
    ]


def crossed_probabilities(logits: Array, truths: Bools, known: Bools, groups: Sequence[str]) -> Array:
    """Probabilities where each group's scaling was fitted on the other groups: an honest calibration error.

    A single group is scaled by itself, as the network that ships is.
    """
    probabilities = np.zeros_like(logits, dtype=np.float64)
    for inside, others in crossed(groups):
        for column, scaling in enumerate(platt_scalings(logits[others], truths[others], known[others])):
            probabilities[inside, column] = scaling(logits[inside, column])
    return probabilities


def crossed(groups: Sequence[str]) -> list[tuple[Bools, Bools]]:
    """Each group's rows, and those of all others; of a single group, both times its own."""
    places = np.array(groups)
    pairs = [(places == group, places != group) for group in np.unique(places)]
    return [(inside, others if others.any() else inside) for inside, others in pairs]


def member_areas(predicted: Predicted, known: Bools) -> dict[str, list[float]]:
    """What each member is worth alone: its AUC by label."""
    members = predicted.members if predicted.members is not None else np.zeros((len(known), 0, known.shape[1]))
    return {
        label: [
            auc(members[known[:, column], place, column], predicted.prevalent[known[:, column], column])
            for place in range(members.shape[1])
        ]
        for column, label in enumerate(predicted.labels)
    }


def with_probabilities(network: keras.Model, mean: Linear, scaling: Sequence[Platt]) -> keras.Model:
    """The network with ``probabilities`` in the place of ``members``."""
    logits = mean.layer(layers.Flatten(name="side_by_side")(network.output["members"]), "member_mean")
    scale = layers.Rescaling([item.slope for item in scaling], [item.offset for item in scaling], name="calibrated")
    probabilities = layers.Activation("sigmoid", dtype="float32", name="probabilities")(scale(logits))
    outputs = {name: value for name, value in network.output.items() if name != "members"}
    return keras.Model(network.input, {"probabilities": probabilities, **outputs}, name=f"{network.name}_serving")
