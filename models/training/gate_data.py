"""Training data of the gate: chest radiographs, the same ones degraded, and images of anything else.

Left out on purpose: mirror images (a heart on the right may be the truth) and rotations between a tilt and a quarter
turn (no reader would agree where one ends). Never used: the three WG04 radiographs RG1, RG2 and RG3, which test it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.architectures.base import Batch
from models.training.augment import Affine, random_affine, random_greys, warp
from models.training.cached_dataset import CachedDataset, Grey
from models.training.phantoms import draw
from models.training.recipe import Augmentation, Recipe

Pixels = NDArray[np.float32]
GATE_LABELS = ("frontal", "rotated", "inverted", "cropped", "other")
FRONTAL, ROTATED, INVERTED, CROPPED, OTHER = range(5)
SHARES = (0.34, 0.13, 0.11, 0.16, 0.26)
"""How often each class is drawn in training."""
HELD_OUT_RADIOGRAPHS = ("RG1", "RG2", "RG3")
MAX_SOURCE = 512
STEP = 64
"""Images of a batch that nothing is learnt from by descent."""


def source_folders() -> list[Path]:
    """Folders of installed packages whose pictures are negatives: scikit-image, scikit-learn, pydicom and its data."""
    places = (
        ("skimage", "data"),
        ("sklearn", "datasets/images"),
        ("pydicom", "data/test_files"),
        ("data_store", "data"),
    )
    found = []
    for package, folder in places:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            found.append(Path(spec.origin).parent / folder)
    return [folder for folder in found if folder.is_dir()]


@cache
def installed_pictures() -> tuple[Grey, ...]:
    """The pictures of :func:`source_folders`."""
    return tuple(picture for _, picture in load_others(source_folders()))


def load_others(folders: Sequence[Path]) -> list[tuple[str, Grey]]:
    """Pictures of anything but a chest, grey, at most 512 px, with their names.

    What is no picture is passed over, and so are further copies of one that is there already (the test files of pydicom
    hold the same few pictures in every encoding).
    """
    pictures: list[tuple[str, Grey]] = []
    seen: set[bytes] = set()
    for path in sorted(item for folder in folders for item in folder.iterdir()):
        if path.name.startswith(HELD_OUT_RADIOGRAPHS):
            continue
        picture = _dicom(path) if path.suffix == ".dcm" else _picture(path)
        if picture is None or min(picture.shape) < 32 or (look := _look(picture)) in seen:
            continue
        seen.add(look)
        pictures.append((path.name, picture))
    return pictures


def _look(picture: Grey) -> bytes:
    """The same for two pictures that differ by no more than their encoding."""
    small = Image.fromarray(picture).resize((6, 6), Image.Resampling.BOX)
    return (np.asarray(small, np.uint8) // 43).tobytes()


def _picture(path: Path) -> Grey | None:
    if path.suffix not in {".png", ".jpg", ".gif", ".tif"}:
        return None
    try:
        with Image.open(path) as image:
            grey = image.convert("L")
            grey.thumbnail((MAX_SOURCE, MAX_SOURCE))
            return np.asarray(grey)
    except (OSError, UnidentifiedImageError):
        return None


def _dicom(path: Path) -> Grey | None:
    """The first frame of a DICOM test file as grey levels, or nothing where it is damaged on purpose."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        frames = np.asarray(dcmread(path).pixel_array, np.float32)
    except (
        InvalidDicomError,
        AttributeError,
        ValueError,
        RuntimeError,
        NotImplementedError,
        OSError,
        KeyError,
        EOFError,
    ):
        return None
    while frames.ndim > 2:
        frames = frames.mean(axis=-1) if frames.shape[-1] in (3, 4) else frames[0]
    span = float(frames.max() - frames.min())
    if span <= 0 or frames.ndim != 2:
        return None
    image = Image.fromarray(((frames - frames.min()) * (255 / span)).astype(np.uint8))
    image.thumbnail((MAX_SOURCE, MAX_SOURCE))
    return np.asarray(image)


def frontal(image: Grey, aspect: float, plan: Augmentation, size: int, rng: np.random.Generator) -> Grey:
    """A chest as it may arrive: somewhat tilted, drifted, or small in a large field."""
    affine = random_affine(plan, aspect, rng)
    if rng.random() < 0.25:
        affine = zoomed(affine, rng.uniform(0.65, 1.0))
    return warp(image, affine, size)


def zoomed(affine: Affine, factor: float) -> Affine:
    """The same view, larger (factor over 1) or smaller about its centre."""
    a, b, c, d, e, f = affine
    half = 0.5 * (1 - 1 / factor)
    return a / factor, b / factor, c + (a + b) * half, d / factor, e / factor, f + (d + e) * half


def rotated(image: Grey, aspect: float, plan: Augmentation, size: int, rng: np.random.Generator) -> Grey:
    """A chest on its side, upside down, or at any angle between 50 and 310 degrees."""
    upright = warp(image, random_affine(plan, aspect, rng), size)
    choice = rng.random()
    if choice < 0.7:
        turned = np.rot90(upright, int(rng.integers(1, 4)))
    elif choice < 0.8:
        turned = np.flipud(upright)
    else:
        angle = rng.uniform(50, 310)
        turned = np.asarray(Image.fromarray(upright).rotate(angle, Image.Resampling.BILINEAR))
    return np.ascontiguousarray(turned)


def window(left: float, top: float, width: float, height: float) -> Affine:
    """Coefficients that show one rectangle of an image (fractions of its side) over the whole output."""
    return width, 0.0, left, 0.0, height, top


def cropped(image: Grey, size: int, rng: np.random.Generator) -> Grey:
    """A chest of which a large part is missing but which is still one: a half, a large corner, or a part covered."""
    choice = rng.random()
    if choice < 0.35:
        width = rng.uniform(0.4, 0.58)
        part = warp(image, window(float(rng.choice([0.0, 1 - width])), 0.0, width, 1.0), size)
        return boxed(part, width) if rng.random() < 0.6 else part
    if choice < 0.55:
        height = rng.uniform(0.4, 0.58)
        part = warp(image, window(0.0, float(rng.choice([0.0, 1 - height])), 1.0, height), size)
        return boxed(part, 1 / height) if rng.random() < 0.6 else part
    if choice < 0.8:
        side = rng.uniform(0.45, 0.6)
        left, top = rng.uniform(0, 1 - side, 2)
        return warp(image, window(float(left), float(top), side, side), size)
    part = warp(image, window(0.0, 0.0, 1.0, 1.0), size).copy()
    view = np.rot90(part, int(rng.integers(4)))
    view[: int(size * rng.uniform(0.4, 0.6))] = 0 if rng.random() < 0.7 else int(rng.integers(256))
    return part


def boxed(image: Grey, aspect: float) -> Grey:
    """An image of the given width by height, letterboxed into the square."""
    size = image.shape[0]
    across, down = min(1.0, aspect), min(1.0, 1 / aspect)
    small = Image.fromarray(image).resize((max(1, round(size * across)), max(1, round(size * down))))
    canvas = Image.new("L", (size, size))
    canvas.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    return np.asarray(canvas)


def jigsaw(image: Grey, size: int, rng: np.random.Generator) -> Grey:
    """A chest in shuffled pieces: right tissue, wrong anatomy."""
    count = int(rng.integers(2, 6))
    side = size // count
    whole = np.asarray(Image.fromarray(image).resize((side * count, side * count)))
    tiles = whole.reshape(count, side, count, side).swapaxes(1, 2).reshape(count * count, side, side)
    order = rng.permutation(count * count)
    while (order == np.arange(count * count)).all():
        order = rng.permutation(count * count)
    mixed = tiles[order].reshape(count, count, side, side).swapaxes(1, 2).reshape(side * count, side * count)
    return np.asarray(Image.fromarray(mixed).resize((size, size)))


def other(chest: Grey, pictures: Sequence[Grey], size: int, rng: np.random.Generator) -> Grey:
    """No chest: a picture from elsewhere, drawn anatomy or a pattern, a jigsaw, or too small a part to be called one.

    A small part of a chest (a shoulder, some ribs, a piece of the abdomen) is what comes nearest to a radiograph of
    another body region, so it is turned and stretched like one.
    """
    choice = rng.random()
    if choice < 0.35 and pictures:
        picture = pictures[int(rng.integers(len(pictures)))]
        height, width = picture.shape
        side = max(16, int(min(height, width) * rng.uniform(0.4, 1.0)))
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        image = Image.fromarray(picture[top : top + side, left : left + side]).resize((size, size))
        turned = np.rot90(np.asarray(image), int(rng.integers(4)))
        return np.ascontiguousarray(turned if rng.random() < 0.7 else 255 - turned)
    if choice < 0.65:
        return (draw(size, rng) * 255).astype(np.uint8)
    if choice < 0.73:
        return jigsaw(chest, size, rng)
    across, down = rng.uniform(0.06, 0.36, 2)
    left, top = rng.uniform(0, 1 - across), rng.uniform(0, 1 - down)
    part = warp(chest, window(float(left), float(top), float(across), float(down)), size)
    part = boxed(part, float(across / down)) if rng.random() < 0.6 else part
    return np.ascontiguousarray(np.rot90(part, int(rng.integers(4))))


def gate_image(
    label: int,
    image: Grey,
    aspect: float,
    pictures: Sequence[Grey],
    recipe: Recipe,
    rng: np.random.Generator,
) -> Pixels:
    """One image of the class ``label`` made from a chest: ``float32[size, size]`` in ``[0, 1]``."""
    plan, size = recipe.augmentation, recipe.network.size
    if label == OTHER:
        return random_greys(other(image, pictures, size, rng), plan, rng)
    if label == CROPPED:
        return random_greys(cropped(image, size, rng), plan, rng)
    if label == ROTATED:
        return random_greys(rotated(image, aspect, plan, size, rng), plan, rng)
    chest = frontal(image, aspect, plan, size, rng)
    grey = random_greys(chest, replace(plan, collimate=plan.collimate if label == FRONTAL else 0.0), rng)
    if label == INVERTED:
        inside = chest > 0 if rng.random() < 0.5 else np.ones_like(chest, np.bool_)
        return np.where(inside, 1 - grey, grey).astype(np.float32)
    return grey


def made(label: int, recipe: Recipe, stored: CachedDataset, pictures: Sequence[Grey], seed: int) -> Pixels:
    """One image of a class from every chest: ``float32[n, size, size, 1]``."""
    rng = np.random.default_rng((seed, label))
    images = [
        gate_image(label, stored.pixels(place), sample.aspect, pictures, recipe, rng)
        for place, sample in enumerate(stored.samples)
    ]
    return np.stack(images)[..., np.newaxis]


def as_served(stored: CachedDataset) -> Pixels:
    """Chests as the node would show them to the gate: ``float32[n, size, size, 1]``."""
    pixels = np.stack([stored.pixels(place) for place in range(len(stored))])
    return (pixels[..., np.newaxis] / np.float32(255)).astype(np.float32)


def upright_chests(recipe: Recipe, large: CachedDataset, exact: CachedDataset) -> list[Batch]:
    """What the distance is fitted on: the training chests as they are, and twice changed as in training."""
    pictures = installed_pictures()
    chests = [as_served(exact), *(made(FRONTAL, recipe, large, pictures, seed) for seed in (101, 102))]
    every = np.concatenate(chests)
    return [class_batch(every[start : start + STEP], FRONTAL) for start in range(0, len(every), STEP)]


def class_batch(pixels: Pixels, classes: int | NDArray[np.int64]) -> Batch:
    """Images of known classes."""
    labels = np.eye(len(GATE_LABELS), dtype=np.float32)[np.broadcast_to(classes, len(pixels))]
    return Batch(pixels, labels, np.ones_like(labels))


class GateLoader:
    """Training batches of the gate by number; everything random comes from ``(seed, epoch, number)``."""

    def __init__(self, recipe: Recipe, stored: CachedDataset, passes: int = 2) -> None:
        self.epoch = 0
        self._recipe, self._stored, self._passes = recipe, stored, passes
        self._pictures = installed_pictures()

    def __len__(self) -> int:
        """Batches an epoch: each chest is the source of ``passes`` images."""
        return max(1, len(self._stored) * self._passes // self._recipe.schedule.batch)

    def __getitem__(self, index: int) -> Batch:
        """Batch ``index`` of the current epoch."""
        rng = np.random.default_rng((self._recipe.schedule.seed, self.epoch, index))
        batch = self._recipe.schedule.batch
        classes = rng.choice(len(GATE_LABELS), batch, p=SHARES)
        chosen = rng.integers(len(self._stored), size=batch)
        pixels = [
            gate_image(
                int(label),
                self._stored.pixels(item),
                self._stored.samples[item].aspect,
                self._pictures,
                self._recipe,
                rng,
            )
            for label, item in zip(classes, chosen.tolist(), strict=True)
        ]
        return class_batch(np.stack(pixels)[..., np.newaxis], classes)
