"""Parts of reports: well-formed, escaped, and at peace with nothing to show."""

import base64
import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import Markup

from models.training import pages, plots
from models.training.metrics import Interval
from models.training.pages import Mark
from models.training.plots import Axis, Line

ODD = 'a <b> & "c"'


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.curves(
            ODD, Axis(ODD, 0, 8), Axis(ODD), [Line(ODD, []), Line("", [(1, 1)]), Line("x", [(0, 2), (9, 0)])]
        ),
        lambda: plots.bars(ODD, [(ODD, 3), ("none", 0)]),
        lambda: plots.bars(ODD, []),
        lambda: plots.histogram(ODD, ODD, [0, 1, 2], [(ODD, [1, 0]), ("other", [0.5, 2])]),
        lambda: plots.histogram(ODD, ODD, [0, 1], [("nothing", [0])]),
        lambda: plots.heat(ODD, np.eye(3)),
        lambda: plots.heat(ODD, np.zeros((2, 2))),
    ],
)
def test_plots_are_pictures_with_words_for_those_who_do_not_see_them(draw: Callable[[], str]) -> None:
    picture = ElementTree.fromstring(str(draw())[:-1] + "/>")
    assert str(picture.get("alt")).startswith(f"{ODD}: ")
    kind, data = str(picture.get("src")).split(",")
    assert kind == "data:image/svg+xml;base64"
    root = ElementTree.fromstring(base64.b64decode(data))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert ODD in [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]


def svg_of(drawn: str) -> str:
    return base64.b64decode(drawn.split("base64,")[1].removesuffix('">')).decode()


def test_the_same_plot_has_the_same_bytes() -> None:
    first, second = (plots.curves("a", Axis("x"), Axis("y"), [Line("b", [(0, 0), (1, 1)])]) for _ in range(2))
    assert first == second
    found = svg_of(first)
    assert not re.search(r"20\d\d-|dc:date", found)
    assert len(found) < 20_000


def test_a_long_name_is_cut_and_a_dollar_is_a_dollar() -> None:
    drawn = plots.bars("a", [("n" * 80, 3), ("$x_2$", 1)])
    found = svg_of(drawn)
    assert ">" + "n" * 31 + "…<" in found
    assert ">$x_2$<" in found


def test_marks_lie_where_they_should() -> None:
    mask = np.zeros((8, 8), bool)
    mask[1:7, 2:8] = True
    marks = [Mark(pages.TRUTH, mask=mask), Mark(pages.ANSWER, box=(1, 2, 5, 8), dashed=True, note=ODD)]
    root = ElementTree.fromstring(pages.picture(np.linspace(0, 1, 64).reshape(8, 8).astype(np.float32), marks, ODD))
    svg = root[0]
    filled, outline, box, words = svg[1], svg[2], svg[3], svg[4]
    assert words.text == ODD
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
    assert "<p>Nothing was left out.</p>" in pages.problem_list([])


def test_a_page_says_what_it_is_not() -> None:
    shown = pages.page(ODD, Markup(""), [("One", pages.note(ODD)), (ODD, Markup("<p>x</p>"))])
    assert shown.startswith("<!doctype html>")
    assert "Research use only. Pleura is not a medical device." in shown
    assert "<b>" not in shown.split("</style>")[1]
    assert shown.count("<p>x</p>") == 1
