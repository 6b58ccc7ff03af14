"""A real listener for tests: pynetdicom on a free port, the real store and database in a temporary folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info
from sqlalchemy import Engine, text

from config.listener import Listener
from config.routing import RoutingRule
from config.settings import Eligibility, Models
from config.tls import Tls
from db.database import Database
from db.engine import connect
from db.group_commit import GroupCommit
from db.rejected_associations import add
from node.dicom.association_policy import AssociationPolicy
from node.dicom.instance_store import InstanceStore
from node.dicom.query_retrieve_scp import QueryRetrieve
from node.dicom.receiving import InstanceReceiver, Policy
from node.dicom.rejected_associations import RejectedAssociations
from node.dicom.storage_commitment import CommitmentReports
from node.dicom.storage_scp import StorageScp
from tests.migrated import migrate
from tests.models.samples import set_elements
from tests.rules import NO_RULES
from workers.clock import utc_now

PIPELINE = "0" * 64


@dataclass
class Listening:
    """A running listener, and what a test looks at."""

    port: int
    folder: Path
    engine: Engine
    scp: StorageScp
    rejected: RejectedAssociations
    dispatched: list[tuple[int, bool]] = field(default_factory=list)

    def rows(self, what: str = "*") -> list[Any]:
        """Rows of the instances table."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(f"select {what} from instances order by id"))]

    def files(self) -> list[Path]:
        """Kept files."""
        return sorted((self.folder / "instances").glob("*/*"))

    def leftovers(self) -> list[Path]:
        """Temporary files."""
        return sorted((self.folder / "spool").glob("*"))


@contextmanager
def listening(
    folder: Path,
    listener: Listener | None = None,
    *,
    store: InstanceStore | None = None,
    database: Database | None = None,
    eligibility: Eligibility | None = None,
    reports: CommitmentReports | None = None,
    tls: Tls | None = None,
    routing: tuple[RoutingRule, ...] = (),
    rule_digests: Mapping[str, str] = MappingProxyType({}),
    models: Models | None = None,
    query: Callable[[Database], QueryRetrieve] | None = None,
    url: str = "",
) -> Iterator[Listening]:
    """Run a listener until the end of the block."""
    listener = listener or Listener(port=0)
    store = store or InstanceStore(folder)
    store.prepare()
    engine = connect(url or f"sqlite:///{folder / 'test.sqlite'}")
    migrate(engine)
    dispatched: list[tuple[int, bool]] = []
    association_policy = AssociationPolicy(listener)
    most = listener.maximum_waiting_jobs
    policy = Policy(
        eligibility or Eligibility(),
        association_policy,
        (r"\bSTAT\b",),
        "2.25",
        PIPELINE,
        maximum_waiting_jobs=most,
        routing=routing,
        rule_digests=rule_digests,
        models=models or Models(),
    )
    database = database or (GroupCommit if engine.dialect.name == "sqlite" else Database)(engine, NO_RULES)
    receiver = InstanceReceiver(store, database, lambda jobs, _: dispatched.extend(jobs), policy, utc_now)
    receiver.recover()
    counted = Database(engine, NO_RULES)
    rejected = RejectedAssociations(lambda rows: counted.write(add, rows, utc_now()), utc_now)
    asked = query(counted) if query is not None else None
    scp = StorageScp(
        listener, store, receiver, association_policy, reports=reports, rejected=rejected, tls=tls, query=asked
    )
    try:
        yield Listening(scp.start(), folder, engine, scp, rejected, dispatched)
    finally:
        rejected.close()
        scp.stop(grace_seconds=5)
        engine.dispose()
        store.close()


def dcmtk(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a DCMTK program to its end."""
    return subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"TCP_NODELAY": "1"},
    )


def data_set_bytes(path: Path) -> bytes:
    """The data set of a file, without preamble, prefix and file meta information."""
    meta = read_file_meta_info(path)
    return path.read_bytes()[128 + 4 + 12 + meta.FileMetaInformationGroupLength :]


def chest(**changes: object) -> Dataset:
    """A small Computed Radiography object that is analysed, with attributes changed or (None) removed."""
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

    image = Dataset()
    image.SOPClassUID = ComputedRadiographyImageStorage
    image.SOPInstanceUID = generate_uid()
    image.StudyInstanceUID = generate_uid()
    image.SeriesInstanceUID = generate_uid()
    image.Modality = "CR"
    image.BodyPartExamined = "CHEST"
    image.ViewPosition = "PA"
    image.PatientID = "TEST-1"
    image.PatientName = "Test^One"
    image.PatientAge = "050Y"
    image.StudyDate = "20200102"
    image.Rows = image.Columns = 512
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    image.PixelData = bytes(512 * 512)
    set_elements(image, changes)
    image.ensure_file_meta()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def read_all(paths: Sequence[Path]) -> dict[str, Path]:
    """SOP Instance UID of each file."""
    return {str(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID): path for path in paths}
