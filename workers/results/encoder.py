"""Interface of an encoder: input and result. Encoders are pure: no clock, no randomness, no I/O.

Each encoder is one file; :mod:`workers.results.encoders` registers them in the order of storing: a SEG is stored before
the SR that references it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydicom.dataset import Dataset

from models.contract import ModelInput, Prediction
from workers.results.identity import Identity


@dataclass(frozen=True, slots=True)
class Equipment:
    """Equipment that makes an object (PS3.3 C.7.5.1, C.7.5.2): the same values in every object and in its content."""

    manufacturer: str
    manufacturer_model_name: str
    software_versions: tuple[str, ...]
    station_name: str
    device_serial_number: str
    institution_name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """One analysed (or not analysed) image: the input of an encoder.

    ``source`` is the header of the source image with its file meta information, without PixelData. An encoder that
    draws uses the pixels of ``model_input``, whose grid is that of the source. ``created_at`` is the job's time, with
    time zone. ``siblings`` are the objects of this analysis from earlier encoders of the registry, by kind. For a
    revision, ``previous`` has the predecessor objects by kind (SOP Class UID, SOP Instance UID) and ``previous_series``
    their Series Instance UIDs: they are not derived from this identity if a model's state has changed since.
    """

    source: Dataset
    model_input: ModelInput | None
    prediction: Prediction
    identity: Identity
    equipment: Equipment
    created_at: datetime
    series_number_base: int = 9000
    sr_storage: str = "comprehensive-3d"
    seg_storage: str = "binary"
    siblings: Mapping[str, Dataset] = field(default_factory=dict)
    previous: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    previous_series: Mapping[str, str] = field(default_factory=dict)


Encoder = Callable[[Analysis], Dataset | None]
"""Makes one kind of object, with file meta, that can be written with ``enforce_file_format=True``; ``None`` if this
analysis has no content for it."""
