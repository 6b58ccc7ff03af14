"""IHE AI Results (AIR, Evidence Creator) as a table: each row is one requirement in our words, and its assertion.

The rows are checked on the same objects that the node stores: a study with findings, one without, one not analysed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from pydicom.dataset import Dataset

from models.contract import NotAnalysed
from tests.workers.results.sources import analysis, boxed, encode_all, negative, source, study_summary, two_masks
from tests.workers.results.trees import children, groups, name, values, walk

COMPREHENSIVE_3D = "1.2.840.10008.5.1.4.1.1.88.34"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


@dataclass(frozen=True)
class Stored:
    """The objects of one analysis beside the source they come from."""

    source: Dataset
    objects: dict[str, Dataset]

    @property
    def report(self) -> Dataset:
        return self.objects["sr"]


def cases() -> dict[str, Stored]:
    header = source()
    made = {
        "masks": encode_all(analysis(header, two_masks())),
        "boxes": encode_all(analysis(header, boxed())),
        "negative": encode_all(analysis(header, negative())),
        "not analysed": encode_all(analysis(header, not_analysed=NotAnalysed("lateral", "A lateral view."))),
        "summary": {"sr": study_summary(header)},
    }
    return {case: Stored(header, objects) for case, objects in made.items()}


CASES = cases()


def in_tree(stored: Stored, value_type: str) -> list[Dataset]:
    return [item for item in walk(stored.report) if item.get("ValueType") == value_type]


def root_is_tid_1500(stored: Stored) -> bool:
    report = stored.report
    return name(report) == "126000" and report.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def class_is_comprehensive_3d(stored: Stored) -> bool:
    return stored.report.SOPClassUID == COMPREHENSIVE_3D


def language_is_told(stored: Stored) -> bool:
    return values(stored.report, "121049") == ["en"]


def observer_is_a_device(stored: Stored) -> bool:
    report = stored.report
    found = [values(report, code) for code in ("121012", "121013", "121014", "121015", "121016")]
    return values(report, "121005") == ["121007"] and all(len(item) == 1 and item[0] for item in found)


def no_person_observes(stored: Stored) -> bool:
    return "121006" not in values(stored.report, "121005") and "VerifyingObserverSequence" not in stored.report


def procedure_is_the_imaging_procedure(stored: Stored) -> bool:
    return values(stored.report, "121058") == ["399208008"]


def library_lists_the_images(stored: Stored) -> bool:
    (library,) = children(stored.report, "111028")
    listed = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in walk(library) if item.ValueType == "IMAGE"
    ]
    return stored.source.SOPInstanceUID in listed


def at_least_one_group(stored: Stored) -> bool:
    return len(groups(stored.report)) >= 1


def groups_follow_a_template(stored: Stored) -> bool:
    return all(
        group.ContentTemplateSequence[0].TemplateIdentifier in ("1410", "1501") for group in groups(stored.report)
    )


def each_group_is_tracked(stored: Stored) -> bool:
    return all(len(values(group, "112039")) == len(values(group, "112040")) == 1 for group in groups(stored.report))


def marks_name_their_finding(stored: Stored) -> bool:
    marks = [group for group in groups(stored.report) if children(group, "111030") or children(group, "121214")]
    return all(len(values(group, "121071")) == 1 for group in marks)


def planar_groups_have_one_region(stored: Stored) -> bool:
    planar = [item for item in groups(stored.report) if item.ContentTemplateSequence[0].TemplateIdentifier == "1410"]
    return all(len(children(item, "111030")) + len(children(item, "121214")) == 1 for item in planar)


def regions_select_their_image(stored: Stored) -> bool:
    return all(
        item.ContentSequence[0].RelationshipType == "SELECTED FROM"
        and item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == stored.source.SOPInstanceUID
        for item in in_tree(stored, "SCOORD")
    )


def no_3d_coordinates_without_a_frame_of_reference(stored: Stored) -> bool:
    return not in_tree(stored, "SCOORD3D")


def measurements_have_ucum_units(stored: Stored) -> bool:
    units = [item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0] for item in in_tree(stored, "NUM")]
    return all(unit.CodingSchemeDesignator == "UCUM" and unit.CodeMeaning for unit in units)


def evaluations_are_coded(stored: Stored) -> bool:
    coded = in_tree(stored, "CODE")
    return all(item.ConceptCodeSequence[0].CodeValue and item.ConceptCodeSequence[0].CodeMeaning for item in coded)


def codes_are_standard(stored: Stored) -> bool:
    designators = {
        element.value
        for item in stored.objects.values()
        for element in item.iterall()
        if element.keyword == "CodingSchemeDesignator"
    }
    return designators <= {"DCM", "SCT", "UCUM", "RFC5646", "LN", "UMLS"}


def judged_groups_name_the_algorithm(stored: Stored) -> bool:
    with_codes = [group for group in groups(stored.report) if children(group, "122157") and children(group, "112040")]
    if name(groups(stored.report)[0]) and values(groups(stored.report)[0], "112039") == ["AI: study summary"]:
        return bool(stored.report.ContributingEquipmentSequence)
    return all(values(group, "111001") and values(group, "111003") for group in with_codes)


def segments_match_their_group(stored: Stored) -> bool:
    segmentation = stored.objects.get("seg")
    if segmentation is None:
        return not [group for group in groups(stored.report) if children(group, "121214")]
    by_frame = {
        int(item.ReferencedSOPSequence[0].ReferencedFrameNumber): values(group, "112040")[0]
        for group in groups(stored.report)
        for item in children(group, "121214")
    }
    return by_frame == {int(item.SegmentNumber): item.TrackingUID for item in segmentation.SegmentSequence}


def segments_are_coded_and_automatic(stored: Stored) -> bool:
    return all(
        item.SegmentAlgorithmType == "AUTOMATIC"
        and item.SegmentedPropertyCategoryCodeSequence
        and item.SegmentedPropertyTypeCodeSequence
        and item.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName
        for made in stored.objects.values()
        if made.SOPClassUID == SEGMENTATION
        for item in made.SegmentSequence
    )


def everything_referenced_is_evidence(stored: Stored) -> bool:
    evidence = {
        str(item.ReferencedSOPInstanceUID)
        for study in stored.report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    return set(_referenced(stored.report)) <= evidence


def _referenced(report: Dataset) -> Iterator[str]:
    for item in walk(report):
        for referenced in item.get("ReferencedSOPSequence", ()):
            yield str(referenced.ReferencedSOPInstanceUID)


def patient_and_study_are_inherited(stored: Stored) -> bool:
    return all(
        made[keyword].value == stored.source[keyword].value
        for made in stored.objects.values()
        for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber", "StudyID", "StudyDate")
    )


def results_have_series_of_their_own(stored: Stored) -> bool:
    series = [str(made.SeriesInstanceUID) for made in stored.objects.values()]
    return len(set(series)) == len(series) and str(stored.source.SeriesInstanceUID) not in series


def equipment_is_told(stored: Stored) -> bool:
    keywords = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")
    return all(made.get(keyword) for made in stored.objects.values() for keyword in keywords)


def model_is_contributing_equipment(stored: Stored) -> bool:
    return all(
        made.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        for made in stored.objects.values()
    )


def report_is_preliminary_and_unverified(stored: Stored) -> bool:
    return (stored.report.PreliminaryFlag, stored.report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")


def only_findings_that_are_there_are_named(stored: Stored) -> bool:
    return all("52101004" in _answers(group) or not values(group, "121071") for group in _whole_image_groups(stored))


def _whole_image_groups(stored: Stored) -> list[Dataset]:
    return [item for item in groups(stored.report) if item.ContentTemplateSequence[0].TemplateIdentifier == "1501"]


def _answers(group: Dataset) -> list[str]:
    return [str(item.ConceptCodeSequence[0].CodeValue) for item in group.ContentSequence if item.ValueType == "CODE"]


AIR: tuple[tuple[str, str, Callable[[Stored], bool]], ...] = (
    ("object", "results are stored as Comprehensive 3D SR", class_is_comprehensive_3d),
    ("object", "each result has a series of its own, apart from the images", results_have_series_of_their_own),
    ("object", "patient and study are those of the analysed images", patient_and_study_are_inherited),
    ("object", "manufacturer, model, serial number and version are told", equipment_is_told),
    ("object", "each model is contributing equipment, purpose Processing Equipment", model_is_contributing_equipment),
    ("object", "a result that nobody verified is unverified and preliminary", report_is_preliminary_and_unverified),
    ("object", "all referenced instances are listed as evidence", everything_referenced_is_evidence),
    ("root", "the content follows TID 1500, Imaging Measurement Report", root_is_tid_1500),
    ("root", "the language is told", language_is_told),
    ("root", "the observer is a device with UID, name, maker, model and serial number", observer_is_a_device),
    ("root", "no person appears as observer", no_person_observes),
    ("root", "the procedure reported is the imaging procedure", procedure_is_the_imaging_procedure),
    ("root", "the image library lists the analysed images", library_lists_the_images),
    ("root", "there is at least one measurement group", at_least_one_group),
    ("group", "each group follows TID 1410 or TID 1501", groups_follow_a_template),
    ("group", "each group has one tracking identifier and one tracking UID", each_group_is_tracked),
    ("group", "groups with a probability name the algorithm and its version", judged_groups_name_the_algorithm),
    ("qualitative", "evaluations are coded with value and meaning", evaluations_are_coded),
    ("qualitative", "codes come from standard schemes", codes_are_standard),
    ("qualitative", "an absent finding is not named as a finding", only_findings_that_are_there_are_named),
    ("measurement", "numbers have UCUM units", measurements_have_ucum_units),
    ("region", "a planar group has exactly one region", planar_groups_have_one_region),
    ("region", "a group with a region names its finding", marks_name_their_finding),
    ("region", "2D coordinates are selected from the source image", regions_select_their_image),
    (
        "region",
        "no 3D coordinates where there is no Frame of Reference",
        no_3d_coordinates_without_a_frame_of_reference,
    ),
    ("segment", "a segment and the group about it share the tracking UID", segments_match_their_group),
    ("segment", "segments are coded, automatic and name their algorithm", segments_are_coded_and_automatic),
)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("requirement", "holds"), [(row[1], row[2]) for row in AIR], ids=[row[2].__name__ for row in AIR]
)
def test_evidence_creator(case, requirement, holds):
    assert holds(CASES[case]), f"{case}: {requirement}"
