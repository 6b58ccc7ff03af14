"""WADO-RS (PS3.18 10.4) of this node's own results: the bytes that a C-STORE of them sends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian
from starlette.responses import FileResponse, Response, StreamingResponse

from db.audit import AuditEntry, write_entry
from db.audit_events import VIEW_STUDY
from db.queries.own_results import OwnResult, ResultKeys
from node.dicomweb.media_types import DICOM, JSON, RELATED, XML, accepted, media_range, multipart
from node.dicomweb.pixels import frames_of, picture_of
from node.dicomweb.request_context import RequestContext, problem
from node.dicomweb.search import answer, json_model, root_url

_OCTETS = "application/octet-stream"
_CHUNK = 256 * 1024
_PIXELS = "7FE00010"
_PICTURES = {"image/png": "PNG", "image/jpeg": "JPEG"}
_RENDERED = ("sc", "seg", "lungs")
_NO_FRAME = "this object has no such frame, or no pixels"


def retrieve(context: RequestContext) -> Response:
    """The files of a study, a series or an instance."""
    header = context.request.headers.get("accept", "")
    if accepted(header, (DICOM,)) is None or not _takes_our_syntax(header):
        return problem(406, f'the answer is {RELATED}; type="{DICOM}" in Explicit VR Little Endian, as it was made')
    found = _found(context)
    if isinstance(found, Response):
        return found
    _audit(context, found, "retrieved by WADO-RS")
    paths = [context.services.results.path(one) for one in found]
    if len(paths) == 1 and media_range(header.partition(",")[0]).name == DICOM:
        return FileResponse(paths[0], media_type=DICOM)
    described = f"{DICOM}; transfer-syntax={ExplicitVRLittleEndian}"
    content, kind = multipart([(described, partial(_chunks, path)) for path in paths], DICOM)
    return StreamingResponse(content, headers={"Content-Type": kind})


def metadata(context: RequestContext) -> Response:
    """Everything but bulk data, which has an address of its own."""
    form = accepted(context.request.headers.get("accept", ""), (JSON, XML))
    if form is None:
        return problem(406, f"the answer is {JSON} or {XML}")
    found = _found(context)
    if isinstance(found, Response):
        return found
    _audit(context, found, "metadata read by WADO-RS")
    return answer([_metadata(context, one) for one in found], form, {})


def _metadata(context: RequestContext, result: OwnResult) -> dict[str, Any]:
    header = dcmread(context.services.results.path(result), stop_before_pixels=True)
    model = json_model(header)
    if "Rows" in header:
        where = f"{root_url(context)}/studies/{result.study_instance_uid}/series/{result.series_instance_uid}"
        address = f"{where}/instances/{result.sop_instance_uid}/bulkdata"
        model[_PIXELS] = {"vr": "OB" if header.BitsAllocated <= 8 else "OW", "BulkDataURI": address}
    return model


def bulk_data(context: RequestContext) -> Response:
    """The value of Pixel Data, the only bulk data that our results have."""
    return _of_pixels(context, lambda data_set: [bytes(data_set.PixelData)])


def frames(context: RequestContext) -> Response:
    """Frames of an object by their numbers, each in bytes of its own."""
    return _of_pixels(context, lambda data_set: frames_of(data_set, _numbers(context)))


def rendered(context: RequestContext) -> Response:
    """A Secondary Capture or a segmentation, or one frame of it, as a picture."""
    form = accepted(context.request.headers.get("accept", ""), tuple(_PICTURES))
    if form is None:
        return problem(406, f"the answer is {' or '.join(_PICTURES)}")
    numbers = _numbers(context)
    if len(numbers) > 1:
        return problem(406, "one frame at a time is rendered")
    found = _found(context)
    if isinstance(found, Response):
        return found
    if found[0].kind not in _RENDERED:
        return problem(406, "only a Secondary Capture and a segmentation are rendered")
    pixels = picture_of(dcmread(context.services.results.path(found[0])), numbers[0] if numbers else None)
    if pixels is None:
        return problem(404, _NO_FRAME)
    _audit(context, found, "rendered by WADO-RS")
    drawn = BytesIO()
    Image.fromarray(pixels).save(drawn, _PICTURES[form], quality=90)
    return Response(drawn.getvalue(), media_type=form)


def _numbers(context: RequestContext) -> list[int]:
    """The numbers of frames in the path; none where it names an instance."""
    return [int(each) for each in context.request.path_params.get("frames", "").split(",") if each]


def _of_pixels(context: RequestContext, take: Callable[[Dataset], Sequence[bytes] | None]) -> Response:
    if accepted(context.request.headers.get("accept", ""), (_OCTETS,)) is None:
        return problem(406, f'the answer is {RELATED}; type="{_OCTETS}"')
    found = _found(context)
    if isinstance(found, Response):
        return found
    data_set = dcmread(context.services.results.path(found[0]))
    parts = take(data_set) if "PixelData" in data_set else None
    if parts is None:
        return problem(404, _NO_FRAME)
    _audit(context, found, "pixels read by WADO-RS")
    described = f"{_OCTETS}; transfer-syntax={ExplicitVRLittleEndian}"
    content, kind = multipart([(described, partial(iter, [part])) for part in parts], _OCTETS)
    return StreamingResponse(content, headers={"Content-Type": kind})


def _found(context: RequestContext) -> tuple[OwnResult, ...] | Response:
    """The objects that a path names, whose files are there."""
    path = context.request.path_params
    keys = ResultKeys(
        study_uids=(path["study"],),
        series_uids=(path["series"],) if "series" in path else (),
        sop_uids=(path["instance"],) if "instance" in path else (),
    )
    results = context.services.results
    found = tuple(one for one in results.objects(keys) if results.path(one).is_file())
    return found or problem(404, "this node has no results of its own there, for now")


def _takes_our_syntax(header: str) -> bool:
    """Whether no transfer syntax is asked for, or that of the files is."""
    wanted = {media_range(entry).parameters.get("transfer-syntax", "*") for entry in header.split(",")}
    return bool(wanted & {"*", ExplicitVRLittleEndian})


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _audit(context: RequestContext, found: Sequence[OwnResult], what: str) -> None:
    """Write to the audit trail whose instances were accessed, before anything leaves."""
    services, first = context.services, found[0]
    now = services.clock()
    detail = f"{len(found)} object{'' if len(found) == 1 else 's'} {what}"
    data = {"instances": {one.sop_class_uid: sum(o.sop_class_uid == one.sop_class_uid for o in found) for one in found}}
    entry = AuditEntry(
        now,
        context.principal.name,
        VIEW_STUDY,
        "own results",
        first.study_id,
        context.address,
        detail,
        study_instance_uid=first.study_instance_uid,
        patient_id=first.patient_id,
        data=data,
    )
    services.database.write(write_entry, entry)
