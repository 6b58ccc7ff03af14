"""Small radiographs as a modality sends them, made of their numbers: who they are is known without a record of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from pydicom.dataset import FileDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from tests.viewers.phantoms import Look, radiograph

ROOT = "1.2.826.0.1.3680043.10.1"
SIDE = 128  # the smallest that is analysed


@dataclass(frozen=True, slots=True)
class Image:
    """One radiograph in a study of its own; ``patient`` names it in everything that is made of it."""

    sop_instance: str
    patient: str
    data_set: bytes

    @property
    def study(self) -> str:
        """Its Study Instance UID."""
        return f"{self.sop_instance.rpartition('.')[0]}.2"


def image(seed: int, number: int, *, stat: bool = False, side: int = SIDE) -> Image:
    """The radiograph with this number; with ``stat`` the description of its study says so."""
    made = _drawn(side)
    root = f"{ROOT}.{seed}.{number}"
    made.SOPInstanceUID, made.StudyInstanceUID, made.SeriesInstanceUID = f"{root}.1", f"{root}.2", f"{root}.3"
    made.PatientID, made.AccessionNumber = f"C{seed}-{number:06d}", f"A{number:06d}"
    made.StudyDescription = "Chest PA STAT" if stat else "Chest PA"
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, made)
    return Image(made.SOPInstanceUID, made.PatientID, buffer.getvalue())


@cache
def _drawn(side: int) -> FileDataset:
    return radiograph(Look("CR", rows=side, columns=side))
