"""What an encoder is given and what it gives back. Encoders are pure: no clock, no randomness, no I/O.

One encoder a file; :mod:`workers.results.encoders` names them. The order of the registry is the order of storing:
a SEG goes before the SR that refers to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pydicom.dataset import Dataset

from models.contract import ModelInput, Prediction
from workers.results.identity import Identity


@dataclass(frozen=True, slots=True)
class Equipment:
    """Who made an object (PS3.3 C.7.5.1, C.7.5.2): the same values in every object and in its content."""

    manufacturer: str
    manufacturer_model_name: str
    software_versions: tuple[str, ...]
    station_name: str
    device_serial_number: str
    institution_name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """One analysed (or not analysed) image: all that an encoder may use.

    ``source`` is the header of the source image with its file meta, without PixelData; an encoder that draws gets the
    pixels from ``model_input``, whose grid is the source's. ``created_at`` is the job's time, aware. ``siblings``
    holds the objects of this analysis that earlier encoders of the registry made, by kind. ``previous`` names the
    predecessor objects by kind (SOP class UID, SOP instance UID) where this is a revision, ``previous_series`` their
    Series Instance UIDs: a model may have been switched since, and then they are not derived from this identity.
    """

    source: Dataset
    model_input: ModelInput | None
    prediction: Prediction
    identity: Identity
    equipment: Equipment
    created_at: datetime
    series_number_base: int = 9000
    sr_storage: str = "comprehensive-3d"
    siblings: Mapping[str, Dataset] = field(default_factory=dict)
    previous: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    previous_series: Mapping[str, str] = field(default_factory=dict)


class Encoder(Protocol):
    """Makes one kind of object, or ``None`` where this analysis has nothing of that kind to say."""

    def __call__(self, analysis: Analysis) -> Dataset | None:
        """Encode ``analysis``; the result has its file meta and can be written with ``enforce_file_format=True``."""
        ...
