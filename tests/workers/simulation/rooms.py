"""Scenarios for the tests of the simulation."""

from __future__ import annotations

from typing import Any

from workers.simulation.cases import Case
from workers.simulation.scenario import Scenario


def scenario(**changes: Any) -> Scenario:
    """One reader who does nothing else, six studies an hour, two minutes each."""
    everywhere = [1.0] * 24
    values: dict[str, Any] = {
        "title": "a test",
        "days": 2,
        "warm_up_days": 0,
        "analysis_minutes": 1.0,
        "not_analysed": 0.0,
        "maximum_wait_minutes": 60.0,
        "arrivals": {"weekday": [6.0] * 24, "weekend": [6.0] * 24},
        "readers": {"weekday": everywhere, "weekend": everywhere},
        "attention": {"weekday": everywhere, "weekend": everywhere},
        "reading": {"mean_minutes": 2.0, "deviation_minutes": 1.0},
        "findings": [{"label": "pneumothorax", "prevalence": 0.2, "sensitivity": 0.9, "specificity": 0.9}],
    }
    return Scenario.model_validate(values | changes)


def case(number: int, arrives: float, minutes: float = 10.0, *detected: str, **changes: Any) -> Case:
    """A study that shows what the algorithm says."""
    values: dict[str, Any] = {
        "number": number,
        "arrives": arrives,
        "minutes": minutes,
        "rest": 1.0,
        "shows": frozenset(detected),
        "detected": frozenset(detected),
    }
    return Case(**(values | changes))
