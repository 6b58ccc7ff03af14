"""A model's manifest: one TOML file that tells everything a node must know about a network, read without loading it.

A manifest lies beside its weights. Every key is checked; an unknown one is an error, so that a misspelt threshold
cannot be overlooked. The tables are the models here and in :mod:`models.model_spec`; ``docs/manifests.md`` is made from
their JSON schema (:mod:`models.reference`).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import AfterValidator, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from config.file import from_toml, read_toml
from config.section import TABLE
from models.endpoint import EndpointProtocol, EndpointSpec
from models.hierarchy import HierarchyError, check_parents
from models.model_spec import (
    Activation,
    GateSpec,
    InputSpec,
    LabelSpec,
    Mode,
    ModelKind,
    ModelSpec,
    Name,
    OutputNames,
    PoolingSpec,
    Text,
)

FILL_IN = "FILL IN"
"""What begins a text that a manifest made by ``pleura models new`` leaves to a person."""
SAVED_MODEL = "saved_model.pb"
"""The file that makes a folder a TensorFlow SavedModel."""

_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SUFFIXES = (".onnx", ".keras", ".h5", ".savedmodel", "")
WHOLE_IMAGE = InputSpec(height=16, width=16)
"""Stands for the input of a model that gets the whole image, of whatever size."""
LUNGS = ("left_lung", "right_lung")
"""The patient's left and right lung: the labels of a model of the kind ``lungs``, in this order."""
_GATE_SCHEME = "99PLEURA"
_CHUNK = 1 << 20
_SERIES = uuid.UUID("7f2a5a1e-6a3c-5d0f-9f5c-1c7b0e5b2d11")


class ManifestError(ValueError):
    """A manifest, or the file that it names, cannot be used; the message names the file, the key and the mistake."""


def _uid(value: str) -> str:
    if not _UID.fullmatch(value):
        raise ValueError("must be a UID (PS3.5 9.1): digits and dots, without leading zeros")
    if len(value) > 64:
        raise ValueError(f"has {len(value)} characters, a UID 64 at most")
    return value


def _digest(value: str) -> str:
    if not _DIGEST.fullmatch(value):
        raise ValueError("must be a SHA-256 digest in 64 lower case hexadecimal digits")
    return value


def _beside(*suffixes: str) -> AfterValidator:
    """The name of a file beside the manifest with one of these suffixes."""

    def check(value: str) -> str:
        if Path(value).name != value:
            raise ValueError("must be the name of a file beside the manifest")
        if Path(value).suffix not in suffixes:
            raise ValueError(f"must end in {', '.join(filter(None, suffixes))}")
        return value

    return AfterValidator(check)


Digest = Annotated[str, AfterValidator(_digest)]


@dataclass(frozen=True, slots=True, config=TABLE)
class ModelTable:
    """Who a model is, and its files, which lie beside the manifest."""

    name: Name
    """Its name in settings, worklist and database."""
    version: Text
    """Its version, as results name it."""
    title: Text
    """Its name for people."""
    kind: ModelKind
    """What it answers: gate (is this a chest radiograph?), classifier, segmenter (maps), detector (boxes), lungs (maps
    of the patient's left and right lung), or findings (a vendor's program, protocol = "findings-http")."""
    digest: Digest
    """SHA-256 of its file; of a folder, or of what a server says of it, as `pleura models new` computes it."""
    device_uid: Annotated[str, AfterValidator(_uid)]
    """A UID for exactly this training; a model that was trained again needs a new one (PS3.3 C.12.1.5)."""
    file: Annotated[str, _beside(*_SUFFIXES)] | None = None
    """The network: .onnx, .keras, .h5, or a folder with a TensorFlow SavedModel (without suffix, or .savedmodel).
    Required, unless `[endpoint]` says where it runs."""
    activation: Activation = Activation.PROBABILITY
    """What the scores are. probability: the head has its activation. logit: sigmoid must be applied. softmax: softmax
    over all classes must be applied."""
    mode: Mode = Mode.ACTIVE
    """active: its findings are sent. shadow: they are stored and compared, never sent."""
    card: Annotated[str, _beside(".md")] | None = None
    """Its model card."""
    onnx: Annotated[str, _beside(".onnx")] | None = None
    """The same network as a Keras file or SavedModel, exported for CPUs."""
    onnx_digest: Digest | None = None
    """SHA-256 of that file."""
    keras: Annotated[str, _beside(".json")] | None = None
    """What Keras needs to run an ONNX file on a GPU with TensorFlow: its graph, without weights of its own. The bundled
    networks have one (`python -P -m models.training.keras_graph`)."""
    keras_digest: Digest | None = None
    """SHA-256 of that file."""
    index: Annotated[str, _beside(".csv")] | None = None
    """The stored cases of a classifier by retrieval."""

    @model_validator(mode="after")
    def _consistent(self) -> ModelTable:
        if (self.onnx is None) != (self.onnx_digest is None):
            raise ValueError("onnx and onnx_digest stand together or not at all")
        if self.onnx is not None and (self.file or "").endswith(".onnx"):
            raise ValueError("onnx belongs beside a Keras file or SavedModel; file is an ONNX file already")
        if (self.keras is None) != (self.keras_digest is None):
            raise ValueError("keras and keras_digest stand together or not at all")
        if self.keras is not None and not (self.file or "").endswith(".onnx"):
            raise ValueError("keras belongs beside an ONNX file")
        return self


@dataclass(frozen=True, slots=True, config=TABLE)
class Manifest:
    """A whole manifest."""

    model: ModelTable
    """Who it is."""
    labels: Annotated[tuple[LabelSpec, ...], Field(min_length=1)]
    """The findings: one for each class of the network, in its order, unless `outputs.columns` says otherwise."""
    input: InputSpec | None = None
    """What the network takes; required, unless kind = "findings"."""
    outputs: OutputNames = OutputNames()
    """What the network calls its outputs."""
    gate: GateSpec | None = None
    """Only for kind = "gate"."""
    pooling: PoolingSpec = PoolingSpec()
    """Only for kind = "segmenter"."""
    endpoint: EndpointSpec | None = None
    """The server on which the network runs, in the place of a file."""

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        kind = self.model.kind
        if (self.model.file is None) == (self.endpoint is None):
            raise ValueError("model.file or [endpoint] says where the network is, one of them")
        answers = self.endpoint is not None and self.endpoint.protocol is EndpointProtocol.FINDINGS_HTTP
        if (kind is ModelKind.FINDINGS) != answers:
            raise ValueError('kind = "findings" and endpoint.protocol = "findings-http" belong together')
        if (kind is ModelKind.FINDINGS) != (self.input is None):
            raise ValueError('[input] belongs to every network, and not to kind = "findings"')
        if self.endpoint is not None and self.model.onnx is not None:
            raise ValueError("onnx belongs beside a file, not to [endpoint]")
        if self.gate is not None and kind is not ModelKind.GATE:
            raise ValueError(f'[gate] belongs to kind = "gate", not to "{kind}"')
        if self.pooling != PoolingSpec() and kind is not ModelKind.SEGMENTER:
            raise ValueError(f'[pooling] belongs to kind = "segmenter", not to "{kind}"')
        if kind is not ModelKind.SEGMENTER and any(label.lesions or label.place_of for label in self.labels):
            raise ValueError(f'lesions and place_of belong to kind = "segmenter", not to "{kind}"')
        for label in self.labels:
            if self.model.name in (label.place_of, label.replaces):
                raise ValueError("place_of and replaces name another model, not the model itself")
            if label.place_of and label.replaces:
                raise ValueError("place_of and replaces exclude each other: one of two models says whether")
            if label.calibration and kind not in (ModelKind.CLASSIFIER, ModelKind.SEGMENTER):
                raise ValueError(f'calibration belongs to kind = "classifier" or "segmenter", not to "{kind}"')
            if label.replaces and kind in (ModelKind.GATE, ModelKind.LUNGS):
                raise ValueError(f'replaces belongs to models that report findings, not to kind = "{kind}"')
        if self.model.activation is Activation.SOFTMAX and kind is ModelKind.DETECTOR:
            raise ValueError("the scores of a detector's boxes have no softmax: export the network with it")
        names = [label.name for label in self.labels]
        if kind is ModelKind.LUNGS and names != list(LUNGS):
            raise ValueError(f'the labels of kind = "lungs" are {" and ".join(LUNGS)}, in this order')
        for listed, where in ((names, "label"), (self.outputs.columns, "column")):
            for name in listed:
                if listed.count(name) > 1:
                    raise ValueError(f"the {where} '{name}' stands there twice")
        missing = [name for name in names if self.outputs.columns and name not in self.outputs.columns]
        if missing:
            raise ValueError(f"outputs.columns does not name the label '{missing[0]}'")
        try:
            check_parents(self.labels)
        except HierarchyError as error:
            raise ValueError(str(error)) from error
        return self


def read_manifest(path: Path) -> ModelSpec:
    """Read one manifest and look whether its files are there; their content is :func:`verify_digest`'s business.

    Raises:
        ManifestError: The manifest cannot be read, or anything in it is missing, unknown or out of range.
    """
    spec = parse_manifest(read_toml(path, ManifestError), path)
    for file in files_of(spec):
        if not file.exists():
            raise ManifestError(f"{path}: there is no file {file}")
    if spec.file.is_dir() and not (spec.file / SAVED_MODEL).is_file():
        raise ManifestError(f"{path}: {spec.file} is no SavedModel: it holds no {SAVED_MODEL}")
    return spec


def parse_manifest(values: Mapping[str, Any], path: Path) -> ModelSpec:
    """Make a ModelSpec from a manifest's parsed TOML; ``path`` is where it lies, and names it in every error.

    Raises:
        ManifestError: Anything in it is missing, not filled in, unknown or out of range.
    """
    if left := list(left_open(values)):
        raise ManifestError(f"{path}: not filled in yet: {', '.join(left)}")
    whole = from_toml(Manifest, _with_defaults(values), path, ManifestError)
    table, folder = whole.model, path.parent
    files = {key: getattr(table, key) for key in ("card", "onnx", "keras", "index")}
    return ModelSpec(
        name=table.name,
        version=table.version,
        title=table.title,
        kind=table.kind,
        file=folder / table.file if table.file else path,
        digest=table.digest,
        device_uid=table.device_uid,
        input=whole.input or WHOLE_IMAGE,
        activation=table.activation,
        labels=whole.labels,
        mode=table.mode,
        gate=whole.gate or (GateSpec() if table.kind is ModelKind.GATE else None),
        outputs=whole.outputs,
        pooling=whole.pooling,
        onnx_digest=table.onnx_digest or "",
        keras_digest=table.keras_digest or "",
        endpoint=whole.endpoint,
        **{key: folder / name if name else None for key, name in files.items()},
    )


def manifest_text(spec: ModelSpec) -> str:
    """``spec`` as TOML that :func:`parse_manifest` reads as the same; what is as by default is left out."""
    table = {field.name: getattr(spec, field.name) for field in fields(ModelTable)}
    table |= {key: file.name for key in ("file", "card", "onnx", "keras", "index") if (file := table[key]) is not None}
    table |= {key: table[key] or None for key in ("onnx_digest", "keras_digest")}
    table |= {} if spec.endpoint is None else {"file": None}
    given = None if spec.kind is ModelKind.FINDINGS else spec.input
    whole = Manifest(ModelTable(**table), spec.labels, given, spec.outputs, spec.gate, spec.pooling, spec.endpoint)
    values = TypeAdapter(Manifest).dump_python(whole, mode="json", exclude_defaults=True)
    for label, written in zip(spec.labels, values["labels"], strict=True):
        written["localised"] = label.localised  # its default depends on the kind
    labels = values.pop("labels")
    return tomli_w.dumps({**values, "labels": labels})


def files_of(spec: ModelSpec) -> tuple[Path, ...]:
    """Every file (or folder) of a model but its manifest."""
    network = spec.file if spec.endpoint is None else None
    return tuple(file for file in (network, spec.card, spec.onnx, spec.keras, spec.index) if file is not None)


def file_digest(path: Path) -> str:
    """SHA-256 in hexadecimal of a file, or of a folder: then over the names and digests of all files in it."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(each for each in path.rglob("*") if each.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{file_digest(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def training_uid(digest: str) -> str:
    """A UID for exactly this training (PS3.5 B.2, derived from a UUID): the same weights have the same UID."""
    return f"2.25.{uuid.uuid5(_SERIES, digest).int}"


def verify_digest(spec: ModelSpec) -> None:
    """Check that a model's file is the one that its manifest names; a server is asked when its model is loaded.

    Raises:
        ManifestError: The file cannot be read or has another digest.
    """
    files = [(spec.file, spec.digest)] if spec.endpoint is None else []
    if spec.onnx is not None:
        files.append((spec.onnx, spec.onnx_digest))
    if spec.keras is not None:
        files.append((spec.keras, spec.keras_digest))
    for file, digest in files:
        try:
            found = file_digest(file)
        except OSError as error:
            raise ManifestError(f"{spec.name}: {file} cannot be read ({error})") from error
        if found != digest:
            raise ManifestError(f"{spec.name}: {file} has the digest {found}, its manifest says {digest}")


def left_open(values: Any, key: str = "") -> Iterator[str]:
    """The keys that still say :data:`FILL_IN`."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from left_open(value, f"{key}.{name}" if key else name)
    elif isinstance(values, list):
        for number, value in enumerate(values, start=1):
            yield from left_open(value, f"{key} #{number}")
    elif isinstance(values, str) and values.startswith(FILL_IN):
        yield key


def _with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with the defaults of its labels that depend on the kind of the model."""
    model, labels = values.get("model"), values.get("labels")
    kind = model.get("kind") if isinstance(model, Mapping) else None
    if not isinstance(labels, list):
        return dict(values)
    usual: dict[str, Any] = {
        "localised": kind in (ModelKind.SEGMENTER, ModelKind.DETECTOR, ModelKind.LUNGS, ModelKind.FINDINGS)
    }
    return {**values, "labels": [_label(label, kind, usual) for label in labels]}


def _label(label: Any, kind: object, usual: Mapping[str, Any]) -> Any:
    if not isinstance(label, Mapping):
        return label
    if kind == ModelKind.GATE:
        name = str(label.get("name", ""))
        code = {"value": name[:16], "scheme": _GATE_SCHEME, "meaning": name.replace("_", " ")}
        usual = {**usual, "threshold": 0.5, "code": code}
    return {**usual, **label}
