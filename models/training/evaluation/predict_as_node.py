"""A model over samples, exactly as the node runs it: read, letterboxed, equalised, run, cut, placed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from models.contract import Finding, ModelInput, ModelSpec, Pixels
from models.pipeline import Processing
from models.predictor import Answers, findings_of
from models.radiograph.contrast import letterbox_for, prepare
from models.radiograph.geometry import Letterbox
from models.runtime.executor import Outputs
from models.training.datasets import pixels
from models.training.datasets.pixels import UnreadableImage
from models.training.datasets.sample import Sample

BATCH = 8


class Network(Protocol):
    """All that is needed of an executor."""

    @property
    def spec(self) -> ModelSpec:
        """The model that is run."""

    def run(self, batch: Pixels) -> Outputs:
        """Answer prepared inputs."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One image and all that the model says about it: raw answers in its own grid, and the node's findings."""

    sample: Sample
    image: ModelInput
    letterbox: Letterbox
    answer: Answers
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that could not be shown to the model, and why."""

    sample: Sample
    reason: str


def run(network: Network, samples: Sequence[Sample], batch: int = BATCH) -> Iterator[Shown | Unreadable]:
    """What the model says about each sample, in order.

    Raises:
        ModelOutputError: an answer cannot be believed.
    """
    for at in range(0, len(samples), batch):
        yield from _batch(network, samples[at : at + batch])


def _batch(network: Network, samples: Sequence[Sample]) -> Iterator[Shown | Unreadable]:
    spec = network.spec
    read: list[ModelInput | Unreadable] = [_read(sample) for sample in samples]
    images = [item for item in read if isinstance(item, ModelInput)]
    boxes = [letterbox_for(image, spec.input) for image in images]
    outputs: Outputs = {}
    if images:
        prepared = [prepare(image, box, spec.input) for image, box in zip(images, boxes, strict=True)]
        outputs = network.run(np.stack(prepared))
    row = 0
    for sample, item in zip(samples, read, strict=True):
        if isinstance(item, Unreadable):
            yield item
            continue
        answer = {name: array[row] for name, array in outputs.items()}
        findings = findings_of(spec, answer, boxes[row], Processing().minimum_fraction)
        yield Shown(sample, item, boxes[row], answer, findings)
        row += 1


def _read(sample: Sample) -> ModelInput | Unreadable:
    try:
        return pixels.read(sample.image)
    except UnreadableImage as error:
        return Unreadable(sample, str(error))
