"""The page “Try it”: upload a file and see its findings and overlay."""

from __future__ import annotations

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from models.manifest import ManifestError
from models.model_registry import UnknownModel
from models.runtime.executor import ModelLoadError, ModelOutputError, ModelUnavailableError
from node.web.image_process import ImageError
from node.web.middleware import RequestContext
from node.web.translatable import gettext_noop
from node.web.trials import Trial


def show_form(context: RequestContext) -> Response:
    """The upload form."""
    return context.page("trial.html", trial=None, route=None, problem="")


def run_trial(context: RequestContext) -> Response:
    """Analyse the uploaded file."""
    upload = context.form.get("file")
    if not isinstance(upload, UploadFile) or not upload.filename:
        return context.page(
            "trial.html", 400, trial=None, route=None, problem=gettext_noop("Choose a DICOM, PNG or JPEG file first.")
        )
    data = upload.file.read()
    try:
        trial = context.services.trials.run(data, upload.filename, context.actor, context.now)
    except ImageError as error:
        return _unreadable(context, data, str(error))
    except (ManifestError, UnknownModel, ModelLoadError, ModelOutputError, ModelUnavailableError) as error:
        sentence = gettext_noop("The models cannot be used: {error}. Run `pleura doctor`.").format(error=error)
        return context.page("trial.html", 503, trial=None, route=None, problem=sentence)
    context.audit("try it", f"{len(data)} bytes")
    return RedirectResponse(f"/try/{trial.key}", 303)


def _unreadable(context: RequestContext, data: bytes, problem: str) -> Response:
    """The form again, with what would become of an object whose pixels cannot be read."""
    try:
        route = context.services.trials.route_without_image(data, problem, context.now)
    except ImageError:
        route = None
    return context.page("trial.html", 422, trial=None, route=route, problem=problem)


def show_trial(context: RequestContext) -> Response:
    """The result of a trial."""
    trial = _trial(context)
    return context.page("trial.html", trial=trial, route=trial.route, problem="")


def trial_picture(context: RequestContext) -> Response:
    """The radiograph of a trial, for the viewer."""
    return Response(_trial(context).picture, media_type="image/png")


def trial_overlay(context: RequestContext) -> Response:
    """The region of one finding of a trial."""
    findings, number = _trial(context).findings, context.number("finding")
    if number >= len(findings) or not findings[number].overlay:
        raise HTTPException(404)
    return Response(findings[number].overlay, media_type="image/png")


def _trial(context: RequestContext) -> Trial:
    trial = context.services.trials.find(str(context.request.path_params["key"]), context.actor, context.now)
    if trial is None:
        raise HTTPException(404, gettext_noop("this trial has expired; files are kept only for some minutes"))
    return trial
