"""Model state resolver: the loaded networks, with the states that people have given them since.

A worker asks the database when a job begins, so that a switch counts for the next job, without a restart. The networks
stay loaded whatever their state: a model that is off or in shadow still analyses, and nothing it says leaves the node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from db.model_states import ModelState
from models.model_spec import Mode, ModelSpec
from models.pipeline import Pipeline
from models.predictor import Predictor as LoadedPredictor
from models.runtime.executor import RunsOn
from workers.analysis_tools import Predictor

States = Mapping[str, ModelState]
"""What people have decided, by the name of a model; one that nobody has switched is missing."""


@dataclass(frozen=True, slots=True)
class ResolvedModels:
    """What analyses one image. ``modes`` is the mode of each model's findings: active, shadow or off.

    ``changes`` tell how that differs from the configuration, one entry a model; they are part of the analysis' name.
    """

    predictor: Predictor
    modes: Mapping[str, str] = field(default_factory=dict)
    changes: tuple[str, ...] = ()


class ModelStateResolver:
    """Gives what analyses an image for given states; the last one is kept, for states hardly ever change."""

    def __init__(self, predictor: LoadedPredictor, activated: Pipeline) -> None:
        """Take networks that are loaded under the configured pipeline, and that pipeline with every model active.

        The second knows what a manifest itself keeps in shadow. No file is read again.
        """
        self._predictor = predictor
        self._manifests = {spec.name: spec for spec in activated.models}
        self._known: tuple[dict[str, ModelState], ResolvedModels] | None = None

    @property
    def runs_on(self) -> RunsOn:
        """Where the networks run."""
        return self._predictor.runs_on

    @property
    def device(self) -> str:
        """The same for people and records."""
        return self._predictor.device

    @property
    def other_files(self) -> Mapping[str, str]:
        """See :attr:`models.predictor.Predictor.other_files`."""
        return self._predictor.other_files

    def resolve(self, states: States) -> ResolvedModels:
        """What analyses an image while models are in ``states``."""
        named = {spec.name for spec in self._predictor.pipeline.models}
        relevant = {name: state for name, state in states.items() if name in named}
        if self._known is None or self._known[0] != relevant:
            self._known = (relevant, self._made(relevant))
        return self._known[1]

    def _made(self, states: dict[str, ModelState]) -> ResolvedModels:
        configured = self._predictor.pipeline
        if not states:
            return ResolvedModels(self._predictor, modes_of(configured, states))
        pipeline = replace(configured, models=tuple(self._switched(spec, states) for spec in configured.models))
        return ResolvedModels(
            self._predictor.with_pipeline(pipeline), modes_of(pipeline, states), changes_between(configured, pipeline)
        )

    def _switched(self, spec: ModelSpec, states: States) -> ModelSpec:
        state = states.get(spec.name)
        if state is None:
            return spec
        return self._manifests[spec.name] if state is ModelState.ACTIVE else replace(spec, mode=Mode.SHADOW)


def modes_of(pipeline: Pipeline, states: States) -> dict[str, str]:
    """What becomes of each model's findings, in words for the record of a job."""
    return {
        spec.name: ModelState.OFF.value if states.get(spec.name) is ModelState.OFF else spec.mode.value
        for spec in pipeline.models
    }


def changes_between(configured: Pipeline, current: Pipeline) -> tuple[str, ...]:
    """Each model whose mode is not the configured one, with the one it has."""
    before = {spec.name: spec.mode for spec in configured.models}
    return tuple(f"{spec.name}={spec.mode.value}" for spec in current.models if spec.mode is not before.get(spec.name))
