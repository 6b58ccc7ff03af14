"""A vendor's program that looks at the whole radiograph and answers findings, after all that names a patient is gone.

It is sent a file that is made anew from pixels: nothing has to be removed from it, for nothing was ever put in.
"""

from __future__ import annotations

import base64
import io
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, ValidationError

from models.contract import Box, Mask, ModelInput
from models.endpoint import EndpointSpec, ImageFormat
from models.model_spec import Code, LabelSpec, ModelSpec
from models.remote.calling import Caller, OtherModelError, Pin
from models.remote.findings_protocol import (
    AnsweredFinding,
    FindingsAnswer,
    FindingsRequest,
    FoundBox,
    ModelDescription,
    SentImage,
)
from models.remote.http import HttpServer
from models.remote.pixel_object import pixel_object
from models.runtime.executor import ModelOutputError, RunsOn

_T = TypeVar("_T", bound=BaseModel)
_JSON = {"Content-Type": "application/json"}
_VIEWS = ("AP", "PA", "LL", "RL")
_SIDES = re.compile(r"[APRLHF]{1,3}")
_SLACK = 1e-3  # by which arithmetic may put the edge of an outline beside that of the image


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """The answer of a program for one label."""

    probability: float | None
    reason: str = ""
    mask: Mask | None = None
    boxes: tuple[Box, ...] = ()


class FindingsServer:
    """The program behind a manifest with ``protocol = "findings-http"``."""

    runs_on: RunsOn = "server"

    def __init__(self, spec: ModelSpec, clock: Callable[[], float] = time.monotonic) -> None:
        """Look whether the server runs what the manifest pins; one that is away is asked when the first image comes.

        Raises:
            ModelLoadError: it runs something else.
        """
        assert spec.endpoint is not None
        self.spec = spec
        self._endpoint = spec.endpoint
        self._server = HttpServer(spec.endpoint)
        self._caller = Caller(spec.endpoint)
        self._pin = Pin(self._described, clock)
        self._pin.get_at_start(spec.name)

    def ask(self, image: ModelInput) -> tuple[Reply, ...]:
        """Its answers for ``image``, one for each label of the manifest.

        Raises:
            ModelUnavailableError: it is away, or another model than the pinned one.
            ModelOutputError: its answer cannot be believed; the message says what is wrong.
        """
        self._pin.get()
        body = request_for(image, self._endpoint.image).model_dump_json().encode()
        with self._pin.dropped_on_failure():
            answer = self._caller.ask(lambda seconds: self._server.request("findings", seconds, body, _JSON))
            answered = _parsed(FindingsAnswer, answer.body, self.spec.name)
            _check_model(self._endpoint, answered.model.name, answered.model.version)
        return replies_of(self.spec, answered, image.shape)

    def warm(self) -> None:
        """Nothing is to be warmed up: an image that is none would be a question of its own kind."""

    def _described(self) -> None:
        description = describe(self._endpoint, self._caller, self._server)
        check_description(self.spec, description)


def describe(
    endpoint: EndpointSpec, caller: Caller | None = None, server: HttpServer | None = None
) -> ModelDescription:
    """The description that the program gives of itself.

    Raises:
        ModelUnavailableError: it cannot be reached.
        ModelOutputError: it does not speak this protocol.
    """
    caller, server = caller or Caller(endpoint), server or HttpServer(endpoint)
    return _parsed(ModelDescription, caller.ask(lambda seconds: server.request("model", seconds)).body, endpoint.url)


def check_description(spec: ModelSpec, description: ModelDescription) -> None:
    """Compare the description of a program with the manifest.

    Raises:
        OtherModelError: it is something else; the message says what.
    """
    assert spec.endpoint is not None
    _check_model(spec.endpoint, description.name, description.version)
    known = {(each.code.value, each.code.scheme) for each in description.findings}
    for label in spec.labels:
        if _key(label.code) not in known:
            raise OtherModelError(
                f"{spec.name}: the model server {spec.endpoint.url} knows no finding {label.code.value}"
                f" {label.code.scheme}, which the manifest calls '{label.name}'"
            )
    if (found := description.pinned_digest()) != spec.digest:
        raise OtherModelError(
            f"{spec.name}: the model server {spec.endpoint.url} describes itself otherwise than before: digest {found},"
            f" its manifest pins {spec.digest}"
        )


def request_for(image: ModelInput, form: ImageFormat) -> FindingsRequest:
    """The question about an image: its pixels, and what they need to be read."""
    image = _without_words(image)
    rows, columns = image.shape
    values = np.rint(image.pixels * np.float32(65535)).astype(np.uint16)
    if form is ImageFormat.DICOM:
        content = pixel_object(values, image)
    else:
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, "PNG", compress_level=1)
        content = stream.getvalue()
    return FindingsRequest(
        image=SentImage(format=form.value, rows=rows, columns=columns, data=base64.b64encode(content).decode("ascii")),
        spacing_mm=(image.spacing.row, image.spacing.column) if image.spacing is not None else None,
        view=image.view,
        patient_orientation=image.patient_orientation,
    )


def _without_words(image: ModelInput) -> ModelInput:
    """The image with a view and an orientation of the standard's terms only: others could be anybody's words."""
    sides = image.patient_orientation
    known = sides is not None and all(_SIDES.fullmatch(side) for side in sides)
    return replace(image, view=image.view if image.view in _VIEWS else "", patient_orientation=sides if known else None)


def replies_of(spec: ModelSpec, answer: FindingsAnswer, shape: tuple[int, int]) -> tuple[Reply, ...]:
    """The answer in the order of the manifest's labels.

    Raises:
        ModelOutputError: a finding is unknown, missing or there twice, or lies outside of the image.
    """
    labels = {_key(label.code): label for label in spec.labels}
    found: dict[str, AnsweredFinding] = {}
    for each in answer.findings:
        key = (each.code.value, each.code.scheme)
        if key not in labels:
            raise ModelOutputError(
                f"{spec.name}: answers the finding {' '.join(key)}, which its manifest does not know"
            )
        if labels[key].name in found:
            raise ModelOutputError(f"{spec.name}: answers '{labels[key].name}' twice")
        found[labels[key].name] = each
    missing = [label.name for label in spec.labels if label.name not in found]
    if missing:
        raise ModelOutputError(f"{spec.name}: says nothing of {', '.join(missing)}")
    return tuple(_reply(spec, label, found[label.name], shape) for label in spec.labels)


def _reply(spec: ModelSpec, label: LabelSpec, answered: AnsweredFinding, shape: tuple[int, int]) -> Reply:
    who = f"{spec.name}: '{label.name}'"
    if answered.probability is None and not answered.reason:
        raise ModelOutputError(f"{who} has neither a probability nor a reason")
    mask = np.zeros(shape, dtype=np.bool_)
    if answered.mask:
        mask |= _mask(answered.mask, shape, who)
    for polygon in answered.polygons:
        mask |= _inside(polygon, shape, who)
    boxes = tuple(_box(each, shape, who) for each in answered.boxes)
    return Reply(answered.probability, answered.reason, mask if mask.any() else None, boxes)


def _box(found: FoundBox, shape: tuple[int, int], who: str) -> Box:
    _check_inside(((found.x, found.y), (found.x + found.width, found.y + found.height)), shape, who)
    return Box(found.x, found.y, found.width, found.height, found.probability)


def _inside(polygon: tuple[tuple[float, float], ...], shape: tuple[int, int], who: str) -> Mask:
    """The pixels whose centres lie in an outline."""
    _check_inside(polygon, shape, who)
    drawn = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(drawn).polygon([(x - 0.5, y - 0.5) for x, y in polygon], fill=1)
    return np.asarray(drawn, dtype=np.bool_)


def _check_inside(points: tuple[tuple[float, float], ...], shape: tuple[int, int], who: str) -> None:
    rows, columns = shape
    for x, y in points:
        if not (-_SLACK <= x <= columns + _SLACK and -_SLACK <= y <= rows + _SLACK):
            raise ModelOutputError(f"{who} reaches ({x:g}, {y:g}), outside of the image of {columns} x {rows} pixels")


def _mask(text: str, shape: tuple[int, int], who: str) -> Mask:
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as picture:
            if picture.size != (shape[1], shape[0]) or picture.mode not in ("L", "1"):
                raise ModelOutputError(
                    f"{who} has a mask of {picture.size} {picture.mode}, not of the image's size in grey"
                )
            return np.asarray(picture) > 0
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ModelOutputError(f"{who} has a mask that is no PNG") from error


def _check_model(endpoint: EndpointSpec, name: str, version: str) -> None:
    if (name, version) != (endpoint.model, endpoint.version):
        raise OtherModelError(
            f"the model server {endpoint.url} runs '{name}' version '{version}', the manifest pins '{endpoint.model}'"
            f" version '{endpoint.version}'"
        )


def _key(code: Code) -> tuple[str, str]:
    return code.value, code.scheme


def _parsed(kind: type[_T], body: bytes, who: str) -> _T:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise ModelOutputError(f"{who}: the answer is no {kind.__name__}: {place}: {first['msg']}") from error
