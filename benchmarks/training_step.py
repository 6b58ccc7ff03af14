"""What a training needs: one step of a recipe measured on this CPU, and the hours on a GPU that follow from it.

``python -P -m benchmarks.training_step [RECIPE] [--images 12047] [--batch 2] [--teraflops 10]``

The network is built at the recipe's own size and taught for two steps; the second is measured. Batches come from the
training's own loader, of images drawn here at the size of SIIM-ACR's (DICOM, 1024 x 1024), every second with a mask.
Memory is by how much the process grew, for each image of the batch, and for the network with its gradients and the
optimiser's state. Operations are those of convolutions and dense layers, and three times as many for a step as for an
answer. The hours suppose ``--teraflops`` that a GPU sustains, for four fifths of the images, and one core that makes
batches.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from models.architectures import catalogue
from models.architectures.base import Array, Batch
from models.training.data_loader import DataLoader, wanted
from models.training.datasets import read_dataset
from models.training.datasets.rle import NOTHING, SIDE
from models.training.datasets.siim import PNEUMOTHORAX
from models.training.fit import compile_network, silent
from models.training.recipe import RECIPES, Recipe, read_recipe
from models.training.train import choose, decode

GIB = 1024**3
LEARNT_FROM = 0.8
MASK = " ".join(["262400 300", *["724 300"] * 199])
"""200 columns of 300 pixels each, in SIIM-ACR's code."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of gradient descent over ``images``: seconds of processor time, and bytes by which the process grew."""

    images: int
    parameters: int
    operations: int
    loading: float
    learning: float
    grown: int


def write_images(folder: Path, count: int) -> Path:
    """Images like SIIM-ACR's, every second with a mask."""
    rng = np.random.default_rng(0)
    rows = ["ImageId, EncodedPixels"]
    for number in range(count):
        uid = generate_uid(entropy_srcs=["training_step", str(number)])
        rows.append(f"{uid}, {MASK if number % 2 else NOTHING}")
        _write_dicom(folder / f"{uid}.dcm", uid, rng.normal(120, 30, (SIDE, SIDE)).clip(0, 255).astype(np.uint8))
    (folder / "train-rle.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def _write_dicom(file: Path, uid: UID, pixels: np.ndarray) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
    dataset.PatientID = str(uid)[-12:]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(file, enforce_file_format=True)


def operations(network: keras.Model) -> int:
    """Multiplications and additions of one answer of ``network`` for one image."""
    total = 0
    for layer in _layers(network):
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)):
            total += 2 * int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:-1]))
    return total


def _layers(network: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in network.layers:
        yield from _layers(layer) if isinstance(layer, keras.Model) else (layer,)


def measure(recipe: Recipe, batch: int) -> Step:
    """Two steps, of which the second counts."""
    architecture = catalogue.find(recipe.architecture)
    recipe = replace(recipe, schedule=replace(recipe.schedule, batch=batch))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A fifth of the patients is held back.
        dataset = read_dataset.read(write_images(folder, 2 * batch + 3), "siim")
        shares = choose(architecture, recipe, dataset, folder)
        pixels, _ = decode(recipe, shares, folder / "work", silent)
        loader = DataLoader(recipe, pixels.large.only(shares.seen), wanted(architecture, recipe.plan), change=True)
        taught = compile_network(architecture, recipe, 1000)
        before = _highest()
        for number in range(2):
            began = time.process_time()
            made = loader[number]
            loaded = time.process_time()
            taught.taught.train_on_batch(made.pixels, _truths(recipe, made))
            learnt = time.process_time()
        parameters = taught.network.count_params()
        return Step(batch, parameters, operations(taught.network), loaded - began, learnt - loaded, _highest() - before)


def _truths(recipe: Recipe, batch: Batch) -> dict[str, Array]:
    return dict(catalogue.find(recipe.architecture).truths(recipe.plan, batch))


def _highest() -> int:
    """Bytes of memory that this process has held at most."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def describe(recipe: Recipe, step: Step, images: int, teraflops: float) -> Iterator[str]:
    """The measured step, and what follows from it for a training of ``images``."""
    size, schedule = recipe.network.size, recipe.schedule
    kept = 16 * step.parameters
    each = max(0, step.grown - kept) / step.images
    answers = LEARNT_FROM * images * schedule.epochs
    yield f"{recipe.name}: {size} x {size}, {step.parameters / 1e6:.1f} million parameters"
    yield (
        f"one step of {step.images} images on this CPU: {step.learning:.1f} s of processor time, and"
        f" {step.loading:.2f} s for the batch; the process grew by {step.grown / GIB:.1f} GiB"
    )
    yield (
        f"memory for a batch of {schedule.batch} in float32: {(kept + each * schedule.batch) / GIB:.1f} GiB"
        f" ({kept / GIB:.2f} GiB and {each / GIB:.2f} GiB an image)"
    )
    total = 3 * step.operations * answers
    yield (
        f"{images} images, {schedule.epochs} epochs: {answers / schedule.batch:.0f} steps, {total / 1e15:.0f} x 10^15"
        f" operations: {total / teraflops / 1e12 / 3600:.1f} hours at {teraflops:g} x 10^12 a second; batches need"
        f" {answers * step.loading / step.images / 3600:.1f} hours of one core beside it"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="unet-resnet34-siim", help=f"a recipe that learns {PNEUMOTHORAX}")
    parser.add_argument("--images", type=int, default=12047)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--teraflops", type=float, default=10.0)
    options = parser.parse_args()
    recipe = read_recipe(RECIPES / f"{options.recipe}.toml")
    for line in describe(recipe, measure(recipe, options.batch), options.images, options.teraflops):
        print(line)


if __name__ == "__main__":
    main()
