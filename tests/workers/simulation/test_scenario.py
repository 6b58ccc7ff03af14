"""Scenario files: the default one, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers.simulation.rooms import scenario
from workers.simulation.scenario import DEFAULT, ScenarioError, Week, read_scenario

GOOD = DEFAULT.read_text(encoding="utf-8")


def test_the_default_scenario_can_be_read_and_its_readers_keep_up() -> None:
    assert 0.5 < read_scenario(DEFAULT).load < 1


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("days = 28", "days = 0", "days"),
        ("days = 28", "days = 28\nnights = 3", "nights: there is no such key"),
        ("sensitivity = 0.927", "sensitivty = 0.927", "finding 1: sensitivty: .* did you mean `sensitivity`"),
        ("mean_minutes = 2.5\n", "", "mean_minutes"),
        ("weekday = [2, 2,", "weekday = [2,", "24 numbers"),
        ("weekday = [2, 2,", "weekday = [-2, 2,", "negative number"),
        ("sensitivity = 0.927", "sensitivity = 92.7", "sensitivity"),
        ('label = "lung_opacity"', 'label = "pneumothorax"', "same label"),
        ("title =", "title", "TOML"),
    ],
)
def test_what_is_wrong_with_a_scenario_is_told(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in GOOD
    path = tmp_path / "scenario.toml"
    path.write_text(GOOD.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(ScenarioError, match=message):
        read_scenario(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read"):
        read_scenario(tmp_path / "none.toml")


def test_somebody_must_read() -> None:
    nobody = {"weekday": [0.0] * 24, "weekend": [0.0] * 24}
    with pytest.raises(ValueError, match="at least one reader is needed"):
        scenario(readers=nobody)


def test_hours_of_the_week() -> None:
    week = Week(weekday=tuple(float(hour) for hour in range(24)), weekend=(100.0,) * 24)
    assert week.at(0) == 0
    assert week.at(59.9) == 0
    assert week.at(60) == 1
    assert week.at(4 * 1440 + 23 * 60) == 23
    assert week.at(5 * 1440) == 100
    assert week.at(7 * 1440 - 0.1) == 100
    assert week.at(7 * 1440) == 0


def test_the_load_is_work_by_time() -> None:
    # Six studies an hour of two minutes each for one reader.
    assert scenario().load == pytest.approx(0.2)
    half = {"weekday": [0.5] * 24, "weekend": [0.5] * 24}
    assert scenario(attention=half).load == pytest.approx(0.4)
