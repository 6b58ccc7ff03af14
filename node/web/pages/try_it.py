"""“Try it”: drop a file, see findings and overlay."""

from __future__ import annotations

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from models.manifest import ManifestError
from models.model_registry import UnknownModel
from models.runtime.executor import ModelLoadError, ModelOutputError
from node.web.image_process import ImageError
from node.web.middleware import Visit
from node.web.trials import Trial


def show_form(visit: Visit) -> Response:
    """The page that takes a file."""
    return visit.page("trial.html", trial=None, problem="")


def run_trial(visit: Visit) -> Response:
    """Judge the file that was given."""
    upload = visit.form.get("file")
    if not isinstance(upload, UploadFile) or not upload.filename:
        return visit.page("trial.html", 400, trial=None, problem="Choose a DICOM, PNG or JPEG file first.")
    data = upload.file.read()
    try:
        trial = visit.services.trials.run(data, upload.filename, visit.actor, visit.now)
    except ImageError as error:
        return visit.page("trial.html", 422, trial=None, problem=_sentence(str(error)))
    except (ManifestError, UnknownModel, ModelLoadError, ModelOutputError) as error:
        sentence = f"The models cannot be used: {error}. Run `pleura doctor`."
        return visit.page("trial.html", 503, trial=None, problem=sentence)
    visit.audit("try it", f"{len(data)} bytes")
    return RedirectResponse(f"/try/{trial.key}", 303)


def show_trial(visit: Visit) -> Response:
    """What came out."""
    return visit.page("trial.html", trial=_trial(visit), problem="")


def trial_picture(visit: Visit) -> Response:
    """The radiograph of a trial, for the viewer."""
    return Response(_trial(visit).picture, media_type="image/png")


def trial_overlay(visit: Visit) -> Response:
    """The region of one finding of a trial."""
    findings, number = _trial(visit).findings, visit.number("finding")
    if number >= len(findings) or not findings[number].overlay:
        raise HTTPException(404)
    return Response(findings[number].overlay, media_type="image/png")


def _trial(visit: Visit) -> Trial:
    trial = visit.services.trials.find(str(visit.request.path_params["key"]), visit.actor, visit.now)
    if trial is None:
        raise HTTPException(404, "this trial is over; files are kept for minutes only")
    return trial


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
