"""The ensemble of the three: one network that asks a CNN, multiple instances and an FCN, and takes the mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import layers, ops

from models.architectures.contract import Architecture, Batch, Loss, Plan, Truths
from models.contract import ModelKind
from models.encoders.table import NAMES
from models.multiple_instance.networks import COMMON, FCN, MIL, PATCH_CNN, SOURCE, Bags, named

MEMBERS: Mapping[str, Bags] = {"cnn": PATCH_CNN, "mil": MIL, "fcn": FCN}
OWN: Mapping[str, tuple[str, ...]] = {"cnn": (), "mil": ("patches", "pooling"), "fcn": ("map_share",)}
"""For each member, which of the ensemble's options are its alone; the common ones all members share."""


@dataclass(frozen=True, slots=True)
class Ensemble(Architecture):
    """Members are taught side by side, each by its own loss and with weights of its own; they share the images."""

    def member_plan(self, plan: Plan, member: str) -> Plan:
        """What a member is told."""
        options = {name: self.option(plan, name) for name in (*COMMON, *OWN[member])}
        return replace(plan, architecture=MEMBERS[member].name, options=options)

    def build(self, plan: Plan) -> keras.Model:
        """``cnn_logits``, ``mil_logits``, ``fcn_logits``, and their ``..._map_logits``."""
        image = keras.Input((plan.size, plan.size, 1), name="image")
        outputs: dict[str, Any] = {}
        for member, architecture in MEMBERS.items():
            said = architecture.build(self.member_plan(plan, member))(image)
            outputs |= {f"{member}_{name}": value for name, value in said.items()}
        return keras.Model(image, named(outputs), name="ensemble")

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """Those of all members."""
        return {
            f"{member}_{name}": loss
            for member, architecture in MEMBERS.items()
            for name, loss in architecture.losses(self.member_plan(plan, member)).items()
        }

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """Those of all members."""
        return {
            f"{member}_{name}": truth
            for member, architecture in MEMBERS.items()
            for name, truth in architecture.truths(self.member_plan(plan, member), batch).items()
        }

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """``probabilities``: the members' mean; ``maps``: the mean of theirs on the finest of their grids."""
        said = [ops.sigmoid(network.output[f"{member}_logits"]) for member in MEMBERS]
        maps = [ops.sigmoid(network.output[f"{member}_map_logits"]) for member in MEMBERS]
        side = max(int(one.shape[1]) for one in maps)
        fine = [one if one.shape[1] == side else ops.image.resize(one, (side, side), "bilinear") for one in maps]
        outputs = {
            "probabilities": layers.Average(dtype="float32", name="probabilities")(said),
            "maps": layers.Average(dtype="float32", name="maps")(fine),
        }
        return keras.Model(network.input, outputs, name="ensemble_serving")


ENSEMBLE = Ensemble(
    "ensemble",
    ModelKind.CLASSIFIER,
    "Ensemble of CNN, multiple-instance learning and fully convolutional network",
    SOURCE,
    NAMES,
    {**COMMON, "patches": 1, "pooling": "noisy-or", "map_share": 1.0},
)
"""``patches`` and ``pooling`` are those of ``mil``, ``map_share`` that of ``fcn``; each member has an encoder of that
name for itself."""
