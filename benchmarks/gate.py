"""What the gate lets through of images that it has not seen: chests, mirrored chests, children, laterals, other things.

``python -P -m benchmarks.gate --chests DIR [--children DIR] [--other DIR] [--ct FILE] [--volume FILE]``

``--chests`` is a data set with a split ``val``, whose patients the bundled gate has not seen. ``--children`` and
``--other`` are folders of pictures or DICOM files. ``--ct`` is a NIfTI file of a chest: its slices are no radiographs,
and its projections from the front to the side are radiographs that are computed (parallel beams, one patient: the rows
of one volume say what the gate does with it, not how often that happens). ``--volume`` is a NIfTI file of anything
else, whose slices are shown. Shares have Wilson's interval; of images of one patient or volume it is too narrow.
"""

from __future__ import annotations

import argparse
import gzip
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import rotate

from models.contract import ModelInput
from models.model_registry import read_registry
from models.pipeline import Pipeline
from models.predictor import Predictor, load_predictor
from models.training.datasets import pixels, read_dataset
from models.training.datasets.pixels import UnreadableImage
from models.training.datasets.split import VALIDATION, named
from models.training.metrics import proportion

Volume = NDArray[np.float32]
ANGLES = (0, 15, 30, 45, 60, 75, 90)
"""Degrees from the front (0) to the side (90) of a computed radiograph."""
GRID = 2.0
"""Millimetres between the points of a volume before it is projected."""
SLICES = 12
"""Of a volume along each axis."""
_TYPES = {2: "u1", 4: "<i2", 8: "<i4", 16: "<f4", 64: "<f8", 512: "<u2"}
WATER = 0.02
"""Attenuation of water for a diagnostic beam, per millimetre."""


def read_volume(file: Path) -> Volume:
    """A NIfTI-1 file as ``float32[z, y, x]`` on a grid of :data:`GRID` mm, head up, the patient's front at small ``y``.

    Raises:
        ValueError: it is no little-endian NIfTI-1 file of three dimensions whose axes lie along the patient's.
    """
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    if struct.unpack("<i", content[:4])[0] != 348:
        raise ValueError(f"{file} is no little-endian NIfTI-1 file")
    shape = struct.unpack("<8h", content[40:56])[1:4]
    kind = _TYPES[struct.unpack("<h", content[70:72])[0]]
    spacing = struct.unpack("<8f", content[76:108])[1:4]
    start = int(struct.unpack("<f", content[108:112])[0])
    slope, offset = struct.unpack("<2f", content[112:120])
    axes = np.array(struct.unpack("<12f", content[280:328])).reshape(3, 4)[:, :3]
    if np.abs(axes).argmax(axis=1).tolist() != [0, 1, 2]:
        raise ValueError(f"the axes of {file} do not lie along the patient's")
    values = np.frombuffer(content, kind, int(np.prod(shape)), start).reshape(shape, order="F").astype(np.float32)
    values = values * np.float32(slope or 1) + np.float32(offset)
    # NIfTI counts towards the right, the front and the head; a picture from the left, the front and the head.
    for axis, wanted in enumerate((-1, -1, -1)):
        if np.sign(axes[axis, axis]) != wanted:
            values = np.flip(values, axis)
    return _resampled(values.transpose(2, 1, 0), (spacing[2], spacing[1], spacing[0]))


def _resampled(values: Volume, spacing: tuple[float, float, float]) -> Volume:
    """The nearest points of a grid of :data:`GRID` mm."""
    places = [
        np.minimum(np.round(np.arange(int(length * step / GRID)) * GRID / step).astype(int), length - 1)
        for length, step in zip(values.shape, spacing, strict=True)
    ]
    return np.ascontiguousarray(values[np.ix_(*places)])


def shown(values: Volume, name: str, low: float = 1.0, high: float = 99.5) -> ModelInput:
    """Any grey values as a radiograph of 512 px, between two of their percentiles."""
    darkest, brightest = np.percentile(values, (low, high))
    grey = np.clip((values - darkest) / max(1e-6, float(brightest - darkest)), 0, 1).astype(np.float32)
    side = 512 / max(grey.shape)
    size = (round(grey.shape[1] * side), round(grey.shape[0] * side))
    return ModelInput(np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR)).clip(0, 1), name)


def projection(ct: Volume, angle: float) -> ModelInput:
    """A radiograph computed from Hounsfield units, from the front (0 degrees) or turned about the body's axis."""
    turned = rotate(ct, angle, axes=(1, 2), reshape=False, order=1, cval=-1000.0)
    body = WATER * GRID * np.maximum(turned + 1000.0, 0.0) / 1000.0
    return shown(body.sum(axis=1, dtype=np.float32), f"projection-{angle}")


def slices(volume: Volume) -> Iterator[tuple[str, ModelInput]]:
    """Slices through the middle two thirds of a volume: across, from the front, from the side."""
    for axis, name in enumerate(("axial", "coronal", "sagittal")):
        for at in np.linspace(volume.shape[axis] / 6, volume.shape[axis] * 5 / 6, SLICES).astype(int):
            plane = np.take(volume, at, axis)
            if np.ptp(plane) > 0:
                yield name, shown(plane, f"{name}-{at}")


def pictures(folder: Path) -> list[ModelInput]:
    """What of a folder can be read as the node would read it."""
    found = []
    for file in sorted(folder.iterdir()):
        try:
            found.append(pixels.read(file))
        except UnreadableImage as error:
            print(f"{file.name} {error}")
    return found


def mirrored(image: ModelInput) -> ModelInput:
    return replace(image, pixels=np.ascontiguousarray(image.pixels[:, ::-1]))


def row(name: str, images: list[ModelInput], predictor: Predictor) -> str:
    """One line of the table."""
    verdicts = [predictor.predict(image).not_analysed for image in images]
    passed = proportion(sum(verdict is None for verdict in verdicts), len(verdicts))
    why = Counter(verdict.code for verdict in verdicts if verdict is not None)
    reasons = ", ".join(f"{code} {count}" for code, count in why.most_common())
    share = f"{passed.value:.3f} ({passed.low:.3f} to {passed.high:.3f})"
    return f"| {name} | {len(images)} | {share} | {reasons} |"


def groups(options: argparse.Namespace) -> Iterator[tuple[str, list[ModelInput]]]:
    """All that is asked for, by name."""
    chests = [pixels.read(sample.image) for sample in named(read_dataset.read(options.chests).samples, VALIDATION)]
    yield "chests, split `val`", chests
    yield "the same, mirrored", [mirrored(image) for image in chests]
    if options.children:
        children = pictures(options.children)
        yield "children", children
        yield "children, mirrored", [mirrored(image) for image in children]
    if options.other:
        yield "pictures of other things", pictures(options.other)
    for file in filter(None, (options.ct, options.volume)):
        volume = read_volume(file)
        planes = list(slices(volume))
        for name in ("axial", "coronal", "sagittal"):
            yield f"{file.name}, {name} slices", [image for own, image in planes if own == name]
        if file == options.ct:
            for angle in ANGLES:
                turned = [projection(volume, side * angle) for side in ((1,) if angle == 0 else (1, -1))]
                yield f"{file.name}, projected at {angle}°", turned
            halves = (volume[: len(volume) // 2], volume[len(volume) // 2 :])
            for name, half in zip(("upper", "lower"), halves, strict=True):
                yield f"{file.name}, {name} half at 0°", [projection(half, 0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chests", type=Path, required=True)
    for name in ("--children", "--other", "--ct", "--volume"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    predictor = load_predictor(Pipeline(read_registry().find("chest-gate"), ()), device="cpu", threads=1)
    print("| images | number | let through | why not |")
    print("|---|---|---|---|")
    for name, images in groups(options):
        print(row(name, images, predictor), flush=True)


if __name__ == "__main__":
    main()
