"""Time and memory of SEG and SR for a large radiograph: ``python -m benchmarks.encode [--rows R] [--columns C]``.

Each run is a process of its own. It encodes a small image first, which loads highdicom and its tables (``first``), then
makes the source header and the masks of the large one, encodes and writes both objects to memory (``seconds`` on the
clock, ``cpu`` of the process alone), and notes the peak. Prints median and range, and one raw line for each run. With
``--against CHECKOUT`` every run is done with the code of another working tree too, in turn, and a ratio is this tree's
median divided by the other's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from models.contract import Finding, Mask, ModelInput, ModelUse, Prediction, Spacing
from models.model_spec import Code
from workers.results.encoder import Analysis, Equipment
from workers.results.identity import Identity


def source(rows: int, columns: int) -> Dataset:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SpecificCharacterSet = "ISO_IR 100"
    header.SOPClassUID = DigitalXRayImageStorageForPresentation
    header.SOPInstanceUID, header.SeriesInstanceUID, header.StudyInstanceUID = "2.25.1", "2.25.2", "2.25.3"
    header.PatientName, header.PatientID, header.Modality = "Bench^Mark", "B", "DX"
    header.PatientOrientation = ["L", "F"]
    header.Rows, header.Columns = rows, columns
    return header


def masks(rows: int, columns: int) -> list[Mask]:
    """Two smooth blobs with ragged edges, as a model's enlarged map gives them."""
    y, x = np.ogrid[:rows, :columns]
    wave = 1 + 0.08 * np.sin(x / 37) + 0.08 * np.cos(y / 23)
    left = ((y - 0.4 * rows) / (0.2 * rows)) ** 2 + ((x - 0.25 * columns) / (0.12 * columns)) ** 2 < wave
    right = ((y - 0.6 * rows) / (0.1 * rows)) ** 2 + ((x - 0.7 * columns) / (0.1 * columns)) ** 2 < wave
    return [left, right]


def analysis(rows: int, columns: int) -> Analysis:
    header = source(rows, columns)
    model = ModelUse("bench", "1", "Benchmark model", "00" * 32, "2.25.4")
    findings = tuple(
        Finding(f"finding {index}", Code("36118008", "SCT", "Pneumothorax"), "bench", 0.9, 0.5, mask=mask)
        for index, mask in enumerate(masks(rows, columns))
    )
    return Analysis(
        source=header,
        model_input=ModelInput(np.zeros((rows, columns), np.float32), "2.25.1", Spacing(0.14, 0.14, "detector"), "PA"),
        prediction=Prediction((rows, columns), findings, models=(model,)),
        identity=Identity("2.25", "2.25.1", "aa", "bb", 1),
        equipment=Equipment("Pleura", "Pleura", ("1",), "PLEURA", "1"),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def one_run(rows: int, columns: int) -> dict[str, float]:
    start = time.perf_counter()
    encoded(analysis(64, 64))
    first = time.perf_counter() - start
    work = analysis(rows, columns)
    start, cpu = time.perf_counter(), time.process_time()
    size = encoded(work)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"first": first, "seconds": seconds, "cpu": cpu, "peak_mib": peak, "bytes": size}


def encoded(work: Analysis) -> int:
    """Encode SEG and SR, and write both to memory; the number of bytes."""
    # What it costs to load them is measured, too.
    from workers.results import file_bytes, segmentation, structured_report

    seg = segmentation.encode(work)
    assert seg is not None
    report = structured_report.encode(Analysis(**{**_fields(work), "siblings": {"seg": seg}}))
    assert report is not None
    return sum(len(file_bytes.file_bytes(made)) for made in (seg, report))


def _fields(work: Analysis) -> dict[str, Any]:
    return {name: getattr(work, name) for name in Analysis.__slots__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--columns", type=int, default=2500)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--against", type=Path, help="another working tree to compare with")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        sys.stdout.write(json.dumps(one_run(chosen.rows, chosen.columns)))
        return
    trees = [Path(__file__).resolve().parent.parent, *([chosen.against.resolve()] if chosen.against else [])]
    runs: list[list[dict[str, float]]] = [[] for _ in trees]
    for _ in range(chosen.runs):
        for tree, done in zip(trees, runs, strict=True):
            done.append(run_in(tree, chosen.rows, chosen.columns))
            print(tree, done[-1])
    for name, unit in (("first", "s"), ("seconds", "s"), ("cpu", "s"), ("peak_mib", "MiB")):
        medians = []
        for tree, done in zip(trees, runs, strict=True):
            values = [run[name] for run in done]
            medians.append(statistics.median(values))
            print(f"{tree} {name}: median {medians[-1]:.3f} {unit} ({min(values):.3f} to {max(values):.3f})")
        if len(medians) > 1:
            print(f"{name}: ratio {medians[0] / medians[1]:.2f}")


def run_in(tree: Path, rows: int, columns: int) -> dict[str, float]:
    """One run with the code of a working tree."""
    command = [sys.executable, "-P", __file__, "--child", "--rows", str(rows), "--columns", str(columns)]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=tree)
    read: dict[str, float] = json.loads(found.stdout)
    return read


if __name__ == "__main__":
    main()
