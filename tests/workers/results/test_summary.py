"""The study's summary as others read it, and what highdicom does not know."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import pytest
from pydicom.dataset import Dataset

from models.model_spec import Code
from tests.workers.results.sources import (
    CREATED_AT,
    EQUIPMENT,
    LUNG_OPACITY,
    PNEUMOTHORAX,
    analysis,
    encode_all,
    measurement_report,
    source,
    two_masks,
    write,
)
from tests.workers.results.trees import groups, name, value, values, walk
from workers.results.study_account import (
    Change,
    ChangeKind,
    Comparison,
    Extent,
    ImageAccount,
    Reference,
    StudyAccount,
    SummaryFinding,
    account_digest,
    study_identity,
)
from workers.results.summary import encode_summary

PRESENT, PROBABILITY = "52101004", "122157"
SEGMENTATION, REPORT = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34"
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"


def summary(
    *images: ImageAccount, header: Dataset | None = None, comparison: Comparison | None = None, **options: Any
) -> Dataset:
    header = header if header is not None else source()
    account = StudyAccount("urgent", "lung opacity 0.62", images, comparison)
    return encode_summary(
        header,
        account,
        identity=study_identity("2.25", str(header.StudyInstanceUID), account, "cd" * 32, 1),
        equipment=EQUIPMENT,
        models=(),
        created_at=CREATED_AT,
        **options,
    )


def analysed(*findings: SummaryFinding, reports: tuple[Reference, ...] = ()) -> ImageAccount:
    header = source()
    image = Reference(str(header.SOPClassUID), str(header.SOPInstanceUID), str(header.SeriesInstanceUID))
    return ImageAccount(image, True, findings=findings, reports=reports)


def test_each_probability_stands_behind_its_finding() -> None:
    """Nothing but the order says which of two numbers is about which finding."""
    mass = Code("4147007", "SCT", "Mass")
    found = [(PNEUMOTHORAX, 0.875), (LUNG_OPACITY, 0.625), (mass, 0.5)]
    _, image = groups(summary(analysed(*(SummaryFinding(code, probability) for code, probability in found))))
    seen = [(name(item), value(item)) for item in image.ContentSequence if item.ValueType in ("CODE", "NUM")][1:]
    assert seen == [pair for code, number in found for pair in ((code.value, PRESENT), (PROBABILITY, number))]


@pytest.mark.peer("dsrdump")
@pytest.mark.parametrize("sop_class", ["1.2.3.4", ENCAPSULATED_PDF])
def test_an_instance_of_an_unknown_class_stops_no_summary(tmp_path: Path, sop_class: str) -> None:
    stranger = ImageAccount(Reference(sop_class, "1.2.5", "1.2.6"), False, "No image.", eligible=False)
    made = summary(stranger, analysed())
    listed = [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
        for series in made.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]
    assert sorted(listed) == sorted([(sop_class, "1.2.5"), (source().SOPClassUID, source().SOPInstanceUID)])
    output = subprocess.run(["dsrdump", write(made, tmp_path / "summary.dcm")], capture_output=True, text=True)
    assert (output.returncode, output.stderr) == (0, "")


def test_a_source_of_an_unknown_class_stops_no_report() -> None:
    """highdicom looks the class of the source up in its tables, and fails if it is not there."""
    header = source(SOPClassUID="1.2.3.4")
    for made in (summary(analysed(), header=header), encode_all(analysis(header, two_masks()))["sr"]):
        listed = made.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
        assert listed.ReferencedSOPClassUID == "1.2.3.4"
        referenced = [item.ReferencedSOPSequence[0] for item in walk(made) if item.ValueType == "IMAGE"]
        of_source = [item for item in referenced if item.ReferencedSOPInstanceUID == header.SOPInstanceUID]
        assert {item.ReferencedSOPClassUID for item in of_source} == {"1.2.3.4"}


def test_highdicom_reads_a_summary(tmp_path: Path) -> None:
    reports = (Reference(SEGMENTATION, "2.25.79", "2.25.80"), Reference(REPORT, "2.25.77", "2.25.78"))
    made = summary(analysed(SummaryFinding(PNEUMOTHORAX, 0.875), reports=reports))
    path = write(made, tmp_path / "summary.dcm")
    report = measurement_report(path)
    study, image = report.get_image_measurement_groups()
    assert (study.tracking_identifier, image.tracking_identifier) == ("AI: study summary", "AI: image 1")
    assert image.source_images[0].referenced_sop_instance_uid == source().SOPInstanceUID
    assert [number.value for number in image.get_measurements()] == [0.875]
    listed = {instance for _, _, instance, _ in highdicom.sr.srread(path).get_evidence()}
    assert listed == {source().SOPInstanceUID, "2.25.77", "2.25.79"}


def test_the_sentence_comes_first() -> None:
    first = summary(analysed()).ContentSequence[0]
    assert (name(first), first.TextValue) == ("121111", "AI: no finding above its threshold")
    assert values(summary(analysed()), "121049") == ["en"]


PRIOR = Comparison(
    "1.2.3.99",
    "20260102",
    (Reference("1.2.840.10008.5.1.4.1.1.1", "1.2.3.99.1", "1.2.3.99.2"),),
    (
        Change(PNEUMOTHORAX, "pneumothorax", "right", ChangeKind.LARGER, Extent(2100.0, 0.21), Extent(1200.0, 0.12)),
        Change(LUNG_OPACITY, "lung opacity", "", ChangeKind.NEW, Extent(900.0, 0.08)),
    ),
)


@pytest.mark.peer("dsrdump")
@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("sr_storage", ["comprehensive-3d", "comprehensive"])
def test_what_has_changed_since_the_prior_is_coded_and_told(tmp_path: Path, sr_storage: str) -> None:
    made = summary(analysed(SummaryFinding(PNEUMOTHORAX, 0.9)), comparison=PRIOR, sr_storage=sr_storage)
    sentence = next(value(item) for item in walk(made) if item.ValueType == "TEXT")
    assert sentence.endswith(
        ". Compared with 2026-01-02: pneumothorax right larger (12 % of the lung then, 21 % now; 12.0 cm² then, "
        "21.0 cm² now); lung opacity new."
    )
    first, second, prior = groups(made)[-3:]
    found = [
        [(name(item), value(item)) for item in each.ContentSequence[2:] if item.ValueType != "IMAGE"]
        for each in (first, second, prior)
    ]
    area, change = "42798000", "111021"
    assert [pair for pair in found[0] if pair[0] in (area, change)] == [(area, 21.0), (change, "15454001")]
    assert (change, "129721008") in found[1]
    assert found[2][:4] == [
        ("111060", "20260102"),
        ("110180", "1.2.3.99"),
        (PNEUMOTHORAX.value, PRESENT),
        (area, 12.0),
    ]
    assert [item.StudyInstanceUID for item in made.PertinentOtherEvidenceSequence] == ["1.2.3.99"]
    path = write(made, tmp_path / "summary.dcm")
    checked = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, errors="replace")
    assert [line for line in checked.stderr.splitlines() if line.startswith("Error")] == []
    dumped = subprocess.run(["dsrdump", path], capture_output=True, text=True)
    assert (dumped.returncode, dumped.stderr) == (0, "")


def test_without_a_comparison_a_summary_keeps_its_uid() -> None:
    account = StudyAccount("urgent", "lung opacity 0.62", (analysed(),))
    assert account_digest(account) == account_digest(replace(account, comparison=None))
    assert account_digest(account) != account_digest(replace(account, comparison=PRIOR))
