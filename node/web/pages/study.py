"""One study: the radiograph with what was found, everything that happened to it, and what can be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from db.assessments import unmatched
from db.errors import DatabaseError, RecordNotFoundError
from db.feedback import FeedbackRecord, IdentifiedFinding
from db.instance_flags import COMPARE, REPEAT, REPLACED
from db.notifications import Notifications
from db.records import InstanceDetail, JobDetail, Priority, StudyDetail
from db.user_tables import Verdict
from node.web import actions
from node.web.image_process import ImageError
from node.web.middleware import Visit
from node.web.overlay import colour_of
from node.web.rendering import Segment
from workers.stale_objects import by_hand


@dataclass(frozen=True, slots=True)
class ShownFinding:
    """A finding with its place in the viewer: ``overlay`` is the address of its mask, empty where it has none."""

    finding: IdentifiedFinding
    overlay: str
    colour: int
    verdicts: tuple[FeedbackRecord, ...]


@dataclass(frozen=True, slots=True)
class ShownImage:
    """An image that can be looked at, its latest job and what was found in it."""

    instance: InstanceDetail
    job: JobDetail | None
    findings: tuple[ShownFinding, ...]


def show_study(visit: Visit) -> Response:
    """The page of one study; that it was looked at is written down."""
    study_id = visit.number("study")
    detail = _detail(visit, study_id)
    listed = visit.services.reading.rows([study_id])[0]
    visit.audit("view study", "study", study_id)
    images = _images(visit, detail)
    wanted = visit.query("image")
    chosen = next((image for image in images if str(image.instance.id) == wanted), images[0] if images else None)
    return visit.page(
        "study.html",
        detail=detail,
        listed=listed,
        images=images,
        chosen=chosen,
        hospital_priority=visit.services.reporting.hospital_priority(study_id),
        Priority=Priority,
        assessments=unmatched(visit.services.engine, 10, study_id),
        alarms=Notifications(visit.services.engine).of_study(study_id),
        to_remove=by_hand(detail, visit.services.settings.destinations),
        problem=visit.query("problem")[:200],
        told=_DONE.get(visit.query("told"), ""),
    )


def show_history(visit: Visit) -> Response:
    """Everything that happened to a study, and who looked at it."""
    study_id = visit.number("study")
    detail = _detail(visit, study_id)
    trail = visit.services.audit.entries(limit=500, study_id=study_id) if visit.who.role.value == "admin" else ()
    return visit.page("history.html", detail=detail, listed=visit.services.reading.rows([study_id])[0], trail=trail)


def picture(visit: Visit) -> Response:
    """The radiograph of one instance for the viewer, or with ``size=preview`` a small ordinary one."""
    instance = _instance(visit)
    radiographs = visit.services.radiographs
    make = radiographs.preview if visit.query("size") == "preview" else radiographs.packed
    try:
        return Response(make(instance.path), media_type="image/png")
    except FileNotFoundError as error:
        raise HTTPException(404, "this image is no longer in the store") from error
    except ImageError as error:
        raise HTTPException(404, f"this image cannot be shown: {error}") from error


def overlay(visit: Visit) -> Response:
    """One segment of a SEG as a transparent picture in the colour of its number."""
    detail = _detail(visit, visit.number("study"))
    result = next((result for result in detail.results if result.id == visit.number("result")), None)
    if result is None or result.record.kind != "seg":
        raise HTTPException(404)
    number = visit.number("segment")
    try:
        made = visit.services.radiographs.overlay(result.record.path, number, colour_of(_colour(visit)))
    except (FileNotFoundError, LookupError) as error:
        raise HTTPException(404, "this segmentation is no longer in the store") from error
    return Response(made, media_type="image/png")


def act(visit: Visit) -> Response:
    """A button of the page. A refusal of the database is told on the page, in its own words."""
    study_id = visit.number("study")
    action = _ACTIONS.get(visit.request.path_params["action"])
    if action is None:
        raise HTTPException(404)
    try:
        _detail(visit, study_id)
        action(visit, study_id)
    except RecordNotFoundError as error:
        raise HTTPException(404, str(error)) from error
    except DatabaseError as error:
        return _back(visit, study_id, str(error))
    return _back(visit, study_id, told=visit.request.path_params["action"])


def give_feedback(visit: Visit) -> Response:
    """A verdict on a finding of this study."""
    study_id, finding_id = visit.number("study"), visit.number("finding")
    if finding_id not in {finding.id for finding in visit.services.feedback.findings(study_id)}:
        raise HTTPException(404)
    verdict = visit.field("verdict")
    if verdict not in set(Verdict):
        raise HTTPException(400, "a verdict is accept, modify or reject")
    actions.judge_finding(visit, finding_id, Verdict(verdict), visit.field("comment"), "web")
    return _back(visit, study_id, told="verdict")


def _retry(visit: Visit, study_id: int) -> None:
    job_id = _of_study(visit, [job.id for job in _detail(visit, study_id).jobs])
    actions.retry_job(visit, study_id, job_id)


def _send_again(visit: Visit, study_id: int) -> None:
    delivery_id = _of_study(visit, [delivery.id for delivery in _detail(visit, study_id).deliveries])
    actions.send_again(visit, study_id, delivery_id)


def _set_priority(visit: Visit, study_id: int) -> None:
    word = visit.field("priority")
    if word not in {*Priority, "triage"}:
        raise HTTPException(400, "a priority is critical, urgent, routine or triage")
    actions.set_priority(visit, study_id, None if word == "triage" else Priority(word))


_ACTIONS: dict[str, Callable[[Visit, int], None]] = {
    "retry": _retry,
    "resend": _send_again,
    "hold": lambda visit, study_id: actions.hold(visit, study_id, visit.field("reason")),
    "release": actions.release,
    "reported": actions.report,
    "unread": actions.make_unread,
    "priority": _set_priority,
}


_DONE = {
    "retry": "The job runs again",
    "resend": "The delivery is sent again",
    "hold": "On hold",
    "release": "Released",
    "reported": "Marked as reported",
    "unread": "Back on the worklist",
    "priority": "The priority is set",
    "verdict": "The verdict is stored",
}
"""What the page says of an action that is done, before it repeats whose study it was."""


def _of_study(visit: Visit, known: list[int]) -> int:
    """The row number in the form, which must be one of this study's."""
    given = visit.field("id")
    if not (given.isascii() and given.isdigit() and len(given) < 11) or int(given) not in known:
        raise HTTPException(404)
    return int(given)


def _back(visit: Visit, study_id: int, problem: str = "", told: str = "") -> Response:
    values = {"image": visit.field("image"), "problem": problem, "told": told}
    query = urlencode({name: value for name, value in values.items() if value})
    return RedirectResponse(f"/studies/{study_id}" + (f"?{query}" if query else ""), 303)


def _detail(visit: Visit, study_id: int) -> StudyDetail:
    try:
        return visit.services.worklist.study_detail(study_id)
    except RecordNotFoundError as error:
        raise HTTPException(404, str(error)) from error


def _instance(visit: Visit) -> InstanceDetail:
    detail = _detail(visit, visit.number("study"))
    wanted = visit.number("instance")
    found = next((instance for instance in detail.instances if instance.id == wanted), None)
    if found is None:
        raise HTTPException(404)
    return found


def _images(visit: Visit, detail: StudyDetail) -> tuple[ShownImage, ...]:
    """Images that can be looked at, those with findings first."""
    findings = visit.services.feedback.findings(detail.row.study_id)
    verdicts = visit.services.feedback.of_study(detail.row.study_id)
    latest = {job.instance_id: job for job in detail.jobs}
    images = []
    for instance in detail.instances:
        if instance.flag in (COMPARE, REPEAT, REPLACED):
            continue
        job = latest.get(instance.id)
        if job is None and instance.modality not in visit.services.settings.eligibility.modalities:
            continue
        own = tuple(finding for finding in findings if job is not None and finding.job_id == job.id)
        images.append(ShownImage(instance, job, _shown(visit, detail, job, own, verdicts)))
    return tuple(sorted(images, key=lambda image: (image.job is None, image.instance.id)))


def _shown(
    visit: Visit,
    detail: StudyDetail,
    job: JobDetail | None,
    findings: tuple[IdentifiedFinding, ...],
    verdicts: tuple[FeedbackRecord, ...],
) -> tuple[ShownFinding, ...]:
    segs = [result for result in detail.results if result.record.kind == "seg" and job and result.job_id == job.id]
    seg = max(segs, key=lambda result: result.revision, default=None)
    segments = visit.services.radiographs.segments(seg.record.path) if seg is not None else ()
    shown = []
    for index, finding in enumerate(sorted(findings, key=_by_weight)):
        segment = _segment_of(finding, segments)
        address = ""
        if seg is not None and segment is not None:
            address = f"/studies/{detail.row.study_id}/results/{seg.id}/segments/{segment.number}.png?colour={index}"
        own = tuple(verdict for verdict in verdicts if verdict.finding_id == finding.id)
        shown.append(ShownFinding(finding, address, index % 6, own))
    return tuple(shown)


def _segment_of(finding: IdentifiedFinding, segments: tuple[Segment, ...]) -> Segment | None:
    """The segment of this very finding: two models may have a label in common, and a revision its predecessor's SEG."""
    uid = finding.record.tracking_uid
    return next((segment for segment in segments if uid and segment.tracking_uid == uid), None)


def _by_weight(finding: IdentifiedFinding) -> tuple[bool, bool, float]:
    return finding.record.shadow, not finding.record.present, -(finding.record.probability or 0)


def _colour(visit: Visit) -> int:
    given = visit.query("colour", "0")
    return int(given) % 6 if given.isascii() and given.isdigit() and len(given) < 4 else 0
