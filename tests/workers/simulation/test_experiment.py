"""The comparison: what this node promises of its policy, and that the figures are right."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from config.triage import Triage
from tests.workers.simulation.rooms import scenario
from workers.simulation.experiment import compare
from workers.simulation.policies import DUE_TIME, FIRST_COME, MAXIMUM_WAIT, PRIORITY
from workers.simulation.scenario import DEFAULT, ScenarioError, read_scenario
from workers.simulation.simulation_page import html_report
from workers.simulation.simulation_report import metrics_json
from workers.simulation.turnaround_figures import ALL, NONE, Comparison, estimate, figures_of, student_t

RULES = Triage()


def _silent(done: int, total: int) -> None:
    del done, total


@pytest.fixture(scope="module")
def literature() -> Comparison:
    return compare(read_scenario(DEFAULT), RULES, seed=1, replications=8, progress=_silent)


@pytest.fixture(scope="module")
def small() -> Comparison:
    return compare(scenario(), RULES, seed=5, replications=3, progress=_silent)


def test_a_critical_study_is_reported_as_early_as_by_plain_priority(literature: Comparison) -> None:
    ours, plain = (literature.figures[policy]["pneumothorax"].mean.mean for policy in (DUE_TIME, PRIORITY))
    assert ours <= 1.1 * plain


def test_nobody_waits_much_longer_than_first_come_first_served(literature: Comparison) -> None:
    ours, first = (literature.figures[policy][ALL].longest.mean for policy in (DUE_TIME, FIRST_COME))
    assert ours <= 1.1 * first


def test_the_study_that_the_algorithm_missed_does_not_pay_for_it(literature: Comparison) -> None:
    missed = "pneumothorax, not found"
    assert literature.figures[DUE_TIME][missed].mean.mean <= 1.1 * literature.figures[FIRST_COME][missed].mean.mean


def test_the_reference_is_met_in_kind(literature: Comparison) -> None:
    """PMC8128725: priority helps the critical and hurts the longest wait, a maximum wait fixes some of that."""
    found = literature.figures
    assert found[FIRST_COME]["pneumothorax"].mean.mean == pytest.approx(80.1, rel=0.15)
    assert found[PRIORITY]["pneumothorax"].mean.mean < found[FIRST_COME]["pneumothorax"].mean.mean / 2
    assert found[PRIORITY][ALL].longest.mean > 1.2 * found[FIRST_COME][ALL].longest.mean
    assert (
        found[FIRST_COME][ALL].longest.mean < found[MAXIMUM_WAIT][ALL].longest.mean < found[PRIORITY][ALL].longest.mean
    )


def test_the_default_minutes_matter() -> None:
    """A longer lead for every urgent finding, as it was once, breaks the promise: the test above can fail."""
    before = Triage(urgent_finding_minutes=60)
    found = compare(read_scenario(DEFAULT), before, seed=1, replications=4, progress=_silent).figures
    assert found[DUE_TIME][ALL].longest.mean > 1.1 * found[FIRST_COME][ALL].longest.mean


def test_the_same_seed_gives_the_same_figures(small: Comparison) -> None:
    progress: list[tuple[int, int]] = []
    again = compare(
        scenario(), RULES, seed=5, replications=3, progress=lambda done, total: progress.append((done, total))
    )
    assert again == small
    assert progress == [(number, 12) for number in range(1, 13)]
    assert compare(scenario(), RULES, seed=6, replications=3, progress=_silent) != small


def test_groups_are_complete(small: Comparison) -> None:
    assert small.studies[ALL] == small.studies["pneumothorax"] + small.studies[NONE]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrivals": {"weekday": [40.0] * 24, "weekend": [40.0] * 24}}, "cannot keep up"),
        (
            {"findings": [{"label": "nodule", "prevalence": 0.1, "sensitivity": 0.9, "specificity": 0.9}]},
            "triage.critical",
        ),
        (
            {"findings": [{"label": "pneumothorax", "prevalence": 0.0, "sensitivity": 0.9, "specificity": 0.9}]},
            "no study had",
        ),
    ],
)
def test_what_cannot_be_compared_is_told(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        compare(scenario(**changes), RULES, seed=1, replications=1, progress=_silent)


def test_figures() -> None:
    found = figures_of([np.array([1.0, 3.0]), np.array([2.0, 10.0])])
    assert found.mean.mean == 4
    assert found.longest.mean == 6.5
    assert found.extreme == 10
    assert found.mean.low < 4 < found.mean.high
    assert estimate([7.0]).low == estimate([7.0]).high == 7


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (9, 2.262), (19, 2.093)])
def test_student_t(freedom: int, quantile: float) -> None:
    assert student_t(freedom) == pytest.approx(quantile, abs=0.02)


def test_metrics_hold_everything(small: Comparison) -> None:
    content = json.loads(metrics_json(small, scenario(), RULES))
    assert content["seed"] == 5
    assert content["rules"]["routine_minutes"] == RULES.routine_minutes
    assert content["scenario"]["reading"]["mean_minutes"] == 2
    found = small.figures[DUE_TIME]["pneumothorax"].mean.mean
    assert content["policies"][DUE_TIME]["pneumothorax"]["mean"]["mean"] == found
    assert "not a medical device" in content["notice"]


def test_the_report_is_one_file_of_its_own(small: Comparison) -> None:
    html = html_report(small, scenario(title="<b>&"), RULES, "pleura simulate --seed 5")
    assert [name.split(":")[0] for name in re.findall(r'<img [^>]*alt="([^"]*)"', html)] == [
        "Mean turnaround by finding",
        "95th percentile turnaround by finding",
        "Longest turnaround by finding",
        "Studies with pneumothorax that are reported within a number of minutes",
    ]
    assert html == html_report(small, scenario(title="<b>&"), RULES, "pleura simulate --seed 5")
    assert len(html) < 200_000
    assert "not a medical device" in html
    assert "pleura simulate --seed 5" in html
    assert "<b>&" not in html
    assert not re.search(r'(src|href)="(?!data:)|url\(|@import|<script', html)
