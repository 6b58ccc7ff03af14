"""The layout readings: who says what of lung opacity, and whose images they are."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from models.training.datasets import pixels, read_dataset
from models.training.datasets.sample import Sample
from tests.models.training.datasets import made

HEAD = ["image", "split", "patient_id", "rsna_class", "rsna_boxes", "Effusion"]
BOXES = "[[512, 512, 256, 256]]"


def folder(path: Path, expert: list[list[object]], extra: list[list[object]]) -> dict[str, Sample]:
    rows = [
        ["read.png", "val", "75", "Lung Opacity", BOXES, "0"],
        ["unread.png", "train", "76", "", "[]", "0"],
        ["effusion.png", "train", "77", "", "[]", "1"],
        ["clear.png", "train", "78", "", "[]", "0"],
    ]
    made.write_rows(path / "cxr" / "labels.csv", HEAD, rows)  # type: ignore[arg-type]
    for row in rows:
        made.write_png(path / "cxr" / "images" / row[0], made.gradient())
    data = read_dataset.read(made.readings(path, expert, extra))
    assert data.layout == "readings"
    assert data.problems == ()
    return {sample.name: sample for sample in data.samples}


def test_rsnas_readers_come_first_then_what_experts_drew(tmp_path: Path) -> None:
    expert: list[list[object]] = [["read.png", 0, 0], ["unread.png", 1, 0], ["effusion.png", 0, 1], ["clear.png", 0, 0]]
    found = folder(tmp_path, expert, [])
    opacity = {name: sample.labels.get("lung_opacity") for name, sample in found.items()}
    # An effusion without a drawn consolidation may or may not be called an opacity: nothing is known.
    assert opacity == {"read.png": 1.0, "unread.png": 1.0, "effusion.png": None, "clear.png": 0.0}
    assert pixels.mask(found["read.png"], "lung_opacity", 32).sum() == 64
    drawn = pixels.mask(found["unread.png"], "lung_opacity", 32)
    assert drawn[:16, :16].all()
    assert drawn.sum() == 256
    assert "lung_opacity" not in found["clear.png"].weak
    assert "lung_opacity" in found["effusion.png"].weak


def test_further_images_of_a_patient_stay_in_the_patients_split(tmp_path: Path) -> None:
    extra: list[list[object]] = [
        ["more.png", "Mass", "00000075", "Consolidation|Effusion"],
        ["new.png", "No Finding", "00000099", "none of 13"],
        ["only_nih.png", "Effusion|Consolidation", "00000099", ""],
    ]
    found = folder(tmp_path, [], extra)
    assert (found["more.png"].patient, found["more.png"].split) == ("75", "val")
    assert (found["new.png"].patient, found["new.png"].split) == ("99", "train")
    assert found["more.png"].labels["mass"] == found["more.png"].labels["lung_opacity"] == 1.0
    assert found["new.png"].labels["lung_opacity"] == 0.0
    assert found["new.png"].labels["normal"] == 1.0
    assert "lung_opacity" not in found["only_nih.png"].labels
    assert found["only_nih.png"].labels["effusion"] == 1.0


def test_a_consolidation_without_its_mask_and_unusable_rows_are_problems(tmp_path: Path) -> None:
    folder(tmp_path, [["unread.png", 1, 0]], [["a.png", "Mass", "00000099", "Consolidation"]])
    (tmp_path / "cxr_expert" / "masks" / "unread.Consolidation.png").unlink()
    (tmp_path / "cxr_extra" / "masks" / "a.Consolidation.png").unlink()
    with (tmp_path / "cxr_extra" / "index.csv").open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["images/none.png", "Mass", "", "00000001", "", "", "", ""])
        writer.writerow(["images/a.png", "Mass", "", "somebody", "", "", "", ""])
    with (tmp_path / "cxr_expert" / "chestxdet.csv").open("a", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerow(["nowhere.png", 0, 0])
    assert dict(read_dataset.read(tmp_path).problems) == {
        "unread.png": "experts have read it, and its mask is missing",
        "nowhere.png": "experts have read it, and there is no such image",
        "images/a.png": "its patient is no number",
        "images/none.png": "the image file is missing",
    }


def test_a_box_is_learnt_as_an_ellipse_where_a_recipe_asks_for_it(tmp_path: Path) -> None:
    sample = folder(tmp_path, [], [])["read.png"]
    whole, ellipse = (pixels.mask(sample, "lung_opacity", 512, shape) for shape in ("filled", "ellipse"))
    assert not (ellipse & ~whole).any()
    np.testing.assert_allclose(ellipse.sum() / whole.sum(), np.pi / 4, atol=0.002)
    rows, columns = np.nonzero(ellipse)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (256, 383, 256, 383)
