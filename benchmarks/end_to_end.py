"""From the answer to C-STORE to the arrival of the SEG at the destination, and studies per minute, of a whole node.

    python -P -m benchmarks.end_to_end [--images 40] [--burst 60] [--json FILE]

A real node (``pleura serve``'s process tree, SQLite, embedded broker) gets one radiograph at a time and then a burst;
results come back by C-STORE to a receiver in this process. The bar is what the same predictor and encoders need for
one image in a process of its own, without any DICOM networking, database or broker: the ratio says what the node costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import SegmentationStorage

from config.settings import load
from node.demo import running_node, wait_for_results, write_configuration
from node.dicom.storage_scu import Outgoing, Peer, find_files, send_files
from node.supervisor import free_port

SIDE = 1024


@dataclass
class Receiver:
    """Notes when each SEG arrives, by the UID of its source."""

    port: int
    arrived: dict[str, float] = field(default_factory=dict)

    def start(self) -> object:
        ae = AE("DEMOPACS")
        ae.supported_contexts = AllStoragePresentationContexts
        return ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])

    def _store(self, event: evt.Event) -> int:
        # Nothing else is decoded: the PACS of a hospital has a machine of its own.
        if event.request.AffectedSOPClassUID == SegmentationStorage:
            series = event.dataset.ReferencedSeriesSequence[0]
            self.arrived[str(series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID)] = time.monotonic()
        return 0x0000


def radiographs(folder: Path, source: Path, count: int) -> Iterator[Path]:
    """``count`` studies of one image each: ``source`` brought to 1024 x 1024, each with UIDs of its own."""
    from PIL import Image

    dataset = dcmread(source)
    pixels = np.asarray(Image.fromarray(dataset.pixel_array.astype(np.int32)).resize((SIDE, SIDE)), dtype=np.uint16)
    dataset.decompress() if dataset.file_meta.TransferSyntaxUID.is_compressed else None
    dataset.Rows, dataset.Columns, dataset.PixelData = SIDE, SIDE, pixels.tobytes()
    for number in range(count):
        yield with_new_uids(dataset, folder / f"{number:04d}.dcm")


def with_new_uids(dataset: Dataset, path: Path) -> Path:
    """Write ``dataset`` as an image of a study of its own."""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.save_as(path, enforce_file_format=True)
    return path


def bare_seconds(files: list[Outgoing], repeats: int = 8) -> float:
    """Median seconds for reading, predicting and encoding one image in this process."""
    from models.radiograph.reading import read_model_input
    from workers.composition import load_active

    judges, _ = load_active(load(None))
    predictor = judges.resolve({}).predictor
    samples = []
    for file in files[: repeats + 1]:
        began = time.monotonic()
        predictor.predict(read_model_input(dcmread(file.path)))
        samples.append(time.monotonic() - began)
    return statistics.median(samples[1:])


def one_at_a_time(files: list[Outgoing], peer: Peer, receiver: Receiver) -> list[float]:
    """Seconds from the answer to C-STORE to the arrival of the SEG, each image alone."""
    samples = []
    for file in files:
        uid = str(dcmread(file.path, stop_before_pixels=True).SOPInstanceUID)
        for sent in send_files([file], peer):
            assert sent.accepted, sent
        answered = time.monotonic()
        while uid not in receiver.arrived:
            if time.monotonic() > answered + 60:
                raise SystemExit("no SEG came back within 60 s: does the model find anything in this image?")
            time.sleep(0.002)
        samples.append(max(0.0, receiver.arrived[uid] - answered))
    return samples


def _wait_for(receiver: Receiver, count: int, seconds: float) -> None:
    """Wait until so many SEG have come; the worklist is not asked meanwhile, for that takes a core's time."""
    end = time.monotonic() + seconds
    while len(receiver.arrived) < count:
        if time.monotonic() > end:
            raise SystemExit(f"{len(receiver.arrived)} of {count} SEG came back within {seconds:.0f} s")
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40, help="images sent one at a time")
    parser.add_argument("--burst", type=int, default=60, help="studies sent at once")
    parser.add_argument("--json", type=Path, help="write the raw samples to this file")
    arguments = parser.parse_args()
    from node.demo import bundled_radiographs

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        count = 3 + arguments.images + arguments.burst
        files, _ = find_files(list(radiographs(folder / "images", bundled_radiographs()[0], count)))
        receiver = Receiver(free_port("127.0.0.1"))
        server = receiver.start()
        bare = bare_seconds(files)
        with running_node(write_configuration(folder, receiver.port)) as (node, settings):
            peer = Peer("127.0.0.1", node.port, settings.listener.ae_title, "BENCHSCU")
            one_at_a_time(files[:3], peer, receiver)
            samples = one_at_a_time(files[3 : 3 + arguments.images], peer, receiver)
            began = time.monotonic()
            assert all(sent.accepted for sent in send_files(files[3 + arguments.images :], peer))
            _wait_for(receiver, count, 60 + 2.0 * arguments.burst)
            burst = max(receiver.arrived.values()) - began
            for _ in wait_for_results(settings, count, 60):
                pass
        server.shutdown()  # type: ignore[attr-defined]
    _report(bare, samples, arguments.burst, burst, arguments.json)


def _report(bare: float, samples: list[float], studies: int, burst: float, path: Path | None) -> None:
    ordered = sorted(samples)
    p50, p95 = statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))]
    print(f"{datetime.now(UTC):%Y-%m-%d}: {SIDE} x {SIDE}, {len(samples)} images one at a time, {studies} in a burst")
    print("| what | figure |")
    print("| --- | --- |")
    print(f"| reading and predicting alone, median | {bare:.3f} s |")
    print(f"| C-STORE answer to SEG at the destination, median | {p50:.3f} s ({p50 / bare:.1f} x) |")
    print(f"| the same, 95th percentile | {p95:.3f} s |")
    print(
        f"| studies per minute in a burst | {60 * studies / burst:.0f} ({60 * studies / burst / (60 / bare):.2f} x) |"
    )
    if path is not None:
        path.write_text(json.dumps({"bare": bare, "latency": samples, "burst_seconds": burst, "studies": studies}))


if __name__ == "__main__":
    main()
