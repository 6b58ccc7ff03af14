"""``lbp-svm``: local binary patterns and a support vector machine, the method before deep networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers, ops

from models.architectures.base import Batch, Loss, Plan, Truths
from models.lbp.network import histograms
from models.model_spec import ModelKind
from models.svm.architecture import MARGINS, MachineArchitecture, calibration, head


class LocalPatternMachine(MachineArchitecture):
    """Histograms of uniform patterns at several radii, their square roots, and one linear machine a label.

    The inner product of the roots of two histograms is the Bhattacharyya coefficient, so a linear machine on roots is a
    machine with the Hellinger kernel.
    """

    __slots__ = ()

    def build(self, plan: Plan) -> keras.Model:
        """Grey image to ``margins``; every weight but the head's is fixed from the start."""
        image = keras.Input((plan.size, plan.size, 1), name="image")
        radii = range(1, int(self.option(plan, "radii")) + 1)
        cells = int(self.option(plan, "cells"))
        if plan.size // cells < 8 * len(radii):
            raise ValueError(f"options 'cells' and 'radii' ask for cells that are too small for {plan.size} pixels")
        found: list[Any] = [histograms(image, radius, cells) for radius in radii]
        joined = layers.Concatenate(name="joined")(found) if len(found) > 1 else found[0]
        margins = head(ops.sqrt(joined), len(plan.labels))
        outputs = {MARGINS: margins, "logits": calibration(margins)}
        return keras.Model(image, outputs, name="lbp_svm")

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """None: nothing here is taught by gradient."""
        return {}

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """None, for the same reason."""
        return {}


LBP_SVM = LocalPatternMachine(
    name="lbp-svm",
    kind=ModelKind.CLASSIFIER,
    title="Local binary patterns and a support vector machine",
    source="survey in A",
    options={"radii": 2, "cells": 4, "cost": 0.01, "balanced": True},
    gradient=False,
)
