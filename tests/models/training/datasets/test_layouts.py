"""Each original layout: what is read, and that nothing bad is passed over in silence."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from models.training.datasets import pixels, read_dataset
from models.training.datasets.layout import age_in_years
from models.training.datasets.sample import Dataset, DatasetError
from tests.models.training.datasets import made
from tests.models.training.drawn import write_drawn


def reasons(data: Dataset) -> dict[str, str]:
    assert len({name for name, _ in data.problems}) == len(data.problems)
    return dict(data.problems)


def test_cxr_has_what_the_table_says(tmp_path: Path) -> None:
    data = read_dataset.read(write_drawn(tmp_path / "d", 8))
    assert (data.layout, len(data.samples), data.problems) == ("cxr", 8, ())
    ill, well = data.samples[1], data.samples[0]
    assert (ill.labels["lung_opacity"], ill.labels["normal"], ill.labels["abnormal"]) == (1, 0, 1)
    assert (ill.labels["pneumonia"], ill.labels["pneumothorax"], well.labels["pneumothorax"]) == (1, 0, 1)
    assert (well.labels["lung_opacity"], well.labels["normal"]) == (0, 1)  # the reader outranks the report
    assert (ill.age, ill.sex, ill.view) == (50, "F", "PA")
    assert ill.boxes[0].label == "lung_opacity"
    assert well.boxed == {"lung_opacity"}
    assert {item.split for item in data.samples} == {"train", "val"}


@pytest.mark.peer("shared-data")
def test_the_real_cxr_data(shared_data: Path) -> None:
    data = read_dataset.read(shared_data / "cxr")
    assert (len(data.samples), len(data.problems)) == (1259, 0)
    assert sum(item.labels["pneumothorax"] for item in data.samples) == 48
    assert sum("lung_opacity" in item.labels for item in data.samples) == 431
    assert sum(bool(item.boxes) for item in data.samples) == 122


def test_siim(tmp_path: Path) -> None:
    rows = [("1.2.1", "-1"), ("1.2.2", "5 3 2 1"), ("1.2.2", "100 4")]
    data = read_dataset.read(made.siim(tmp_path, rows, {"1.2.1": "a", "1.2.2": "b"}))
    assert (data.layout, data.problems) == ("siim", ())
    well, ill = data.samples
    assert (well.name, well.patient, well.runs, well.labels["pneumothorax"]) == ("1.2.1", "a", {"pneumothorax": ()}, 0)
    assert (ill.labels["pneumothorax"], ill.runs["pneumothorax"]) == (1, ("5 3 2 1", "100 4"))
    assert (ill.age, ill.sex, ill.view) == (62, "F", "PA")


def test_siim_lists_all_that_is_wrong(tmp_path: Path) -> None:
    rows = [("1.1", "-1"), ("1.1", "5 3"), ("1.2", "5 3 1"), ("1.3", "1 9999999"), ("1.4", "-1"), ("1.5", "0 1")]
    rows += [("1.5", "0 1"), ("1.7", "-1"), ("", "-1"), ("1.9", "-1")]
    folder = made.siim(tmp_path, rows, {uid: uid for uid in ("1.1", "1.2", "1.3", "1.5", "1.6", "1.7", "1.9")})
    (folder / "broken.dcm").write_bytes(b"no DICOM")
    made.write_dicom(folder / "again.dcm", made.gradient(seed=9), "1.7")
    (folder / "copy.dcm").write_bytes((folder / "dicom-images-train" / "1.9" / "1.9.dcm").read_bytes())
    data = read_dataset.read(folder)
    assert [item.name for item in data.samples] == ["1.5", "1.9"]
    found = Counter(reason.split(":")[0] for _, reason in data.problems)
    assert found == {
        "one row says that there is no pixel, another names some": 1,
        "a mask cannot be read": 2,
        "no file has this SOP Instance UID": 2,  # 1.4, and 1.7, of which two files differ
        "a row stands there twice; it counts once": 1,
        "no row names this image": 1,
        "a row names no image": 1,
        "cannot be decoded": 1,
        "two files of one UID differ": 1,
        "the same file is there twice": 1,
    }


def test_siim_masks_are_not_stretched_over_an_image_of_another_shape(tmp_path: Path) -> None:
    folder = made.siim(tmp_path, [("1.1", "0 5"), ("1.2", "-1")], {"1.1": "a", "1.2": "b"})
    made.write_dicom(folder / "dicom-images-train" / "1.1" / "1.1.dcm", made.gradient(64, 32), "1.1")
    assert reasons(read_dataset.read(folder)) == {"1.1": "its masks are for a square image: it has 32 x 64 pixels"}


@pytest.mark.peer("shared-data")
def test_a_real_siim_file_with_an_age_that_is_none(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    name = "siim-1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm"
    (tmp_path / "images" / name).symlink_to(shared_data / "dicom" / name)
    (tmp_path / "train-rle.csv.gz").symlink_to(shared_data / "siim" / "train-rle.csv.gz")
    data = read_dataset.read(tmp_path)
    assert [(item.age, item.sex, item.view) for item in data.samples] == [(62, "M", "PA")]
    assert Counter(reason for _, reason in data.problems) == {"no file has this SOP Instance UID": 12046}


def test_rsna(tmp_path: Path) -> None:
    rows = [["a", "", "", "", "", 0], ["b", 8, 16, 16, 32, 1], ["b", 32, 0, 32, 64, 1], ["c", "", "", "", "", 0]]
    classes = [("a", "Normal"), ("b", "Lung Opacity"), ("b", "Lung Opacity"), ("c", "No Lung Opacity / Not Normal")]
    data = read_dataset.read(made.rsna(tmp_path, rows, classes, ["a", "b", "c"]))
    assert (data.layout, data.problems) == ("rsna", ())
    well, ill, other = data.samples
    assert [(box.x, box.y, box.width, box.height) for box in ill.boxes] == [
        (1 / 8, 1 / 4, 1 / 4, 1 / 2),
        (0.5, 0, 0.5, 1),
    ]
    truths = [
        [item.labels[name] for name in ("normal", "other_abnormality", "lung_opacity", "abnormal")]
        for item in data.samples
    ]
    assert truths == [[1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]]
    assert {item.boxed for item in (well, ill, other)} == {frozenset({"lung_opacity"})}


@pytest.mark.parametrize(
    ("row", "label", "reason"),
    [
        (["b", 50, 0, 20, 10, 1], "Lung Opacity", "outside the image"),
        (["b", -1, 0, 20, 10, 1], "Lung Opacity", "outside the image"),
        (["b", 1, 0, 0, 10, 1], "Lung Opacity", "outside the image"),
        (["b", "", "", "", "", 1], "Lung Opacity", "cannot be read"),
        (["b", "nan", 0, 1, 1, 1], "Lung Opacity", "outside the image"),
        (["b", 1, 0, 9, 10, 1], "Normal", "contradict"),
        (["b", "", "", "", "", 0], "Lung Opacity", "contradict"),
        (["b", 1, 1, 1, 1, 0], "Normal", "a box and no opacity"),
        (["b", "", "", "", "", 2], "Normal", "agree on the target"),
        (["b", "", "", "", "", 0], "Perhaps", "class is unknown"),
    ],
)
def test_rsna_lists_what_is_wrong(tmp_path: Path, row: list[object], label: str, reason: str) -> None:
    rows: list[list[object]] = [["a", "", "", "", "", 0], row, ["gone", "", "", "", "", 0]]
    data = read_dataset.read(made.rsna(tmp_path, rows, [("a", "Normal"), ("b", label)], ["a", "b", "spare"]))
    assert [item.name for item in data.samples] == ["a"]
    found = reasons(data)
    assert reason in found["b"]
    assert found["gone"] == "the image file is missing"
    assert found["spare"] == "no row names this image"


def test_nih(tmp_path: Path) -> None:
    rows = [("1_0.png", "No Finding", "1"), ("2_0.png", "Mass|Pleural_Thickening", "2"), ("3_0.png", "Hernia", "3")]
    folder = made.nih(tmp_path, rows, [name for name, _, _ in rows])
    (folder / "train_val_list.txt").write_text("1_0.png\n2_0.png\n")
    (folder / "test_list.txt").write_text("3_0.png\n")
    head = ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", ""]
    made.write_rows(folder / "BBox_List_2017.csv", head, [["2_0.png", "Mass", 512, 256, 128, 64, "", "", ""]])
    data = read_dataset.read(folder)
    assert (data.layout, data.problems) == ("nih", ())
    assert [item.split for item in data.samples] == ["train", "train", "test"]
    well, ill, _ = data.samples
    assert sum(well.labels.values()) == 1
    assert well.labels["normal"] == 1
    assert [name for name, value in ill.labels.items() if value] == ["mass", "pleural_thickening", "abnormal"]
    assert (ill.boxes[0].label, ill.boxes[0].x, ill.boxes[0].height) == ("mass", 0.5, 1 / 16)
    assert ill.boxed == {"mass"}
    assert (ill.age, ill.sex, ill.view, ill.aspect) == (58, "M", "PA", 2500 / 2048)


def test_nih_lists_what_is_wrong(tmp_path: Path) -> None:
    rows = [("a.png", "Mass", "1"), ("a.png", "Mass", "1"), ("b.png", "Cold", "2"), ("c.png", "", "3")]
    rows += [("d.png", "Mass", "4"), ("e.png", "Mass", "5"), ("f.png", "Mass", "6"), ("g.png", "Mass", "1")]
    folder = made.nih(tmp_path, rows, ["a.png", "b.png", "c.png", "e.png", "f.png", "g.png", "spare.png"])
    (folder / "train_val_list.txt").write_text("a.png b.png c.png d.png f.png")
    (folder / "test_list.txt").write_text("f.png g.png")
    data = read_dataset.read(folder)
    assert data.samples == ()
    found = Counter(reason for _, reason in data.problems)
    assert found == {
        "the image is listed twice": 1,
        "it has an unknown finding: Cold": 1,
        "findings or patient are empty": 1,
        "the image file is missing": 1,
        "it is in no list of splits": 1,
        "it is in both lists of splits": 1,
        "its patient is in several splits": 2,
        "no row names this image": 1,
    }


def test_folders_with_splits_and_images_of_every_kind(tmp_path: Path) -> None:
    made.write_png(tmp_path / "train" / "Normal" / "00000075_000.png", made.gradient(seed=1))
    made.write_png(tmp_path / "train" / "Normal" / "00000075_001.jpg", made.gradient(seed=2))
    made.write_dicom(tmp_path / "validation" / "Left Pneumothorax" / "x", made.gradient(seed=3), "1.9", PatientID="Q")
    made.write_png(tmp_path / "validation" / "Left Pneumothorax" / "scan-7.png", made.gradient(seed=4))
    data = read_dataset.read(tmp_path)
    assert (data.layout, data.problems) == ("folders", ())
    assert [item.patient for item in data.samples[:2]] == ["00000075", "00000075"]
    assert {item.patient for item in data.samples[2:]} == {"Q", "validation/Left Pneumothorax/scan-7.png"}
    assert data.samples[0].labels == {"left_pneumothorax": 0, "normal": 1, "abnormal": 0}
    assert [item.split for item in data.samples] == ["train", "train", "val", "val"]
    output = read_dataset.read(tmp_path, patient=r"(scan)-")
    assert "scan" in {item.patient for item in output.samples}


def test_folders_list_copies_and_strays(tmp_path: Path) -> None:
    for place in ("normal/a.png", "normal/b.png", "ill/c.png"):
        made.write_png(tmp_path / place, made.gradient(seed=1 if place[-5] in "ac" else 2))
    made.write_png(tmp_path / "ill" / "d.png", made.gradient(seed=3))
    (tmp_path / "ill" / "e.png").write_bytes((tmp_path / "ill" / "d.png").read_bytes())
    made.write_png(tmp_path / "stray.png", made.gradient(seed=4))
    (tmp_path / "ill" / "broken.dcm").write_bytes(b"nothing")
    data = read_dataset.read(tmp_path)
    assert {item.name for item in data.samples} == {"normal/b.png", "ill/d.png"}
    found = reasons(data)
    assert found["a.png"].startswith("the same image is in several classes")
    assert found["c.png"].startswith("the same image is in several classes")
    assert found["e.png"] == "the same image is there twice: ill/d.png"
    assert found["stray.png"] == "it lies in no class folder"
    assert found["ill/broken.dcm"].startswith("cannot be decoded")


def test_what_is_no_data_set_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no layout that is known.*siim: train-rle\.csv"):
        read_dataset.read(tmp_path)
    with pytest.raises(DatasetError, match="there is no folder"):
        read_dataset.read(tmp_path / "nowhere", "siim")
    with pytest.raises(DatasetError, match="there are: auto, cxr"):
        read_dataset.read(tmp_path, "mimic")
    for layout in read_dataset.LAYOUTS:
        with pytest.raises(DatasetError):
            read_dataset.read(tmp_path, layout.name)
    (tmp_path / "train-rle.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match="lacks the columns EncodedPixels, ImageId"):
        read_dataset.read(tmp_path)
    with pytest.raises(DatasetError, match="a pattern is for folders only"):
        read_dataset.read(tmp_path, patient="(.)")


def test_the_order_of_the_files_does_not_matter_to_the_bar(tmp_path: Path) -> None:
    states: list[tuple[str, int, int]] = []
    read_dataset.read(made.siim(tmp_path, [("1.2", "-1")], {"1.2": "a"}), progress=lambda *state: states.append(state))
    assert states[-1] == ("headers", 1, 1)


@pytest.mark.parametrize(
    ("text", "years"), [("58", 58), ("058Y", 58), ("030M", 2), ("100D", 0), ("", None), ("old", None), ("412", None)]
)
def test_ages(text: str, years: int | None) -> None:
    assert age_in_years(text) == years


def test_drawn_lungs_are_told_apart_by_where_they_lie(tmp_path: Path) -> None:
    folder = made.lungs(tmp_path, [("a.png", "1"), ("b.png", "2"), ("c.png", "")])
    (folder / "masks" / "b.png").unlink()
    data = read_dataset.read(folder)
    assert [sample.name for sample in data.samples] == ["a.png"]
    assert dict(data.problems) == {"b.png": "the mask file is missing", "c.png": "patient is empty"}
    left, right = (pixels.mask(data.samples[0], label, 64) for label in ("left_lung", "right_lung"))
    # The patient's right lung is on the left of the picture.
    assert np.nonzero(right)[1].max() < 32 < np.nonzero(left)[1].min()
    assert pixels.source_mask(data.samples[0], "left_lung", 40, 32).shape == (40, 32)


def test_a_mask_of_one_lung_only_is_a_problem(tmp_path: Path) -> None:
    folder = made.lungs(tmp_path, [("a.png", "1")])
    made.write_png(folder / "masks" / "a.png", made.two_lungs(left_only=True))
    sample = read_dataset.read(folder).samples[0]
    with pytest.raises(pixels.UnreadableImage, match="1 regions"):
        pixels.mask(sample, "left_lung", 64)


def test_every_sample_of_a_layout_loads(tmp_path: Path) -> None:
    folders = [
        write_drawn(tmp_path / "cxr", 2),
        made.readings(write_drawn(tmp_path / "r" / "cxr", 2).parent, [], [["c.png", "Mass", "00000007", ""]]),
        made.siim(tmp_path / "siim", [("1.2", "-1")], {"1.2": "a"}),
        made.rsna(tmp_path / "rsna", [["a", "", "", "", "", 0]], [("a", "Normal")], ["a"]),
        made.nih(tmp_path / "nih", [("a.png", "Mass", "1")], ["a.png"]),
        made.lungs(tmp_path / "lungs", [("a.png", "1")]),
        made.write_png(tmp_path / "f" / "a" / "1.png", made.gradient()).parents[1],
    ]
    made.write_png(tmp_path / "f" / "b" / "2.png", made.gradient(seed=5))
    for folder, layout in zip(folders, read_dataset.LAYOUTS, strict=True):
        data = read_dataset.read(folder)
        assert (data.layout, data.problems) == (layout.name, ())
        for sample in data.samples:
            found = pixels.load(sample, 48)
            assert found.shape == (48, 48)
            assert found.dtype == np.float32
