"""Drawn images for the gate's class *other*: what a radiograph of no chest, a blank or a test pattern may look like.

Anatomy is drawn as X-rays see it: the thicknesses of soft tissue and bone add up, and brightness follows attenuation.
Each function returns ``float32[size, size]`` in ``[0, 1]``, bright where dense, and takes its random generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.float32]


def _grid(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    axis = (np.arange(size) + 0.5) / size - 0.5
    x, y = np.meshgrid(axis, axis)
    return x, y


def _rotated(size: int, angle: float, x0: float, y0: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = _grid(size)
    cos, sin = math.cos(angle), math.sin(angle)
    return (x - x0) * cos + (y - y0) * sin, -(x - x0) * sin + (y - y0) * cos


def _chord(radius: NDArray[np.float64], distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length of the ray through a round body at a distance from its axis."""
    return 2 * np.sqrt(np.maximum(radius**2 - distance**2, 0))


def _bone(size: int, angle: float, x0: float, y0: float, width: float, length: float) -> NDArray[np.float64]:
    """A long bone: a tube of cortex with wider ends of spongy bone."""
    across, along = _rotated(size, angle, x0, y0)
    reach = np.abs(along) / (length / 2)
    flare = 1 + 1.2 * np.exp(-(((reach - 1) / 0.18) ** 2))
    outer = np.where(reach < 1.08, width / 2 * flare, 0.0)
    shaft = _chord(outer, across)
    return shaft - 0.75 * _chord(outer * 0.7, across) * (reach < 0.85)


def limb(size: int, rng: np.random.Generator) -> Pixels:
    """An arm, leg or joint: one to three long bones in a sleeve of soft tissue, sometimes two limbs side by side."""
    tissue = np.zeros((size, size))
    bone = np.zeros((size, size))
    angle = rng.uniform(-0.5, 0.5) + rng.choice([0, math.pi / 2])
    for side in range(int(rng.integers(1, 3))):
        x0, y0 = rng.uniform(-0.2, 0.2) + 0.35 * side, rng.uniform(-0.2, 0.2)
        girth = rng.uniform(0.1, 0.3)
        across, along = _rotated(size, angle, x0, y0)
        taper = girth * (1 + rng.uniform(-0.6, 0.6) * along)
        tissue += _chord(np.maximum(taper, 0.02), across)
        for _ in range(int(rng.integers(1, 4))):
            shift = rng.uniform(-0.5, 0.5) * girth
            place = rng.uniform(-0.5, 0.5)
            width, length = girth * rng.uniform(0.2, 0.6), rng.uniform(0.4, 1.4)
            bone += _bone(
                size,
                angle + rng.uniform(-0.15, 0.15),
                x0 + shift * math.cos(angle) - place * math.sin(angle),
                y0 + shift * math.sin(angle) + place * math.cos(angle),
                width,
                length,
            )
    return _exposed(tissue, bone, rng)


def joint(size: int, rng: np.random.Generator) -> Pixels:
    """A hip, pelvis, skull or hand: broad tissue that fills the field, with curved and round bones."""
    x, y = _rotated(size, rng.uniform(-0.4, 0.4), *rng.uniform(-0.3, 0.3, 2))
    tissue = _chord(
        np.full_like(x, rng.uniform(0.4, 1.0)), np.hypot(x * rng.uniform(0.5, 1.2), y * rng.uniform(0.3, 1.0))
    )
    bone = np.zeros((size, size))
    for _ in range(int(rng.integers(2, 7))):
        u, v = _rotated(size, rng.uniform(0, math.pi), *rng.uniform(-0.4, 0.4, 2))
        radius = rng.uniform(0.06, 0.35)
        ring = np.hypot(u * rng.uniform(0.5, 1.5), v)
        bone += _chord(np.full_like(u, radius), ring) - rng.uniform(0.5, 1.0) * _chord(
            np.full_like(u, radius * 0.85), ring
        )
    for _ in range(int(rng.integers(0, 6))):
        turn, (x0, y0) = rng.uniform(0, math.pi), rng.uniform(-0.4, 0.4, 2)
        bone += _bone(size, turn, x0, y0, rng.uniform(0.03, 0.2), rng.uniform(0.2, 0.9))
    return _exposed(tissue, bone, rng)


def _exposed(tissue: NDArray[np.float64], bone: NDArray[np.float64], rng: np.random.Generator) -> Pixels:
    """Brightness of attenuation, with blur, texture and grain."""
    density = tissue * rng.uniform(0.5, 1.2) + bone * rng.uniform(1.0, 4.0)
    density = density + smooth_noise(tissue.shape[0], rng, int(rng.integers(4, 24))) * rng.uniform(0, 0.15) * (
        density > 0
    )
    image = 1 - np.exp(-density * rng.uniform(0.8, 2.5))
    image = image / max(float(image.max()), 1e-6) + rng.normal(0, rng.uniform(0, 0.03), image.shape)
    return blurred(np.clip(image, 0, 1).astype(np.float32), rng.uniform(0, 2))


def blurred(pixels: Pixels, radius: float) -> Pixels:
    """Gaussian blur of an image in ``[0, 1]``."""
    picture = Image.fromarray((pixels * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(picture, np.float32) / np.float32(255)


def smooth_noise(size: int, rng: np.random.Generator, cells: int) -> Pixels:
    """Clouds: noise of ``cells`` by ``cells``, enlarged smoothly."""
    small = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), np.float32).clip(0, 1)


def clouds(size: int, rng: np.random.Generator) -> Pixels:
    """Clouds of random coarseness and contrast, some with grain."""
    image = smooth_noise(size, rng, int(rng.integers(2, 40))) * rng.uniform(0.3, 1.0)
    return np.clip(image + rng.normal(0, rng.uniform(0, 0.2), image.shape), 0, 1).astype(np.float32)


def blank(size: int, rng: np.random.Generator) -> Pixels:
    """An empty exposure: one grey level, a slope or grain."""
    x, y = _grid(size)
    slope = rng.uniform(-0.5, 0.5) * x + rng.uniform(-0.5, 0.5) * y
    image = rng.uniform(0, 1) + slope * float(rng.random() < 0.5) + rng.normal(0, rng.uniform(0, 0.1), x.shape)
    return np.clip(image, 0, 1).astype(np.float32)


def pattern(size: int, rng: np.random.Generator) -> Pixels:
    """A test pattern: bars, enqueues or boxes."""
    x, y = _rotated(size, rng.uniform(0, math.pi), *rng.uniform(-0.3, 0.3, 2))
    period = rng.uniform(2, 30)
    form = int(rng.integers(3))
    field = (x, np.hypot(x, y), np.maximum(np.abs(x), np.abs(y)))[form]
    wave = np.sin(field * period * math.pi)
    image = (wave > 0) if rng.random() < 0.5 else (wave + 1) / 2
    return (np.asarray(image, np.float32) * rng.uniform(0.3, 1.0)).astype(np.float32)


def page(size: int, rng: np.random.Generator) -> Pixels:
    """A scanned page or a dose report: lines of small marks on a plain ground."""
    image = np.full((size, size), rng.uniform(0.8, 1.0), np.float32)
    step = int(rng.integers(4, 12))
    for top in range(step, size - step, step):
        words = rng.random(size) < rng.uniform(0.3, 0.8)
        words[: size // 12] = words[-int(rng.integers(size // 12, size // 2)) :].any()
        image[top : top + max(1, step // 2)] -= (words * rng.uniform(0.4, 0.8)).astype(np.float32)
    return np.clip(image if rng.random() < 0.6 else 1 - image, 0, 1)


Drawing = Callable[[int, np.random.Generator], Pixels]
DRAWINGS: tuple[Drawing, ...] = (limb, limb, joint, joint, clouds, blank, pattern, page)
"""What :func:`draw` chooses from; anatomy counts double."""


def draw(size: int, rng: np.random.Generator) -> Pixels:
    """One image of no chest."""
    return DRAWINGS[int(rng.integers(len(DRAWINGS)))](size, rng)
