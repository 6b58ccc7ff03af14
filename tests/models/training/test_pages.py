"""Parts of reports: well-formed, escaped, and at peace with nothing to show."""

from xml.etree import ElementTree

import numpy as np
import pytest

from models.training import pages, plots
from models.training.metrics import Interval
from models.training.pages import Mark
from models.training.plots import Axis, Line

ODD = 'a <b> & "c"'


@pytest.mark.parametrize(
    "drawn",
    [
        plots.curves(ODD, Axis(ODD, 0, 8), Axis(ODD), [Line(ODD, []), Line("", [(1, 1)]), Line("x", [(0, 2), (9, 0)])]),
        plots.bars(ODD, [(ODD, 3), ("none", 0)]),
        plots.bars(ODD, []),
        plots.histogram(ODD, ODD, [0, 1, 2], [(ODD, [1, 0]), ("other", [0.5, 2])]),
        plots.histogram(ODD, ODD, [0, 1], [("nothing", [0])]),
        plots.heat(ODD, np.eye(3)),
        plots.heat(ODD, np.zeros((2, 2))),
    ],
)
def test_plots_are_well_formed(drawn: str) -> None:
    root = ElementTree.fromstring(drawn)
    assert root.get("role") == "img"
    assert root.get("aria-label") == ODD


def test_points_stay_inside_their_axes() -> None:
    axis = Axis("x", 2, 4)
    assert [axis.share(value) for value in (1, 2, 3, 5)] == [0, 0, 0.5, 1]


def test_marks_lie_where_they_should() -> None:
    mask = np.zeros((8, 8), bool)
    mask[1:7, 2:8] = True
    marks = [Mark(pages.TRUTH, mask=mask), Mark(pages.ANSWER, box=(1, 2, 5, 8), dashed=True, note=ODD)]
    root = ElementTree.fromstring(pages.picture(np.linspace(0, 1, 64).reshape(8, 8).astype(np.float32), marks, ODD))
    svg = root[0]
    filled, outline, box = svg[1], svg[2], svg[3]
    assert filled.get("d", "").startswith("M2 1h6v1h-6z")
    assert outline.get("d", "").count("M") == 4 + 2 * 2  # two rows above, two below, two sides of the two between
    assert (box.get("x"), box.get("width"), box.get("stroke-dasharray")) == ("1.0", "4.0", "6 4")
    assert str(svg[0].get("href")).startswith("data:image/jpeg;base64,")


def test_an_empty_mask_draws_nothing() -> None:
    drawn = pages.picture(np.zeros((4, 4), np.float32), [Mark(pages.TRUTH, mask=np.zeros((4, 4), bool))], "x")
    assert "<path" not in drawn


def test_numbers_and_intervals() -> None:
    nothing = float("nan")
    assert (pages.number(nothing), pages.number(None), pages.number(0.12345)) == ("n/a", "n/a", "0.123")
    assert pages.interval(Interval(0.5, 0.25, 0.75), 2) == "0.50\N{NO-BREAK SPACE}(0.25\N{EN DASH}0.75)"
    assert pages.interval(Interval(nothing, nothing, nothing)) == "n/a"
    assert (pages.share(1, 4), pages.share(0, 0)) == ("1 (25.0%)", "0")


def test_problems_are_counted_by_reason_and_escaped() -> None:
    shown = pages.problem_list([("<i>", "odd: one"), ("j", "odd: two"), ("k", "gone")])
    assert "<td>odd</td><td>2</td>" in shown
    assert "&lt;i&gt;" in shown
    many = pages.problem_list([(str(number), "gone") for number in range(300)])
    assert "300 rows, the first 200 of them here" in many
    assert pages.problem_list([]) == "<p>Nothing was left out.</p>"


def test_a_page_says_what_it_is_not() -> None:
    shown = pages.page(ODD, "", [("One", "<p>x</p>")])
    assert shown.startswith("<!doctype html>")
    assert "Research use only. Not a medical device." in shown
    assert "<b>" not in shown.split("</style>")[1].split("<section")[0].replace("<body>", "")
