"""The layout of ``labels.csv``: what is read, what is left out with the reason, and what is only likely."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from models.training.datasets import read_dataset
from models.training.datasets.sample import DatasetError, Sample
from models.training.truths import LabelNames, label_truths, learnt_places, learnt_truths
from tests.models.training.drawn import write_drawn

OPACITY = LabelNames(("lung_opacity",))


def samples_of(data: Path) -> tuple[Sample, ...]:
    return read_dataset.read(data, "cxr").samples


def rows_of(data: Path) -> list[dict[str, str]]:
    with (data / "labels.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def rewrite(data: Path, rows: list[dict[str, str]]) -> None:
    with (data / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_reads_what_is_there(tmp_path: Path) -> None:
    data = read_dataset.read(write_drawn(tmp_path / "d", 8))
    assert (len(data.samples), data.problems) == (8, ())
    assert data.samples[1].labels["lung_opacity"] == 1.0
    assert data.samples[1].boxes[0].width == pytest.approx(320 / 1024)


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
    found = read_dataset.read(data)
    assert len(found.samples) == 3
    ((_, why),) = found.problems
    assert reason in why


def test_a_patient_in_two_splits_is_left_out(tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "d", 12)
    rows = rows_of(data)
    train = next(row for row in rows if row["split"] == "train")
    on_hold = next(row for row in rows if row["split"] == "val")
    on_hold["patient_id"] = train["patient_id"]
    rewrite(data, rows)
    found = read_dataset.read(data)
    assert len(found.samples) == 10
    assert {name for name, _ in found.problems} == {train["image"], on_hold["image"]}


def test_a_folder_without_labels_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"labels\.csv"):
        read_dataset.read(tmp_path, "cxr")


def test_a_table_without_columns_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,split\n")
    with pytest.raises(DatasetError, match="patient_id"):
        read_dataset.read(tmp_path, "cxr")


def test_a_row_cut_short_is_left_out(tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "d", 4)
    with (data / "labels.csv").open("a") as stream:
        stream.write("0000.png,train\n")
    assert len(read_dataset.read(data).samples) == 4


def test_readers_outrank_reports(tmp_path: Path) -> None:
    label_names = LabelNames(("lung_opacity", "abnormal", "pneumonia"))
    values, weights = learnt_truths(samples_of(write_drawn(tmp_path / "d", 4)), label_names)
    assert values.tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1]]
    assert weights.min() == 1.0


def test_without_a_reader_an_opacity_is_only_suspected(tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "d", 4)
    rows = [row | {"rsna_class": "", "rsna_boxes": ""} for row in rows_of(data)]
    rows[2]["Hernia"] = "1"
    rows[2]["Pneumothorax"] = rows[2]["Pneumonia"] = "0"
    rows[0]["Pneumothorax"] = "0"
    rewrite(data, rows)
    samples = samples_of(data)
    values, weights = learnt_truths(samples, OPACITY)
    assert 0 < values[1, 0] < 1
    assert 0 < weights[1, 0] < 1
    assert weights[2, 0] == 0, "a hernia says nothing about opacities"
    assert not label_truths(samples, OPACITY)[1].any(), "nothing is measured by what is only likely"
    assert learnt_places(samples[1], OPACITY) == [0]
    assert 0 < learnt_places(samples[0], OPACITY)[0] < 1, "without any finding there is probably no opacity anywhere"
