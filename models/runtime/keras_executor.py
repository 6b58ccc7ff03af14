"""Networks with TensorFlow: Keras files, Keras graphs and SavedModels, on a GPU or on the CPU."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from models.contract import Pixels
from models.model_spec import ModelSpec
from models.runtime.batches import Batches, OutOfMemoryError
from models.runtime.executor import (
    ModelLoadError,
    Outputs,
    RunsOn,
    blank,
    check_batch,
    check_outputs,
    input_shape,
    load_error,
)
from models.runtime.keras_graph import SUFFIX, open_graph

OWN_LAYERS = ("models.detectors.layers",)
"""Modules that register layers of ours: a file that names one can be loaded only after they were imported."""


class KerasExecutor:
    """A Keras file, a Keras graph or a SavedModel in TensorFlow, in batches of few sizes."""

    def __init__(self, spec: ModelSpec, *, device: Literal["cpu", "gpu"], batch: int = 8) -> None:
        """Load ``spec.file`` without running any code from it (Keras safe mode); ``batch`` images go in one run.

        Raises:
            ModelLoadError: TensorFlow or Keras is not installed, it sees no GPU where it is to use one, or the file
                is not the network of the manifest.
        """
        self.spec = spec
        self._batches = Batches(spec.name, batch)
        self._network = _load(spec, device)
        self.runs_on = device_of_tensorflow()

    def run(self, batch: Pixels) -> Outputs:
        """Answer a batch; see :class:`models.runtime.executor.Executor`."""
        check_batch(self.spec, batch)
        return self._batches.run(batch, self._answer)

    def warm(self) -> None:
        """Run once on an empty image, which also builds the kernels."""
        self.run(blank(self.spec))

    def _answer(self, images: Pixels) -> dict[str, Pixels]:
        from tensorflow.errors import ResourceExhaustedError

        try:
            found = self._network.predict_on_batch(images)
        except ResourceExhaustedError as error:
            raise OutOfMemoryError(f"{self.spec.name}: {len(images)} images do not fit into memory") from error
        return check_outputs(self.spec, by_name(self._network, found), len(images))


def device_of_tensorflow() -> RunsOn:
    """Where TensorFlow runs networks in this process."""
    import tensorflow

    return "gpu" if tensorflow.config.get_visible_devices("GPU") else "cpu"


def _load(spec: ModelSpec, device: str) -> Any:
    try:
        import keras  # noqa: F401 - only whether it is there
        import tensorflow
    except ImportError as error:
        raise ModelLoadError(
            f"{spec.name}: {spec.file.name} needs TensorFlow and Keras; install pleura[gpu] or pleura[train] ({error})"
        ) from error
    _choose_device(spec, device, tensorflow.config)
    try:
        network = open_network(spec.file)
    except ModelLoadError as error:
        raise type(error)(f"{spec.name}: {error}") from error
    shape = tuple(network.input_shape) if isinstance(network.input_shape, tuple) else ()
    wanted = (None, *input_shape(spec))
    if len(shape) != 4 or any(found not in (None, want) for found, want in zip(shape[1:], wanted[1:], strict=True)):
        raise ModelLoadError(f"{spec.name}: {spec.file} takes {list(shape)}, its manifest says {list(wanted)}")
    return network


def open_network(file: Path) -> Any:
    """A Keras file or graph (in safe mode: no code of the file runs) or a SavedModel, whatever its manifest says.

    Raises:
        ModelLoadError: it cannot be loaded; the message names the file.
    """
    import keras

    for module in OWN_LAYERS:
        import_module(module)
    try:
        if file.is_dir():
            from models.runtime.saved_model import SavedModel

            return SavedModel(file)
        shared = file.suffix == SUFFIX
        network = open_graph(file) if shared else keras.saving.load_model(file, compile=False, safe_mode=True)
        # With XLA the first batch of each size would wait for its kernels to be compiled and tried out, and others may
        # win in another process.
        network.jit_compile = False
        return network
    except (ValueError, TypeError, OSError, KeyError, ImportError, AttributeError, MemoryError) as error:
        raise load_error(file, error) from error


def _choose_device(spec: ModelSpec, device: str, config: Any) -> None:
    """Hide the GPUs, or let their memory grow: TensorFlow's default takes all of it from everybody else.

    TensorFloat-32 is off: it would round the inputs of every convolution to 10 bits.
    """
    gpus = config.list_physical_devices("GPU")
    config.experimental.enable_tensor_float_32_execution(False)
    if device == "cpu":
        config.set_visible_devices([], "GPU")
        return
    if not gpus:
        raise ModelLoadError(f"{spec.name}: TensorFlow sees no GPU, on which {spec.file.name} would run")
    for gpu in gpus:
        config.experimental.set_memory_growth(gpu, True)


def by_name(network: Any, found: Any) -> dict[str, Any]:
    """A Keras network's outputs by name, whether it answers a dictionary, a list or one array."""
    if isinstance(found, dict):
        return dict(found)
    if isinstance(found, list | tuple):
        return dict(zip(network.output_names, found, strict=True))
    return {network.output_names[0]: found}
