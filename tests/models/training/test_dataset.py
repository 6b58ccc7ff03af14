import csv
from pathlib import Path

import numpy as np
import pytest

from models.training.dataset import DatasetError, folds_by_patient, load_images, read_cxr
from models.training.targets import box_mask, image_targets, map_weight
from tests.models.training.drawn import write_drawn


def rows_of(data: Path) -> list[dict[str, str]]:
    with (data / "labels.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def rewrite(data: Path, rows: list[dict[str, str]]) -> None:
    with (data / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_reads_what_is_there(tmp_path: Path) -> None:
    examples, problems = read_cxr(write_drawn(tmp_path / "d", 8))
    assert (len(examples), problems) == (8, [])
    assert examples[1].rsna_class == "Lung Opacity"
    assert examples[1].boxes[0].width == pytest.approx(320 / 1024)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": "nowhere.png"}, "missing"),
        ({"image": "../labels.csv"}, "folder"),
        ({"image": "0000.png"}, "twice"),
        ({"rsna_boxes": "[[1, 2, 3]]"}, "four numbers"),
        ({"rsna_boxes": "[[900, 0, 200, 10]]"}, "outside"),
        ({"rsna_boxes": "[[0, 0, 0, 10]]"}, "outside"),
        ({"rsna_boxes": "[["}, "cannot be read"),
        ({"rsna_class": "Perhaps"}, "unknown class"),
        ({"patient_id": ""}, "empty"),
    ],
)
def test_a_bad_row_is_left_out_and_listed(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    data = write_drawn(tmp_path / "d", 4)
    rows = rows_of(data)
    rows[2] |= change
    rewrite(data, rows)
    examples, problems = read_cxr(data)
    assert len(examples) == 3
    assert len(problems) == 1
    assert reason in problems[0].reason


def test_a_patient_in_two_splits_is_left_out(tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "d", 12)
    rows = rows_of(data)
    train = next(row for row in rows if row["split"] == "train")
    held = next(row for row in rows if row["split"] == "val")
    held["patient_id"] = train["patient_id"]
    rewrite(data, rows)
    examples, problems = read_cxr(data)
    assert len(examples) == 10
    assert {item.image for item in problems} == {train["image"], held["image"]}


def test_a_folder_without_labels_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"labels\.csv"):
        read_cxr(tmp_path)


def test_a_table_without_columns_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,split\n")
    with pytest.raises(DatasetError, match="patient_id"):
        read_cxr(tmp_path)


def test_a_damaged_image_is_listed(tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "d", 3)
    (data / "images" / "0001.png").write_bytes(b"no picture")
    pixels, problems = load_images(read_cxr(data)[0], 32)
    assert [item.image for item in problems] == ["0001.png"]
    assert pixels.shape == (3, 32, 32)
    assert pixels[0].any()


def test_folds_keep_patients_together_and_spread_findings(tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "d", 60)
    rows = rows_of(data)
    for index, row in enumerate(rows):
        row["patient_id"], row["split"] = str(index // 2), "train"
    rewrite(data, rows)
    examples, _ = read_cxr(data)
    folds = folds_by_patient(examples, 5, seed=1)
    by_patient: dict[str, set[int]] = {}
    for item, fold in zip(examples, folds, strict=True):
        by_patient.setdefault(item.patient, set()).add(fold)
    assert all(len(found) == 1 for found in by_patient.values())
    ill = np.bincount(
        [f for f, item in zip(folds, examples, strict=True) if "Pneumothorax" in item.findings], minlength=5
    )
    assert ill.min() >= 1
    assert folds == folds_by_patient(examples, 5, seed=1)


def test_readers_outrank_reports(tmp_path: Path) -> None:
    examples, _ = read_cxr(write_drawn(tmp_path / "d", 4))
    values, weights = image_targets(examples, ["lung_opacity", "abnormal", "pneumonia"])
    assert values.tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1]]
    assert weights.min() == 1.0


def test_without_a_reader_an_opacity_is_only_suspected(tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "d", 4)
    rows = [row | {"rsna_class": "", "rsna_boxes": ""} for row in rows_of(data)]
    rows[2]["Hernia"] = "1"
    rows[2]["Pneumothorax"] = rows[2]["Pneumonia"] = "0"
    rewrite(data, rows)
    examples, _ = read_cxr(data)
    values, weights = image_targets(examples, ["lung_opacity"])
    assert 0 < values[1, 0] < 1
    assert 0 < weights[1, 0] < 1
    assert weights[2, 0] == 0  # a hernia says nothing about opacities
    assert map_weight(examples[1]) == 0


def test_box_mask_lies_where_the_box_is(tmp_path: Path) -> None:
    examples, _ = read_cxr(write_drawn(tmp_path / "d", 2))
    box = examples[1].boxes[0]
    mask = box_mask(examples[1], 128)
    rows, columns = np.nonzero(mask)
    assert columns.min() == round(box.x * 128)
    assert rows.max() + 1 == round((box.y + box.height) * 128)
