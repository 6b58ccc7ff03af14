"""The state of each model of this node, from its manifest, the configuration and the state changes by users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from config.settings import Models
from db.model_states import ModelState, Switch, latest_switches
from models.manifest import ManifestError
from models.model_registry import UnknownModel, read_registry
from models.model_spec import Mode, ModelSpec

GATE, LUNGS, NOT_CONFIGURED = "gate", "lungs", "not configured"


@dataclass(frozen=True, slots=True)
class ModelInUse:
    """A model with its state: active, shadow or off; ``gate`` and ``not configured`` cannot be switched.

    ``configured`` is the state without the change ``switch``.
    """

    spec: ModelSpec
    configured: str
    state: str
    switch: Switch | None = None

    @property
    def switchable(self) -> bool:
        """Whether a user may change its state: its findings could be delivered."""
        return self.configured not in (GATE, LUNGS, NOT_CONFIGURED)


def models_of_node(configured: Models, engine: Engine) -> tuple[ModelInUse, ...]:
    """Every model of the registry; none if a manifest is invalid, which ``pleura doctor`` reports."""
    try:
        specs = read_registry(configured.folder, verify=False).specs
    except (ManifestError, UnknownModel, OSError):
        return ()
    return models_in_use(specs, configured, latest_switches(engine))


def models_in_use(
    specs: Iterable[ModelSpec], configured: Models, switches: Mapping[str, Switch]
) -> tuple[ModelInUse, ...]:
    """Every model of ``specs``, those with findings first."""
    found = [_in_use(spec, configured, switches.get(spec.name)) for spec in specs]
    last = {GATE: 1, LUNGS: 1, NOT_CONFIGURED: 2}
    return tuple(sorted(found, key=lambda model: last.get(model.configured, 0)))


def _in_use(spec: ModelSpec, configured: Models, switch: Switch | None) -> ModelInUse:
    if spec.name == configured.gate:
        return ModelInUse(spec, GATE, GATE)
    if spec.name == configured.lungs:
        return ModelInUse(spec, LUNGS, LUNGS)
    if spec.name not in (*configured.active, *configured.shadow):
        return ModelInUse(spec, NOT_CONFIGURED, NOT_CONFIGURED)
    in_shadow = spec.mode is Mode.SHADOW or spec.name in configured.shadow
    usual = ModelState.SHADOW if in_shadow else ModelState.ACTIVE
    if switch is None:
        return ModelInUse(spec, usual.value, usual.value)
    # A manifest that keeps its model in shadow takes precedence over an activation.
    kept = switch.state is ModelState.ACTIVE and spec.mode is Mode.SHADOW
    return ModelInUse(spec, usual.value, ModelState.SHADOW.value if kept else switch.state.value, switch)
