"""Examine a model before it analyses an image: its file, its answers, and whether they hold in any batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from models.agreement import difference
from models.contract import ModelInput, Pixels
from models.manifest import verify_digest
from models.model_spec import Activation, ModelKind, ModelSpec
from models.radiograph.contrast import letterbox_for, prepare
from models.remote.findings_server import FindingsServer
from models.runtime.executor import Device, Executor, ModelOutputError, Outputs, library_of
from models.runtime.loading import load, ways

PROBE_SHAPES = ((640, 512), (512, 640), (600, 600))
BATCH_TOLERANCE = 1e-4
WAYS_TOLERANCE = 1e-3
_SEED = 20


@dataclass(frozen=True, slots=True)
class Examination:
    """What a model did with drawn images: seconds for one image, the range of each output, and how far two libraries
    that may run it are ``apart`` (None: there is one file, or TensorFlow is not installed)."""

    spec: ModelSpec
    seconds: float
    ranges: dict[str, tuple[float, float]]
    apart: float | None = None


def examine(spec: ModelSpec, clock: Callable[[], float], *, device: Device = "auto", threads: int = 0) -> Examination:
    """Load a model and ask it about drawn images, black, grey and noisy ones, alone and together.

    Raises:
        ManifestError: the file has another digest.
        ModelLoadError: it cannot be loaded or takes another input than the manifest says.
        ModelOutputError: an answer has the wrong shape, is NaN, lies outside of [0, 1], never changes, or depends on
            what else is in the batch, or TensorFlow answers otherwise than ONNX Runtime.
    """
    verify_digest(spec)
    if spec.kind is ModelKind.FINDINGS:
        return _examined_server(spec, clock)
    executor = load(spec, device=device, threads=threads)
    executor.warm()
    probes = drawn_inputs(spec)
    begin = clock()
    alone = [executor.run(probe[np.newaxis]) for probe in probes]
    seconds = (clock() - begin) / len(probes)
    together = executor.run(np.stack(probes))
    _same_in_any_batch(spec, alone, together)
    _not_constant(spec, together)
    ranges = {name: (float(array.min()), float(array.max())) for name, array in together.items() if array.size}
    return Examination(spec, seconds, ranges, _apart(spec))


def _apart(spec: ModelSpec) -> float | None:
    """How far the answers of TensorFlow are from those of ONNX Runtime, where a network has a file for both.

    ONNX Runtime runs on the CPU, TensorFlow where it can: a worker with a GPU does so.
    """
    known = list(ways(spec))
    exported = next((way for way in known if library_of(way) == "ONNX Runtime"), None)
    graph = next((way for way in known if library_of(way) == "TensorFlow"), None)
    if exported is None or graph is None or find_spec("tensorflow") is None or find_spec("keras") is None:
        return None
    apart = compare(spec, load(exported, device="cpu"), load(graph))
    if not apart <= WAYS_TOLERANCE:
        raise ModelOutputError(
            f"{spec.name}: {graph.file.name} in TensorFlow answers otherwise than {exported.file.name} in ONNX Runtime "
            f"(by up to {apart:.2g}, {WAYS_TOLERANCE:g} is allowed)"
        )
    return apart


def _examined_server(spec: ModelSpec, clock: Callable[[], float]) -> Examination:
    """Ask a vendor's program about drawn images; its answers are checked as those about patients are."""
    server = FindingsServer(spec)
    images, begin = drawn_images(), clock()
    replies = [server.ask(ModelInput(image, "")) for image in images]
    seconds = (clock() - begin) / len(images)
    probabilities = [each.probability for reply in replies for each in reply if each.probability is not None]
    ranges = {"probabilities": (min(probabilities), max(probabilities))} if probabilities else {}
    return Examination(spec, seconds, ranges)


def drawn_inputs(spec: ModelSpec) -> list[Pixels]:
    """Prepared inputs of :func:`drawn_images`."""
    prepared = []
    for image in drawn_images():
        given = ModelInput(image, "")
        prepared.append(prepare(given, letterbox_for(given, spec.input), spec.input))
    return prepared


def drawn_images() -> list[Pixels]:
    """Images that no patient has: something like a chest, noise, black, and plain grey."""
    rng = np.random.default_rng(_SEED)
    images: list[Pixels] = []
    for rows, columns in PROBE_SHAPES:
        y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
        lungs = np.exp(-(((np.abs(x) - 0.45) / 0.3) ** 2) - (y / 0.6) ** 2)
        images.append(np.asarray(0.8 - 0.6 * lungs + 0.05 * rng.random((rows, columns)), np.float32))
    images += [rng.random((512, 512), dtype=np.float32), np.zeros((512, 512), np.float32)]
    images.append(np.full((512, 512), 0.5, np.float32))
    return images


def compare(spec: ModelSpec, one: Executor, other: Executor) -> float:
    """The largest difference between two executors' answers to the drawn images (:mod:`models.agreement`).

    Raises:
        ModelOutputError: they answer with other outputs or shapes.
    """
    worst = 0.0
    for probe in drawn_inputs(spec):
        mine, theirs = one.run(probe[np.newaxis]), other.run(probe[np.newaxis])
        if {name: array.shape for name, array in mine.items()} != {name: array.shape for name, array in theirs.items()}:
            raise ModelOutputError(f"{spec.name}: two ways to run it answer with other outputs or shapes")
        worst = max(worst, difference(mine, theirs))
    return worst


def _same_in_any_batch(spec: ModelSpec, alone: list[Outputs], together: Outputs) -> None:
    for name, whole in together.items():
        single = np.concatenate([answer[name] for answer in alone])
        worst = float(np.max(np.abs(single - whole), initial=0.0))
        if worst > BATCH_TOLERANCE:
            raise ModelOutputError(
                f"{spec.name}: '{name}' of an image depends on what else is in the batch ({worst:g})"
            )


def _not_constant(spec: ModelSpec, answers: Outputs) -> None:
    """A network whose output does not depend on its input has lost its weights, or gets input of another kind."""
    if spec.kind is ModelKind.DETECTOR:
        return  # nothing at all on a drawing is a good answer of a detector
    name = "maps" if spec.kind in (ModelKind.SEGMENTER, ModelKind.LUNGS) else "probabilities"
    if float(np.ptp(answers[name], axis=0).max(initial=0.0)) == 0.0:
        hint = " (logits declared as probabilities?)" if spec.activation is Activation.PROBABILITY else ""
        raise ModelOutputError(f"{spec.name}: '{name}' is the same for every image, also for black and noise{hint}")
