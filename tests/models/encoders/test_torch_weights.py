"""PyTorch's weights in our encoders: against torchvision's definitions, written down again with plain operations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402
from keras import ops  # noqa: E402

from models.encoders.table import ENCODERS, encode  # noqa: E402
from models.encoders.torch_weights import read_safetensors  # noqa: E402


class Torch:
    """PyTorch's layers on ``[n, h, w, c]``; a tensor is drawn when it is first asked for, and kept by its name."""

    def __init__(self) -> None:
        self.state: dict[str, np.ndarray] = {}
        self._rng = np.random.default_rng(8)

    def _take(self, name: str, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
        if name not in self.state:
            self.state[name] = self._rng.uniform(low, high, shape).astype(np.float32)
        return self.state[name]

    def conv(
        self, x: Any, name: str, out: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> Any:
        fan = kernel * kernel * int(x.shape[-1]) // groups
        weight = self._take(f"{name}.weight", (out, int(x.shape[-1]) // groups, kernel, kernel), -1, 1)
        weight *= np.sqrt(6 / fan) / np.abs(weight).max()
        side = kernel // 2
        padded = ops.pad(x, ((0, 0), (side, side), (side, side), (0, 0)))
        made = ops.conv(padded, weight.transpose(2, 3, 1, 0), strides=stride, padding="valid")
        return made + self._take(f"{name}.bias", (out,), -0.5, 0.5) if bias else made

    def norm(self, x: Any, name: str) -> Any:
        channels = (int(x.shape[-1]),)
        scale, shift = self._take(f"{name}.weight", channels, 0.5, 1), self._take(f"{name}.bias", channels, -0.2, 0.2)
        mean = self._take(f"{name}.running_mean", channels, -0.2, 0.2)
        variance = self._take(f"{name}.running_var", channels, 0.8, 1.5)
        return (x - mean) / np.sqrt(variance + 1e-5) * scale + shift

    def stem(self, image: Any, conv: str, norm: str) -> tuple[Any, Any]:
        fine = ops.relu(self.norm(self.conv(image, conv, 64, 7, 2), norm))
        padded = ops.pad(fine, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1e9)
        return fine, ops.max_pool(padded, 3, 2)


def basic(torch: Torch, x: Any, name: str, planes: int, stride: int) -> Any:
    new = ops.relu(torch.norm(torch.conv(x, f"{name}.conv1", planes, 3, stride), f"{name}.bn1"))
    new = torch.norm(torch.conv(new, f"{name}.conv2", planes, 3), f"{name}.bn2")
    return ops.relu(new + shortcut(torch, x, name, planes, stride))


def squeezed(torch: Torch, x: Any, name: str, planes: int, stride: int) -> Any:
    new = ops.relu(torch.norm(torch.conv(x, f"{name}.conv1", 2 * planes, 1), f"{name}.bn1"))
    new = ops.relu(torch.norm(torch.conv(new, f"{name}.conv2", 2 * planes, 3, stride, groups=32), f"{name}.bn2"))
    new = torch.norm(torch.conv(new, f"{name}.conv3", 4 * planes, 1), f"{name}.bn3")
    gate = ops.mean(new, axis=(1, 2), keepdims=True)
    gate = ops.relu(torch.conv(gate, f"{name}.se.fc1", planes // 4, 1, bias=True))
    gate = ops.sigmoid(torch.conv(gate, f"{name}.se.fc2", 4 * planes, 1, bias=True))
    return ops.relu(new * gate + shortcut(torch, x, name, 4 * planes, stride))


def shortcut(torch: Torch, x: Any, name: str, out: int, stride: int) -> Any:
    if stride == 1 and int(x.shape[-1]) == out:
        return x
    return torch.norm(torch.conv(x, f"{name}.downsample.0", out, 1, stride), f"{name}.downsample.1")


def residual(torch: Torch, image: Any, block: Callable[..., Any], repeats: tuple[int, ...]) -> list[Any]:
    fine, x = torch.stem(image, "conv1", "bn1")
    features = [fine]
    for layer, count in enumerate(repeats):
        for number in range(count):
            stride = 2 if layer and not number else 1
            x = block(torch, x, f"layer{layer + 1}.{number}", 64 * 2**layer, stride)
        features.append(x)
    return features


def written(state: dict[str, np.ndarray], file: Path) -> Path:
    save_file(state, file, metadata={"format": "pt"})
    return file


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("resnet18", lambda torch, image: residual(torch, image, basic, (2, 2, 2, 2))),
        ("se-resnext50", lambda torch, image: residual(torch, image, squeezed, (3, 4, 6, 3))),
    ],
)
def test_says_what_the_network_in_pytorch_says(
    name: str, network: Callable[[Torch, Any], list[Any]], tmp_path: Path
) -> None:
    torch = Torch()
    grey = np.random.default_rng(1).random((1, 64, 64, 1), np.float32)
    colours = (np.repeat(grey, 3, axis=-1) - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    expected = network(torch, colours.astype(np.float32))
    counted = {"bn1.num_batches_tracked": np.array(7, np.int64)}
    file = written({**torch.state, **counted}, tmp_path / "weights.safetensors")
    image = keras.Input((64, 64, 1))
    feature_map = keras.Model(image, list(encode(name, image, start=str(file)).values()))(grey, training=False)
    for ours, theirs in zip(feature_map, expected, strict=True):
        largest = float(np.abs(theirs).max())
        np.testing.assert_allclose(np.asarray(ours) / largest, np.asarray(theirs) / largest, atol=1e-4)


def test_cadenes_names_are_timms(tmp_path: Path) -> None:
    tensor = np.ones((1,), np.float32)
    file = written({"layer0.bn1.bias": tensor, "layer1.0.se_module.fc1.bias": tensor}, tmp_path / "a.safetensors")
    assert set(read_safetensors(file)) == {"bn1.bias", "layer1.0.se.fc1.bias"}


def test_a_missing_tensor_is_named_by_its_layer(tmp_path: Path) -> None:
    file = written({"conv1.weight": np.ones((64, 3, 7, 7), np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"does not fit resnet18: layer conv1_bn .* nothing for it"):
        encode("resnet18", keras.Input((32, 32, 1)), start=str(file))


def test_a_network_that_differs_from_pytorchs_is_refused(tmp_path: Path) -> None:
    file = written({}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="another network than ours"):
        encode("vgg-small", keras.Input((32, 32, 1)), start=str(file))
    assert {name for name, encoder in ENCODERS.items() if encoder.naming} == {
        "resnet18",
        "resnet34",
        "se-resnext50",
        "se-resnext101",
    }


def header(text: bytes, body: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 16,
        header(b"{"),
        header(b"[1]"),
        header(b'{"a": {"dtype": "F32"}}'),
        header(b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', b"1234"),
        header(b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', b"1234"),
        header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}', b"1234"),
    ],
)
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="no safetensors file, or it is cut short"):
        read_safetensors(file)


def test_what_is_no_floating_point_number_is_left_out(tmp_path: Path) -> None:
    halves, counted = np.array([0.5, 1.5], np.float16), np.array([7])
    read = read_safetensors(written({"a": halves, "counted": counted}, tmp_path / "a.safetensors"))
    assert list(read) == ["a"]
    assert read["a"].dtype == np.float32
    assert read["a"].tolist() == [0.5, 1.5]
