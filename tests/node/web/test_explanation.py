"""The page for a person: everything that it must say, nothing from elsewhere, and no markup from data."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from db.records import FindingRecord
from db.shown_records import JobDetail
from db.states import JobState
from models.contract import Finding, NotAnalysed, Prediction, Spacing
from models.model_spec import Activation, Code, Evidence, InputSpec, LabelSpec, Mode, ModelKind, ModelSpec
from node.web.explanation import finding_of, models_used, not_analysed_of
from node.web.explanation_page import ExplainedImage, explain_html
from tests.workers.builders import NOON

CODE = Code("36118008", "SCT", "Pneumothorax")
MODEL = ModelSpec(
    name="m",
    version="1.2.0",
    title="A model",
    kind=ModelKind.CLASSIFIER,
    file=Path("m.onnx"),
    digest="ab" * 32,
    device_uid="2.25.1",
    input=InputSpec(256, 256),
    activation=Activation.PROBABILITY,
    labels=(LabelSpec("pneumothorax", CODE, 0.5, evidence=Evidence(48, 0.85, 0.75, 0.92)),),
)


def finding(**changes: Any) -> Finding:
    mask = np.zeros((100, 100), dtype=bool)
    mask[:20, :50] = True
    return replace(Finding("pneumothorax", CODE, "m", 0.875, 0.5, mask=mask), **changes)


def page(*findings: Finding, not_analysed: NotAnalysed | None = None, **changes: Any) -> str:
    picture = Image.new("RGB", (20, 20), (10, 20, 30))
    image = ExplainedImage(
        "Image 1, PA", picture, Prediction((100, 100), findings, not_analysed), Spacing(1, 1, "detector")
    )
    values: dict[str, Any] = {
        "title": "Study 1",
        "priority": "critical",
        "reason": "pneumothorax",
        "images": [replace(image, **changes)],
        "models": [MODEL],
        "cards": {"m": "Trained on <b>something</b>."},
    }
    return explain_html(**values)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_says_what_was_found_with_its_numbers_and_its_evidence():
    html = page(finding())
    for text in (
        "critical",
        "present",
        "0.875",
        "10.0 cm²",
        "detector plane",
        "AUC 0.85 (95 % 0.75 to 0.92) on 48 positives",
    ):
        assert text in html
    assert html.count("Not a medical device") == 2


def test_the_page_is_whole_and_needs_nothing_from_elsewhere():
    reader = Tags()
    html = page(finding())
    reader.feed(html)
    assert reader.open == []
    assert len(reader.sources) == 1
    assert reader.sources[0].startswith("data:image/jpeg;base64,")
    assert not re.search(r"<script|@import|https?://", html)


def test_what_is_stored_as_present_is_present_below_its_own_threshold_too():
    """A whole is present where a part of it is: the report says so, and the page must not say otherwise."""
    record = FindingRecord("pneumothorax", "m", "1", 0.4, 0.5, present=True, shadow=False, reason="follows from air")
    assert "<td>present: follows from air</td>" in page(finding_of(record, None, [MODEL]))
    assert "not detected" not in page(finding_of(replace(record, reason=""), None, [MODEL]))
    assert "not detected" in page(finding_of(replace(record, present=False, reason=""), None, [MODEL]))


def test_the_figures_of_a_newer_version_do_not_stand_behind_what_an_older_one_found():
    record = FindingRecord("pneumothorax", "m", "1.1.0", 0.9, 0.5, present=True, shadow=False)
    assert models_used([MODEL], [record]) == []
    assert models_used([MODEL], [replace(record, model_version="1.2.0")]) == [MODEL]


def test_a_negative_is_not_excluded():
    html = page(finding(probability=0.1))
    assert "not detected (not excluded)" in html
    assert "cm²" not in html


def test_shadow_findings_are_told_apart():
    assert "in shadow: never sent" in page(finding(mode=Mode.SHADOW))


def test_not_analysed_is_no_negative():
    html = page(not_analysed=NotAnalysed("lateral", "A lateral view."), picture=None)
    assert "Not analysed." in html
    assert "A lateral view." in html
    assert "not a negative" in html
    assert "<img" not in html


@pytest.mark.parametrize(
    ("state", "shadow", "reason"),
    [
        (JobState.FAILED, None, "The analysis failed."),
        (JobState.ON_HOLD, None, "waits for a person"),
        (JobState.QUEUED, None, "waits for its analysis"),
        (JobState.DONE, True, "Every model is switched off or in shadow."),
        (JobState.QUEUED, False, ""),
        (JobState.DONE, False, ""),
    ],
)
def test_an_image_without_a_finding_to_show_is_not_left_empty(
    state: JobState, shadow: bool | None, reason: str
) -> None:
    """An empty table reads like a negative. What an earlier revision has told stays told."""
    own = () if shadow is None else (FindingRecord("a", "m", "1", 0.4, 0.5, present=False, shadow=shadow),)
    job = JobDetail(1, 1, "p", 1, state, 1, False, "", "", None, {}, NOON, None, None, None, findings=own)
    why = not_analysed_of(job)
    assert reason in ("" if why is None else why.sentence)
    assert (why is None) is (not reason)


def test_data_is_never_markup():
    html = page(finding(probability=None, reason="<script>alert(1)</script>"), title="<i>x</i>")
    assert "<script>" not in html
    assert "&lt;b&gt;something" in html
    assert "&lt;i&gt;x" in html


def test_without_a_spacing_there_are_no_centimetres():
    html = page(finding(), spacing=None)
    assert "cm²" not in html
    assert "Uncalibrated" in html
