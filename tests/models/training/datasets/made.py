"""Tiny data sets in each original layout, with pixels drawn here."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

Grey = np.ndarray


def gradient(rows: int = 32, columns: int = 32, seed: int = 0) -> Grey:
    rng = np.random.default_rng(seed)
    across = np.linspace(20, 200, columns)[np.newaxis, :] + np.linspace(0, 40, rows)[:, np.newaxis]
    return np.clip(across + rng.normal(0, 4, (rows, columns)), 0, 255).astype(np.uint8)


def write_dicom(file: Path, pixels: Grey, uid: str = "1.2.3", **attributes: object) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, uid
    dataset.PatientID, dataset.PatientSex, dataset.PatientAge = "P1", "F", "062Y"
    dataset.ViewPosition = "PA"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(file, enforce_file_format=True)
    return file


def write_png(file: Path, pixels: Grey) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return file


def write_rows(file: Path, head: list[str], rows: list[list[object]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(head)
        writer.writerows(rows)
    return file


def siim(folder: Path, rows: list[tuple[str, str]], images: dict[str, str]) -> Path:
    """``images`` maps SOP Instance UIDs to patients; the head has the challenge's odd blanks."""
    write_rows(folder / "train-rle.csv", ["ImageId", " EncodedPixels"], [[uid, " " + text] for uid, text in rows])
    for number, (uid, patient) in enumerate(images.items()):
        pixels = gradient(seed=number)
        write_dicom(folder / "dicom-images-train" / uid / f"{uid}.dcm", pixels, uid, PatientID=patient)
    return folder


def rsna(folder: Path, rows: list[list[object]], classes: list[tuple[str, str]], images: list[str]) -> Path:
    head = ["patientId", "x", "y", "width", "height", "Target"]
    write_rows(folder / "stage_2_train_labels.csv", head, rows)
    write_rows(folder / "stage_2_detailed_class_info.csv", ["patientId", "class"], [list(row) for row in classes])
    for number, name in enumerate(images):
        file = folder / "stage_2_train_images" / f"{name}.dcm"
        write_dicom(file, gradient(64, 64, number), f"1.2.{number}", PatientID=name)
    return folder


NIH_HEAD = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender"]
NIH_HEAD += ["View Position", "OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]", ""]


def nih(folder: Path, rows: list[tuple[str, str, str]], images: list[str]) -> Path:
    """``rows``: image, findings, patient."""
    body = [[image, found, 0, who, "058Y", "M", "PA", 2500, 2048, 0.171, 0.171, ""] for image, found, who in rows]
    write_rows(folder / "Data_Entry_2017.csv", NIH_HEAD, body)
    for number, name in enumerate(images):
        write_png(folder / "images_001" / "images" / name, gradient(seed=number))
    return folder


def two_lungs(*, left_only: bool = False) -> Grey:
    """A mask of 40 x 32 pixels with a region on either side of the picture (or the one on its left alone)."""
    drawn = np.zeros((40, 32), np.uint8)
    drawn[8:30, 4:13] = 255
    if not left_only:
        drawn[6:32, 19:29] = 255
    return drawn


def lungs(folder: Path, rows: list[tuple[str, str]]) -> Path:
    """``rows`` are images and their patients."""
    write_rows(folder / "index.csv", ["image", "mask", "patient_id"], [[image, image, who] for image, who in rows])
    for image, _ in rows:
        write_png(folder / "images" / image, gradient(40, 32))
        write_png(folder / "masks" / image, two_lungs())
    return folder


def readings(folder: Path, expert: list[list[object]], extra: list[list[object]]) -> Path:
    """``expert``: image, consolidation, effusion. ``extra``: name, NIH's labels, patient, what experts found.

    The folder ``cxr`` has to be there. Whatever is a consolidation has a mask: its left upper quarter.
    """
    (folder / "cxr_expert" / "masks").mkdir(parents=True)
    (folder / "cxr_extra" / "images").mkdir(parents=True)
    quarter = np.zeros((32, 32), np.uint8)
    quarter[:16, :16] = 255
    write_rows(folder / "cxr_expert" / "chestxdet.csv", ["image", "Consolidation", "Effusion"], expert)
    for name, consolidation, _ in expert:
        if consolidation:
            write_png(folder / "cxr_expert" / "masks" / f"{Path(str(name)).stem}.Consolidation.png", quarter)
    head = ["file", "nih_labels", "mask_files", "patient_id", "age", "sex", "view", "chestxdet_expert"]
    rows: list[list[object]] = []
    for name, labels, patient, found in extra:
        write_png(folder / "cxr_extra" / "images" / str(name), gradient())
        if "Consolidation" in str(found):
            write_png(folder / "cxr_extra" / "masks" / f"{Path(str(name)).stem}.Consolidation.png", quarter)
        rows.append([f"images/{name}", labels, "", patient, "70", "F", "PA", found])
    write_rows(folder / "cxr_extra" / "index.csv", head, rows)
    return folder
