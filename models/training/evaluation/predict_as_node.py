"""A model over samples, as the node runs it: read, letterboxed, equalised, run, cut, placed, clipped to the lungs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from models.contract import Finding, ModelInput, Pixels
from models.findings import Answers, findings_answered, findings_of, in_lungs, lies_in_lungs
from models.lung_fields import LungFields, lung_fields
from models.model_spec import ModelSpec
from models.pipeline import Processing
from models.radiograph.contrast import letterbox_for, prepare
from models.radiograph.geometry import Letterbox
from models.remote.findings_server import FindingsServer
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


@dataclass(frozen=True, slots=True)
class WithLungs:
    """A network whose masks are clipped to the lungs that another one finds, as in the node's pipeline."""

    network: Network
    lungs: Network

    @property
    def spec(self) -> ModelSpec:
        """The model that is run."""
        return self.network.spec

    def run(self, batch: Pixels) -> Outputs:
        """Answer prepared inputs."""
        return self.network.run(batch)


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One image and all that the model says about it: raw answers in its own grid, and the node's findings. A program
    that answers findings has no raw answers."""

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


EvaluatedModel = Network | FindingsServer
"""What can be measured: a network, here or on an inference server, or a program that answers findings."""


def run(network: EvaluatedModel, samples: Sequence[Sample], batch: int = BATCH) -> Iterator[Shown | Unreadable]:
    """What the model says about each sample, in order.

    Raises:
        ModelOutputError: an answer cannot be believed.
        ModelUnavailableError: the model runs elsewhere and cannot be asked now.
    """
    if isinstance(network, FindingsServer):
        yield from (_answered(network, sample) for sample in samples)
        return
    for at in range(0, len(samples), batch):
        yield from _batch(network, samples[at : at + batch])


def _answered(program: FindingsServer, sample: Sample) -> Shown | Unreadable:
    """The findings of a program; an image on which it gives no answer is left out, for that is no negative."""
    image = _read(sample)
    if isinstance(image, Unreadable):
        return image
    findings = findings_answered(program.spec, program.ask(image))
    for finding in findings:
        if finding.probability is None:
            return Unreadable(sample, f"the program cannot tell of {finding.label}: {finding.reason}")
    return Shown(sample, image, letterbox_for(image, program.spec.input), {}, findings)


def _batch(network: Network, samples: Sequence[Sample]) -> Iterator[Shown | Unreadable]:
    spec, minimum = network.spec, Processing().minimum_fraction
    read: list[ModelInput | Unreadable] = [_read(sample) for sample in samples]
    images = [item for item in read if isinstance(item, ModelInput)]
    boxes = [letterbox_for(image, spec.input) for image in images]
    outputs = _answers(network, images, boxes)
    row = 0
    for sample, item in zip(samples, read, strict=True):
        if isinstance(item, Unreadable):
            yield item
            continue
        answer = {name: array[row] for name, array in outputs.items()}
        findings = findings_of(spec, answer, boxes[row], minimum)
        if isinstance(network, WithLungs) and any(map(lies_in_lungs, findings)):
            fields = _lungs(network.lungs, item)
            findings = tuple(in_lungs(each, fields, minimum) for each in findings) if fields else findings
        yield Shown(sample, item, boxes[row], answer, findings)
        row += 1


def _answers(network: Network, images: Sequence[ModelInput], boxes: Sequence[Letterbox]) -> Outputs:
    """What a network answers for images, in order; nothing where there are none."""
    if not images:
        return {}
    return network.run(
        np.stack([prepare(image, box, network.spec.input) for image, box in zip(images, boxes, strict=True)])
    )


def _lungs(network: Network, image: ModelInput) -> LungFields | None:
    letterbox = letterbox_for(image, network.spec.input)
    return lung_fields(_answers(network, [image], [letterbox])["maps"][0], letterbox)


def _read(sample: Sample) -> ModelInput | Unreadable:
    try:
        return pixels.read(sample.image)
    except UnreadableImage as error:
        return Unreadable(sample, str(error))
