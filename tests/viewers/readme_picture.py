"""Make the README's picture: NEMA's RG1 in OHIF with the SEG and the SR of a real node.

``python -m tests.viewers.readme_picture FOLDER`` runs the whole way: Orthanc, ``pleura serve`` with the bundled models,
OHIF in a browser. Needs what the tests of this folder need, and the package ``pydicom-data``.

RG1 says that its pixels are 0 mm wide, and OHIF draws such an image as a black square, with or without results of ours.
So the copy that is shown here has no Pixel Spacing at all; its pixels are NEMA's.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pydicom import dcmread
from pydicom.data import get_testdata_file

from tests.integration.pleura import running_pleura
from tests.orthanc import Orthanc, running_orthanc, wait_until
from tests.ports import free_port
from tests.viewers.conftest import Viewers
from tests.viewers.origin import running_origin
from tests.viewers.phantoms import as_bytes


def _series(pacs: Orthanc, modality: str) -> int | None:
    """Series Number of the first series of ``modality``, once it is in the PACS."""
    numbers = sorted(int(one.SeriesNumber) for one in pacs.datasets(Modality=modality))
    return numbers[0] if numbers else None


def make(folder: Path) -> None:
    """Write ohif-seg.png and ohif-sr.png into ``folder``."""
    radiograph = dcmread(str(get_testdata_file("RG1_UNCR.dcm", download=False)))
    del radiograph.PixelSpacing
    study = str(radiograph.StudyInstanceUID)
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_origin() as origin,
        running_orthanc(Path(scratch) / "pacs", origin=origin.address, modalities={"pleura": ("PLEURA", port)}) as pacs,
        running_pleura(Path(scratch) / "pleura", pacs, port, bundled=True) as node,
    ):
        origin.connect(pacs.http_port)
        pacs.store_to("pleura", pacs.upload(as_bytes(radiograph)))
        seg = wait_until(lambda: _series(pacs, "SEG"), "the SEG of RG1", 180, alive=node.check_alive)
        report = wait_until(lambda: _series(pacs, "SR"), "the SR of RG1", 60, alive=node.check_alive)
        case = {"name": "rg1", "study": study, "seg": seg, "sr": report, "folder": str(folder)}
        seen = Viewers(origin, pacs).drive("ohif.mjs", [case], size={"width": 1280, "height": 860})
        assert "failed" not in seen["rg1"], seen


if __name__ == "__main__":
    make(Path(sys.argv[1]))
