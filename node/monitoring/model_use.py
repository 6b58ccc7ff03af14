"""What becomes of each model of this node: what a file defines, what the configuration names, what a person decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from config.settings import Models
from db.model_states import ModelState, Switch
from models.contract import Mode, ModelSpec

GATE, IDLE = "gate", "not configured"


@dataclass(frozen=True, slots=True)
class ModelInUse:
    """A model with its state: active, shadow or off; ``gate`` and ``not configured`` are none that can be switched.

    ``configured`` is the state without the decision ``switch``.
    """

    spec: ModelSpec
    configured: str
    state: str
    switch: Switch | None = None

    @property
    def switchable(self) -> bool:
        """Whether a person may decide about it: its findings could be delivered."""
        return self.configured not in (GATE, IDLE)


def models_in_use(
    specs: Iterable[ModelSpec], configured: Models, switches: Mapping[str, Switch]
) -> tuple[ModelInUse, ...]:
    """Every model of ``specs``, those that judge images first."""
    found = [_in_use(spec, configured, switches.get(spec.name)) for spec in specs]
    return tuple(sorted(found, key=lambda model: (model.configured == IDLE, model.configured == GATE)))


def _in_use(spec: ModelSpec, configured: Models, switch: Switch | None) -> ModelInUse:
    if spec.name == configured.gate:
        return ModelInUse(spec, GATE, GATE)
    if spec.name not in (*configured.active, *configured.shadow):
        return ModelInUse(spec, IDLE, IDLE)
    in_shadow = spec.mode is Mode.SHADOW or spec.name in configured.shadow
    usual = ModelState.SHADOW if in_shadow else ModelState.ACTIVE
    if switch is None:
        return ModelInUse(spec, usual.value, usual.value)
    # A manifest that keeps its model in shadow outweighs whoever activates it.
    kept = switch.state is ModelState.ACTIVE and spec.mode is Mode.SHADOW
    return ModelInUse(spec, usual.value, ModelState.SHADOW.value if kept else switch.state.value, switch)
