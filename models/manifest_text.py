"""Write the manifest of a trained network, in the layout that :mod:`models.manifest` reads."""

from __future__ import annotations

import json
from dataclasses import fields

from models.contract import Code, InputSpec, LabelSpec, ModelSpec, OutputNames


def manifest_text(spec: ModelSpec) -> str:
    """``spec`` as TOML."""
    lines = ["[model]"]
    for key in ("name", "version", "title"):
        lines.append(f"{key} = {json.dumps(getattr(spec, key))}")
    lines += [
        f"kind = {json.dumps(spec.kind.value)}",
        f"file = {json.dumps(spec.file.name)}",
        f"digest = {json.dumps(spec.digest)}",
        f"device_uid = {json.dumps(spec.device_uid)}",
        f"activation = {json.dumps(spec.activation.value)}",
        f"mode = {json.dumps(spec.mode.value)}",
    ]
    for key, file in (("card", spec.card), ("onnx", spec.onnx), ("index", spec.index)):
        if file is not None:
            lines.append(f"{key} = {json.dumps(file.name)}")
    if spec.onnx is not None:
        lines.append(f"onnx_digest = {json.dumps(spec.onnx_digest)}")
    lines += ["", "[input]", *_changed(spec.input, InputSpec(0, 0))]
    renamed = _changed(spec.outputs, OutputNames())
    if renamed:
        lines += ["", "[outputs]", *renamed]
    if spec.gate is not None:
        lines += ["", "[gate]", f"min_probability = {spec.gate.min_probability:.4g}"]
        if spec.gate.distance_threshold is not None:
            lines.append(f"distance_threshold = {spec.gate.distance_threshold:.4g}")
    for label in spec.labels:
        lines += ["", *_label(label)]
    return "\n".join(lines) + "\n"


def _changed(values: InputSpec | OutputNames, default: InputSpec | OutputNames) -> list[str]:
    """What differs from the default, a line each; lists and texts are written in JSON as in TOML."""
    pairs = ((item.name, getattr(values, item.name), getattr(default, item.name)) for item in fields(values))
    return [f"{name} = {json.dumps(value)}" for name, value, usual in pairs if value != usual]


def _label(label: LabelSpec) -> list[str]:
    lines = [
        "[[labels]]",
        f"name = {json.dumps(label.name)}",
        f"code = {_code(label.code)}",
        f"threshold = {label.threshold:.4g}",
        f"localised = {json.dumps(label.localised)}",
        f"mode = {json.dumps(label.mode.value)}",
    ]
    if label.localised:
        lines.append(f"map_threshold = {label.map_threshold:.4g}")
        if label.map_relative_threshold:
            lines.append(f"map_relative_threshold = {label.map_relative_threshold:.4g}")
    if label.parent:
        lines.append(f"parent = {json.dumps(label.parent)}")
    if label.site is not None:
        lines.append(f"site = {_code(label.site)}")
    if label.evidence is not None:
        seen = label.evidence
        figures = f"auc = {seen.auc:.4f}, auc_low = {seen.auc_low:.4f}, auc_high = {seen.auc_high:.4f}"
        if seen.sensitivity is not None:
            figures += f", sensitivity = {seen.sensitivity:.4f}"
        lines.append(f"evidence = {{ positives = {seen.positives}, {figures} }}")
    return lines


def _code(code: Code) -> str:
    return (
        "{ " + ", ".join(f"{key} = {json.dumps(getattr(code, key))}" for key in ("value", "scheme", "meaning")) + " }"
    )
