"""Eligibility by header: one table of cases, real files, and what must hold for any header."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, uid
from pydicom.data import get_testdata_file

from config.settings import Eligibility
from db.not_eligible_codes import NotEligibleCode
from models.radiograph.age import age_in_years
from node.dicom.eligibility import check_eligibility
from tests.node.dicom.listening import chest
from tests.peers import skip_without

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")

STRICT = Eligibility(unknown_body_part="refuse", unknown_age="refuse")


def code_item(value: str, scheme: str, meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


def _modified(view: str, modifier: str) -> list[Dataset]:
    coded = code_item(view, "SCT", "antero-posterior")
    coded[0].ViewModifierCodeSequence = code_item("M1", "99HOSP", modifier)
    return coded


ELIGIBLE = {
    "as it is": {},
    "dx": {"SOPClassUID": uid.DigitalXRayImageStorageForPresentation, "Modality": "DX"},
    "secondary capture of modality CR": {"SOPClassUID": uid.SecondaryCaptureImageStorage, "ConversionType": "WSD"},
    "digitized film": {"SOPClassUID": uid.SecondaryCaptureImageStorage, "ConversionType": "DF"},
    "single frame of a multi-frame class": {
        "SOPClassUID": uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        "NumberOfFrames": 1,
    },
    "derived by compression": {"ImageType": ["DERIVED", "PRIMARY"], "LossyImageCompression": "01"},
    "original secondary": {"ImageType": ["ORIGINAL", "SECONDARY"]},
    "empty image type": {"ImageType": ""},
    "monochrome1": {"PhotometricInterpretation": "MONOCHROME1"},
    "spacing of zero": {"PixelSpacing": [0, 0]},
    "thorax": {"BodyPartExamined": "THORAX"},
    "lower case body part": {"BodyPartExamined": "Chest "},
    "underscore": {"BodyPartExamined": "CHEST_PORTABLE"},
    "blank for underscore": {"BodyPartExamined": "CHEST PORTABLE"},
    "no body part, chest described": {"BodyPartExamined": None, "StudyDescription": "XR Chest 2 views"},
    "no body part, German": {"BodyPartExamined": None, "SeriesDescription": "Thorax p.a."},
    "no body part, coded chest": {
        "BodyPartExamined": None,
        "AnatomicRegionSequence": code_item("51185008", "SCT", "Chest"),
    },
    "no body part, SNOMED-RT": {
        "BodyPartExamined": None,
        "AnatomicRegionSequence": code_item("T-D3000", "SRT", "Chest"),
    },
    "no body part, private code that means chest": {
        "BodyPartExamined": None,
        "AnatomicRegionSequence": code_item("X1", "99HOSP", "Chest wall"),
    },
    "nothing said about the body part": {"BodyPartExamined": None},
    "no view": {"ViewPosition": None},
    "antero-posterior": {"ViewPosition": "AP"},
    "several words, one of them frontal": {"ViewPosition": "AP ERECT"},
    "coded frontal view": {"ViewPosition": None, "ViewCodeSequence": code_item("399348003", "SCT", "antero-posterior")},
    "private view code": {"ViewPosition": None, "ViewCodeSequence": code_item("V1", "99HOSP", "view 1")},
    "frontal": {"ViewPosition": "FRONTAL"},
    "body part and view in View Position": {"ViewPosition": "CHEST PA"},
    "view position with dots": {"ViewPosition": "P.A."},
    "view position of a French device": {"ViewPosition": "FACE"},
    "view position spelt out": {"ViewPosition": "ANTEROPOSTERIOR"},
    "supine in Spanish": {"ViewPosition": "AP", "SeriesDescription": "TORAX AP EN DECÚBITO SUPINO"},
    "body part of a Spanish device": {"BodyPartExamined": "TORAX"},
    "body part of an Italian device": {"BodyPartExamined": "TORACE"},
    "body part with the view": {"BodyPartExamined": "CHEST PA", "ViewPosition": None},
    "German body part with the view": {"BodyPartExamined": "THORAX AP"},
    "no body part, Polish": {"BodyPartExamined": None, "SeriesDescription": "RTG klatki piersiowej PA"},
    "no body part, Chinese": {"BodyPartExamined": None, "SeriesDescription": "胸部正位片"},
    "no body part, Russian": {"BodyPartExamined": None, "StudyDescription": "Рентгенография грудной клетки"},
    "French view in the description": {"BodyPartExamined": None, "SeriesDescription": "Radiographie du thorax de face"},
    "chest among the studies' parts": {"BodyPartExamined": None, "StudyDescription": "Chest PA, left hand"},
    "study of both views": {"ViewPosition": None, "StudyDescription": "CHEST PA AND LATERAL"},
    "series of both views": {"ViewPosition": None, "SeriesDescription": "PA/LAT"},
    "position wins over description": {"ViewPosition": "PA", "SeriesDescription": "LATERAL"},
    "orientation of a frontal view": {"ViewPosition": None, "PatientOrientation": ["L", "F"]},
    "just grown up": {"PatientAge": "018Y"},
    "months of a grown-up": {"PatientAge": "240M"},
    "bare number": {"PatientAge": "62"},
    "age says nothing, dates do": {"PatientAge": "", "PatientBirthDate": "20020102"},
    "dates of ACR-NEMA": {"PatientAge": None, "PatientBirthDate": "1950.01.01"},
    "age unknown": {"PatientAge": None},
    "impossible dates": {"PatientAge": None, "PatientBirthDate": "19991399"},
    "born after the study": {"PatientAge": None, "PatientBirthDate": "20250101"},
}

NOT_ELIGIBLE = {
    "key object": ({"SOPClassUID": uid.KeyObjectSelectionDocumentStorage, "Rows": None}, NotEligibleCode.NOT_AN_IMAGE),
    "report": ({"SOPClassUID": uid.BasicTextSRStorage, "Rows": None}, NotEligibleCode.NOT_AN_IMAGE),
    "presentation state": (
        {"SOPClassUID": uid.GrayscaleSoftcopyPresentationStateStorage, "Rows": None},
        NotEligibleCode.NOT_AN_IMAGE,
    ),
    "pdf": ({"SOPClassUID": uid.EncapsulatedPDFStorage, "Rows": None}, NotEligibleCode.NOT_AN_IMAGE),
    "segmentation": ({"SOPClassUID": uid.SegmentationStorage}, NotEligibleCode.OTHER_CLASS),
    "ct": ({"SOPClassUID": uid.CTImageStorage, "Modality": "CT"}, NotEligibleCode.OTHER_CLASS),
    "mammogram": ({"SOPClassUID": uid.DigitalMammographyXRayImageStorageForPresentation}, NotEligibleCode.OTHER_CLASS),
    "colour capture": (
        {"SOPClassUID": uid.MultiFrameTrueColorSecondaryCaptureImageStorage},
        NotEligibleCode.OTHER_CLASS,
    ),
    "wrong modality": ({"Modality": "OT"}, NotEligibleCode.OTHER_MODALITY),
    "no modality": ({"Modality": None}, NotEligibleCode.OTHER_MODALITY),
    "processing class": (
        {"SOPClassUID": uid.DigitalXRayImageStorageForProcessing, "Modality": "DX"},
        NotEligibleCode.FOR_PROCESSING,
    ),
    "processing intent": ({"PresentationIntentType": "FOR PROCESSING"}, NotEligibleCode.FOR_PROCESSING),
    "scanned page": (
        {"SOPClassUID": uid.SecondaryCaptureImageStorage, "ConversionType": "SD"},
        NotEligibleCode.SCANNED_DOCUMENT,
    ),
    "synthetic image": ({"ConversionType": "SYN"}, NotEligibleCode.SCANNED_DOCUMENT),
    "derived": ({"ImageType": ["DERIVED", "SECONDARY"]}, NotEligibleCode.DERIVED),
    "derived with more values": ({"ImageType": ["DERIVED", "SECONDARY", "OVERLAY"]}, NotEligibleCode.DERIVED),
    "phantom": ({"QualityControlImage": "YES"}, NotEligibleCode.QUALITY_CONTROL),
    "colour": ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, NotEligibleCode.COLOUR),
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, NotEligibleCode.COLOUR),
    "frames": ({"NumberOfFrames": 2}, NotEligibleCode.MULTI_FRAME),
    "no columns": ({"Columns": None}, NotEligibleCode.NOT_AN_IMAGE),
    "thumbnail": ({"Rows": 128, "Columns": 128}, NotEligibleCode.TOO_SMALL),
    "strip": ({"Columns": 511}, NotEligibleCode.TOO_SMALL),
    "leg": ({"BodyPartExamined": "EXTREMITY"}, NotEligibleCode.NOT_A_CHEST),
    "coded leg": (
        {"BodyPartExamined": None, "AnatomicRegionSequence": code_item("30021000", "SCT", "Lower leg")},
        NotEligibleCode.NOT_A_CHEST,
    ),
    "described knee": ({"BodyPartExamined": None, "StudyDescription": "XR KNEE LEFT"}, NotEligibleCode.NOT_A_CHEST),
    "lateral": ({"ViewPosition": "LL"}, NotEligibleCode.NOT_FRONTAL),
    "lateral beside frontal": ({"ViewPosition": "AP/LAT"}, NotEligibleCode.NOT_FRONTAL),
    "oblique": ({"ViewPosition": "RAO"}, NotEligibleCode.NOT_FRONTAL),
    "decubitus": ({"ViewPosition": "LLD"}, NotEligibleCode.NOT_FRONTAL),
    "decubitus from behind": ({"ViewPosition": "PA LLD"}, NotEligibleCode.NOT_FRONTAL),
    "decubitus from the front": ({"ViewPosition": "AP RLD"}, NotEligibleCode.NOT_FRONTAL),
    "decubitus only in the description": (
        {"ViewPosition": "AP", "SeriesDescription": "Chest lt decub."},
        NotEligibleCode.NOT_FRONTAL,
    ),
    "decubitus only in a modifier": (
        {"ViewPosition": None, "ViewCodeSequence": _modified("399348003", "lateral decubitus")},
        NotEligibleCode.NOT_FRONTAL,
    ),
    "lordotic": ({"ViewPosition": "AP AXIAL"}, NotEligibleCode.NOT_FRONTAL),
    "lordotic only in the protocol": ({"ViewPosition": "AP", "ProtocolName": "LORDOTIC"}, NotEligibleCode.NOT_FRONTAL),
    "cross table": ({"ViewPosition": "XTABLE LATERAL"}, NotEligibleCode.NOT_FRONTAL),
    "swimmer's": ({"ViewPosition": "SWIMMERS"}, NotEligibleCode.NOT_FRONTAL),
    "Spanish lateral": ({"ViewPosition": "", "SeriesDescription": "TÓRAX PERFIL"}, NotEligibleCode.NOT_FRONTAL),
    "lateral in the body part": ({"ViewPosition": "", "BodyPartExamined": "CHEST LAT"}, NotEligibleCode.NOT_FRONTAL),
    "private code that means lateral": (
        {"ViewPosition": None, "ViewCodeSequence": code_item("V1", "99HOSP", "lateral")},
        NotEligibleCode.NOT_FRONTAL,
    ),
    "thoracic spine": (
        {"BodyPartExamined": None, "StudyDescription": "XR thoracic spine AP"},
        NotEligibleCode.NOT_A_CHEST,
    ),
    "Spanish spine": ({"BodyPartExamined": None, "StudyDescription": "COLUMNA TORÁCICA"}, NotEligibleCode.NOT_A_CHEST),
    "German knee": ({"BodyPartExamined": None, "SeriesDescription": "Knie li. a.p."}, NotEligibleCode.NOT_A_CHEST),
    "babygram": ({"BodyPartExamined": "CHEST ABDOMEN"}, NotEligibleCode.NOT_A_CHEST),
    "hand beside a chest": (
        {"BodyPartExamined": None, "SeriesDescription": "Hand dp", "StudyDescription": "Chest PA, left hand"},
        NotEligibleCode.NOT_A_CHEST,
    ),
    "hand for processing": (
        {"BodyPartExamined": "HAND", "PresentationIntentType": "FOR PROCESSING"},
        NotEligibleCode.NOT_A_CHEST,
    ),
    "coded lateral": (
        {"ViewPosition": None, "ViewCodeSequence": code_item("399173006", "SCT", "left lateral")},
        NotEligibleCode.NOT_FRONTAL,
    ),
    "coded lateral against position": (
        {"ViewPosition": "PA", "ViewCodeSequence": code_item("R-10236", "SRT", "left lateral")},
        NotEligibleCode.NOT_FRONTAL,
    ),
    "described lateral": ({"ViewPosition": None, "SeriesDescription": "Chest Lat."}, NotEligibleCode.NOT_FRONTAL),
    "German lateral": ({"ViewPosition": "", "SeriesDescription": "Thorax seitlich"}, NotEligibleCode.NOT_FRONTAL),
    "orientation of a lateral": ({"ViewPosition": None, "PatientOrientation": ["A", "F"]}, NotEligibleCode.NOT_FRONTAL),
    "child": ({"PatientAge": "017Y"}, NotEligibleCode.TOO_YOUNG),
    "baby": ({"PatientAge": "003D"}, NotEligibleCode.TOO_YOUNG),
    "weeks": ({"PatientAge": "052W"}, NotEligibleCode.TOO_YOUNG),
    "child by the dates": ({"PatientAge": None, "PatientBirthDate": "20020103"}, NotEligibleCode.TOO_YOUNG),
    "bare number of a child": ({"PatientAge": "6"}, NotEligibleCode.TOO_YOUNG),
    "made by us": ({"Manufacturer": "Pleura"}, NotEligibleCode.OWN_RESULT),
}


@pytest.mark.parametrize("changes", ELIGIBLE.values(), ids=ELIGIBLE.keys())
def test_eligible(changes: dict[str, object]) -> None:
    assert check_eligibility(chest(**changes), Eligibility()) is None


@pytest.mark.parametrize(("changes", "expected"), NOT_ELIGIBLE.values(), ids=NOT_ELIGIBLE.keys())
def test_refused_with_code_and_sentence(changes: dict[str, object], expected: NotEligibleCode) -> None:
    not_eligible = check_eligibility(chest(**changes), Eligibility())

    assert not_eligible is not None
    assert not_eligible.code == expected.value
    assert not_eligible.sentence.endswith(".")
    assert 20 < len(not_eligible.sentence) < 120


def test_every_code_is_reached() -> None:
    by_setting = {NotEligibleCode.BODY_PART_UNKNOWN, NotEligibleCode.AGE_UNKNOWN, NotEligibleCode.EXCLUDED_BY_RULE}

    assert {code for _, code in NOT_ELIGIBLE.values()} | by_setting == set(NotEligibleCode)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"BodyPartExamined": None}, NotEligibleCode.BODY_PART_UNKNOWN),
        ({"PatientAge": None}, NotEligibleCode.AGE_UNKNOWN),
    ],
)
def test_settings_refuse_what_is_unknown(changes: dict[str, object], expected: NotEligibleCode) -> None:
    not_eligible = check_eligibility(chest(**changes), STRICT)

    assert not_eligible is not None
    assert not_eligible.code == expected.value


def test_settings_take_children() -> None:
    assert check_eligibility(chest(PatientAge="003D"), Eligibility(minimum_age_years=0)) is None


def test_a_site_that_takes_only_pa_takes_no_view_that_may_be_ap() -> None:
    only_pa = Eligibility(views=("PA",))

    assert check_eligibility(chest(ViewPosition="CHEST PA"), only_pa) is None
    for position in ("AP", "CHEST AP", "FRONTAL"):
        not_eligible = check_eligibility(chest(ViewPosition=position), only_pa)
        assert not_eligible is not None
        assert not_eligible.code == NotEligibleCode.NOT_FRONTAL.value


def test_a_site_adds_its_own_words() -> None:
    rules = Eligibility(views=("PA", "AP", "STEHEND"), body_parts=("RX-1",), descriptions=(r"\bthx\b",))

    assert check_eligibility(chest(ViewPosition="STEHEND"), rules) is None
    assert check_eligibility(chest(BodyPartExamined="RX-1"), rules) is None
    assert check_eligibility(chest(BodyPartExamined=None, StudyDescription="THX"), rules) is None


def test_an_object_with_one_of_our_uids_is_never_analysed() -> None:
    not_eligible = check_eligibility(chest(), Eligibility(), own=True)

    assert not_eligible is not None
    assert not_eligible.code == NotEligibleCode.OWN_RESULT.value


_LIES = st.fixed_dictionaries(
    {},
    optional={
        keyword: st.text(st.characters(codec="ascii"), max_size=16)
        for keyword in ("Modality", "BodyPartExamined", "ViewPosition", "PatientAge", "PatientBirthDate", "ImageType")
    },
)


@given(_LIES)
def test_any_header_is_analysed(values: dict[str, str]) -> None:
    not_eligible = check_eligibility(chest(**values), Eligibility())

    assert not_eligible is None or NotEligibleCode(not_eligible.code)
    if "Modality" in values and values["Modality"].strip(" \0").upper() not in {"CR", "DX"}:
        assert not_eligible is not None


@pytest.mark.parametrize(
    ("age", "born", "studied", "years"),
    [
        ("055Y", "", "", 55),
        ("018M", "", "", 1.5),
        ("  030Y ", "", "", 30),
        ("030y", "", "", 30),
        ("030Y", "19000101", "20200101", 30),
        ("", "20000229", "20180228", 17.99),
        ("", "20000229", "20180301", 18.0),
        ("", "20020102", "20200102", 18.0),
        ("62", "19600101", "20200101", 60),
        ("62", "", "", 62),
        ("62", "19600101", "", 62),
        ("Y62", "", "", None),
        ("", "", "", None),
        ("999Y", "", "", None),
        ("", "18000101", "20200101", None),
    ],
)
def test_age(age: str, born: str, studied: str, years: float | None) -> None:
    found = age_in_years(age, born, studied)

    assert found == (None if years is None else pytest.approx(years, abs=0.02))


@given(st.dates(), st.integers(0, 100))
def test_on_the_birthday_a_year_is_full(born: object, years: int) -> None:
    text = f"{born:%Y%m%d}".rjust(8, "0")
    studied = f"{int(text[:4]) + years:04d}{text[4:]}"
    if text.endswith("0229") or int(studied[:4]) > 9999:
        return

    assert age_in_years("", text, studied) == pytest.approx(years, abs=1e-9)


@pytest.mark.peer("shared-data")
def test_real_files(shared_data: Path) -> None:
    found = {}
    for path in sorted((shared_data / "dicom").glob("*.dcm")) + sorted((shared_data / "wg04").glob("*.dcm")):
        not_eligible = check_eligibility(dcmread(path, stop_before_pixels=True), Eligibility())
        found[path.name] = not_eligible and not_eligible.code

    codes = {name: code for name, code in found.items() if code}
    assert len(found) == 22
    assert codes == {
        "00001526_000.sc-jpeg.dcm": "too-young",
        "RG2_RLE.dcm": "derived-image",
        "RG3_JLSL.dcm": "not-a-chest",
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("RG1_UNCR.dcm", None),
        ("RG1_J2KR.dcm", None),
        ("RG1_J2KI.dcm", None),
        ("RG3_UNCR.dcm", "not-a-chest"),
        ("RG3_J2KR.dcm", "not-a-chest"),
    ],
)
def test_files_of_the_demonstration(name: str, expected: str | None) -> None:
    path = get_testdata_file(name, download=False)
    if not path:
        skip_without("pydicom-data is missing: pip install pydicom-data")

    not_eligible = check_eligibility(dcmread(str(path), stop_before_pixels=True), Eligibility())

    assert (not_eligible and not_eligible.code) == expected
