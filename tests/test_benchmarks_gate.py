"""The volumes of ``benchmarks.gate``: a NIfTI file is shown as a radiograph hangs, and projected from the front."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gate import GRID, projection, read_volume, slices

AIR, BONE = -1000, 1000
SHAPE = (60, 40, 30)
"""Points from side to side, from front to back, and in height, each 2 mm apart."""


def nifti(file: Path, signs: tuple[int, int, int]) -> Path:
    """Air with a block at the patient's right, front and head, stored along axes of these signs (1: R, A, S)."""
    values = np.full(SHAPE, AIR, np.int16)
    values[-10:, -10:, -6:] = BONE
    values = values[:: signs[0], :: signs[1], :: signs[2]]
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *SHAPE, 1, 1, 1, 1)
    struct.pack_into("<h", head, 70, 4)
    struct.pack_into("<8f", head, 76, 1, GRID, GRID, GRID, 0, 0, 0, 0)
    struct.pack_into("<3f", head, 108, 352, 1, 0)
    for axis, sign in enumerate(signs):
        struct.pack_into("<f", head, 280 + 16 * axis + 4 * axis, sign * GRID)
    file.write_bytes(gzip.compress(bytes(head) + values.tobytes(order="F")))
    return file


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
def test_right_is_left_front_is_first_and_the_head_is_up(tmp_path: Path, signs: tuple[int, int, int]) -> None:
    volume = read_volume(nifti(tmp_path / "ct.nii.gz", signs))
    assert volume.shape == (30, 40, 60)
    z, y, x = np.nonzero(volume == BONE)
    assert (z.max(), y.max(), x.max()) == (5, 9, 9)


def test_a_projection_hangs_as_a_radiograph(tmp_path: Path) -> None:
    volume = read_volume(nifti(tmp_path / "ct.nii.gz", (1, 1, 1)))
    front = projection(volume, 0).pixels
    assert front.shape == (256, 512)
    rows, columns = np.nonzero(front > 0.5)
    assert rows.max() < 256 / 4
    assert columns.max() < 512 / 5, "the patient's right hangs on the left"
    assert {name for name, _ in slices(volume)} == {"axial", "coronal"}, "empty slices are left out"


def test_what_is_no_volume_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(bytes(400))
    with pytest.raises(ValueError, match="no little-endian NIfTI-1"):
        read_volume(tmp_path / "a.nii")
