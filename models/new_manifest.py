"""Writes the manifest of a foreign network as far as its file determines it; a person fills in the rest.

Shapes and the names of outputs are in the file; whether scores are probabilities is seen by asking the network about
noise. What the file does not hold (the meaning of the classes, the preprocessing) is a text that begins with
:data:`models.manifest.FILL_IN`, which no manifest may hold when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray
from pydantic import TypeAdapter

from models.endpoint import EndpointSpec
from models.manifest import FILL_IN, SAVED_MODEL, file_digest, training_uid
from models.model_spec import Activation, ModelKind
from models.remote.calling import Caller
from models.remote.findings_protocol import ModelDescription
from models.remote.open_inference import input_tensor, transport_of
from models.remote.probe import probe_input, probed
from models.runtime.executor import ModelLoadError

Array = NDArray[np.float32]
_SIDE = 128  # of the noise, where the network takes any size
_ROUNDING = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What a file or a server tells: the shape of its input (None: free), and its outputs by name for noise."""

    file: Path | None
    digest: str
    input_shape: tuple[int | None, ...]
    answers: Mapping[str, Array]
    endpoint: EndpointSpec | None = None

    @property
    def layout(self) -> str:
        """NCHW where only the second axis can be one of channels."""
        return "NCHW" if self.input_shape[1] in (1, 3) and self.input_shape[3] not in (1, 3) else "NHWC"

    @property
    def channels(self) -> int | None:
        """1 or 3, as the file says."""
        return self.input_shape[1 if self.layout == "NCHW" else 3]

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width."""
        return self.input_shape[2:4] if self.layout == "NCHW" else self.input_shape[1:3]  # type: ignore[return-value]


def look_at(file: Path) -> Network:
    """Load the network ``file`` and ask it about noise.

    Raises:
        ModelLoadError: it cannot be loaded, or takes no single picture.
    """
    shape, run = _onnx(file) if file.suffix == ".onnx" else _tensorflow(file)
    return Network(file, file_digest(file), shape, _asked(shape, run, str(file)))


def look_at_server(endpoint: EndpointSpec) -> Network:
    """Ask a server which model it runs, and ask that about noise.

    Raises:
        ModelLoadError: it takes no single picture, or gRPC is not installed.
        ModelUnavailableError: it cannot be reached, or does not know the model.
        ModelOutputError: its answer cannot be read.
    """
    transport, caller = transport_of(endpoint), Caller(endpoint)
    description = caller.ask(transport.describe)
    given = input_tensor(endpoint, description)
    shape = tuple(None if side < 0 else side for side in given.shape)

    def run(batch: Array) -> Mapping[str, Any]:
        return caller.ask(lambda seconds: transport.infer(given.name, batch, seconds))

    answers = _asked(shape, run, f"{endpoint.model} on {endpoint.url}")
    network = Network(None, description.digest(endpoint.version), shape, answers, endpoint)
    if kind_of(network) is ModelKind.DETECTOR:
        return network  # how many boxes it finds in noise may change with the last digit of a number
    return replace(network, endpoint=replace(endpoint, probe=probed(run(probe_input(given.shape)))))


def _asked(shape: tuple[int | None, ...], run: Callable[[Array], Any], who: str) -> dict[str, Array]:
    """The outputs for two pictures of noise."""
    if len(shape) != 4 or not {shape[1], shape[3]} & {1, 3}:
        raise ModelLoadError(f"{who} takes {list(shape)}; pictures of 1 or 3 channels are needed")
    noise = np.random.default_rng(7).random((2, *(_SIDE if side is None else side for side in shape[1:])))
    batch = (2 * noise - 1).astype(np.float32)
    parts = [run(batch[number : number + 1]) for number in range(2)]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}


def _onnx(file: Path) -> tuple[tuple[int | None, ...], Any]:
    from models.runtime.onnx_executor import open_onnx

    session = open_onnx(file)
    given, names = session.get_inputs()[0], [output.name for output in session.get_outputs()]
    shape = tuple(side if isinstance(side, int) else None for side in given.shape)
    return shape, lambda batch: dict(zip(names, session.run(names, {given.name: batch}), strict=True))


def _tensorflow(file: Path) -> tuple[tuple[int | None, ...], Any]:
    if file.is_dir() and not (file / SAVED_MODEL).is_file():
        raise ModelLoadError(f"{file} is no SavedModel: it holds no {SAVED_MODEL}")
    try:
        from models.runtime.keras_executor import by_name, open_network

        network = open_network(file)
    except ImportError as error:
        raise ModelLoadError(f"{file.name} needs TensorFlow and Keras; install pleura[train] ({error})") from error
    shape = network.input_shape if isinstance(network.input_shape, tuple) else ()
    return shape, lambda batch: by_name(network, network.predict_on_batch(batch))


def kind_of(network: Network) -> ModelKind:
    """What kind of network has such outputs."""
    ranks = [answer.ndim for answer in network.answers.values()]
    if any(answer.ndim == 3 and answer.shape[2] == 4 for answer in network.answers.values()):
        return ModelKind.DETECTOR
    return ModelKind.SEGMENTER if 4 in ranks and 2 not in ranks else ModelKind.CLASSIFIER


def activation_of(scores: Array) -> str:
    """What must be done with such scores ``[n, …, classes]``, where noise tells it; a question where it does not."""
    if excludes(scores):
        return Activation.PROBABILITY.value
    if scores.min() >= -_ROUNDING and scores.max() <= 1 + _ROUNDING:
        return f"{FILL_IN}: probability, if the network ends with a sigmoid; else logit or softmax"
    if scores.shape[-1] == 1:
        return Activation.LOGIT.value
    return f"{FILL_IN}: softmax (the classes exclude each other) or logit (each stands for itself)"


def excludes(scores: Array) -> bool:
    """Whether the classes of such scores exclude each other, as after a softmax."""
    return scores.shape[-1] > 1 and bool(np.all(np.abs(scores.sum(axis=-1) - 1) < _ROUNDING))


def new_manifest(network: Network) -> str:
    """The manifest of a network, with comments, and with ``FILL IN`` where a person must answer."""
    kind = kind_of(network)
    roles = roles_of(network, kind)
    main = {ModelKind.DETECTOR: "scores", ModelKind.SEGMENTER: "maps"}.get(kind, "probabilities")
    scores = network.answers[roles[main]] if main in roles else np.zeros((1, 1), np.float32)
    if main == "maps" and network.layout == "NCHW":
        scores = np.moveaxis(scores, 1, -1)
    classes = 1 if kind is ModelKind.DETECTOR else scores.shape[-1]
    sections = (
        _model(network, kind, scores),
        *([_endpoint(network.endpoint)] if network.endpoint is not None else []),
        _input(network),
        _outputs(roles, scores, classes),
        *(_label(number, kind) for number in range(1 if excludes(scores) and classes == 2 else classes)),
    )
    head = "# Every key: docs/manifests.md. Replace each FILL IN; until then the manifest is refused.\n"
    return head + "\n".join("\n".join(section) + "\n" for section in sections)


def new_findings_manifest(endpoint: EndpointSpec, description: ModelDescription) -> str:
    """The manifest of a vendor's program that describes itself so, with ``FILL IN`` where a person must answer."""
    digest = description.pinned_digest()
    head = ["# Every key: docs/manifests.md. Replace each FILL IN; until then the manifest is refused."]
    head += [f"# The vendor: {_printable(each)}" for each in description.not_for]
    model = [
        "[model]",
        _line("name", f"{FILL_IN}: lower case letters, digits, '-', '_', '.'"),
        _line("version", description.version),
        _line("title", f"{FILL_IN}: its name for people, as results show it"),
        _line("kind", ModelKind.FINDINGS.value),
        _line("digest", digest, "of what the program says of itself"),
        _line("device_uid", training_uid(digest), "derived from the digest"),
        _line("mode", "shadow", "stored and compared, never sent, until it is measured"),
    ]
    labels = []
    for number, each in enumerate(description.findings):
        code = {"value": each.code.value, "scheme": each.code.scheme, "meaning": each.meaning}
        labels += [
            "[[labels]]",
            _line("name", f"{FILL_IN}: finding {number}, such as {_as_name(each.meaning)}"),
            f"code = {{ {', '.join(_line(key, value) for key, value in code.items())} }}",
            _line("threshold", f"{FILL_IN}: probability from which it is present, between 0 and 1"),
            "",
        ]
    return "\n".join([*head, *model, "", *_endpoint(endpoint), "", *labels])


def _as_name(meaning: str) -> str:
    return "".join(each if each.isalnum() else "_" for each in meaning.lower()[:64] if each.isascii())


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)


def roles_of(network: Network, kind: ModelKind) -> dict[str, str]:
    """Our name of each output to the network's own, as far as shapes and names tell."""
    roles: dict[str, str] = {}
    for name, answer in network.answers.items():
        if kind is ModelKind.DETECTOR and answer.ndim == 3 and answer.shape[2] == 4:
            roles.setdefault("boxes", name)
        elif kind is ModelKind.DETECTOR and answer.ndim == 2:
            roles["classes" if any(word in name.lower() for word in ("class", "label")) else "scores"] = name
        elif answer.ndim == 4:
            roles.setdefault("maps", name)
        elif kind is ModelKind.CLASSIFIER and answer.ndim == 2:
            roles.setdefault("probabilities", name)
    return roles


def _model(network: Network, kind: ModelKind, scores: Array) -> Iterator[str]:
    yield "[model]"
    yield _line("name", f"{FILL_IN}: lower case letters, digits, '-', '_', '.'; such as chest-pneumonia")
    yield _line("version", "1.0.0")
    yield _line("title", f"{FILL_IN}: its name for people, as results show it")
    yield _line("kind", kind.value, "from the shapes of its outputs")
    if network.file is not None:
        yield _line("file", network.file.name)
    yield _line("digest", network.digest, "of what the server says of it" if network.file is None else "")
    yield _line("device_uid", training_uid(network.digest), "derived from the digest: other weights, another UID")
    low, high = float(scores.min()), float(scores.max())
    seen = f"noise gave {low:.3g} to {high:.3g}" + (", and the classes' sum is 1" if excludes(scores) else "")
    yield _line("activation", activation_of(scores), seen)
    yield _line("mode", "shadow", "stored and compared, never sent, until it is measured: pleura evaluate")


def _endpoint(endpoint: EndpointSpec) -> Iterator[str]:
    yield "[endpoint]"
    for key, value in TypeAdapter(EndpointSpec).dump_python(endpoint, mode="json", exclude_defaults=True).items():
        yield _line(key, value)


def _input(network: Network) -> Iterator[str]:
    yield "[input]"
    for key, side in zip(("height", "width"), network.size, strict=True):
        yield _line(key, side or f"{FILL_IN}: the network takes any; a number as in training, such as 256")
    yield _line("channels", network.channels)
    yield _line("layout", network.layout)
    yield _line("fit", f"{FILL_IN}: how images were laid into the input in training: letterbox, stretch or crop")
    yield _line("value_range", f"{FILL_IN}: what black and white become: [0, 1], [-1, 1] or [0, 255]")
    yield "# mean = [0.485, 0.456, 0.406]  # then (value - mean) / std, as networks from PyTorch want it"
    yield "# std = [0.229, 0.224, 0.225]"


def _outputs(roles: Mapping[str, str], scores: Array, classes: int) -> Iterator[str]:
    yield "[outputs]"
    for ours, theirs in roles.items():
        yield _line(ours, theirs)
    if excludes(scores):
        names = [f"{FILL_IN}: name of class {number}" for number in range(classes)]
        yield "# Every class in the network's order. One that is no finding, such as normal, gets no [[labels]] below."
        yield _line("columns", names)


def _label(number: int, kind: ModelKind) -> Iterator[str]:
    yield "[[labels]]"
    yield _line("name", f"{FILL_IN}: class {number}, such as lung_opacity")
    code = {key: f"{FILL_IN}: {what}" for key, what in _CODE.items()}
    yield f"code = {{ {', '.join(_line(key, value) for key, value in code.items())} }}"
    yield _line("threshold", f"{FILL_IN}: probability from which it is present, between 0 and 1")
    if kind is ModelKind.SEGMENTER:
        yield _line("map_threshold", f"{FILL_IN}: where its map is cut into a mask, between 0 and 1")


_CODE = {
    "value": "the code's value, such as 36118008",
    "scheme": "SCT, DCM or 99 and your own letters",
    "meaning": "such as Pneumothorax",
}


def _line(key: str, value: object, comment: str = "") -> str:
    text = f"[{', '.join(map(_value, value))}]" if isinstance(value, list) else _value(value)
    return f"{key} = {text}" + (f"  # {comment}" if comment else "")


def _value(value: object) -> str:
    return tomli_w.dumps({"v": value}).strip().removeprefix("v = ")
