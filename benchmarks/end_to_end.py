"""From the answer to C-STORE to the arrival of the SEG at the destination, and studies per minute, of a whole node.

    python -P -m benchmarks.end_to_end [--rounds 3] [--images 20] [--burst 60]

A real node (``pleura serve``'s process tree, SQLite, embedded broker) gets one radiograph at a time and then a burst;
results come back by C-STORE to a receiver in this process. Sender and receiver stand for a modality and a PACS, which
have machines of their own: they cost next to nothing, and all that has come is decoded and counted at the end. Beside
it: what the same networks need to read and predict one image in this process, without encoders, DICOM networking,
database or broker. The ratio says what the node costs. Then the processor time of each part of the node, for a study
of the bursts and its summary.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from pynetdicom.sop_class import SegmentationStorage

from benchmarks.figures import Figure, Measurement, spread
from benchmarks.process_tree import cpu_seconds
from benchmarks.replay import Kind, Sender, instance_uid, radiograph_kind
from benchmarks.sink import Sink
from config.settings import Settings, load
from node.demo import running_node, wait_for_results, write_configuration
from node.dicom.storage_scu import Outgoing, find_files
from node.supervisor import Node, free_port

SIDE = 1024
_ALONE, _WARM_UP = 9, 3
BENCHMARK = "sender and receiver of this benchmark"


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


@dataclass
class Modality:
    """Sends studies of one image each, by :mod:`benchmarks.replay`; no two have the same UIDs."""

    port: int
    called: str
    kind: Kind
    numbers: Iterator[int] = field(default_factory=partial(count, 1))

    def send(self, images: int) -> list[str]:
        """Send so many on one association; their SOP Instance UIDs, once each is accepted."""
        numbers = list(islice(self.numbers, images))
        sender = Sender(self.port, self.called, self.kind, images, iter(numbers))
        sender.open()
        sender.run()
        if sender.error:
            raise SystemExit(f"an image was not accepted: {sender.error}")
        sender.close()
        return [instance_uid(number) for number in numbers]


def one_at_a_time(images: int, modality: Modality, sink: Sink) -> list[float]:
    """Seconds from the answer to C-STORE to the arrival of the SEG, each image alone."""
    samples = []
    for _ in range(images):
        (uid,) = modality.send(1)
        answered = time.monotonic()
        if not sink.wait_for(uid, 60):
            raise SystemExit("no SEG came back within 60 s: does the model find anything in this image?")
        samples.append(max(0.0, sink.arrived[uid] - answered))
    return samples


def _wait_for(sink: Sink, uids: Sequence[str], seconds: float) -> None:
    """Wait until all SEG have come; the worklist is not asked meanwhile, for that takes a core's time."""
    end = time.monotonic() + seconds
    for uid in uids:
        if not sink.wait_for(uid, end - time.monotonic()):
            came = sum(each in sink.arrived for each in uids)
            raise SystemExit(f"{came} of {len(uids)} SEG came back within {seconds:.0f} s")


def check_results(sink: Sink, studies: int) -> None:
    """Decode all that has come, and see that each image has its SEG and its report, and each study its summary."""
    kinds: Counter[str] = Counter()
    for dataset in sink.objects():
        kinds["SEG" if dataset.SOPClassUID == SegmentationStorage else str(dataset.SeriesDescription)] += 1
    uids = {each.sop_instance for each in sink.stored}
    if len(sink.arrived) != studies or len(kinds) != 3 or set(kinds.values()) != {studies} or len(uids) != 3 * studies:
        raise SystemExit(f"of {studies} studies there came {dict(kinds)}, for {len(sink.arrived)} images")


def _wait_until_idle(settings: Settings, sink: Sink) -> None:
    for _ in wait_for_results(settings, len(sink.arrived), 120):
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
    bare: Bare,
    files: list[Outgoing],
    sizes: tuple[int, int],
    modality: Modality,
    sink: Sink,
    node: Node,
    idle: Callable[[], None],
) -> Round:
    """Images alone, then others in a burst (``sizes``). ``idle`` waits until all studies are complete and delivered."""
    images, burst = sizes
    clock, cpu = bare.seconds(files)
    single = one_at_a_time(images, modality, sink)
    idle()
    before, began = cpu_of_parts(node), time.monotonic()
    uids = modality.send(burst)
    _wait_for(sink, uids, 60 + 2.0 * burst)
    arrived = cpu_of_parts(node)
    idle()
    seconds = (max(sink.arrived[uid] for uid in uids) - began) / burst
    used = {name: (seconds - before[name]) / burst for name, seconds in arrived.items()}
    later = {name: (seconds - arrived[name]) / burst for name, seconds in cpu_of_parts(node).items()}
    return Round(clock, cpu, tuple(single), seconds, used, later)


def run(rounds: int, images: int, burst: int) -> list[Round]:
    """So many rounds on one node."""
    from node.demo import bundled_radiographs

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        files, _ = find_files(list(radiographs(folder / "images", bundled_radiographs()[0], _ALONE)))
        kind = radiograph_kind("radiograph", dcmread(files[0].path))
        sink = Sink(free_port("127.0.0.1"))
        bare, found = Bare(), []
        with sink.start(), running_node(write_configuration(folder, sink.port)) as (node, settings):
            modality = Modality(node.port, settings.listener.ae_title, kind)
            one_at_a_time(_WARM_UP, modality, sink)
            for _ in range(rounds):
                idle = partial(_wait_until_idle, settings, sink)
                found.append(one_round(bare, files, (images, burst), modality, sink, node, idle))
            check_results(sink, _WARM_UP + rounds * (images + burst))
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
