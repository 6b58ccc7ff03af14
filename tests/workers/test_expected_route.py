"""What is foretold of an image is what becomes of it: the same kinds that the encoders make, the same rules."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from config.destinations import Destination
from config.settings import Results, Settings
from db.not_eligible_codes import NotEligibleCode
from db.records import NotEligible
from db.states import Analysis, Priority
from models.contract import Finding, NotAnalysed, Prediction
from models.gate import NotAnalysedCode
from tests.workers.results.sources import analysis, boxed, negative, positive, shadow, two_masks
from workers.job_outcome import finding_records, kinds_for, kinds_wanted
from workers.results.encoders import ENCODERS, encode_in_order
from workers.services.expected_route import ExpectedRoute, ImageHeader, expected_kinds, expected_route

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
EVERYTHING = ("seg", "sr", "sc", "gsps", "summary", "lungs")
SETTINGS = Settings(
    destinations=(
        Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104),
        Destination(name="all", ae_title="VNA", host="127.0.0.1", port=104, kinds=EVERYTHING),
        Destination(name="viewer", ae_title="OTHER", host="127.0.0.1", port=104, kinds=("gsps",)),
    )
)
NO_NEGATIVES = SETTINGS.model_copy(update={"results": Results(capture_negatives=False)})


def route(header: ImageHeader, prediction: Prediction | None = None) -> ExpectedRoute:
    findings = finding_records(prediction, None) if prediction else ()
    return expected_route(header, prediction, findings, SETTINGS, NOW)


def taken(found: ExpectedRoute) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    return {one.destination.name: (one.image, one.study) for one in found.deliveries}


@pytest.mark.parametrize("settings", [SETTINGS, NO_NEGATIVES], ids=["captures negatives", "captures none"])
@pytest.mark.parametrize("findings", [positive(), two_masks(), boxed(), negative(), (shadow(),)])
def test_the_kinds_are_those_that_the_encoders_make(findings: tuple[Finding, ...], settings: Settings) -> None:
    made = analysis(findings=findings)
    wanted = kinds_wanted(settings.destinations)
    kinds = kinds_for(made.prediction, wanted, capture_negatives=settings.results.capture_negatives)
    assert expected_kinds(made.prediction, settings) == set(encode_in_order(ENCODERS, made, kinds))


def test_a_finding_goes_where_its_kinds_are_taken() -> None:
    found = route(ImageHeader(), analysis(findings=positive()).prediction)
    assert taken(found) == {
        "pacs": (("seg", "sr"), ("summary",)),
        "all": (("seg", "sr", "sc", "gsps", "lungs"), ("summary",)),
        "viewer": (("gsps",), ()),
    }
    assert found.decision is not None
    assert (found.decision.priority, found.decision.analysis) == (Priority.CRITICAL, Analysis.ANALYSED)
    assert found.models


def test_a_child_gets_a_report_with_the_reason_and_a_hip_gets_nothing() -> None:
    child = NotEligible(NotEligibleCode.TOO_YOUNG, "The patient is 3 years old.")
    found = route(ImageHeader(not_eligible=child, shows_chest=True))
    assert taken(found) == {"pacs": ((), ("sr",)), "all": ((), ("sr", "sc")), "viewer": ((), ())}
    assert found.decision is not None
    assert found.decision.analysis is Analysis.NOT_ANALYSED
    hip = NotEligible(NotEligibleCode.NOT_A_CHEST, "Body Part Examined is HIP.")
    assert set(taken(route(ImageHeader(not_eligible=hip))).values()) == {((), ())}
    assert set(taken(route(ImageHeader(not_eligible=child))).values()) == {((), ())}, "nothing says that it is a chest"


@pytest.mark.parametrize("code", list(NotAnalysedCode))
def test_pixels_that_are_not_analysed_are_told_where_they_may_be_a_chest(code: NotAnalysedCode) -> None:
    reason = NotAnalysed(code.value, "The image is cut off.", is_chest=code.is_chest)
    found = route(ImageHeader(), Prediction((8, 8), not_analysed=reason))
    assert found.not_analysed == NotEligible(code.value, "The image is cut off.")
    assert taken(found)["pacs"] == ((), ("sr",) if code.is_chest else ())


def test_stat_and_what_cannot_be_understood() -> None:
    prediction = analysis(findings=negative()).prediction
    plain, stat = route(ImageHeader(), prediction), route(replace(ImageHeader(), stat=True), prediction)
    assert plain.decision is not None
    assert stat.decision is not None
    assert (plain.decision.priority, stat.decision.priority) == (Priority.ROUTINE, Priority.URGENT)
    refused = route(ImageHeader(refused="SOPInstanceUID is missing"), prediction)
    assert (refused.decision, refused.deliveries) == (None, ())
