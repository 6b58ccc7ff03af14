"""The route of STOW-RS: limits, the streaming of the body, and the answer."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from config.value_types import is_ae_title
from node.dicom.instance_store import StoreError
from node.dicom.receiver_tools import ReceiverTools
from node.dicom.spool import Answer, StoreCommand, file_preface
from node.dicomweb.media_types import DICOM, JSON, RELATED, XML, accepted, media_range, native_xml
from node.dicomweb.request_context import RequestContext, Services, problem
from node.dicomweb.store_response import status_of, store_response
from node.dicomweb.stow import BrokenBodyError, Parts, Sender, Storing, TooManyPartsError

RETRY_SECONDS = 60
_RETRY = {"Retry-After": str(RETRY_SECONDS)}

log = logging.getLogger(__name__)


async def store(context: RequestContext) -> Response:
    """Store the instances of a request; each is durable and recorded before the next one is read."""
    services = context.services
    form = accepted(context.request.headers.get("accept", ""), (JSON, XML))
    if form is None:
        return problem(406, f"the answer is {JSON} or {XML}")
    content = media_range(context.request.headers.get("content-type", ""))
    if content.name != RELATED or content.inner != DICOM:
        return problem(415, f'the request must be {RELATED}; type="{DICOM}"')
    if context.request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        return problem(415, "a request must come without a content encoding", {"Accept-Encoding": "identity"})
    most = services.settings.dicomweb.maximum_request_bytes
    announced = context.request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > most:
        return problem(413, f"a request has at most {most} bytes")
    async with _upload(services) as why_not:
        if why_not:
            return problem(503, why_not, _RETRY)
        try:
            parts = Parts(content.parameters.get("boundary", ""), _sender(context), _storing(services))
        except BrokenBodyError as error:
            return problem(400, str(error))
        return await _store(context, parts, most, form)


@asynccontextmanager
async def _upload(services: Services) -> AsyncIterator[str]:
    """Take one of the places for requests that store, while there is room on the disk; else gives why not."""
    if services.uploads >= services.settings.dicomweb.maximum_uploads:
        yield "as many requests store as dicomweb.maximum_uploads allows"
        return
    services.uploads += 1
    try:
        yield await run_in_threadpool(_lack_of_space, services.tools)
    finally:
        services.uploads -= 1


def _lack_of_space(tools: ReceiverTools) -> str:
    try:
        tools.store.check_space()
    except StoreError as error:
        return error.strerror or "the store is full"
    return ""


async def _store(context: RequestContext, parts: Parts, most: int, form: str) -> Response:
    status, why = None, ""
    read = 0
    try:
        async for chunk in context.request.stream():
            read += len(chunk)
            if read > most:
                status, why = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"it has more than {most} bytes"
                break
            await run_in_threadpool(parts.feed, chunk)
        else:
            parts.end()
    except BrokenBodyError as error:
        status, why = HTTPStatus.BAD_REQUEST, str(error)
    except TooManyPartsError as error:
        status, why = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)
    except ClientDisconnect:
        status, why = HTTPStatus.BAD_REQUEST, "the connection has ended"
    finally:
        await run_in_threadpool(parts.discard)
        context.services.tools.dispatcher.dispatch()
    if why:
        log.warning("a request of %s was not read to its end: %s", context.principal.name, why)
    return _answer(status or status_of(parts.outcomes), parts, form, why)


def _answer(status: HTTPStatus, parts: Parts, form: str, why: str) -> Response:
    """The outcome of each instance, also where the request was not read to its end, which is the reason ``why``."""
    if not parts.outcomes:
        return problem(status, why or "the request has no part")
    response = store_response(parts.outcomes, why)
    content = native_xml(response) if form == XML else json.dumps(response).encode("ascii")
    headers = _RETRY if status is HTTPStatus.SERVICE_UNAVAILABLE else None
    return Response(content, int(status), headers, form)


def _sender(context: RequestContext) -> Sender:
    name = context.principal.display_name
    assert is_ae_title(name), "a token of this role has no other name"
    return Sender(name, context.address, context.request.path_params.get("study", ""))


def _storing(services: Services) -> Storing:
    tools, rules = services.tools, services.settings.listener

    def answered(command: StoreCommand, answer: Answer) -> None:
        if answer.status:
            tools.transfers.failed(command, answer.status)
            log.warning("STOW-RS of %s: 0x%04X, %s", command.calling_ae_title, answer.status, answer.comment)

    return Storing(
        begin=lambda command: tools.store.temporary(file_preface(command)),
        answer=tools.receiver.answer,
        answered=answered,
        ae_title=rules.ae_title,
        longest=rules.maximum_instance_bytes,
        other_classes=rules.accept_other_classes,
    )
