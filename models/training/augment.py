"""Random changes that keep a radiograph true: what a patient's position, a detector or a console could have done.

No vertical flip and no strong rotation, since the node refuses such images; grey values change a lot, since look-up
tables differ more between manufacturers than anything else. Each function takes its random generator.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from models.training.recipe import Augmentation

Pixels = NDArray[np.float32]
Grey = NDArray[np.uint8]
Affine = tuple[float, float, float, float, float, float]


def random_affine(plan: Augmentation, aspect: float, rng: np.random.Generator) -> Affine:
    """Coefficients that map a place in the output (fractions of the side) to one in the square source image.

    ``aspect`` (width by height of the detector image) undoes in half of the cases the squeeze by which NIH made every
    image a square, so that the network knows true proportions with black bars as well as squeezed ones.
    """
    angle = math.radians(rng.uniform(-plan.rotation, plan.rotation))
    zoom = math.exp(rng.uniform(-plan.scale, plan.scale))
    stretch = math.exp(rng.uniform(-plan.aspect, plan.aspect))
    across, down = zoom * math.sqrt(stretch), zoom / math.sqrt(stretch)
    if rng.random() < 0.5:
        across, down = across * min(1.0, aspect), down * min(1.0, 1.0 / aspect)
    if rng.random() < plan.flip:
        across = -across
    dx, dy = rng.uniform(-plan.shift, plan.shift, 2)
    cos, sin = math.cos(angle), math.sin(angle)
    a, b, d, e = cos / across, sin / across, -sin / down, cos / down
    return a, b, 0.5 - a * (0.5 + dx) - b * (0.5 + dy), d, e, 0.5 - d * (0.5 + dx) - e * (0.5 + dy)


def warp(image: Grey, affine: Affine, size: int, *, smooth: bool = True) -> Grey:
    """Resample a square image to ``size`` with an affine in fractions of the side; outside is 0."""
    side = image.shape[0]
    a, b, c, d, e, f = affine
    step = side / size
    data = (a * step, b * step, c * side, d * step, e * step, f * side)
    kernel = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    warped = Image.fromarray(image).transform((size, size), Image.Transform.AFFINE, data, kernel)
    return np.asarray(warped)


def equalised(pixels: Pixels) -> Pixels:
    """Global histogram equalisation of values in ``[0, 1]``; the black around the image does not take part."""
    body = pixels[pixels > 0]
    if body.size == 0:
        return pixels
    counts, edges = np.histogram(body, 256, (0.0, 1.0))
    curve = np.cumsum(counts) / body.size
    mapped = np.interp(pixels, edges[1:], curve).astype(np.float32)
    mapped[pixels <= 0] = 0
    return mapped


def _tones(pixels: Pixels, plan: Augmentation, rng: np.random.Generator) -> Pixels:
    """Another look-up table: equalisation, gamma, contrast and brightness."""
    if rng.random() < plan.equalise:
        share = np.float32(rng.uniform(0.3, 1.0))
        pixels = (1 - share) * pixels + share * equalised(pixels)
    pixels = np.clip(pixels, 0, 1) ** np.float32(math.exp(rng.uniform(-plan.gamma, plan.gamma)))
    gain = math.exp(rng.uniform(-plan.contrast, plan.contrast))
    offset = rng.uniform(-plan.brightness, plan.brightness)
    return ((pixels - 0.5) * np.float32(gain) + np.float32(0.5 + offset)).astype(np.float32)


def _detail(image: Grey, plan: Augmentation, rng: np.random.Generator) -> Grey:
    """Softer or, as many consoles do, edge-enhanced."""
    if rng.random() >= plan.sharpen:
        return image
    picture = Image.fromarray(image)
    if rng.random() < 0.5:
        return np.asarray(picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.2))))
    sharp = ImageFilter.UnsharpMask(radius=rng.uniform(1, 8), percent=int(rng.uniform(30, 150)), threshold=0)
    return np.asarray(picture.filter(sharp))


def _edges(pixels: Pixels, plan: Augmentation, rng: np.random.Generator) -> Pixels:
    """Collimator edges (black or white bars) and a lead marker in a corner region."""
    side = pixels.shape[0]
    if rng.random() < plan.collimate:
        bar = int(rng.integers(1, max(2, side // 12)))
        view = np.rot90(pixels, int(rng.integers(4)))
        view[:bar] = float(rng.random() < 0.25)
    if rng.random() < plan.marker:
        height, width = rng.integers(max(1, side // 32), max(2, side // 12), 2)
        top = int(rng.integers(0, side // 3))
        left = int(rng.choice([rng.integers(0, side // 6), side - width - rng.integers(0, side // 6)]))
        pixels[top : top + height, left : left + width] = rng.uniform(0.8, 1.0)
    return pixels


def random_greys(image: Grey, plan: Augmentation, rng: np.random.Generator) -> Pixels:
    """Another detector and console for the same geometry: ``float32`` in ``[0, 1]``, padding stays black."""
    outside = image == 0
    pixels = _detail(image, plan, rng).astype(np.float32) / np.float32(255)
    pixels = _tones(pixels, plan, rng)
    if plan.noise:
        pixels = pixels + rng.normal(0, rng.uniform(0, plan.noise), pixels.shape).astype(np.float32)
    pixels[outside] = 0
    return np.clip(_edges(pixels, plan, rng), 0, 1).astype(np.float32)
