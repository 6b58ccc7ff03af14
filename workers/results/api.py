"""The public Python API of Pleura's results: DICOM objects from a prediction (``docs/python-api.md``).

What this module names in ``__all__`` keeps its names and meaning within a major version. Every other module of
``workers`` is private and may change at any time.
"""

from __future__ import annotations

import models.own_packages  # noqa: F401 - first, so that a foreign config.py is named before it is imported

# isort: split
import hashlib
from collections.abc import Collection, Iterator
from dataclasses import fields, is_dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from models.contract import ModelInput, Prediction
from models.radiograph.decode import UnreadablePixels, read_file
from workers.results.encoder import Analysis, Equipment
from workers.results.encoders import ENCODERS, encode_in_order
from workers.results.identity import Identity
from workers.results.source_image import sound_header

__all__ = ["RESULT_KIND_NAMES", "Equipment", "UnreadablePixels", "make_objects"]

RESULT_KIND_NAMES: tuple[str, ...] = tuple(entry.kind for entry in ENCODERS)
"""Kinds of objects: Segmentation, Structured Report, Secondary Capture with the outline, presentation state, and the
lung fields as a Segmentation of their own."""


def make_objects(
    source: str | Path | Dataset,
    radiograph: ModelInput,
    prediction: Prediction,
    *,
    created_at: datetime,
    kinds: Collection[str] = ("seg", "sr"),
    equipment: Equipment | None = None,
    uid_root: str = "2.25",
) -> dict[str, Dataset]:
    """DICOM objects of a prediction, by kind, ready for ``save_as(path, enforce_file_format=True)``.

    ``source`` is the radiograph's file or data set, whose patient and study they belong to; ``radiograph`` and
    ``prediction`` are what ``models.api`` made of it. A kind is left out where the prediction has nothing for it: no
    mask, no Segmentation. An image that was not analysed has no objects. The same arguments give the same objects with
    the same UIDs; other arguments give other UIDs.

    Raises:
        UnreadablePixels: the source is no DICOM file, or lacks what every object must refer to.
        ValueError: a kind that does not exist, a time without a time zone, or a prediction of another image.
    """
    unknown = set(kinds) - set(RESULT_KIND_NAMES)
    if unknown:
        raise ValueError(f"there is no kind {', '.join(sorted(unknown))} (there are: {', '.join(RESULT_KIND_NAMES)})")
    if created_at.utcoffset() is None:
        raise ValueError("created_at needs a time zone")
    header = sound_header(source if isinstance(source, Dataset) else read_file(Path(source), stop_before_pixels=True))
    if (prediction.shape, radiograph.sop_instance_uid) != (radiograph.shape, str(header.SOPInstanceUID)):
        raise ValueError("source, radiograph and prediction are not of the same image")
    if prediction.not_analysed is not None:
        return {}
    made_by = equipment or _own_equipment()
    said = (prediction.shape, prediction.findings, prediction.models, prediction.lung_fields)
    content = (*said, made_by, created_at.isoformat(), *_versions())
    identity = Identity(
        uid_root=uid_root,
        sop_instance_uid=str(header.SOPInstanceUID),
        instance_digest=_digest((header.to_json(), radiograph.pixels)),
        pipeline=_digest(content),
        revision=1,
    )
    analysis = Analysis(header, radiograph, prediction, identity, made_by, created_at)
    return encode_in_order(ENCODERS, analysis, kinds)


def _own_equipment() -> Equipment:
    return Equipment("Pleura", "Pleura", (version("pleura"),), "PLEURA", "PLEURA")


def _versions() -> tuple[str, ...]:
    return tuple(f"{entry.kind}={entry.version}" for entry in ENCODERS)


def _digest(value: object) -> str:
    """SHA-256 over values of values, arrays by their content; each part is preceded by its length."""
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, tuple):
        yield f"tuple of {len(value)}".encode()
        for each in value:
            yield from _parts(each)
    elif is_dataclass(value):
        for field in fields(value):
            yield field.name.encode()
            yield from _parts(getattr(value, field.name))
    else:
        yield repr(value).encode()
