"""A node's folder full of made-up studies, for the tests of the page and for looking at it.

``python -m tests.node.web.demo FOLDER [DICOM…]`` fills FOLDER; real radiographs may be given for the pictures.
No patient in it is real.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from sqlalchemy import Engine

from config.destinations import Destination
from config.settings import Admin, Settings, Site, Store
from db import deliveries, holds, jobs, verification
from db.database import Database
from db.engine import connect
from db.queries import study_details
from db.records import FindingRecord, NotEligible, Outcome, ReceivedInstance
from db.user_tables import Role
from db.users import Accounts
from models.contract import Finding, Mask, Pixels, Prediction
from models.gate import NotAnalysedCode
from models.model_spec import Code
from models.radiograph.reading import read_model_input
from tests.commands import record_instance, record_triage, study_facts
from tests.db.examples import deliveries_of
from tests.migrated import migrate
from tests.rules import NO_RULES
from tests.workers.results.sources import lung_fields
from workers.image_measures import measures_of
from workers.job_outcome import as_file, encode_results
from workers.results.encoder import Analysis, Equipment
from workers.results.encoders import ENCODERS, encode_in_order
from workers.results.identity import Identity
from workers.triage import decide

CR = "1.2.840.10008.5.1.4.1.1.1"
PIPELINE = "d" * 64
PASSWORD = "a-quiet-reading-room"
OPACITY = Code("112001", "DCM", "Opacity")
PNEUMOTHORAX = Code("36118008", "SCT", "Pneumothorax")
ARRIVING = "Vandermeer^Iris"


@dataclass(frozen=True)
class Case:
    """One study to make: who, how long ago, and what becomes of it."""

    name: str
    patient_id: str
    sex: str
    born: str
    description: str
    minutes: float
    found: dict[str, float] = field(default_factory=dict)
    fate: str = "analysed"
    stat: bool = False
    sent: str = "verified"


CASES = (
    Case("Okafor^Daniel", "K-20418", "M", "19610312", "Chest PA", 11, {"pneumothorax": 0.94}),
    Case("Lindqvist^Maja", "K-20377", "F", "19880923", "Chest PA and lateral", 34, {"lung_opacity": 0.88}),
    Case("Ferrante^Lucia", "K-19902", "F", "19440601", "Chest AP portable", 52, {"lung_opacity": 0.71}, sent="failed"),
    Case("Nowak^Piotr", "K-20455", "M", "19790115", "Chest PA STAT", 8, fate="waiting", stat=True),
    Case("Haddad^Samir", "K-20011", "M", "19530820", "Chest PA", 96, fate="failed"),
    Case("Brandt^Elke", "K-18877", "F", "19701105", "Chest AP portable", 74, fate="not_analysed"),
    Case("Tanaka^Yui", "K-20390", "F", "19951230", "Chest PA", 140, {"lung_opacity": 0.12, "pneumothorax": 0.02}),
    Case("Moreau^Henri", "K-20120", "M", "19470409", "Chest PA", 171, {"lung_opacity": 0.21, "pneumothorax": 0.04}),
    Case("Silva^Beatriz", "K-20301", "F", "20010217", "Chest PA", 203, {"lung_opacity": 0.08}, fate="on_hold"),
    Case("Novak^Jana", "K-20266", "F", "19660728", "Chest PA", 231, {"lung_opacity": 0.17, "pneumothorax": 0.01}),
    Case("Adeyemi^Grace", "K-20199", "F", "19820511", "Chest PA", 265, {"lung_opacity": 0.05, "pneumothorax": 0.02}),
    Case("Kowalczyk^Jan", "K-20188", "M", "19580203", "Chest PA", 301, {"lung_opacity": 0.26, "pneumothorax": 0.03}),
    Case("O'Neill^Fergus", "K-20102", "M", "19730919", "Chest PA", 342, {"lung_opacity": 0.09, "pneumothorax": 0.01}),
    Case("Petrova^Anna", "K-20099", "F", "19910606", "Chest PA", 388, {"lung_opacity": 0.11, "pneumothorax": 0.02}),
)
THRESHOLDS = {"pneumothorax": 0.5, "lung_opacity": 0.45}
CODES = {"pneumothorax": PNEUMOTHORAX, "lung_opacity": OPACITY}


def settings_for(folder: Path, port: int = 0, site: Site | None = None, **admin: Any) -> Settings:
    """Settings of a node in ``folder`` with one destination that nobody answers."""
    values = {"port": port} | admin
    return Settings(
        site=site or Site(),
        store=Store(folder=folder),
        admin=Admin(**values),
        destinations=(
            Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=4242, verification="query"),
            Destination(name="archive", ae_title="VNA", host="127.0.0.1", port=4243, kinds=("seg", "sr")),
        ),
    )


def phantom(size: int = 640) -> Pixels:
    """Something that looks like a chest from afar: two dark lungs, a bright spine and heart, ribs."""
    y, x = np.mgrid[0:size, 0:size] / size
    body = ((x - 0.5) / 0.44) ** 2 + ((y - 0.58) / 0.62) ** 2 < 1
    tissue = np.where(body, 0.62, 0.04)
    for centre in (0.315, 0.685):
        lung = ((x - centre) / 0.155) ** 2 + ((y - 0.47) / 0.31) ** 2
        tissue -= 0.40 * np.clip(1.15 - lung, 0, 1) ** 0.6 * body
        for rib in range(8):
            arc = np.abs(y - (0.22 + rib * 0.065) - 0.35 * (x - centre) ** 2)
            tissue += 0.05 * np.exp(-((arc / 0.011) ** 2)) * (lung < 1.05)
    tissue += 0.20 * np.exp(-(((x - 0.5) / 0.035) ** 2)) * body
    tissue += 0.24 * np.exp(-(((x - 0.545) / 0.10) ** 2) - ((y - 0.63) / 0.12) ** 2)
    noise = np.random.default_rng(5).normal(0, 0.012, (size, size))
    return np.clip(tissue + noise, 0, 1).astype(np.float32)


PLACE: dict[str, Any] = {"side": "right", "zones": "lower", "lung_share": 0.21}
"""Where the made-up opacity lies."""


def region(label: str, shape: tuple[int, int]) -> Mask:
    """Where the made-up finding lies."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    y, x = y / shape[0], x / shape[1]
    if label == "pneumothorax":
        return ((x - 0.69) / 0.105) ** 2 + ((y - 0.245) / 0.085) ** 2 < 1
    blob = ((x - 0.305) / 0.085) ** 2 + ((y - 0.60) / 0.10) ** 2
    return blob + 0.25 * np.sin(14 * x) * np.sin(11 * y) < 1


def radiograph(uid: str, case: Case, number: int) -> Dataset:
    """A Computed Radiography image of the phantom."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = UID(CR)
    image.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    image.SOPClassUID, image.SOPInstanceUID = CR, uid
    image.StudyID, image.StudyTime, image.ReferringPhysicianName = "", "", ""
    image.SeriesNumber, image.InstanceNumber = 1, 1
    image.Modality, image.BodyPartExamined, image.ViewPosition = "CR", "CHEST", "PA"
    image.PixelSpacing, image.PatientOrientation = [0.6, 0.6], ["L", "F"]
    pixels = np.round(phantom() * 4095).astype(np.uint16)
    image.Rows, image.Columns, image.SamplesPerPixel = *pixels.shape, 1
    image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.WindowCenter, image.WindowWidth = 2048, 4096
    image.PixelData = pixels.tobytes()
    return image


class Demo:
    """Writes studies into a folder and its database."""

    def __init__(self, folder: Path, sources: Sequence[Path] = ()) -> None:
        self.folder, self.sources = folder, sources
        folder.mkdir(parents=True, exist_ok=True)
        self.settings = settings_for(folder)
        self.engine: Engine = connect(self.settings.database_url)
        migrate(self.engine)
        self.database = Database(self.engine, NO_RULES)
        self.kinds = frozenset({"seg", "sr"})

    def add_users(self, accounts: Accounts | None = None) -> None:
        """One user a role, all with the same password."""
        accounts = accounts or Accounts(self.engine)
        now = datetime.now(UTC)
        for name, role, shown in (
            ("vera", Role.VIEWER, "Vera Viewer"),
            ("rosa", Role.RADIOLOGIST, "Dr. Rosa Reader"),
            ("ada", Role.ADMIN, "Ada Admin"),
        ):
            accounts.add_user(name, PASSWORD, role, now, actor="demo", display_name=shown)

    def add(self, case: Case, number: int, now: datetime) -> int:
        """Make one study as it would be ``case.minutes`` after its arrival; give its row."""
        at = now - timedelta(minutes=case.minutes)
        image = self._image(case, number, at)
        received = self._keep(image, case, at)
        if case.fate == "not_analysed":
            made = record_instance(self.database, received, None, PIPELINE, at)
        else:
            made = record_instance(self.database, received, None, PIPELINE, at)
        if "lateral" in case.description:
            self._add_lateral(received, at)
        if case.fate != "waiting":
            self._run(case, image, received, made.job_ids[0], at)
        study = self.database.read(study_details.find_study, received.study_instance_uid)
        assert study is not None
        decision = decide(study_facts(self.database, study), self.settings.triage, at + timedelta(seconds=5))
        record_triage(self.database, study, decision, at + timedelta(seconds=5))
        if case.fate == "on_hold":
            self.database.write(holds.hold, study, "the PACS names another patient for this study", "node", at)
        return study

    def _image(self, case: Case, number: int, at: datetime) -> Dataset:
        uid = f"1.2.826.0.1.3680043.8.498.{number + 1}"
        image = dcmread(self.sources[number % len(self.sources)]) if self.sources else radiograph(uid, case, number)
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = UID(uid)
        image.StudyInstanceUID, image.SeriesInstanceUID = f"{uid}.1", f"{uid}.2"
        image.PatientName, image.PatientID = case.name, case.patient_id
        image.PatientSex, image.PatientBirthDate = case.sex, case.born
        image.StudyDate, image.AccessionNumber = at.strftime("%Y%m%d"), f"A{70210 + number}"
        image.StudyDescription = case.description
        return image

    def _keep(self, image: Dataset, case: Case, at: datetime) -> ReceivedInstance:
        buffer = BytesIO()
        dcmwrite(buffer, image, enforce_file_format=True)
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        path = f"instances/{digest[:2]}/{digest}.dcm"
        self._write(path, buffer.getvalue())
        return ReceivedInstance(
            sop_instance_uid=image.SOPInstanceUID,
            sop_class_uid=image.SOPClassUID,
            transfer_syntax_uid=image.file_meta.TransferSyntaxUID,
            digest=digest,
            path=path,
            byte_count=len(buffer.getvalue()),
            study_instance_uid=image.StudyInstanceUID,
            series_instance_uid=image.SeriesInstanceUID,
            patient_id=case.patient_id,
            patient_name=case.name,
            patient_birth_date=case.born,
            patient_sex=case.sex,
            accession_number=image.AccessionNumber,
            study_date=at.strftime("%Y%m%d"),
            study_description=case.description,
            modality="CR",
            body_part="CHEST",
            view=str(image.get("ViewPosition") or "PA"),
            series_description="Frontal",
            calling_ae_title="CR_ROOM_2",
            stat=case.stat,
        )

    def _add_lateral(self, frontal: ReceivedInstance, at: datetime) -> None:
        from dataclasses import replace

        lateral = replace(
            frontal,
            sop_instance_uid=frontal.sop_instance_uid + ".9",
            series_instance_uid=frontal.series_instance_uid + ".9",
            digest=hashlib.sha256(frontal.digest.encode()).hexdigest(),
            view="LL",
            series_description="Lateral",
        )
        not_eligible = NotEligible("lateral", "This is a lateral view; only frontal radiographs are analysed.")
        record_instance(self.database, lateral, not_eligible, PIPELINE, at)

    def _run(self, case: Case, image: Dataset, received: ReceivedInstance, job_id: int, at: datetime) -> None:
        began = at + timedelta(seconds=0.4)
        job = self.database.write(jobs.claim, job_id, "reader-1:jobs:4711", began, timedelta(minutes=2))
        assert job is not None
        if case.fate == "failed":
            error = "the job ran into its time limit of 120 s and was stopped"
            self.database.write(
                jobs.fail, job_id, job_worker := "reader-1:jobs:4711", error, at + timedelta(seconds=121)
            )
            del job_worker
            return
        outcome = (
            self._not_analysed()
            if case.fate == "not_analysed"
            else self._outcome(case, image, received, job.created_at)
        )
        done = at + timedelta(seconds=1.1 + 0.1 * len(case.name) % 0.9)
        self.database.write(jobs.finish, job_id, "reader-1:jobs:4711", outcome, done)
        for delivery in deliveries_of(self.database, job_id):
            self._deliver(delivery, case.sent, done)

    def _not_analysed(self) -> Outcome:
        code = NotAnalysedCode.CROPPED
        return Outcome(not_analysed=NotEligible(code.value, code.sentence), timings={"decode": 0.12, "gate": 0.09})

    def _outcome(self, case: Case, image: Dataset, received: ReceivedInstance, created: datetime) -> Outcome:
        model_input = read_model_input(image)
        findings = tuple(
            Finding(
                label=label,
                code=CODES[label],
                model="chest-classifier",
                probability=probability,
                threshold=THRESHOLDS[label],
                mask=region(label, model_input.shape) if probability >= THRESHOLDS[label] else None,
            )
            for label, probability in case.found.items()
        )
        analysis = Analysis(
            source=image,
            model_input=model_input,
            prediction=Prediction(model_input.shape, findings, lung_fields=lung_fields(model_input.shape)),
            identity=Identity("2.25", received.sop_instance_uid, received.digest, PIPELINE, 0),
            equipment=Equipment("Pleura", "Pleura", ("0",), "PLEURA", "0"),
            created_at=created,
        )
        made = encode_results(analysis, partial(encode_in_order, ENCODERS), self.kinds)
        encoded = [as_file(kind, dataset) for kind, dataset in made.items()]
        for result in encoded:
            self._write(result.record.path, result.content)
        records = tuple(
            FindingRecord(
                finding.label,
                finding.model,
                "1.0.0",
                finding.probability,
                finding.threshold,
                finding.present,
                shadow=False,
                area_mm2=float(finding.mask.sum()) * 0.36 if finding.mask is not None else None,
                area_fraction=float(finding.mask.mean()) if finding.mask is not None else None,
                tracking_uid=analysis.identity.tracking(finding.model, finding.label),
                **(PLACE if finding.label == "lung_opacity" and finding.mask is not None else {}),
            )
            for finding in findings
        )
        return Outcome(
            findings=records,
            results=tuple(result.record for result in encoded),
            timings={"decode": 0.21, "gate": 0.08, "prepare": 0.05, "infer": 0.41, "localise": 0.06, "encode": 0.12},
            destinations={one.name: tuple(one.kinds) for one in self.settings.destinations},
            modes={"chest-classifier": "active"},
            measures=measures_of(image, model_input),
            ran_on="cpu",
        )

    def _deliver(self, delivery_id: int, fate: str, at: datetime) -> None:
        for attempt in range(4):
            moment = at + timedelta(seconds=0.3 + attempt)
            if self.database.write(
                deliveries.claim, delivery_id, "reader-1:deliveries:1", moment, timedelta(minutes=1)
            ):
                break
        if fate == "failed":
            error = "connection refused: nobody listens on 127.0.0.1:4242"
            self.database.write(deliveries.fail, delivery_id, "reader-1:deliveries:1", error, moment)
            return
        self.database.write(deliveries.sent, delivery_id, "reader-1:deliveries:1", moment, timedelta(0))
        if fate == "verified":
            for asked in self.database.write(
                verification.claim, delivery_id, f"2.25.{delivery_id}", moment, timedelta(minutes=1)
            ):
                self.database.write(verification.verified, asked, moment)

    def _write(self, path: str, content: bytes) -> None:
        whole = self.folder / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.write_bytes(content)

    def fill(self, now: datetime, cases: Sequence[Case] = CASES) -> list[int]:
        """Make all studies, the oldest first."""
        numbered = sorted(enumerate(cases), key=lambda pair: -pair[1].minutes)
        return [self.add(case, number, now) for number, case in numbered]


def main(arguments: Sequence[str]) -> None:
    demo = Demo(Path(arguments[0]), [Path(name) for name in arguments[1:]])
    demo.add_users()
    demo.fill(datetime.now(UTC))
    print(f"{len(CASES)} studies in {arguments[0]}; vera, rosa and ada log in with {PASSWORD!r} ({date.today()})")


if __name__ == "__main__":
    main(sys.argv[1:])
