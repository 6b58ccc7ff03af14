"""An ensemble as a model of its own: several networks in one ONNX file, whose answers are averaged.

It has a digest, a manifest and a device UID like any other model, so results, switches, evaluation and the record of
what analysed a patient need to know nothing of ensembles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

from models.manifest import file_digest, manifest_text, read_manifest, training_uid
from models.model_spec import Activation, LabelSpec, Mode, ModelKind, ModelSpec

_FUNCTIONS = {Activation.LOGIT: "Sigmoid", Activation.SOFTMAX: "Softmax"}


class CombineError(ValueError):
    """These models cannot answer together; the message says what differs."""


@dataclass(frozen=True, slots=True)
class _Member:
    """A model, its network with a prefix of its own, and the columns of the labels that all share."""

    spec: ModelSpec
    network: onnx.ModelProto
    columns: tuple[int, ...]
    placed: bool


def combine(members: Sequence[ModelSpec], name: str, version: str, title: str, out: Path) -> ModelSpec:
    """Write ``NAME.onnx`` and ``NAME.toml`` to the folder ``out``: the mean of the members' probabilities and maps.

    It answers the labels that every member knows by the same name and code. Cut-offs are the means of theirs, and it
    runs in shadow: nothing has been measured yet.

    Raises:
        CombineError: fewer than two, other inputs, no common label, or no ONNX files.
    """
    labels = common_labels(members)
    loaded = [_member(number, spec, labels) for number, spec in enumerate(members)]
    placed = all(member.placed for member in loaded)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{name}.onnx"
    onnx.save(_joined(loaded, placed), file)
    digest = file_digest(file)
    spec = replace(
        members[0],
        name=name,
        version=version,
        title=title,
        file=file,
        digest=digest,
        device_uid=training_uid(digest),
        activation=Activation.PROBABILITY,
        labels=tuple(replace(label, localised=label.localised and placed) for label in labels),
        card=None,
        mode=Mode.SHADOW,
        outputs=type(members[0].outputs)(),
        index=None,
    )
    (out / f"{name}.toml").write_text(manifest_text(spec), encoding="utf-8")
    return read_manifest(out / f"{name}.toml")


def common_labels(members: Sequence[ModelSpec]) -> tuple[LabelSpec, ...]:
    """The labels that all members know, with mean cut-offs and without evidence.

    Raises:
        CombineError: see :func:`combine`.
    """
    if len(members) < 2:
        raise CombineError("an ensemble needs two models at least")
    for spec in members:
        if spec.kind is not ModelKind.CLASSIFIER:
            raise CombineError(f"'{spec.name}' is a {spec.kind}; only classifiers are averaged")
        if spec.file.suffix != ".onnx" and spec.onnx is None:
            raise CombineError(f"'{spec.name}' has no ONNX file; `pleura models add` makes one")
        if spec.input != members[0].input:
            raise CombineError(f"'{spec.name}' takes another input than '{members[0].name}'")
    shared = []
    for label in members[0].labels:
        same = [one for spec in members for one in spec.labels if (one.name, one.code) == (label.name, label.code)]
        if len(same) == len(members):
            cut, place = (sum(getattr(one, key) for one in same) / len(same) for key in ("threshold", "map_threshold"))
            localised = all(one.localised for one in same)
            shared.append(replace(label, threshold=cut, map_threshold=place, localised=localised, evidence=None))
    if not shared:
        raise CombineError("these models share no label of the same name and code")
    names = {label.name for label in shared}
    return tuple(label if label.parent in names else replace(label, parent="") for label in shared)


def _member(number: int, spec: ModelSpec, labels: Sequence[LabelSpec]) -> _Member:
    file = spec.onnx or spec.file
    network = onnx.load(file)
    names = spec.columns
    wanted = [spec.outputs.probabilities, spec.outputs.maps]
    found = [output.name for output in network.graph.output]
    if wanted[0] not in found:
        raise CombineError(f"'{spec.name}' has no output '{wanted[0]}' (it has: {', '.join(found)})")
    prefixed = onnx.compose.add_prefix(network, f"m{number}_")
    columns = tuple(names.index(label.name) for label in labels)
    return _Member(spec, prefixed, columns, wanted[1] in found and any(label.localised for label in labels))


def _joined(members: Sequence[_Member], placed: bool) -> onnx.ModelProto:
    first = members[0].network
    versions = {item.domain: item.version for item in first.opset_import}
    for member in members[1:]:
        if {item.domain: item.version for item in member.network.opset_import} != versions:
            raise CombineError(f"'{member.spec.name}' was exported for another ONNX version; export it again")
    nodes: list[NodeProto] = []
    constants = [numpy_helper.from_array(np.asarray(len(members), np.float32), "members")]
    for number, member in enumerate(members):
        graph: GraphProto = member.network.graph
        nodes.append(helper.make_node("Identity", ["image"], [graph.input[0].name]))
        nodes.extend(graph.node)
        constants.extend(graph.initializer)
        nodes.extend(_chosen(number, member, placed))
        constants.append(numpy_helper.from_array(np.asarray(member.columns, np.int64), f"columns{number}"))
    outputs = [_mean(nodes, members, "probabilities", ["n", len(members[0].columns)])]
    if placed:
        outputs.append(_mean(nodes, members, "maps", ["n", "h", "w", len(members[0].columns)]))
    shape = ["n", *(item.dim_value for item in first.graph.input[0].type.tensor_type.shape.dim[1:])]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "ensemble", [image], outputs, constants)
    joined = helper.make_model(graph, opset_imports=first.opset_import, ir_version=first.ir_version)
    joined.functions.extend(function for member in members for function in member.network.functions)
    onnx.checker.check_model(joined)
    return joined


def _chosen(number: int, member: _Member, placed: bool) -> list[NodeProto]:
    """Nodes from a member's outputs to the columns that all share, as probabilities."""
    names = {"probabilities": member.spec.outputs.probabilities}
    if placed:
        names["maps"] = member.spec.outputs.maps
    nodes = []
    for ours, theirs in names.items():
        value = f"m{number}_{theirs}"
        if function := _FUNCTIONS.get(member.spec.activation):
            # Softmax runs over the last axis by default, which holds the classes (ONNX operators, version 13).
            nodes.append(helper.make_node(function, [value], [f"activated{number}_{ours}"]))
            value = f"activated{number}_{ours}"
        nodes.append(helper.make_node("Gather", [value, f"columns{number}"], [f"chosen{number}_{ours}"], axis=-1))
    return nodes


def _mean(nodes: list[NodeProto], members: Sequence[_Member], name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    chosen = [f"chosen{number}_{name}" for number in range(len(members))]
    nodes.append(helper.make_node("Sum", chosen, [f"sum_{name}"]))
    nodes.append(helper.make_node("Div", [f"sum_{name}", "members"], [name]))
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
