"""The peer that the aim for large images came from: pynetdicom by its public settings alone, durable, and no more.

    python -P -m benchmarks.public_configuration --port N --folder DIR [--stock]

No log handler, data sets received in chunks into temporary files on the store's own file system, PDUs of 128 KB; an
image is renamed into its place, synced with its folder, and a row is committed before the answer. Nothing is digested,
analysed or queued. ``--stock`` leaves pynetdicom's settings as they are: the data set is held in memory and written
out.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt

SUCCESS = 0x0000
PDU = 131072


class Store:
    """Files in a folder and their names in a database, both on disk before the answer."""

    def __init__(self, folder: Path, stock: bool) -> None:
        self._folder, self._stock = folder, stock
        with self._database() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE received (uid TEXT, file TEXT)")

    def _database(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._folder / "received.sqlite", timeout=30)
        database.execute("PRAGMA synchronous = FULL")
        return database

    def receive(self, event: Any) -> int:
        """Keep one image (PS3.4 B.2.3)."""
        uid = str(event.request.AffectedSOPInstanceUID)
        file = self._folder / f"{uid}.dcm"
        if self._stock:
            written = self._folder / f"{uid}.part"
            written.write_bytes(event.encoded_dataset())
        else:
            written = Path(event.dataset_path)
        _sync(written)
        written.rename(file)
        _sync(self._folder)
        database = self._database()
        with database:
            database.execute("INSERT INTO received VALUES (?, ?)", (uid, str(file)))
        database.close()
        return SUCCESS


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--stock", action="store_true", help="pynetdicom's own settings")
    arguments = parser.parse_args()
    tempfile.tempdir = str(arguments.folder)
    _config.LOG_HANDLER_LEVEL = "none"
    _config.STORE_RECV_CHUNKED_DATASET = not arguments.stock
    entity = AE("PUBLIC")
    entity.maximum_pdu_size = PDU
    entity.maximum_associations = 20
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
    store = Store(arguments.folder, arguments.stock)
    entity.start_server(("127.0.0.1", arguments.port), evt_handlers=[(evt.EVT_C_STORE, store.receive)])


if __name__ == "__main__":
    main()
