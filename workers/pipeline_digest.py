"""The digest of all that makes a result: models, thresholds, processing, encoders and the settings that they follow.

The listener computes it too, so nothing here loads a network or the libraries that run one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from config.settings import Settings
from models.model_spec import Mode
from models.pipeline import Condition, Pipeline, load_pipeline
from workers.results.encoders import ENCODERS


def active_pipeline(
    settings: Settings, *, verify: bool = False, switches: Mapping[str, Mode] | None = None
) -> Pipeline:
    """The pipeline that the configuration names; ``verify`` compares the models' files with their digests.

    ``switches`` are modes that people have given to models since.

    Raises:
        UnknownModel: No manifest has one of the names.
        ManifestError: A manifest is wrong, or a file has another digest.
    """
    models = settings.models
    conditions = [Condition(name, *asked.split("/")) for name, asked in models.after.items()]
    return load_pipeline(
        models.folder,
        models.active,
        shadow=models.shadow,
        gate=models.gate,
        lungs=models.lungs,
        verify=verify,
        switches=switches,
        conditions=conditions,
    )


def activated_pipeline(settings: Settings) -> Pipeline:
    """The same pipeline as if every model were switched on: only what a manifest keeps in shadow is in shadow.

    Raises:
        UnknownModel: No manifest has one of the names.
        ManifestError: A manifest is wrong.
    """
    models = settings.models
    return active_pipeline(settings, switches=dict.fromkeys((*models.active, *models.shadow), Mode.ACTIVE))


_SITE_IN_RESULTS = ("name", "uid_root", "station_name")
"""The settings of ``[site]`` that are written into results; the others must not give the same work other UIDs."""


def rule_digests(settings: Settings, pipeline: Pipeline) -> dict[str, str]:
    """The digest that names an analysis by each routing rule that chooses models, by the rule's name."""
    return {
        rule.name: digest_of(pipeline.only(rule.models), settings)
        for rule in settings.routing
        if rule.models is not None
    }


def digest_of(pipeline: Pipeline, settings: Settings) -> str:
    """Digest of ``pipeline`` with all that is made of its predictions: encoders, and the settings that they follow."""
    results, site = settings.results, settings.site
    return pipeline.digest(
        *(f"{entry.kind}={entry.version}" for entry in ENCODERS),
        f"sr_storage={results.sr_storage}",
        *([f"seg_storage={results.seg_storage}"] if results.seg_storage != "binary" else []),
        f"series_number_base={results.series_number_base}",
        *(f"{name}={getattr(site, name)}" for name in _SITE_IN_RESULTS),
        # A GPU rounds otherwise than a CPU: what is analysed there on purpose is another analysis.
        *(["device=gpu"] if _on_gpu(pipeline, settings) else []),
    )


def _on_gpu(pipeline: Pipeline, settings: Settings) -> bool:
    """Whether ``pipeline`` runs on a GPU on purpose: all pipelines do, or the queue of its jobs is ``jobs.gpu``."""
    return settings.workers.device == "gpu" or any(spec.name in settings.models.gpu for spec in pipeline.models)


def run_otherwise(settings: Settings, runs_on: str, other_files: Mapping[str, str]) -> tuple[str, ...]:
    """How a worker runs a pipeline otherwise than its digest says, which nobody could know who queued the job: on a GPU
    that ``auto`` has found, or as ``other_files`` (:attr:`models.predictor.Predictor.other_files`).
    """
    found = runs_on == "gpu" and settings.workers.device != "gpu"
    return (*(["device=gpu"] if found else []), *(f"{name}={digest}" for name, digest in sorted(other_files.items())))


def name_of_analysis(pipeline: str, changes: Iterable[str]) -> str:
    """Name the analysis of a job that was queued for ``pipeline`` and runs with ``changes``: by people, or by what its
    worker runs networks on (:func:`run_otherwise`).

    Without any it is the pipeline's own digest, so that the same work gives the same UIDs; with some it is another
    analysis. It stays the job's own: no two jobs ever share it.
    """
    parts = [part.encode() for part in changes]
    if not parts:
        return pipeline
    lengths = (len(part).to_bytes(8, "big") + part for part in (pipeline.encode(), *parts))
    return hashlib.sha256(b"".join(lengths)).hexdigest()
