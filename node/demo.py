"""The demonstration: a whole node and a receiving PACS on this machine, with real radiographs.

Nothing is mocked: the node is the process tree of ``pleura serve``, images are sent to it by C-STORE from one AE, and
it sends its results by C-STORE to another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w
from pydicom import Dataset, dcmread
from pynetdicom import AE, AllStoragePresentationContexts, evt

from config.settings import Settings, load
from db.queries.worklist import Worklist
from db.shown_records import WorklistRow
from db.states import StudyState
from models.radiograph.reading import read_model_input
from node.supervisor import Node, free_ports
from workers.open_database import database_of
from workers.results.overlay import draw_masks
from workers.results.result_reader import read_masks, read_result

_HOST = "127.0.0.1"
_PACS = "DEMOPACS"


class DemoError(RuntimeError):
    """The demonstration cannot continue; the message is the reason."""


def bundled_radiographs() -> list[Path]:
    """NEMA's chest RG1 and lower leg RG3 from the package ``pydicom-data``.

    Raises:
        DemoError: the package is not installed.
    """
    from pydicom.data import get_testdata_file

    paths = [get_testdata_file(name, download=False) for name in ("RG1_UNCR.dcm", "RG3_UNCR.dcm")]
    if None in paths:
        raise DemoError("the package pydicom-data is missing: pip install 'pleura[demo]', or name your own files")
    return [Path(str(path)) for path in paths]


@dataclass
class ResultReceiver:
    """A small storage SCP that writes received objects to ``folder``."""

    folder: Path
    port: int
    received: list[Path] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Listen while the block runs."""
        ae = AE(ae_title=_PACS)
        ae.supported_contexts = AllStoragePresentationContexts
        server = ae.start_server((_HOST, self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        try:
            yield
        finally:
            if server is not None:
                server.shutdown()

    def _store(self, event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        name = f"{len(self.received) + 1:02d}-{str(dataset.get('Modality', 'OT')).lower()}.dcm"
        dataset.save_as(self.folder / name, enforce_file_format=True)
        self.received.append(self.folder / name)
        return 0x0000


def write_configuration(folder: Path, pacs_port: int) -> Path:
    """Write the node's configuration: its store below ``folder``, the receiver as its only destination."""
    path = folder / "pleura.toml"
    port, admin_port = free_ports(_HOST, 2)
    values = {
        "listener": {"port": port},
        "store": {"folder": str(folder.absolute() / "var"), "minimum_free_bytes": 0},
        # The images of the demonstration are years old; they must be triaged nevertheless.
        "triage": {"completion_seconds": 1.0, "backfill_days": 0},
        "logs": {"level": "WARNING"},
        "admin": {"port": admin_port},
        "destinations": [
            {
                "name": "demo-pacs",
                "ae_title": _PACS,
                "host": _HOST,
                "port": pacs_port,
                "kinds": ["seg", "sr", "summary"],
            }
        ],
    }
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    return path


@contextmanager
def running_node(config: Path) -> Iterator[tuple[Node, Settings]]:
    """Run a whole node, from the start of its listener to the end of the block.

    Raises:
        DemoError: the listener does not start.
    """
    settings = load(config)
    log = config.with_name("node.log")
    node = Node(settings, config, log)
    stop = threading.Event()
    supervising = threading.Thread(target=node.supervise, args=(stop,), daemon=True)
    try:
        node.start()
        if not node.wait_for_listener():
            raise DemoError(f"the listener did not start; see {log}")
        supervising.start()
        yield node, settings
    finally:
        stop.set()
        if supervising.is_alive():
            supervising.join()
        node.stop()


def wait_for_results(settings: Settings, studies: int, seconds: float) -> Iterator[tuple[WorklistRow, ...]]:
    """Yield the worklist repeatedly until ``studies`` studies are complete and have no open deliveries.

    Raises:
        DemoError: this takes longer than ``seconds``.
    """
    database = database_of(settings)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        rows = Worklist(database.engine).page(limit=1000, as_listed=True)
        yield rows
        if len(rows) >= studies and all(_finished(row) for row in rows):
            return
        time.sleep(0.1)
    raise DemoError(f"not every study was finished within {seconds:.0f} s; see node.log in the folder")


def _finished(row: WorklistRow) -> bool:
    return row.state is StudyState.COMPLETE and row.deliveries_open == 0


def draw_results(sources: Sequence[Path], received: Sequence[Path], folder: Path) -> list[Path]:
    """Draw each received SEG over the radiograph that it references; returns the paths of the PNG files."""
    by_uid = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in sources}
    pictures = []
    for path in received:
        dataset = dcmread(path)
        if dataset.get("Modality") != "SEG":
            continue
        source = by_uid.get(_source_uid(dataset))
        if source is None:
            continue
        picture = folder / f"{path.stem}-over-{source.stem}.png"
        names = [one.label for one in read_result(dataset).statements]
        masks = list(zip(names, read_masks(dataset), strict=True))
        draw_masks(read_model_input(dcmread(source)), f"Pleura on {source.name}", masks).save(picture)
        pictures.append(picture)
    return pictures


def _source_uid(seg: Dataset) -> str:
    return str(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID)
