"""analyse_job with hand-written fakes: what is recorded, in which order, and what a second attempt does."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RawDataStorage
from sqlalchemy.exc import OperationalError

from config.destinations import Destination
from config.routing import RoutingRule
from config.settings import Results, Settings, Site, Store, Workers
from db import jobs, repeated_instances, studies
from db.database import Database
from db.engine import connect
from db.queries import study_details
from db.records import Job, Outcome, PatientIdentity, ReceivedInstance, ResultRecord, Route, StudyFacts, TriageDecision
from db.shown_records import StudyDetail
from db.states import JobState
from models.contract import Finding, ModelInput, ModelUse, NotAnalysed, Prediction, Spacing
from models.model_spec import Code, Mode
from models.runtime.executor import ModelUnavailableError
from tests.commands import record_instance
from tests.fakes import OneByOne, RecordingTaskQueue
from tests.migrated import migrate
from tests.node.dicom.listening import chest
from tests.rules import NO_RULES
from tests.scripted import Scripted
from tests.stores import store_away
from tests.workers.builders import NOON, FakeClock, facts, job
from tests.workers.results.sources import lung_fields
from workers import analysis
from workers.analysis import analyse_job
from workers.analysis_tools import AnalysisTools
from workers.backoff import backoff
from workers.errors import RetryableError
from workers.results.encoder import Analysis, Equipment
from workers.results.encoders import EncoderEntry, encode_in_order
from workers.results.source_image import SourceImage
from workers.siblings import Siblings
from workers.store_files import AWAY

EQUIPMENT = Equipment("Pleura", "Pleura", ("0",), "PLEURA", "1")
PNEUMOTHORAX = Code("36118008", "SCT", "Pneumothorax")


class FakeJobs(Scripted):
    """One job of one study; everything that happens to it is noted."""

    answers: ClassVar[Mapping[Callable[..., Any], str]] = {
        jobs.claim: "claim_job",
        jobs.finish: "finish_job",
        jobs.retry: "retry_job",
        jobs.fail: "fail_job",
        repeated_instances.record_comparison: "record_comparison",
        studies.arrival: "study_arrival",
        studies.triage: "triage",
        study_details.study_detail: "study_detail",
    }

    def __init__(self, first: Job, study: StudyFacts | None = None) -> None:
        super().__init__()
        self.job = first
        self.study = study or facts()
        self.events: list[tuple[Any, ...]] = []
        self.outcome: Outcome | None = None
        self.claim_is_lost = False

    def claim_job(self, job_id: int, worker: str, now: datetime, lease: timedelta) -> Job | None:
        if self.job.state not in (JobState.QUEUED, JobState.RETRYING):
            return None
        self.job = replace(self.job, state=JobState.RUNNING, attempts=self.job.attempts + 1)
        self.events.append(("claimed", worker, lease))
        return self.job

    def finish_job(self, job_id: int, worker: str, outcome: Outcome, now: datetime) -> tuple[int, ...] | None:
        if self.claim_is_lost:
            return None
        self.job = replace(self.job, state=JobState.DONE)
        self.outcome = outcome
        self.events.append(("finished",))
        return tuple(range(len(outcome.results)))

    def retry_job(
        self, job_id: int, worker: str, error: str, now: datetime, after: timedelta, *, counted: bool = True
    ) -> bool:
        self.job = replace(self.job, state=JobState.RETRYING, attempts=self.job.attempts - (0 if counted else 1))
        self.events.append(("retry", error, after))
        return True

    def fail_job(self, job_id: int, worker: str, error: str, now: datetime) -> bool:
        self.job = replace(self.job, state=JobState.FAILED)
        self.events.append(("failed", error))
        return True

    def record_comparison(self, job_id: int, worker: str, difference: str, now: datetime) -> bool:
        if self.claim_is_lost:
            return False
        self.job = replace(self.job, state=JobState.ON_HOLD if difference else JobState.WITHDRAWN)
        self.events.append(("compared", difference))
        return True

    def study_arrival(self, study_id: int) -> StudyFacts:
        return self.study

    def study_detail(self, study_id: int) -> StudyDetail:
        raise AssertionError("only a revision looks for its predecessors")

    def triage(
        self, study_id: int, decide: Callable[[StudyFacts], TriageDecision], _rules: object, now: datetime
    ) -> TriageDecision:
        decision = decide(self.study)
        self.events.append(("triage", decision.priority))
        return decision


@dataclass
class FakePredictor(OneByOne):
    answer: Prediction | Exception

    def predict(self, model_input: ModelInput) -> Prediction:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def small_object(kind: str, analysis: Analysis) -> Dataset:
    """A small object whose UID comes from the identity and whose time is the job's."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = RawDataStorage
    dataset.SOPInstanceUID = analysis.identity.uid(kind)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesInstanceUID = analysis.identity.uid(kind, "series")
    dataset.ContentTime = analysis.created_at.strftime("%H%M%S")
    return dataset


def encoder(kind: str) -> EncoderEntry:
    """An encoder that tells in its object which objects it was shown."""

    def encode(analysis: Analysis) -> Dataset | None:
        dataset = small_object(kind, analysis)
        dataset.ImageComments = " ".join(analysis.siblings)
        return dataset

    return EncoderEntry(kind, 1, encode)


ENCODERS = [encoder(kind) for kind in ("seg", "sr", "sc", "gsps")]


def positive() -> Prediction:
    mask = np.zeros((4, 5), dtype=np.bool_)
    mask[1, 1:4] = True
    return Prediction(
        shape=(4, 5),
        findings=(
            Finding("pneumothorax", PNEUMOTHORAX, "chest", 0.9, 0.5, mask=mask),
            Finding("nodule", PNEUMOTHORAX, "chest", None, 0.5, mode=Mode.SHADOW, reason="too small"),
        ),
        models=(ModelUse("chest", "3", "Chest", "d", "1.2"),),
        timings={"gate": 0.01},
    )


@dataclass
class Bench:
    jobs: FakeJobs
    tools: AnalysisTools
    task_queue: RecordingTaskQueue

    def run(self) -> list[Any]:
        analyse_job(self.jobs.job.id, self.tools)
        return [event[0] for event in self.jobs.events]


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    def make(
        answer: Prediction | Exception | None = None,
        read: Callable[[Path], SourceImage] | None = None,
        first: Job | None = None,
        study: StudyFacts | None = None,
        kinds: tuple[Any, ...] = ("seg", "sr"),
        compared: Callable[[str], str] = str,
        **results: Any,
    ) -> Bench:
        settings = Settings(
            store=Store(folder=tmp_path),
            workers=Workers(attempts=3, backoff_seconds=10),
            results=Results(**results),
            destinations=(Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, kinds=kinds),),
        )
        the_job = first or job()
        (tmp_path / the_job.instance_path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / the_job.instance_path).write_bytes(b"as received")
        pixels = ModelInput(np.zeros((4, 5), np.float32), "1.2.3", spacing=Spacing(0.5, 0.2, "patient"))
        jobs, task_queue = FakeJobs(the_job, study), RecordingTaskQueue()
        ticks = iter(range(1000))
        tools = AnalysisTools(
            settings=settings,
            database=jobs,
            read_source=read or (lambda path: SourceImage(Dataset(), pixels)),
            difference=lambda before, after: compared(before.name),
            predictor=FakePredictor(answer or positive()),
            encode=partial(encode_in_order, ENCODERS),
            equipment=EQUIPMENT,
            pipeline="p" * 64,
            task_queue=task_queue,
            clock=FakeClock(),
            elapsed=lambda: float(next(ticks)),
            worker="host/jobs/0/0#1",
        )
        return Bench(jobs, tools, task_queue)

    return make


def test_a_job_ends_with_its_findings_results_and_deliveries(bench: Callable[..., Bench], tmp_path: Path) -> None:
    work = bench()
    assert work.run() == ["claimed", "finished", "triage"]
    outcome = work.jobs.outcome
    assert outcome is not None
    assert [result.kind for result in outcome.results] == ["seg", "sr"]
    assert outcome.destinations == {"pacs": ("seg", "sr")}
    assert work.task_queue.deliveries == [0, 1]
    first, second = outcome.findings
    assert (first.present, first.shadow, first.model_version, first.area_fraction) == (True, False, "3", 3 / 20)
    assert first.area_mm2 == pytest.approx(3 * 0.5 * 0.2)
    assert (second.present, second.shadow, second.reason, second.area_mm2) == (False, True, "too small", None)
    assert outcome.timings == {"read": 1, "predict": 1, "encode": 2, "write": 1, "predict.gate": 0.01}


@pytest.mark.parametrize(("stat", "timeout", "asked"), [(False, 600, 5), (True, 600, 0), (False, 8, 1)])
def test_a_routine_image_lets_stat_images_go_first_before_each_stage(
    bench: Callable[..., Bench], stat: bool, timeout: float, asked: int
) -> None:
    """Not so long that its own time limit would come near: a look at the clock takes a second here."""
    work, looks = bench(first=job(stat=stat)), list[str]()
    workers = work.tools.settings.workers.model_copy(update={"job_timeout_seconds": timeout})
    settings = work.tools.settings.model_copy(update={"workers": workers})
    work.tools = replace(work.tools, settings=settings, let_stat_go_first=lambda _: looks.append("looked"))
    assert work.run() == ["claimed", "finished", "triage"]
    assert len(looks) == asked


def test_what_other_models_make_of_a_job_that_waited_has_other_uids(bench: Callable[..., Bench]) -> None:
    """It was queued, and models were changed and the node started again before it ran."""
    uids = []
    for active in ("p", "q", "q"):
        work = bench()
        work.tools = replace(work.tools, pipeline=active * 64)
        work.run()
        assert work.jobs.outcome is not None
        uids.append([result.sop_instance_uid for result in work.jobs.outcome.results])
    assert uids[1] == uids[2]
    assert not set(uids[0]) & set(uids[1])


def test_result_files_are_what_their_rows_say(bench: Callable[..., Bench], tmp_path: Path) -> None:
    work = bench()
    work.run()
    assert work.jobs.outcome is not None
    for record in work.jobs.outcome.results:
        content = (tmp_path / record.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == record.digest
        assert record.path == f"results/{record.digest[:2]}/{record.digest}.dcm"
        assert len(content) == record.byte_count
        assert dcmread(BytesIO(content)).SOPInstanceUID == record.sop_instance_uid


def test_a_second_run_makes_the_same_bytes(bench: Callable[..., Bench]) -> None:
    one, two = bench(), bench()
    one.run()
    two.run()
    assert one.jobs.outcome is not None
    assert two.jobs.outcome is not None
    assert one.jobs.outcome.results == two.jobs.outcome.results


@pytest.mark.usefixtures("machine_in_kolkata")
@pytest.mark.parametrize(
    ("queued", "told"),
    [
        # Clocks go on at 01:00 UTC on 29 March 2026, and back at 01:00 UTC on 25 October.
        (datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC), "015959"),
        (datetime(2026, 3, 29, 1, 0, 0, tzinfo=UTC), "030000"),
        (datetime(2026, 10, 25, 0, 30, 0, tzinfo=UTC), "023000"),
        (datetime(2026, 10, 25, 1, 30, 0, tzinfo=UTC), "023000"),
    ],
)
def test_results_tell_the_time_of_the_hospital_s_clocks(
    bench: Callable[..., Bench], tmp_path: Path, queued: datetime, told: str
) -> None:
    """Not that of the process, which runs in a container or on a machine elsewhere."""
    work = bench(first=replace(job(), created_at=queued))
    work.tools = replace(
        work.tools, settings=work.tools.settings.model_copy(update={"site": Site(time_zone="Europe/Berlin")})
    )
    work.run()
    assert work.jobs.outcome is not None
    assert {dcmread(tmp_path / result.path).ContentTime for result in work.jobs.outcome.results} == {told}


def test_kinds_that_no_destination_takes_are_not_made_but_for_seg_and_sr(bench: Callable[..., Bench]) -> None:
    work = bench(kinds=("sc", "summary"))
    work.run()
    assert work.jobs.outcome is not None
    assert [result.kind for result in work.jobs.outcome.results] == ["seg", "sr", "sc"]


def lungs_encoder() -> EncoderEntry:
    """One that makes something where both lungs were found, as the real one does."""

    def encode(made: Analysis) -> Dataset | None:
        return None if made.prediction.lung_fields is None else small_object("lungs", made)

    return EncoderEntry("lungs", 1, encode)


@pytest.mark.parametrize(
    ("answer", "kinds", "made", "said"),
    [
        (positive(), ("lungs",), ["seg", "sr"], True),
        (replace(positive(), lung_fields=lung_fields((4, 5))), ("lungs",), ["seg", "sr", "lungs"], False),
        (replace(positive(), lung_fields=lung_fields((4, 5))), ("seg",), ["seg", "sr"], False),
        (positive(), ("seg",), ["seg", "sr"], False),
        (Prediction((4, 5), not_analysed=NotAnalysed("cropped", "It is cut off.")), ("lungs",), [], False),
    ],
    ids=["not found", "found", "found and not asked for", "not asked for", "not analysed"],
)
def test_lung_fields_are_made_where_asked_for_and_missing_ones_are_told(
    bench: Callable[..., Bench],
    caplog: pytest.LogCaptureFixture,
    answer: Prediction,
    kinds: tuple[str, ...],
    made: list[str],
    said: bool,
) -> None:
    work = bench(answer=answer, kinds=kinds)
    work.tools = replace(work.tools, encode=partial(encode_in_order, [*ENCODERS, lungs_encoder()]))
    with caplog.at_level("INFO"):
        work.run()
    assert work.jobs.outcome is not None
    assert [result.kind for result in work.jobs.outcome.results] == made
    assert ("both lungs were not found" in caplog.text) is said


def test_an_encoder_sees_the_objects_before_it(bench: Callable[..., Bench], tmp_path: Path) -> None:
    work = bench(kinds=("gsps",))
    work.run()
    assert work.jobs.outcome is not None
    seen = [dcmread(tmp_path / result.path).ImageComments for result in work.jobs.outcome.results]
    assert seen == ["", "seg", "seg sr"]


def test_a_message_that_comes_twice_does_nothing(bench: Callable[..., Bench]) -> None:
    work = bench()
    work.run()
    assert work.run() == ["claimed", "finished", "triage"]
    assert work.task_queue.deliveries == [0, 1]


def test_a_lost_claim_delivers_nothing(bench: Callable[..., Bench]) -> None:
    work = bench()
    work.jobs.claim_is_lost = True
    assert work.run() == ["claimed", "triage"], "what is known now decides, as ever"
    assert work.task_queue.deliveries == []


def test_a_database_that_was_locked_for_half_a_minute_is_asked_once_more(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "_FIRST_PAUSE_SECONDS", 0.0)
    work, finish, passed = bench(), FakeJobs.finish_job, [0.0]

    def locked(*arguments: Any) -> Any:
        if not passed[0]:
            passed[0] = 30.0
            raise OperationalError("", {}, Exception("database is locked"))
        return finish(work.jobs, *arguments)

    monkeypatch.setattr(work.jobs, "finish_job", locked)
    work.tools = replace(work.tools, elapsed=lambda: passed[0])
    assert work.run() == ["claimed", "finished", "triage"]


def test_unreadable_pixels_of_a_chest_leave_a_reason_and_nothing_before_the_study_is_complete(
    bench: Callable[..., Bench],
) -> None:
    not_analysed = NotAnalysed("corrupt", "the pixel data is damaged")
    header = Dataset()
    header.Rows, header.Columns = 40, 50
    work = bench(read=lambda path: SourceImage(header, None, not_analysed))
    work.run()
    assert work.jobs.outcome is not None
    assert work.jobs.outcome.not_analysed is not None
    assert (work.jobs.outcome.not_analysed.code, work.jobs.outcome.findings) == ("corrupt", ())
    assert work.jobs.outcome.results == ()


def test_what_is_no_chest_leaves_no_object(bench: Callable[..., Bench]) -> None:
    no_chest = Prediction(shape=(4, 5), not_analysed=NotAnalysed("not_a_chest", "this is a foot", is_chest=False))
    work = bench(answer=no_chest)
    assert work.run() == ["claimed", "finished", "triage"]
    assert work.jobs.outcome is not None
    assert work.jobs.outcome.results == ()
    assert work.jobs.outcome.not_analysed is not None


@pytest.mark.parametrize("error", [RetryableError("the disk is busy"), OSError("no space"), ValueError("a defect")])
def test_errors_are_tried_again_with_doubling_waits_and_then_failed(
    bench: Callable[..., Bench], error: Exception
) -> None:
    work = bench(answer=error)
    for _ in range(4):
        work.run()
    waits = [event[2].total_seconds() for event in work.jobs.events if event[0] == "retry"]
    assert waits == [10, 20]
    assert work.jobs.job.state is JobState.FAILED
    assert [event[0] for event in work.jobs.events][-2:] == ["failed", "triage"]


def test_a_job_whose_model_server_is_away_waits_as_long_as_it_takes(bench: Callable[..., Bench]) -> None:
    work = bench(answer=ModelUnavailableError("the model server https://gpu.example cannot be used"))
    for hours in (0, 0.01, 1, 30):
        work.tools.clock.now = NOON + timedelta(hours=hours)  # type: ignore[attr-defined]
        assert work.run()[-2:] == ["claimed", "retry"]
    waits = [event[2].total_seconds() for event in work.jobs.events if event[0] == "retry"]
    assert waits == [10, 18, 300, 300], "half as long again, within the bounds of the settings"
    assert {event[1] for event in work.jobs.events if event[0] == "retry"} == {
        "waits for a model server: the model server https://gpu.example cannot be used"
    }
    assert (work.jobs.job.state, work.jobs.job.attempts) == (JobState.RETRYING, 0)
    work.tools.predictor.answer = positive()  # type: ignore[attr-defined]
    assert work.run()[-2:] == ["finished", "triage"]


def test_words_of_an_unknown_error_stay_out_of_the_database(bench: Callable[..., Bench]) -> None:
    work = bench(answer=ValueError("Doe^John"))
    work.run()
    assert "Doe" not in str(work.jobs.events)


def test_a_job_that_kills_its_process_is_failed(bench: Callable[..., Bench]) -> None:
    work = bench(first=job(attempts=3))
    assert work.run() == ["claimed", "failed", "triage"]


def test_a_job_waits_as_long_as_it_takes_for_a_store_that_is_away(bench: Callable[..., Bench], tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    work = bench()
    work.tools = replace(
        work.tools, settings=work.tools.settings.model_copy(update={"store": Store(folder=tmp_path / "store")})
    )
    image = tmp_path / "store" / work.jobs.job.instance_path
    image.parent.mkdir(parents=True)
    image.write_bytes(b"as received")
    with store_away(tmp_path / "store"):
        for _ in range(9):
            assert work.run()[-2:] == ["claimed", "retry"]
        assert list((tmp_path / "store").iterdir()) == [], "nothing is written in its place"
    assert (work.jobs.job.state, work.jobs.job.attempts) == (JobState.RETRYING, 0)
    assert {event[1] for event in work.jobs.events if event[0] == "retry"} == {AWAY}
    assert work.run()[-2:] == ["finished", "triage"]


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ESTALE])
def test_a_job_waits_for_a_store_that_takes_or_gives_nothing(bench: Callable[..., Bench], number: int) -> None:
    def read(path: Path) -> SourceImage:
        raise OSError(number, os.strerror(number), str(path))

    work = bench(read=read)
    for _ in range(9):
        work.run()
    assert (work.jobs.job.state, work.jobs.job.attempts) == (JobState.RETRYING, 0)
    assert work.jobs.events[-1][1] == f"the store cannot be used: {os.strerror(number)}"


def test_a_missing_file_is_tried_again(bench: Callable[..., Bench], tmp_path: Path) -> None:
    work = bench()
    (tmp_path / work.jobs.job.instance_path).unlink()
    assert work.run() == ["claimed", "retry"]


@pytest.mark.parametrize(("hours", "late"), [(0, False), (1, True), (3, False)])
def test_late_results_are_kept_and_not_sent(bench: Callable[..., Bench], hours: float, late: bool) -> None:
    old = facts(first_received_at=NOON - timedelta(hours=2))
    work = bench(study=old, late_after_hours=hours)
    work.run()
    assert work.jobs.outcome is not None
    assert len(work.jobs.outcome.results) == 2
    assert bool(work.jobs.outcome.recorded) is late
    assert work.jobs.outcome.destinations, "a person can send them all the same"


def test_the_wait_doubles_up_to_its_limit() -> None:
    settings = Settings(workers=Workers(backoff_seconds=5, maximum_backoff_seconds=60))
    assert [backoff(n, settings).total_seconds() for n in (1, 2, 3, 4, 5, 10_000)] == [5, 10, 20, 40, 60, 60]


def _again(**changes: Any) -> Job:
    return job(compare_with=("instances/aa/old.dcm", "instances/bb/older.dcm"), **changes)


def _fail(name: str) -> str:
    raise RuntimeError(name)


def _unreadable(name: str) -> str:
    raise OSError(name)


def test_what_came_again_is_compared_and_not_analysed(bench: Callable[..., Bench]) -> None:
    work = bench(first=_again(), compared=lambda name: "" if name == "older.dcm" else "other pixels")
    assert work.run() == ["claimed", "compared", "triage"]
    assert work.jobs.events[1] == ("compared", ""), "one that is the same is enough"
    work = bench(first=_again(), compared=lambda name: f"other pixels than {name}")
    work.run()
    assert work.jobs.events[1] == ("compared", "other pixels than old.dcm")


def test_a_corrected_image_names_what_it_replaces_and_whom_the_hospital_has_named(bench: Callable[..., Bench]) -> None:
    patient = PatientIdentity("P1", patient_name="New^Name", patient_sex="F")
    work = bench(first=job(id=8, instance_id=4, replaces=True, patient=patient))
    seen: list[Analysis] = []
    study = replaced_study("1.2.3")
    fake: Any = work.jobs
    fake.study_detail = lambda study_id: study

    def encode(analysis: Analysis, kinds: Collection[str]) -> dict[str, Dataset]:
        seen.append(analysis)
        return {}

    analyse_job(8, replace(work.tools, encode=encode))
    (analysis,) = seen
    assert analysis.previous == {"sr": ("1.2.9", "1.5.1")}
    assert analysis.previous_series == {"sr": "1.6"}
    assert (str(analysis.source.PatientName), analysis.source.PatientSex) == ("New^Name", "F")


def replaced_study(uid: str) -> StudyDetail:
    """A study whose image ``uid`` came twice: a report was made of the first."""
    with TemporaryDirectory() as folder:
        engine = connect(f"sqlite:///{folder}/pleura.sqlite")
        migrate(engine)
        database = Database(engine, NO_RULES)
        first = ReceivedInstance(uid, "1.2.840.10008.5.1.4.1.1.1", "1.2", "a" * 64, "a", 1, "1.3", "1.4")
        for number, image in enumerate((first, replace(first, sop_instance_uid="1.2.4", digest="b" * 64)), 1):
            (job_id,) = record_instance(database, image, None, "p" * 64, NOON).job_ids
            database.write(jobs.claim, job_id, "w", NOON, timedelta(minutes=1))
            record = ResultRecord("sr", "1.2.9", f"1.5.{number}", "1.6", "d", "r", 1)
            database.write(jobs.finish, job_id, "w", Outcome(results=(record,)), NOON)
        study = database.read(study_details.study_detail, 1)
        engine.dispose()
    return study


def test_a_comparison_that_is_lost_to_another_worker_writes_nothing(bench: Callable[..., Bench]) -> None:
    work = bench(first=_again(), compared=lambda name: "")
    work.jobs.claim_is_lost = True
    assert "compared" not in work.run()


@pytest.mark.parametrize("broken", [_fail, _unreadable], ids=["defect", "disk"])
def test_what_cannot_be_compared_is_tried_again_and_then_shown_to_a_person(
    bench: Callable[..., Bench], broken: Callable[[str], str]
) -> None:
    work = bench(first=_again(), compared=broken)
    assert work.run() == ["claimed", "retry"]
    work = bench(first=_again(attempts=2), compared=broken)
    assert work.run() == ["claimed", "compared", "triage"]
    assert "could not be compared" in work.jobs.events[1][1]
    work = bench(first=_again(attempts=3), compared=broken)
    work.run()
    assert "its process was lost" in work.jobs.events[1][1], "what kills the process is not compared for ever"


def test_an_image_that_takes_more_memory_than_there_is_is_not_analysed_in_the_end(bench: Callable[..., Bench]) -> None:
    def read(path: Path) -> SourceImage:
        raise MemoryError

    work = bench(read=read)
    assert [work.run() and work.jobs.job.state for _ in range(3)][:2] == [JobState.RETRYING] * 2
    assert work.jobs.job.state is JobState.DONE
    assert work.jobs.outcome is not None
    assert work.jobs.outcome.not_analysed is not None
    assert work.jobs.outcome.not_analysed.code == "too_large"
    assert work.jobs.outcome.results == ()


# --- the cores ---------------------------------------------------------------------------------------------------


@dataclass
class Together(FakePredictor):
    """A predictor that notes how often its networks are to run side by side."""

    answer: Prediction | Exception = field(default_factory=positive)
    times: int = 0

    def side_by_side(self) -> Self:
        self.times += 1
        return self


@pytest.mark.parametrize(("stat", "busy", "times"), [(False, False, 1), (False, True, 0), (True, True, 1)])
def test_an_image_without_others_and_a_stat_image_take_all_cores(
    bench: Callable[..., Bench], stat: bool, busy: bool, times: int
) -> None:
    shared = bytearray(64)
    own, other = Siblings(shared, 0), Siblings(shared, 1)
    work, predictor = bench(first=job(stat=stat)), Together()
    work.tools = replace(work.tools, siblings=own, predictor=predictor)
    with other.working(False) if busy else nullcontext():
        work.run()
    assert work.jobs.outcome is not None
    assert predictor.times == times


# --- routing rules --------------------------------------------------------------------------------------------------


@dataclass
class TwoModels(FakePredictor):
    """A predictor that notes which of its models are asked."""

    answer: Prediction | Exception = field(default_factory=positive)
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def only(self, names: Collection[str]) -> TwoModels:
        self.asked.append(tuple(names))
        return self


def routed(work: Bench, *rules: RoutingRule) -> TwoModels:
    """Let two models analyse a real file under these rules."""
    chest().save_as(work.tools.settings.store.folder / work.jobs.job.instance_path, enforce_file_format=True)
    predictor = TwoModels()
    settings = work.tools.settings.model_copy(update={"routing": rules})
    modes = {"a": "active", "b": "active"}
    work.tools = replace(work.tools, settings=settings, predictor=predictor, modes=modes)
    nothing_before: Any = SimpleNamespace(instances=(), jobs=(), results=())
    work.jobs.study_detail = lambda study_id: nothing_before  # type: ignore[method-assign]
    return predictor


def test_a_routed_image_is_analysed_by_its_models_for_its_destinations(bench: Callable[..., Bench]) -> None:
    work = bench(first=job(route=Route("icu", "sex F", ("b",), ())))
    predictor = routed(work)
    work.run()
    assert predictor.asked == [("b",)]
    assert work.jobs.outcome is not None
    assert (work.jobs.outcome.modes, work.jobs.outcome.destinations) == ({"b": "active"}, {})
    assert not work.jobs.outcome.decided_anew


def test_a_retry_follows_the_decision_of_the_arrival_and_a_new_run_today_s_rules(bench: Callable[..., Bench]) -> None:
    then, today = Route("icu", "sex F", ("b",)), RoutingRule(name="t", calling_ae_titles=("DX1",), models=("a",))
    asked, outcomes = [], []
    for revision in (1, 2):
        work = bench(first=job(route=then, attempts=1, revision=revision, calling_ae_title="DX1"))
        predictor = routed(work, today)
        work.run()
        asked.append(predictor.asked)
        outcomes.append(work.jobs.outcome)
    assert asked == [[("b",)], [("a",)]]
    assert [one.decided_anew for one in outcomes if one] == [False, True]
    assert outcomes[1] is not None
    assert outcomes[1].route == Route("t", "calling AE title DX1", ("a",))


def test_a_new_run_that_today_s_rules_exclude_is_not_analysed(bench: Callable[..., Bench]) -> None:
    work = bench(first=job(revision=2))
    predictor = routed(work, RoutingRule(name="all", analyse=False, reason="the trial is over"))
    work.run()
    assert work.jobs.outcome is not None
    assert work.jobs.outcome.not_analysed is not None
    assert work.jobs.outcome.not_analysed.code == "excluded-by-rule"
    assert "the trial is over" in work.jobs.outcome.not_analysed.sentence
    assert (predictor.asked, work.jobs.outcome.results) == ([], ())
