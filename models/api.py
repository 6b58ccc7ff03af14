"""The public Python API of Pleura's models: read a radiograph, load models, predict (``docs/python-api.md``).

What this module names in ``__all__`` keeps its names and meaning within a major version, and so do the public fields of
the values. Every other module of Pleura is private and may change at any time.
"""

from __future__ import annotations

import models.own_packages  # noqa: F401 - first, so that a foreign config.py is named before it is imported

# isort: split
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydicom import Dataset

from models.contract import Box, Finding, ModelInput, NotAnalysed, Prediction
from models.manifest import ManifestError, read_manifest, verify_digest
from models.model_registry import BUNDLED
from models.model_spec import Code, ModelSpec
from models.pipeline import Pipeline
from models.predictor import Predictor
from models.predictor import load_predictor as _load_predictor
from models.radiograph.decode import UnreadablePixels
from models.radiograph.reading import read_model_input
from models.runtime.executor import ModelLoadError, ModelOutputError

__all__ = [
    "BUNDLED",
    "Box",
    "Code",
    "Finding",
    "ManifestError",
    "ModelInput",
    "ModelLoadError",
    "ModelOutputError",
    "ModelSpec",
    "NotAnalysed",
    "Prediction",
    "Predictor",
    "UnreadablePixels",
    "load_manifest",
    "load_models",
    "read_radiograph",
]


def read_radiograph(source: str | Path | Dataset, *, threads: int = 1) -> ModelInput:
    """Read a radiograph: ``float32[rows, columns]`` in ``[0, 1]`` as a person sees it (air dark), spacing, orientation.

    ``source`` is a DICOM file, or a data set with its file meta information. ``threads`` decode in parallel where the
    transfer syntax allows it.

    Raises:
        UnreadablePixels: it is no DICOM file, or no single grey image; the message says why.
    """
    return read_model_input(Path(source) if isinstance(source, str) else source, threads)


def load_manifest(path: str | Path) -> ModelSpec:
    """Read a model's manifest (``docs/manifests.md``) and compare its file with its digest; no network is loaded.

    Raises:
        ManifestError: the manifest or its file cannot be used; the message names file, key, value and mistake.
    """
    spec = read_manifest(Path(path))
    verify_digest(spec)
    return spec


def load_models(
    models: Sequence[ModelSpec],
    *,
    gate: ModelSpec | None = None,
    lungs: ModelSpec | None = None,
    device: Literal["auto", "cpu", "gpu"] = "auto",
    threads: int = 0,
) -> Predictor:
    """Load networks for use by this process: ``models``, a ``gate`` that looks at every image first, and the ``lungs``.

    ``lungs`` says where the lungs are: masks of findings in the lungs are clipped to them.
    Then ``predict(radiograph)`` gives a ``Prediction`` for one ``ModelInput``, ``predict_all`` one for each.
    ``threads`` are CPU threads for one network, 0 for one on each core.

    Raises:
        ManifestError: a model cannot stand where it is given, such as a gate among the models.
        ModelLoadError: a file cannot be loaded.
        ModelOutputError: a network does not answer as its manifest says.
    """
    return _load_predictor(Pipeline(gate, tuple(models), lungs=lungs), device=device, threads=threads)
