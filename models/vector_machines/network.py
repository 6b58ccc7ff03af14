"""``densenet121-svm``: deep features with a linear support vector machine in the place of softmax."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
from keras import layers

from models.architectures.contract import Batch, Loss, Plan, Truths
from models.contract import ModelKind
from models.encoders.table import encode
from models.vector_machines.head import MARGINS, MachineArchitecture, calibration, head
from models.vector_machines.objective import squared_hinge


class MachineHead(MachineArchitecture):
    """An encoder taught by the squared hinge loss through a linear layer, which is then solved exactly.

    While the encoder learns, the objective is divided by C times the number of examples, as gradient descent needs it:
    the mean squared hinge loss plus ``shrink`` · ½‖w‖². Afterwards the encoder stands still and the machine on its
    features has one best plane, which is found whatever the epochs before have left (:func:`fit_head`).
    """

    __slots__ = ()

    def build(self, plan: Plan) -> keras.Model:
        """Grey image to ``margins [n, labels]`` and their ``logits``, which mean something only after the fit."""
        image = keras.Input((plan.size, plan.size, 1), name="image")
        deepest = encode(plan.encoder, image, plan.width, plan.initial)[32]
        pooled = layers.GlobalAveragePooling2D(name="pooled")(deepest)
        margins = head(pooled, len(plan.labels), float(self.option(plan, "shrink")))
        return keras.Model(image, {MARGINS: margins, "logits": calibration(margins)}, name="support_vector_head")

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """Squared hinge on the margins."""
        return {MARGINS: squared_hinge}

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """Labels and how far they are known, side by side."""
        return {MARGINS: np.concatenate([batch.labels, batch.known], axis=-1)}


DENSENET121_SVM = MachineHead(
    name="densenet121-svm",
    kind=ModelKind.CLASSIFIER,
    title="Deep features with a linear support vector machine",
    source="C",
    encoders=("densenet121", "resnet50", "vgg16", "efficientnet-lite0", "vgg-small"),
    options={"cost": 0.01, "shrink": 1e-4, "balanced": True},
)
