"""The page of one study: the radiograph with its findings, deliveries, history and actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RedirectResponse, Response

from db import feedback, notifications, study_status
from db.assessments import unmatched
from db.audit import AuditFilter
from db.errors import DatabaseError, RecordNotFoundError
from db.feedback import FeedbackRecord, IdentifiedFinding
from db.instance_flags import COMPARE, REPEAT, REPLACED
from db.queries import study_details
from db.queries.priors import prior_studies
from db.shown_records import InstanceDetail, JobDetail, StudyDetail, WorklistRow
from db.states import Priority
from db.user_tables import Role, Verdict
from node.web.image_process import ImageError
from node.web.middleware import RequestContext, whole_number
from node.web.rendering import colour_of, stored_file
from node.web.translatable import gettext_noop
from workers.stale_objects import by_hand

_MOST_SEGMENTS = 64
"""Of one picture; a finding has far fewer."""


@dataclass(frozen=True, slots=True)
class ShownFinding:
    """A finding as shown in the viewer: ``overlay`` is the address of its mask, empty if it has none."""

    finding: IdentifiedFinding
    overlay: str
    colour: int
    verdicts: tuple[FeedbackRecord, ...]


@dataclass(frozen=True, slots=True)
class ShownImage:
    """An image that can be shown, with its latest job and its findings."""

    instance: InstanceDetail
    job: JobDetail | None
    findings: tuple[ShownFinding, ...]


def show_study(context: RequestContext) -> Response:
    """The page of one study; the view is written to the audit trail."""
    study_id = context.number("study")
    detail = _detail(context, study_id)
    context.viewed(study_id)
    images = _images(context, detail)
    wanted = context.query("image")
    chosen = next((image for image in images if str(image.instance.id) == wanted), images[0] if images else None)
    return context.page(
        "study.html",
        detail=detail,
        images=images,
        chosen=chosen,
        hospital_priority=context.services.database.read(study_status.hospital_priority, study_id),
        Priority=Priority,
        assessments=unmatched(context.services.engine, 10, study_id),
        notifications=context.services.database.read(notifications.of_study, study_id),
        unserved={queue.name for queue in context.services.unserved.get()},
        to_remove=by_hand(detail, context.services.settings.destinations),
        priors=_priors(context, study_id),
        viewer_url=_viewer_url(context, detail),
        may_download=context.who.may(Role.RADIOLOGIST) and not context.services.settings.admin.hide_patient_names,
        problem=context.query("problem")[:200],
        done=_DONE.get(context.query("done"), ""),
    )


def show_history(context: RequestContext) -> Response:
    """All events of a study and, for an administrator, its audit trail."""
    study_id = context.number("study")
    detail = _detail(context, study_id)
    context.viewed(study_id, "history")
    wanted, is_admin = AuditFilter(study_id=study_id), context.who.role.value == "admin"
    trail = context.services.audit.entries(wanted, limit=500) if is_admin else ()
    return context.page("history.html", detail=detail, trail=trail)


def picture(context: RequestContext) -> Response:
    """The radiograph of one instance for the viewer, or a small ordinary PNG with ``size=preview``."""
    instance = _instance(context)
    context.viewed(context.number("study"), "image")
    radiographs = context.services.radiographs
    make = radiographs.preview if context.query("size") == "preview" else radiographs.packed
    try:
        return Response(make(instance.path), media_type="image/png")
    except FileNotFoundError as error:
        raise HTTPException(404, gettext_noop("this image is no longer in the store")) from error
    except ImageError as error:
        raise HTTPException(404, f"this image cannot be shown: {error}") from error


def download(context: RequestContext) -> Response:
    """One of our result objects as a DICOM file; the download is written to the audit trail.

    It holds the patient's name, so there is none where names are hidden.
    """
    if context.services.settings.admin.hide_patient_names:
        raise HTTPException(403, gettext_noop("patient names are hidden here, and a result object holds one"))
    detail = _detail(context, context.number("study"))
    result = next((result for result in detail.results if result.id == context.number("result")), None)
    if result is None:
        raise HTTPException(404)
    record = result.record
    try:
        file = stored_file(context.services.settings.store.folder, record.path)
    except FileNotFoundError as error:
        raise HTTPException(404, gettext_noop("this object is no longer in the store")) from error
    context.audit("export result", record.kind, detail.row.study_id, record.sop_instance_uid)
    return FileResponse(file, media_type="application/dicom", filename=f"{record.kind}-{record.sop_instance_uid}.dcm")


def overlay(context: RequestContext) -> Response:
    """One segment of a SEG, ``with`` further ones of the same finding, as a transparent picture in its colour."""
    detail = _detail(context, context.number("study"))
    result = next((result for result in detail.results if result.id == context.number("result")), None)
    if result is None or result.record.kind != "seg":
        raise HTTPException(404)
    context.viewed(context.number("study"), "image")
    numbers = (context.number("segment"), *_further(context))
    try:
        made = context.services.radiographs.overlay(result.record.path, numbers, colour_of(_colour(context)))
    except (FileNotFoundError, LookupError) as error:
        raise HTTPException(404, gettext_noop("this segmentation is no longer in the store")) from error
    return Response(made, media_type="image/png")


def act(context: RequestContext) -> Response:
    """An action button of the page. If the database forbids the action, the page shows its message."""
    study_id = context.number("study")
    action = _ACTIONS.get(context.request.path_params["action"])
    if action is None:
        raise HTTPException(404)
    try:
        _detail(context, study_id)
        action(context, study_id)
    except RecordNotFoundError as error:
        raise HTTPException(404, str(error)) from error
    except DatabaseError as error:
        return _back(context, study_id, str(error))
    return _back(context, study_id, done=context.request.path_params["action"])


def give_feedback(context: RequestContext) -> Response:
    """Store a verdict on a finding of this study."""
    study_id, finding_id = context.number("study"), context.number("finding")
    if finding_id not in {finding.id for finding in context.services.database.read(feedback.findings, study_id)}:
        raise HTTPException(404)
    verdict = context.field("verdict")
    if verdict not in set(Verdict):
        raise HTTPException(400, gettext_noop("a verdict is accept, modify or reject"))
    context.actions.give_feedback(finding_id, Verdict(verdict), context.field("comment"), "web")
    return _back(context, study_id, done="verdict")


def _retry(context: RequestContext, study_id: int) -> None:
    job_id = _of_study(context, [job.id for job in _detail(context, study_id).jobs])
    context.actions.retry_job(study_id, job_id)


def _send_again(context: RequestContext, study_id: int) -> None:
    delivery_id = _of_study(context, [delivery.id for delivery in _detail(context, study_id).deliveries])
    context.actions.resend(study_id, delivery_id)


def _set_priority(context: RequestContext, study_id: int) -> None:
    chosen = context.field("priority")
    if chosen not in {*Priority, "triage"}:
        raise HTTPException(400, gettext_noop("a priority is critical, urgent, routine or triage"))
    context.actions.set_priority(study_id, None if chosen == "triage" else Priority(chosen))


_ACTIONS: dict[str, Callable[[RequestContext, int], object]] = {
    "retry": _retry,
    "resend": _send_again,
    "hold": lambda context, study_id: context.actions.hold(study_id, context.field("reason")),
    "release": lambda context, study_id: context.actions.release(study_id),
    "reported": lambda context, study_id: context.actions.report(study_id),
    "unreported": lambda context, study_id: context.actions.undo_report(study_id),
    "priority": _set_priority,
}


_DONE = {
    "retry": gettext_noop("The job runs again"),
    "resend": gettext_noop("The delivery is sent again"),
    "hold": gettext_noop("On hold"),
    "release": gettext_noop("Released"),
    "reported": gettext_noop("Marked as reported"),
    "unreported": gettext_noop("Back on the worklist"),
    "priority": gettext_noop("The priority is set"),
    "verdict": gettext_noop("The verdict is stored"),
}
"""Message of the page after an action; the page adds the patient and the study."""


def _priors(context: RequestContext, study_id: int) -> tuple[WorklistRow, ...]:
    """Earlier studies of the patient, latest first."""
    database = context.services.database
    found = database.read(prior_studies, study_id, database.rules.patients)
    rows = {row.study_id: row for row in context.services.worklist.rows(found)} if found else {}
    return tuple(rows[one] for one in found if one in rows)


def _viewer_url(context: RequestContext, detail: StudyDetail) -> str:
    """Address of the study in the site's own viewer; empty if the site has none."""
    template = context.services.settings.admin.viewer_url
    return template.replace("{study_uid}", quote(detail.row.study_instance_uid, safe=""))


def _of_study(context: RequestContext, known: list[int]) -> int:
    """The row number in the form, which must be one of this study's."""
    given = whole_number(context.field("id"), 10)
    if given is None or given not in known:
        raise HTTPException(404)
    return given


def _back(context: RequestContext, study_id: int, problem: str = "", done: str = "") -> Response:
    values = {"image": context.field("image"), "problem": problem, "done": done}
    query = urlencode({name: value for name, value in values.items() if value})
    return RedirectResponse(f"/studies/{study_id}" + (f"?{query}" if query else ""), 303)


def _detail(context: RequestContext, study_id: int) -> StudyDetail:
    try:
        return context.services.database.read(study_details.study_detail, study_id)
    except RecordNotFoundError as error:
        raise HTTPException(404, str(error)) from error


def _instance(context: RequestContext) -> InstanceDetail:
    detail = _detail(context, context.number("study"))
    wanted = context.number("instance")
    found = next((instance for instance in detail.instances if instance.id == wanted), None)
    if found is None:
        raise HTTPException(404)
    return found


def _images(context: RequestContext, detail: StudyDetail) -> tuple[ShownImage, ...]:
    """Images that can be shown, those with a job first."""
    findings = context.services.database.read(feedback.findings, detail.row.study_id)
    verdicts = context.services.database.read(feedback.of_study, detail.row.study_id)
    latest = {job.instance_id: job for job in detail.jobs}
    images = []
    for instance in detail.instances:
        if instance.flag in (COMPARE, REPEAT, REPLACED):
            continue
        job = latest.get(instance.id)
        if job is None and instance.modality not in context.services.settings.eligibility.modalities:
            continue
        own = tuple(finding for finding in findings if job is not None and finding.job_id == job.id)
        images.append(ShownImage(instance, job, _shown(context, detail, job, own, verdicts)))
    return tuple(sorted(images, key=lambda image: (image.job is None, image.instance.id)))


def _shown(
    context: RequestContext,
    detail: StudyDetail,
    job: JobDetail | None,
    findings: tuple[IdentifiedFinding, ...],
    verdicts: tuple[FeedbackRecord, ...],
) -> tuple[ShownFinding, ...]:
    segs = [result for result in detail.results if result.record.kind == "seg" and job and result.job_id == job.id]
    seg = max(segs, key=lambda result: result.revision, default=None)
    segments = context.services.radiographs.segments(seg.record.path) if seg is not None else {}
    shown = []
    for index, finding in enumerate(sorted(findings, key=_by_weight)):
        numbers = _segments_of(finding, segments)
        address = ""
        if seg is not None and numbers:
            first, more = numbers[0], "".join(f"&with={number}" for number in numbers[1:])
            address = f"/studies/{detail.row.study_id}/results/{seg.id}/segments/{first}.png?colour={index}{more}"
        own = tuple(verdict for verdict in verdicts if verdict.finding_id == finding.id)
        shown.append(ShownFinding(finding, address, index % 6, own))
    return tuple(shown)


def _segments_of(finding: IdentifiedFinding, segments: Mapping[str, int]) -> tuple[int, ...]:
    """The segments of this finding: two models may share a label, and a revision the SEG of its predecessor."""
    return tuple(segments[uid] for uid in finding.record.tracking_uids if uid in segments)


def _by_weight(finding: IdentifiedFinding) -> tuple[bool, bool, float]:
    return finding.record.shadow, not finding.record.present, -(finding.record.probability or 0)


def _further(context: RequestContext) -> tuple[int, ...]:
    """The numbers of the further segments that a picture is to show."""
    given = context.request.query_params.getlist("with")[:_MOST_SEGMENTS]
    return tuple(number for each in given if (number := whole_number(each, 5)) is not None)


def _colour(context: RequestContext) -> int:
    return (whole_number(context.query("colour"), 3) or 0) % 6
