"""A model's manifest: one TOML file that tells everything a node must know about a network, read without loading it.

A manifest lies beside its weights. Every key is checked; an unknown one is an error, so that a misspelt threshold
cannot be overlooked::

    [model]
    name = "chest-classifier"        # lower case letters, digits, '-', '_', '.'
    version = "1.0.0"
    title = "Pleura chest classifier"
    kind = "classifier"              # gate, classifier, segmenter, detector, lungs (maps of both lungs)
    file = "chest-classifier.onnx"   # beside the manifest; .onnx, .keras or .h5
    digest = "9f86d0…"               # SHA-256 of that file
    device_uid = "2.25.…"            # new for each training
    activation = "probability"       # or logit
    mode = "active"                  # or shadow
    card = "chest-classifier.md"     # optional
    onnx = "chest-classifier.onnx"   # optional, beside a Keras file: the same network for CPUs …
    onnx_digest = "1c3e0a…"          # … and its SHA-256
    index = "similar.index.csv"      # optional, the stored cases of a classifier by retrieval

    [input]                          # models.contract.InputSpec
    height = 256
    width = 256

    [outputs]                        # optional, models.contract.OutputNames
    probabilities = "dense_1"

    [gate]                           # only for kind = "gate"
    min_probability = 0.6
    distance_threshold = 14.2

    [[labels]]                       # one for each column of the network's output, in its order
    name = "lung_opacity"
    code = { value = "…", scheme = "SCT", meaning = "…" }   # not for a gate's classes
    threshold = 0.5
    localised = true
    map_threshold = 0.5
    map_relative_threshold = 0.4     # optional, a share of the map's own highest value: the higher cut counts
    mode = "active"
    parent = "abnormal"              # optional, another label that this one is part of (models.hierarchy)
    site = { value = "39607008", scheme = "SCT", meaning = "Lung" }   # optional, where the finding lies
    evidence = { positives = 48, auc = 0.85, auc_low = 0.80, auc_high = 0.90, sensitivity = 0.72 }
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from models.contract import (
    Activation,
    Code,
    Evidence,
    GateSpec,
    InputSpec,
    LabelSpec,
    Mode,
    ModelKind,
    ModelSpec,
    OutputNames,
)
from models.hierarchy import HierarchyError, check_parents

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SUFFIXES = (".onnx", ".keras", ".h5")
_GATE_SCHEME = "99PLEURA"
_CHUNK = 1 << 20

_MODEL_KEYS = (
    *("name", "version", "title", "kind", "file", "digest", "device_uid", "activation", "mode", "card"),
    *("onnx", "onnx_digest", "index"),
)

Choice = TypeVar("Choice", ModelKind, Activation, Mode)


class ManifestError(ValueError):
    """A manifest, or the file that it names, cannot be used; the message names the file, the key and the mistake."""


@dataclass(frozen=True, slots=True)
class _Table:
    """One TOML table and where it stands, so that every complaint can say so."""

    values: Mapping[str, Any]
    where: str

    def complain(self, sentence: str) -> ManifestError:
        return ManifestError(f"{self.where}: {sentence}")

    def only(self, *known: str) -> None:
        for key in self.values:
            if key not in known:
                raise self.complain(f"unknown key '{key}' (known: {', '.join(known)})")

    def table(self, key: str) -> _Table:
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.complain(f"'{key}' must be a table")
        return _Table(value, f"{self.where} [{key}]")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if value is None:
            raise self.complain(f"'{key}' is missing")
        if not isinstance(value, str) or not value.strip():
            raise self.complain(f"'{key}' must be a text that is not empty")
        return value

    def integer(self, key: str, minimum: int, maximum: int) -> int:
        value = self.values.get(key)
        if value is None:
            raise self.complain(f"'{key}' is missing")
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise self.complain(f"'{key}' must be a whole number from {minimum} to {maximum}, not {value!r}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key, default)
        if value is None:
            raise self.complain(f"'{key}' is missing")
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < float("inf"):
            raise self.complain(f"'{key}' must be a finite number, not {value!r}")
        return float(value)

    def fraction(self, key: str, default: float | None = None) -> float:
        value = self.number(key, default)
        if not 0 < value < 1:
            raise self.complain(f"'{key}' must lie between 0 and 1, both excluded, not {value:g}")
        return value

    def numbers(self, key: str, default: tuple[float, ...], counts: tuple[int, ...]) -> tuple[float, ...]:
        value = self.values.get(key, list(default))
        if not isinstance(value, list) or len(value) not in counts:
            raise self.complain(f"'{key}' must be a list of {' or '.join(map(str, counts))} numbers, not {value!r}")
        return tuple(_Table({key: item}, self.where).number(key) for item in value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.complain(f"'{key}' must be true or false, not {value!r}")
        return value

    def choice(self, key: str, kinds: type[Choice], default: str | None = None) -> Choice:
        value = self.text(key, default)
        try:
            return kinds(value)
        except ValueError:
            raise self.complain(f"'{key}' must be one of {', '.join(kinds)}, not '{value}'") from None


def read_manifest(path: Path) -> ModelSpec:
    """Read one manifest and look whether its file is there; the file's content is :func:`verify_digest`'s business.

    Raises:
        ManifestError: The manifest cannot be read, or anything in it is missing, unknown or out of range.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{path}: is not TOML ({error})") from error
    spec = parse_manifest(values, path)
    for file in (spec.file, spec.card, spec.onnx, spec.index):
        if file is not None and not file.is_file():
            raise ManifestError(f"{path}: there is no file {file}")
    return spec


def parse_manifest(values: Mapping[str, Any], path: Path) -> ModelSpec:
    """Make a ModelSpec from a manifest's parsed TOML; ``path`` is where it lies, and names it in every error."""
    whole = _Table(values, str(path))
    whole.only("model", "input", "outputs", "gate", "labels")
    model = whole.table("model")
    model.only(*_MODEL_KEYS)
    kind = model.choice("kind", ModelKind)
    return ModelSpec(
        name=_matching(model, "name", _NAME, "lower case letters, digits, '.', '_' and '-', 64 at most"),
        version=model.text("version"),
        title=model.text("title"),
        kind=kind,
        file=_file(model, "file", path.parent, _SUFFIXES),
        digest=_digest(model, "digest"),
        device_uid=_uid(model),
        input=_input(whole.table("input")),
        activation=model.choice("activation", Activation, Activation.PROBABILITY),
        labels=_labels(whole, kind),
        card=_file(model, "card", path.parent, (".md",)) if "card" in model.values else None,
        mode=model.choice("mode", Mode, Mode.ACTIVE),
        gate=_gate(whole, kind),
        outputs=_outputs(whole.table("outputs")),
        onnx=_onnx(model, path.parent),
        onnx_digest=_digest(model, "onnx_digest") if "onnx" in model.values else "",
        index=_file(model, "index", path.parent, (".csv",)) if "index" in model.values else None,
    )


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def verify_digest(spec: ModelSpec) -> None:
    """Check that a model's file is the one that its manifest names.

    Raises:
        ManifestError: The file cannot be read or has another digest.
    """
    files = [(spec.file, spec.digest)]
    if spec.onnx is not None:
        files.append((spec.onnx, spec.onnx_digest))
    for file, digest in files:
        try:
            found = file_digest(file)
        except OSError as error:
            raise ManifestError(f"{spec.name}: {file} cannot be read ({error})") from error
        if found != digest:
            raise ManifestError(f"{spec.name}: {file} has the digest {found}, its manifest says {digest}")


def _matching(table: _Table, key: str, pattern: re.Pattern[str], words: str) -> str:
    value = table.text(key)
    if not pattern.fullmatch(value):
        raise table.complain(f"'{key}' must be {words}, not '{value}'")
    return value


def _uid(model: _Table) -> str:
    value = _matching(model, "device_uid", _UID, "a UID (PS3.5 9.1)")
    if len(value) > 64:
        raise model.complain(f"'device_uid' has {len(value)} characters, a UID 64 at most")
    return value


def _digest(model: _Table, key: str) -> str:
    return _matching(model, key, _DIGEST, "a SHA-256 digest in 64 lower case hexadecimal digits")


def _file(model: _Table, key: str, folder: Path, suffixes: tuple[str, ...]) -> Path:
    name = model.text(key)
    if Path(name).name != name:
        raise model.complain(f"'{key}' must be the name of a file beside the manifest, not '{name}'")
    if Path(name).suffix not in suffixes:
        raise model.complain(f"'{key}' must end in {', '.join(suffixes)}, not '{name}'")
    return folder / name


def _onnx(model: _Table, folder: Path) -> Path | None:
    if "onnx" not in model.values:
        if "onnx_digest" in model.values:
            raise model.complain("'onnx_digest' stands there without 'onnx'")
        return None
    if model.text("file").endswith(".onnx"):
        raise model.complain("'onnx' belongs beside a Keras file; 'file' is an ONNX file already")
    return _file(model, "onnx", folder, (".onnx",))


def _input(table: _Table) -> InputSpec:
    table.only("height", "width", "channels", "value_range", "mean", "std", "padding", "layout", "equalise")
    channels: Literal[1, 3] = 3 if table.values.get("channels", 1) == 3 else 1
    if table.values.get("channels", 1) not in (1, 3):
        raise table.complain(f"'channels' must be 1 or 3, not {table.values['channels']!r}")
    low, high = table.numbers("value_range", (0.0, 1.0), (2,))
    if low >= high:
        raise table.complain("'value_range' must be two rising numbers")
    std = table.numbers("std", (1.0,), (1, channels))
    if min(std) <= 0:
        raise table.complain("'std' must be above 0")
    padding = table.number("padding", 0.0)
    if not 0 <= padding <= 1:
        raise table.complain(f"'padding' must lie from 0 (black) to 1 (white), not {padding:g}")
    return InputSpec(
        height=table.integer("height", 16, 4096),
        width=table.integer("width", 16, 4096),
        channels=channels,
        value_range=(low, high),
        mean=table.numbers("mean", (0.0,), (1, channels)),
        std=std,
        padding=padding,
        layout=_layout(table),
        equalise=_equalise(table),
    )


def _layout(table: _Table) -> Literal["NHWC", "NCHW"]:
    match table.text("layout", "NHWC"):
        case "NHWC":
            return "NHWC"
        case "NCHW":
            return "NCHW"
        case other:
            raise table.complain(f"'layout' must be NHWC or NCHW, not '{other}'")


def _equalise(table: _Table) -> Literal["none", "histogram", "clahe"]:
    match table.text("equalise", "none"):
        case "none":
            return "none"
        case "histogram":
            return "histogram"
        case "clahe":
            return "clahe"
        case other:
            raise table.complain(f"'equalise' must be none, histogram or clahe, not '{other}'")


def _outputs(table: _Table) -> OutputNames:
    known = ("probabilities", "maps", "distance", "boxes", "scores", "classes", "neighbours", "neighbour_distances")
    table.only(*known)
    return OutputNames(**{key: table.text(key) for key in known if key in table.values})


def _gate(whole: _Table, kind: ModelKind) -> GateSpec | None:
    if kind is not ModelKind.GATE:
        if "gate" in whole.values:
            raise whole.complain(f'[gate] belongs to kind = "gate", not to "{kind}"')
        return None
    table = whole.table("gate")
    table.only("min_probability", "distance_threshold")
    distance = table.number("distance_threshold") if "distance_threshold" in table.values else None
    return GateSpec(min_probability=table.fraction("min_probability", 0.5), distance_threshold=distance)


def _labels(whole: _Table, kind: ModelKind) -> tuple[LabelSpec, ...]:
    listed = whole.values.get("labels", [])
    if not isinstance(listed, list) or not listed or not all(isinstance(item, dict) for item in listed):
        raise whole.complain("[[labels]] is missing: one for each column of the network's output")
    labels = tuple(
        _label(_Table(item, f"{whole.where} [[labels]] {number}"), kind) for number, item in enumerate(listed, start=1)
    )
    names = [label.name for label in labels]
    for name in names:
        if names.count(name) > 1:
            raise whole.complain(f"the label '{name}' stands there twice")
    try:
        check_parents(labels)
    except HierarchyError as error:
        raise whole.complain(str(error)) from error
    return labels


def _label(table: _Table, kind: ModelKind) -> LabelSpec:
    table.only(
        *("name", "code", "threshold", "localised", "map_threshold", "map_relative_threshold"),
        *("mode", "evidence", "parent", "site"),
    )
    name = _matching(table, "name", _NAME, "lower case letters, digits, '.', '_' and '-', 64 at most")
    gate = kind is ModelKind.GATE
    return LabelSpec(
        name=name,
        code=Code(name, _GATE_SCHEME, name.replace("_", " "))
        if gate and "code" not in table.values
        else _code(table, "code"),
        threshold=table.fraction("threshold", 0.5 if gate else None),
        localised=table.flag("localised", kind in (ModelKind.SEGMENTER, ModelKind.DETECTOR)),
        map_threshold=table.fraction("map_threshold", 0.5),
        map_relative_threshold=(
            table.fraction("map_relative_threshold") if "map_relative_threshold" in table.values else 0.0
        ),
        mode=table.choice("mode", Mode, Mode.ACTIVE),
        evidence=_evidence(table.table("evidence")) if "evidence" in table.values else None,
        parent=table.text("parent") if "parent" in table.values else "",
        site=_code(table, "site") if "site" in table.values else None,
    )


def _code(table: _Table, name: str) -> Code:
    code = table.table(name)
    code.only("value", "scheme", "meaning")
    for key, limit in (("value", 16), ("scheme", 16), ("meaning", 64)):
        if len(code.text(key)) > limit:
            raise code.complain(f"'{key}' has more than {limit} characters (PS3.3 8.8)")
    return Code(code.text("value"), code.text("scheme"), code.text("meaning"))


def _evidence(table: _Table) -> Evidence:
    table.only("positives", "auc", "auc_low", "auc_high", "sensitivity")
    evidence = Evidence(
        positives=table.integer("positives", 0, 10**9),
        auc=table.number("auc"),
        auc_low=table.number("auc_low"),
        auc_high=table.number("auc_high"),
        sensitivity=table.number("sensitivity") if "sensitivity" in table.values else None,
    )
    if not 0 <= evidence.auc_low <= evidence.auc <= evidence.auc_high <= 1:
        raise table.complain("'auc_low', 'auc' and 'auc_high' must rise and lie from 0 to 1")
    if evidence.sensitivity is not None and not 0 <= evidence.sensitivity <= 1:
        raise table.complain("'sensitivity' must lie from 0 to 1")
    return evidence
