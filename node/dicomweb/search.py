"""QIDO-RS (PS3.18 10.6) over this node's own results."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.tag import BaseTag, Tag
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind
from starlette.responses import Response, StreamingResponse

from db.audit import AuditEntry, write_entry
from db.audit_events import ASKED
from db.queries.own_results import Level
from node.dicom.own_results import MOST_MATCHES, InvalidKeyError, keys_of
from node.dicomweb.media_types import JSON, XML, accepted, multipart, native_xml
from node.dicomweb.request_context import ROOT, RequestContext, problem
from node.web.authentication import origin_of

_WARNING = '299 pleura "{}"'
_MORE = "There are additional results that can be requested"
_LITERAL = "The fuzzymatching parameter is not supported. Only literal matching has been performed."
_LARGEST_OFFSET = 10_000_000
_LONGEST_QUERY = 2000
_HAS_PORT = re.compile(r":\d+$")


@dataclass(slots=True)
class Search:
    """What a query string asks for."""

    query: Dataset = field(default_factory=Dataset)
    include: set[BaseTag] = field(default_factory=set)
    limit: int = MOST_MATCHES
    offset: int = 0
    fuzzy: bool = False


def search(level: Level, context: RequestContext) -> Response:
    """Matches at ``level``, as JSON or XML, with a Warning where there are more."""
    form = accepted(context.request.headers.get("accept", ""), (JSON, XML))
    if form is None:
        return problem(406, f"the answer is {JSON} or {XML}")
    try:
        wanted = read_query(context.request.query_params.multi_items(), context.request.path_params)
        keys = keys_of(wanted.query)
    except InvalidKeyError as error:
        return problem(400, str(error))
    results = context.services.results
    found = results.find(level, keys, wanted.limit + 1, wanted.offset)
    matches = found[: wanted.limit]
    entry = AuditEntry(
        context.services.clock(),
        context.principal.name,
        ASKED,
        "of own results",
        address=context.address,
        detail=f"QIDO-RS, {len(matches)} matches",
        data={"sop_class": StudyRootQueryRetrieveInformationModelFind, "query": _encoded(context)},
    )
    context.services.database.write(write_entry, entry)
    answers = [
        json_model(_with_url(context, level, results.describe(level, group, wanted.include))) for group in matches
    ]
    warnings = [_WARNING.format(_MORE)] if len(found) > wanted.limit else []
    warnings += [_WARNING.format(_LITERAL)] if wanted.fuzzy else []
    return answer(answers, form, {"Warning": ", ".join(warnings)} if warnings else {})


def read_query(parameters: Iterable[tuple[str, str]], path: dict[str, str]) -> Search:
    """Parse a query string; UIDs of the path are keys, too.

    Raises:
        InvalidKeyError: a parameter is unknown or has no possible value.
    """
    wanted = Search()
    for name, value in parameters:
        if name == "limit":
            wanted.limit = min(_count(name, value, MOST_MATCHES), MOST_MATCHES)
        elif name == "offset":
            wanted.offset = _count(name, value, _LARGEST_OFFSET)
        elif name == "fuzzymatching":
            wanted.fuzzy = value == "true"
        elif name == "includefield":
            wanted.include |= {_tag(each) for each in value.split(",") if each not in ("", "all")}
        elif name != "emptyvaluematching":
            _add_key(wanted.query, _tag(name), value)
    for name, keyword in (("study", "StudyInstanceUID"), ("series", "SeriesInstanceUID")):
        if name in path:
            setattr(wanted.query, keyword, path[name])
    return wanted


def _count(name: str, value: str, most: int) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > 10 or int(value) > max(most, MOST_MATCHES) * 10:
        raise InvalidKeyError(f"{name} must be a number")
    return int(value)


def _tag(name: str) -> BaseTag:
    """A tag by its keyword, or its eight hexadecimal digits."""
    known = tag_for_keyword(name)
    if known is not None:
        return Tag(known)
    try:
        if len(name) != 8:
            raise ValueError
        return Tag(int(name, 16))
    except (ValueError, OverflowError) as error:
        raise InvalidKeyError(f"{name[:64]!r} is no attribute") from error


def _add_key(query: Dataset, tag: BaseTag, value: str) -> None:
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return  # a private attribute, or one within a sequence: it matches everything
    values: Any = value.replace(",", "\\").split("\\") if vr in ("UI", "CS") else value
    if vr in ("UI", "CS", "LO", "SH", "PN", "DA", "TM"):
        query.add_new(tag, vr, values)


def _with_url(context: RequestContext, level: Level, found: Dataset) -> Dataset:
    """Add where the match can be retrieved."""
    path = f"/studies/{found.StudyInstanceUID}"
    if level is not Level.STUDY:
        path += f"/series/{found.SeriesInstanceUID}"
    if level is Level.IMAGE:
        path += f"/instances/{found.SOPInstanceUID}"
    found.RetrieveURL = root_url(context) + path
    return found


def root_url(context: RequestContext) -> str:
    """The root of the services as the client sees it: as it is configured, or else as the request says.

    dicomweb-client names the host without its port; a proxy may do so, where its own port is the usual one.
    """
    settings = context.services.settings
    if settings.dicomweb.public_url:
        return settings.dicomweb.public_url.rstrip("/")
    origin = origin_of(context.request, settings.admin.trusted_proxies)
    host = context.request.headers.get("host", "")
    if not origin.by_trusted_proxy and not _HAS_PORT.search(host):
        host = f"{host}:{context.request.scope['server'][1]}"
    return f"{'https' if origin.secure else 'http'}://{host}{ROOT}"


def answer(models: Sequence[Mapping[str, Any]], form: str, headers: Mapping[str, str]) -> Response:
    """Data sets of the DICOM JSON model, as they are or as XML."""
    if form == JSON:
        return Response(json.dumps(models), headers=headers, media_type=JSON)
    if not models:
        return Response(status_code=204, headers=headers)
    content, kind = multipart([(XML, partial(_once, native_xml(model))) for model in models], XML)
    return StreamingResponse(content, headers={**headers, "Content-Type": kind})


def json_model(data_set: Dataset) -> dict[str, Any]:
    """The DICOM JSON model, which is always in UTF-8 (PS3.18 F.2)."""
    model: dict[str, Any] = data_set.to_json_dict(suppress_invalid_tags=True)
    if "00080005" in model:
        model["00080005"]["Value"] = ["ISO_IR 192"]
    return model


def _encoded(context: RequestContext) -> str:
    """Path and query, as base64 (PS3.15 A.5.3.10)."""
    url = context.request.url
    return base64.b64encode(f"{url.path}?{url.query}"[:_LONGEST_QUERY].encode()).decode("ascii")


def _once(content: bytes) -> Iterator[bytes]:
    yield content
