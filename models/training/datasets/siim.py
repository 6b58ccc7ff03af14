"""The SIIM-ACR pneumothorax challenge: ``train-rle.csv`` and DICOM files anywhere below the folder.

An image has one row with ``-1``, or one row for each region of its mask. Files are found by the SOP Instance UID that
they hold, whatever they are called.
"""

from __future__ import annotations

from pathlib import Path

from models.training.datasets import rle
from models.training.datasets.headers import Header, content_digest, counted, dicom_files, read_header
from models.training.datasets.layout import Gathered, Layout, Progress, read_table
from models.training.datasets.pixels import UnreadableImage
from models.training.datasets.sample import Dataset, DatasetError, Sample

PNEUMOTHORAX, NORMAL = "pneumothorax", "normal"
_TABLES = ("train-rle.csv", "train-rle.csv.gz", "stage_2_train.csv", "stage_2_train.csv.gz")


def _table(folder: Path) -> Path | None:
    return next((folder / name for name in _TABLES if (folder / name).is_file()), None)


def _holds(folder: Path) -> bool:
    return _table(folder) is not None


def _read(folder: Path, progress: Progress | None) -> Dataset:
    table = _table(folder)
    if table is None:
        raise DatasetError(f"{folder / _TABLES[0]} is missing")
    gathered = Gathered()
    texts = _texts(table, gathered)
    headers = _headers(folder, gathered, progress)
    for uid, own in texts.items():
        if uid not in headers:
            gathered.leave_out(uid, "no file has this SOP Instance UID")
            continue
        reason = _mistake(own, headers[uid])
        if reason:
            gathered.leave_out(uid, reason)
            continue
        gathered.samples[uid] = _sample(headers[uid], own)
    for uid in headers.keys() - texts.keys():
        gathered.leave_out(uid, "no row names this image")
    return gathered.dataset(SIIM.name)


def _texts(table: Path, gathered: Gathered) -> dict[str, tuple[str, ...]]:
    """The different texts about each image, in the order of the rows."""
    texts: dict[str, tuple[str, ...]] = {}
    for row in read_table(table, ("ImageId", "EncodedPixels")):
        uid, text = row.get("ImageId", ""), row.get("EncodedPixels", "")
        if not uid:
            gathered.leave_out("?", "a row names no image")
        elif text in texts.get(uid, ()):
            gathered.leave_out(uid, "a row stands there twice; it counts once")
        else:
            texts[uid] = (*texts.get(uid, ()), text)
    return texts


def _mistake(texts: tuple[str, ...], header: Header) -> str:
    """Why an image's rows cannot be used; empty where they can."""
    if header.rows != header.columns:
        return f"its masks are for a square image: it has {header.columns} x {header.rows} pixels"
    if rle.NOTHING in texts and len(texts) > 1:
        return "one row says that there is no pixel, another names some"
    for text in texts:
        try:
            rle.area(text)
        except rle.RleError as error:
            return f"a mask cannot be read: {error}"
    return ""


def _headers(folder: Path, gathered: Gathered, progress: Progress | None) -> dict[str, Header]:
    headers: dict[str, Header] = {}
    differing: set[str] = set()
    for file in counted(dicom_files(folder), "headers", progress):
        try:
            header = read_header(file)
        except UnreadableImage as error:
            gathered.leave_out(file.name, str(error))
            continue
        earlier = headers.setdefault(header.uid, header)
        if earlier is header:
            continue
        same = content_digest(earlier.file) == content_digest(file)
        gathered.leave_out(file.name, "the same file is there twice" if same else "two files of one UID differ")
        if not same:
            differing.add(header.uid)
    return {uid: header for uid, header in headers.items() if uid not in differing}


def _sample(header: Header, texts: tuple[str, ...]) -> Sample:
    regions = tuple(text for text in texts if text != rle.NOTHING)
    return Sample(
        name=header.uid,
        patient=header.patient or header.uid,
        image=header.file,
        labels={PNEUMOTHORAX: float(bool(regions)), NORMAL: float(not regions)},
        runs={PNEUMOTHORAX: regions},
        age=header.age,
        sex=header.sex,
        view=header.view,
    )


SIIM = Layout("siim", "train-rle.csv and DICOM files", _holds, _read)
