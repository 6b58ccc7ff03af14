"""Data sets and tiny networks for the tests of the models room."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from models.contract import ModelInput
from models.manifest import file_digest

SIZE = 32


def set_elements(dataset: Dataset, changes: Mapping[str, Any]) -> None:
    """Set elements by keyword; None removes one."""
    for keyword, value in changes.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)


def radiograph(values: NDArray[np.integer], *, bits: int = 12, signed: bool = False, **attributes: object) -> Dataset:
    """A one-frame grey image with these stored values, as if it had been read from a file."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["radiograph"])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.Modality = "CR"
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = 1 if values.ndim == 2 else 3
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    dataset.BitsAllocated = 8 if bits <= 8 else 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    kind = np.dtype(f"<{'i' if signed else 'u'}{dataset.BitsAllocated // 8}")
    data = values.astype(kind).tobytes()
    dataset.add_new("PixelData", "OB" if bits <= 8 else "OW", data + b"\x00" * (len(data) % 2))
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def written(dataset: Dataset, path: Path) -> Path:
    """Write a data set as a DICOM file."""
    dataset.save_as(path, enforce_file_format=True)
    return path


def reread(dataset: Dataset) -> Dataset:
    """The data set after a trip through bytes."""
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    return dcmread(stream)


def ramp(rows: int, columns: int, bits: int) -> NDArray[np.int64]:
    """Values that take the whole range of ``bits`` bits, different in every direction."""
    y, x = np.mgrid[0:rows, 0:columns]
    return np.asarray((x * 3 + y * y) % (1 << bits))


def chestlike(rows: int = 300, columns: int = 260) -> NDArray[np.float32]:
    """A smooth picture with an asymmetric bright spot, in ``[0, 1]``."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    picture = 0.2 + 0.4 * y / rows + 0.2 * np.sin(x / columns * 6)
    picture[rows // 10 : rows // 4, columns // 2 : columns * 3 // 4] = 1.0
    return np.clip(picture, 0, 1).astype(np.float32)


def model_input(pixels: NDArray[np.float32] | None = None) -> ModelInput:
    """A radiograph ready for any model."""
    return ModelInput(pixels=chestlike() if pixels is None else pixels, sop_instance_uid="1.2.3")


def classifier_graph(path: Path, classes: int = 2, *, bias: float = 0.0, maps: bool = True) -> Path:
    """Write a network whose map is its own input pooled 2 x 2, and whose probability is the mean plus ``bias``.

    With ``bias`` NaN it answers NaN; class k has the map to the power of k + 1.
    """
    nodes = [
        helper.make_node("Transpose", ["image"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["nchw"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Transpose", ["pooled"], ["nhwc"], perm=[0, 2, 3, 1]),
        helper.make_node("Pow", ["nhwc", "exponents"], ["maps"]),
        helper.make_node("ReduceMean", ["maps", "axes"], ["means"], keepdims=0),
        helper.make_node("Add", ["means", "bias"], ["probabilities"]),
    ]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", classes])]
    if maps:
        outputs.append(helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["n", SIZE // 2, SIZE // 2, classes]))
    constants = [
        numpy_helper.from_array(np.arange(1, classes + 1, dtype=np.float32), "exponents"),
        numpy_helper.from_array(np.array([1, 2], dtype=np.int64), "axes"),
        numpy_helper.from_array(np.full(classes, bias, dtype=np.float32), "bias"),
    ]
    return _save(path, nodes, outputs, constants)


def gate_graph(path: Path, probabilities: list[float], distance: float | None = None) -> Path:
    """Write a gate that answers the same whatever it sees."""
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "verdict"], ["probabilities"]),
    ]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(probabilities)])]
    constants = [
        numpy_helper.from_array(np.array([1, 2], dtype=np.int64), "axes"),
        numpy_helper.from_array(np.zeros(1, dtype=np.float32), "zero"),
        numpy_helper.from_array(np.array(probabilities, dtype=np.float32), "verdict"),
    ]
    if distance is not None:
        nodes.append(helper.make_node("Add", ["nothing", "far"], ["distance"]))
        outputs.append(helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["n", 1]))
        constants.append(numpy_helper.from_array(np.array([distance], dtype=np.float32), "far"))
    return _save(path, nodes, outputs, constants)


def lungs_graph(path: Path, maps: NDArray[np.float32]) -> Path:
    """Write a network that says about the same of both lungs whatever it sees: ``maps [h, w, 2]``."""
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["mean", "little"], ["nothing"]),
        helper.make_node("Add", ["nothing", "drawn"], ["maps"]),
    ]
    outputs = [helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["n", *maps.shape])]
    constants = [
        numpy_helper.from_array(np.array([1, 2], dtype=np.int64), "axes"),
        numpy_helper.from_array(np.full(1, 1e-3, dtype=np.float32), "little"),
        numpy_helper.from_array(maps[np.newaxis].astype(np.float32), "drawn"),
    ]
    return _save(path, nodes, outputs, constants)


def detector_graph(path: Path, boxes: list[list[float]], scores: list[float], classes: list[int]) -> Path:
    """Write a detector that answers the same boxes whatever it sees."""
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "found"], ["scores"]),
        helper.make_node("Add", ["nothing", "kinds"], ["classes"]),
        helper.make_node("Unsqueeze", ["nothing", "last"], ["deep"]),
        helper.make_node("Add", ["deep", "edges"], ["boxes"]),
    ]
    count = len(scores)
    outputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", count, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", count]),
        helper.make_tensor_value_info("classes", TensorProto.FLOAT, ["n", count]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 2], dtype=np.int64), "axes"),
        numpy_helper.from_array(np.array([2], dtype=np.int64), "last"),
        numpy_helper.from_array(np.zeros(1, dtype=np.float32), "zero"),
        numpy_helper.from_array(np.array(scores, dtype=np.float32), "found"),
        numpy_helper.from_array(np.array(classes, dtype=np.float32), "kinds"),
        numpy_helper.from_array(np.array(boxes, dtype=np.float32), "edges"),
    ]
    return _save(path, nodes, outputs, constants)


def _save(
    path: Path, nodes: list[onnx.NodeProto], outputs: list[onnx.ValueInfoProto], constants: list[onnx.TensorProto]
) -> Path:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", SIZE, SIZE, 1])
    graph = helper.make_graph(nodes, "tiny", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


LABELS = """
[[labels]]
name = "lung_opacity"
code = { value = "128477000", scheme = "SCT", meaning = "Abscess" }
threshold = 0.3
localised = true
map_threshold = 0.6

[[labels]]
name = "other"
code = { value = "36118008", scheme = "SCT", meaning = "Pneumothorax" }
threshold = 0.4
mode = "shadow"
"""

CLASSES = """
[gate]
min_probability = 0.6
distance_threshold = 10.0

[[labels]]
name = "frontal"
[[labels]]
name = "rotated"
[[labels]]
name = "inverted"
[[labels]]
name = "cropped"
[[labels]]
name = "other"
"""


LUNGS = """
[[labels]]
name = "left_lung"
code = { value = "44029006", scheme = "SCT", meaning = "Left lung" }
threshold = 0.5

[[labels]]
name = "right_lung"
code = { value = "3341006", scheme = "SCT", meaning = "Right lung" }
threshold = 0.5
"""


def manifest(weights: Path, name: str, kind: str = "classifier", rest: str = LABELS, size: int = SIZE) -> Path:
    """Write a manifest beside its weights."""
    path = weights.with_suffix(".toml")
    path.write_text(
        f"""
[model]
name = "{name}"
version = "1.0.0"
title = "A tiny {kind}"
kind = "{kind}"
file = "{weights.name}"
digest = "{file_digest(weights)}"
device_uid = "2.25.1234567890"

[input]
height = {size}
width = {size}
{rest}"""
    )
    return path
