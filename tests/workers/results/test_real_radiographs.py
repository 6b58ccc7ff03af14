"""Real headers: the radiographs of the shared data through every encoder and dciodvfy."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from models.radiograph.reading import spacing_of
from tests.workers.results.sources import analysis, encode_all, finding, study_summary, write
from tests.workers.results.test_objects import complaints
from workers.results.result_reader import problems, read_masks, read_result

FILES = [
    "dicom/00000910_001.cr.dcm",
    "dicom/00002474_004.sc-jpeg.dcm",
    "dicom/00003259_001.dx12.dcm",
    "dicom/00003350_000.dx12-mono1.dcm",
    "dicom/siim-1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm",
    "wg04/RG1_JLSN.dcm",
]


@pytest.mark.peer("shared-data", "dciodvfy")
@pytest.mark.parametrize("name", FILES)
def test_every_kind_from_a_real_header(shared_data, tmp_path, name):
    header = pydicom.dcmread(shared_data / name, stop_before_pixels=True)
    rows, columns = np.ogrid[: header.Rows, : header.Columns]
    mask = (rows - header.Rows * 0.3) ** 2 + (columns - header.Columns * 0.25) ** 2 < (header.Rows * 0.1) ** 2
    work = analysis(header, (finding(mask=mask),), spacing=spacing_of(header))
    made = {**encode_all(work), "summary": study_summary(header)}
    for kind, item in made.items():
        assert complaints(write(item, tmp_path / f"{kind}.dcm")) == ([], []), kind
    assert np.array_equal(read_masks(made["seg"])[0], mask)
    read = [read_result(item) for kind, item in made.items() if kind != "summary"]
    assert problems(read, [header]) == []
    zero = "PixelSpacing" in header and not header.PixelSpacing[0]
    area = read[1].statements[0].area
    assert area.endswith(("{pixels}",) if zero else ("mm2", "cm2"))
