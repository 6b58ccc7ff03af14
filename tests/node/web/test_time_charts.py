"""Charts over time: round axes, gaps, and intervals that begin where people expect them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from db.queries.trends import Intervals, Trends
from node.web.charts import HEIGHT, WIDTH, job_stages, stage_shares
from node.web.time_charts import RANGES, counts, intervals_of, label_times, latencies, table

NOW = datetime(2026, 3, 1, 3, 17, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize("name", RANGES)
def test_a_range_ends_with_the_interval_that_is_running(name: str) -> None:
    shown = RANGES[name]
    found = intervals_of(shown, NOW, BERLIN)
    assert found.end - found.step <= NOW < found.end
    assert label_times(found, shown)[0] == found.first
    assert label_times(found, shown)[-1] == found.end


def test_days_begin_at_the_midnight_of_the_site() -> None:
    assert intervals_of(RANGES["30d"], NOW, BERLIN).first == datetime(2026, 1, 30, 23, tzinfo=UTC)
    assert intervals_of(RANGES["24h"], NOW, BERLIN).first == datetime(2026, 2, 28, 3, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("highest", "labels"),
    [
        (0, (1, 0)),
        (1, (1, 0)),
        (2, (2, 1, 0)),
        (7, (10, 8, 6, 4, 2, 0)),
        (18, (20, 15, 10, 5, 0)),
        (31, (50, 40, 30, 20, 10, 0)),
    ],
)
def test_an_axis_of_counts_has_whole_numbers(highest: int, labels: tuple[int, ...]) -> None:
    axis = counts([0, highest]).axis
    assert axis.labels == labels
    assert (axis.lines[0], axis.lines[-1], len(axis.lines)) == (0, HEIGHT, len(labels))


def test_failed_ones_stand_on_top_of_the_others() -> None:
    chart = counts([3, 0, 1], [0, 0, 1])
    (worse,) = chart.worse
    assert (chart.total, chart.worse_total, worse.index) == (4, 1, 2)
    assert worse.y + worse.height == pytest.approx(chart.bars[2].y)
    assert all(0 <= bar.x <= WIDTH and 0 <= bar.y <= HEIGHT for bar in (*chart.bars, worse))


def test_an_interval_without_a_job_is_a_gap() -> None:
    chart = latencies([(1.0, 3.0), (2.0,), (), (4.0,)])
    assert [part[0] for part in chart.median_path.split(" ") if part[0] in "ML"] == ["M", "L", "M"]
    assert [point.index for point in chart.points] == [0, 1, 3]
    assert (chart.axis.top, chart.axis.unit) == (5, "s")


@pytest.mark.parametrize(("seconds", "unit", "top"), [(90, "s", 100), (600, "min", 10), (20_000, "h", 10)])
def test_long_times_are_in_minutes_or_hours(seconds: float, unit: str, top: float) -> None:
    axis = latencies([(seconds,)]).axis
    assert (axis.unit, axis.top) == (unit, top)


def test_nothing_at_all_is_an_empty_chart() -> None:
    chart = latencies([(), ()])
    assert (chart.median_path, chart.points, chart.median) == ("", (), 0)


def test_the_table_has_the_same_figures_the_latest_first() -> None:
    spans = Intervals(NOW, timedelta(hours=1), 2)
    rows = table(Trends(spans, (1, 2), (1, 1), (0, 1), ((3.0,), ()), ((), (0.5,))))
    assert [(row.begins_at, row.images, row.failed) for row in rows] == [(NOW + spans.step, 2, 1), (NOW, 1, 0)]
    assert (rows[0].result_median, rows[1].result_median, rows[0].delivery_p95) == (None, 3.0, 0.5)


def test_a_stage_is_told_by_its_parts_and_no_second_is_drawn_twice() -> None:
    timings = {"read": 1.0, "predict": 2.0, "encode": 1.0, "predict.gate": 0.5, "predict.infer": 1.5}
    assert job_stages(timings) == {"read": 1.0, "gate": 0.5, "infer": 1.5, "encode": 1.0}
    assert [share[1:] for share in stage_shares(timings)] == [
        (1.0, 0.0, 25.0),
        (0.5, 25.0, 12.5),
        (1.5, 37.5, 37.5),
        (1.0, 75.0, 25.0),
    ]
    assert job_stages({"read": 1.0, "predict": 2.0}) == {"read": 1.0, "predict": 2.0}
