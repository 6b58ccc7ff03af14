"""From the answer to C-STORE to the arrival of the SEG at the destination, and studies per minute, of a whole node.

    python -P -m benchmarks.end_to_end [--rounds 3] [--images 20] [--burst 60]

A real node (``pleura serve``'s process tree, SQLite, embedded broker) gets one radiograph at a time and then a burst;
results come back by C-STORE to a receiver in this process. Beside it: what the same networks need to read and predict
one image in this process, without encoders, DICOM networking, database or broker. The ratio says what the node costs.
Then the processor time of each part of the node, for a study of the bursts and its summary.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import SegmentationStorage

from benchmarks.figures import Figure, Measurement, spread
from benchmarks.process_tree import cpu_seconds
from config.settings import Settings, load
from node.demo import running_node, wait_for_results, write_configuration
from node.dicom.storage_scu import Outgoing, Peer, find_files, send_files
from node.supervisor import Node, free_port

SIDE = 1024
BENCHMARK = "sender and receiver of this benchmark"


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


class Bare:
    """Reading and predicting in this process, without any DICOM networking, database or broker."""

    def __init__(self) -> None:
        from workers.composition import load_active

        self._predictor = load_active(load(None))[0].resolve({}).predictor

    def seconds(self, files: list[Outgoing]) -> tuple[float, float]:
        """Median seconds on the clock, and mean seconds of CPU, for one image; the first one warms up."""
        self._predict(files[0])
        clock, cpu = [], time.process_time()
        for file in files[1:]:
            began = time.monotonic()
            self._predict(file)
            clock.append(time.monotonic() - began)
        return statistics.median(clock), (time.process_time() - cpu) / len(clock)

    def _predict(self, file: Outgoing) -> None:
        from models.radiograph.reading import read_model_input

        self._predictor.predict(read_model_input(dcmread(file.path)))


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


def _wait_until_idle(settings: Settings, receiver: Receiver) -> None:
    for _ in wait_for_results(settings, len(receiver.arrived), 120):
        pass


@dataclass(frozen=True)
class Round:
    """Seconds: ``bare`` for one image on the clock and ``bare_cpu`` of CPU, ``single`` for each image alone, and the
    mean for a study of a burst.

    ``cpu`` has the CPU seconds of each part for a study of the burst until the last SEG has arrived, and ``later``
    those from then until the last study is complete.
    """

    bare: float
    bare_cpu: float
    single: tuple[float, ...]
    burst: float
    cpu: Mapping[str, float]
    later: Mapping[str, float]


def cpu_of_parts(node: Node) -> dict[str, float]:
    """CPU seconds of each part of ``node`` since its start, and of this process, which sends and receives."""
    return {name: cpu_seconds(pid) for name, pid in node.processes().items()} | {BENCHMARK: time.process_time()}


def one_round(
    bare: Bare, files: list[Outgoing], images: int, peer: Peer, receiver: Receiver, node: Node, idle: Callable[[], None]
) -> Round:
    """Images alone, then the others in a burst. ``idle`` waits until each study is complete and all is delivered."""
    clock, cpu = bare.seconds(files[:9])
    single = one_at_a_time(files[:images], peer, receiver)
    rest = files[images:]
    there = len(receiver.arrived)
    idle()
    before, began = cpu_of_parts(node), time.monotonic()
    assert all(sent.accepted for sent in send_files(rest, peer))
    _wait_for(receiver, there + len(rest), 60 + 2.0 * len(rest))
    arrived = cpu_of_parts(node)
    idle()
    burst = (max(receiver.arrived.values()) - began) / len(rest)
    used = {name: (seconds - before[name]) / len(rest) for name, seconds in arrived.items()}
    later = {name: (seconds - arrived[name]) / len(rest) for name, seconds in cpu_of_parts(node).items()}
    return Round(clock, cpu, tuple(single), burst, used, later)


def run(rounds: int, images: int, burst: int) -> list[Round]:
    """So many rounds on one node."""
    from node.demo import bundled_radiographs

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        each = images + burst
        files, _ = find_files(list(radiographs(folder / "images", bundled_radiographs()[0], 3 + rounds * each)))
        receiver = Receiver(free_port("127.0.0.1"))
        server, bare, found = receiver.start(), Bare(), []
        with running_node(write_configuration(folder, receiver.port)) as (node, settings):
            peer = Peer("127.0.0.1", node.port, settings.listener.ae_title, "BENCHSCU")
            one_at_a_time(files[:3], peer, receiver)
            for number in range(rounds):
                first = 3 + number * each
                idle = partial(_wait_until_idle, settings, receiver)
                found.append(one_round(bare, files[first : first + each], images, peer, receiver, node, idle))
        server.shutdown()  # type: ignore[attr-defined]
    return found


def measure(rounds: int, images: int, burst: int) -> Measurement:
    """One image at a time and a burst, beside reading and predicting alone. Prints where the processor time goes."""
    before, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    found = run(rounds, images, burst)
    print(cpu_table(found))
    bare = statistics.median(one.bare for one in found)
    single = statistics.median(seconds for one in found for seconds in one.single)
    studies = statistics.median(60 / one.burst for one in found)
    limit = statistics.median(60 * cores / one.bare_cpu for one in found)
    alone = "reading and predicting alone"
    figures = (
        Figure("C-STORE answer to SEG at the destination, 1024 x 1024, one image at a time, median", "ms",
               1000 * single, alone, 1000 * bare, spread([one.bare / statistics.median(one.single) for one in found])),
        Figure("studies a minute in a burst", "", studies, alone, 60 / bare,
               spread([one.bare / one.burst for one in found]),
               f"{limit:.0f}, all cores doing nothing but that", studies / limit),
    )  # fmt: skip
    command = f"python -P -m benchmarks.end_to_end --rounds {rounds} --images {images} --burst {burst}"
    return Measurement("end-to-end", command, figures, rounds, (before, os.getloadavg()[0]))


def cpu_table(found: list[Round]) -> str:
    """The processor time of each part, for a study of a burst: medians of the rounds."""

    def milliseconds(used: list[float]) -> str:
        return f"{1000 * statistics.median(used):.1f}"

    rows = [
        (part, milliseconds([one.cpu[part] for one in found]), milliseconds([one.later[part] for one in found]))
        for part in found[0].cpu
    ]
    rows.append(("reading and predicting alone, beside it", milliseconds([one.bare_cpu for one in found]), ""))
    lines = [
        "| CPU ms for a study of a burst | until its SEG has come | from then until it is complete |",
        "|---|--:|--:|",
    ]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=20, help="images sent one at a time, in each round")
    parser.add_argument("--burst", type=int, default=60, help="studies sent at once, in each round")
    arguments = parser.parse_args()
    for figure in measure(arguments.rounds, arguments.images, arguments.burst).figures:
        print(figure.row())


if __name__ == "__main__":
    main()
