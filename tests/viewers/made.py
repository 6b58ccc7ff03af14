"""Pleura's own objects for a drawn radiograph: the mask is the drawn mark, so the expectation never comes from us."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

from pydicom.dataset import Dataset, FileDataset

from models.contract import Finding, ModelInput, ModelUse, Prediction, Spacing
from models.model_spec import Code
from tests.viewers.phantoms import Look, as_bytes, mark, picture
from workers.results.encoder import Analysis, Equipment
from workers.results.encoders import ENCODERS
from workers.results.identity import Identity

PROBABILITY = 0.875
PNEUMOTHORAX = Code("36118008", "SCT", "Pneumothorax")
# What a real pipeline says besides: of the whole image, without a place. Viewers must draw the outline all the same.
ELSEWHERE = (
    Finding("abnormal", Code("263654008", "SCT", "Abnormal"), "chest", 0.75, 0.5),
    Finding("pneumonia", Code("233604007", "SCT", "Pneumonia"), "chest", 0.125, 0.5),
)


def analysis(source: FileDataset, look: Look) -> Analysis:
    """What a worker would know of ``source`` after a model has found the drawn mark, and more in the whole image."""
    model = ModelUse("chest", "1.0", "Chest model", "a" * 64, "2.25.1234567890")
    mask = mark(look.rows, look.columns)
    finding = Finding("pneumothorax", PNEUMOTHORAX, "chest", PROBABILITY, 0.5, mask=mask)
    spacing = None
    if look.spacing is not None:
        spacing = Spacing(look.spacing, look.spacing, "patient" if look.style == "SC" else "detector")
    return Analysis(
        source=header(source),
        model_input=ModelInput(
            picture(look.rows, look.columns), str(source.SOPInstanceUID), spacing, "PA", look.orientation
        ),
        prediction=Prediction(mask.shape, (ELSEWHERE[0], finding, ELSEWHERE[1]), models=(model,)),
        identity=Identity("2.25", str(source.SOPInstanceUID), sha256(as_bytes(source)).hexdigest(), "p" * 64, 1),
        equipment=Equipment("Pleura", "Pleura", ("0.1.0",), "PLEURA", "1"),
        created_at=datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
    )


def header(source: FileDataset) -> Dataset:
    """A copy without pixels."""
    bare = Dataset({element.tag: element for element in source if element.keyword != "PixelData"})
    bare.file_meta = source.file_meta
    return bare


def results(source: FileDataset, look: Look) -> dict[str, Dataset]:
    """Every object of the registry, by kind, in the order of storing."""
    made: dict[str, Dataset] = {}
    for entry in ENCODERS:
        one = entry.encode(replace(analysis(source, look), siblings=dict(made)))
        if one is not None:
            made[entry.kind] = one
    return made
