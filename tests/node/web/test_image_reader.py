"""A file that bombs, hangs or crashes its reader costs one process, never the page; and reaches no disk."""

from __future__ import annotations

import io
import os
import signal
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from models.radiograph.reading import read_model_input
from node.web import image_process
from node.web.image_process import ImageError
from node.web.image_reader import ImageReader, ReadingLimits
from tests.node.web.conftest import Site

MIB = 1024 * 1024


@pytest.fixture
def reader() -> Iterator[ImageReader]:
    made = ImageReader(ReadingLimits(file_bytes=16 * MIB, memory_bytes=256 * MIB, seconds=20))
    yield made
    made.close()


def picture() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.tile(np.arange(0, 250, 5, dtype=np.uint8), (40, 1))).save(out, "PNG")
    return out.getvalue()


def process_of(reader: ImageReader) -> int:
    assert reader._process is not None
    return reader._process.pid


def deflated_bomb(mebibytes: int) -> bytes:
    """A file whose data set inflates to an element of that many MiB of zeros (PS3.5 A.5)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    out = io.BytesIO()
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.save_as(out, enforce_file_format=True)
    head = out.getvalue()[: 132 + 12 + struct.unpack("<L", out.getvalue()[140:144])[0]]
    press = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    parts = [press.compress(struct.pack("<HH2sHL", 0x0009, 0x1001, b"OB", 0, mebibytes * MIB))]
    parts += [press.compress(bytes(MIB)) for _ in range(mebibytes)]
    return head + b"".join(parts) + press.flush()


def test_what_is_read_there_is_what_is_read_here(reader: ImageReader, tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(_radiograph())
    here, there = read_model_input(path), reader.read_stored(path)
    assert np.array_equal(here.pixels, there.pixels)
    for name in ("spacing", "view", "patient_orientation", "pixel_aspect", "notes", "sop_instance_uid"):
        assert getattr(here, name) == getattr(there, name), name
    assert np.array_equal(reader.read_upload(path.read_bytes()).pixels, here.pixels)
    assert reader.read_upload(picture()).shape == (40, 50)


def _radiograph() -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.4"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 30, 20, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.ImagerPixelSpacing = [0.2, 0.1]
    dataset.ViewPosition = "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.PixelData = np.arange(600, dtype=np.uint16).tobytes()
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def test_a_file_that_inflates_without_end_ends_in_a_sentence(reader: ImageReader) -> None:
    bomb = deflated_bomb(1024)
    assert len(bomb) < 2 * MIB
    with pytest.raises(ImageError):
        reader.read_upload(bomb)
    assert reader.read_upload(picture()).shape == (40, 50)


def test_a_picture_that_claims_to_be_huge_is_not_decoded(reader: ImageReader) -> None:
    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "PNG")
    with pytest.raises(ImageError, match="million pixels"):
        reader.read_upload(out.getvalue())


def test_a_picture_with_a_text_that_inflates_without_end_is_not_read(reader: ImageReader) -> None:
    text = b"Comment\0\0" + zlib.compress(bytes(100 * MIB))
    chunk = struct.pack(">L", len(text)) + b"zTXt" + text + struct.pack(">L", zlib.crc32(b"zTXt" + text))
    with pytest.raises(ImageError, match="not a readable"):
        reader.read_upload(picture()[:33] + chunk + picture()[33:])


def test_an_unexpected_error_is_logged_by_the_page_although_its_process_can_write_no_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (tmp_path / "log").open("wb") as out:
        before = os.dup(2)
        os.dup2(out.fileno(), 2)  # as in `pleura serve 2>log`
        reader = ImageReader(ReadingLimits(file_bytes=MIB, seconds=20))
        try:
            with pytest.raises(ImageError, match="cannot be read"):
                reader.read_stored(tmp_path / "a\0b")
            first = process_of(reader)
            assert reader.read_upload(picture()).shape == (40, 50)
            assert process_of(reader) == first
        finally:
            reader.close()
            os.dup2(before, 2)
            os.close(before)
    assert "Traceback" in caplog.text


def test_a_file_that_never_ends_is_given_up_and_the_next_one_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "endless")
    reader = ImageReader(ReadingLimits(file_bytes=MIB, seconds=3))
    try:
        with pytest.raises(ImageError, match="longer than is allowed"):
            reader.read_stored(tmp_path / "endless")
        assert reader.read_upload(picture()).shape == (40, 50)
    finally:
        reader.close()


def test_the_start_of_the_process_takes_nothing_of_the_time_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first file on a busy machine was said to take too long."""
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\nsleep 4\nexec "{sys.executable}" "$@"\n')
    slow.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(slow))
    reader = ImageReader(ReadingLimits(file_bytes=MIB, seconds=3))
    try:
        assert reader.read_upload(picture()).shape == (40, 50)
        reader.close()
        monkeypatch.setattr("node.web.image_reader._START_SECONDS", 0.1)
        with pytest.raises(ImageError, match="does not start"):
            reader.read_upload(picture())
    finally:
        reader.close()


def test_a_crash_in_a_decoder_costs_one_file(
    reader: ImageReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "endless")
    reader.read_upload(picture())
    first = process_of(reader)

    def send_and_crash(*message: Any) -> None:
        image_process.send(*message)
        os.kill(first, signal.SIGSEGV)

    with monkeypatch.context() as crashing:
        crashing.setattr("node.web.image_reader.send", send_and_crash)
        with pytest.raises(ImageError, match="has crashed"):
            reader.read_stored(tmp_path / "endless")
    assert reader.read_upload(picture()).shape == (40, 50)
    assert process_of(reader) != first


def test_nested_sequences_to_any_depth_end_in_a_sentence(reader: ImageReader) -> None:
    whole = _radiograph()
    depth = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 2**32 - 1
    )
    cut = whole.index(b"\x08\x00\x16\x00UI")
    with pytest.raises(ImageError):
        reader.read_upload(whole[:cut] + depth * 50_000)
    assert reader.read_upload(picture()).shape == (40, 50)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_may_write_no_file_leaves_no_core_dump_and_knows_no_secret(
    reader: ImageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEURA_DATABASE__URL", "postgresql://pleura:secret@db/pleura")
    reader.read_upload(picture())
    # Its folder in /proc is another user's where it is not dumpable; root still reads it.
    limits = Path(f"/proc/{process_of(reader)}/limits").read_text()
    for name in ("Max file size", "Max core file size"):
        assert next(line for line in limits.splitlines() if line.startswith(name)).split()[-3:-1] == ["0", "0"], name
    if os.geteuid() == 0:
        assert b"secret" not in Path(f"/proc/{process_of(reader)}/environ").read_bytes()


def test_a_message_that_is_too_long_is_not_read() -> None:
    for text in (struct.pack(">Q", 2**60), struct.pack(">Q", 2) + b"{}" + struct.pack(">Q", 101)):
        with pytest.raises(ValueError, match="too long"):
            image_process.receive(io.BytesIO(text), 100)


def test_a_file_to_try_is_never_spilled_into_a_file(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three megabytes, and no folder for temporary files: what would write one has nowhere to."""
    client = site.logged_in("radiologist")
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (1800, 1800), dtype=np.uint8)).save(out, "PNG")
    assert len(out.getvalue()) > 3_000_000
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert client.post("/try", files={"file": ("chest.png", out.getvalue(), "image/png")}).status_code == 303


def test_a_file_over_the_limit_is_refused(site: Site) -> None:
    client = site.logged_in("radiologist")
    huge = bytes(site.settings.admin.upload_bytes + MIB)
    assert client.post("/try", files={"file": ("chest.png", huge, "image/png")}).status_code == 413
