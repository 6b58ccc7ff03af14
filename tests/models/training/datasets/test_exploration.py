"""The exploratory report: counts by hand, and one file that loads nothing and hides nothing."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from config.notice import NOTICE
from models.training.datasets import read_dataset, rle
from models.training.datasets.exploration import explore, label_counts, mask_places, measure_images, quantiles
from models.training.datasets.exploration_report import chosen_samples, explore_folder, truth_marks
from models.training.datasets.sample import Sample
from node.cli.main import cli
from tests.models.training.datasets import made
from tests.models.training.drawn import write_drawn


def test_counts_by_hand(tmp_path: Path) -> None:
    samples = (
        Sample("a", "1", tmp_path, "train", {"mass": 1.0}, age=60, sex="F", view="AP"),
        Sample("b", "1", tmp_path, "train", {"mass": 0.6}, age=62, sex="F", view="AP"),
        Sample("c", "2", tmp_path, "val", {"mass": 0.4}, age=20, sex="M", view="PA"),
        Sample("d", "3", tmp_path, "val", {}, age=90, sex="M", view="PA"),
    )
    found = label_counts("mass", samples)
    assert (found.known, found.present, found.patients) == (3, 2, 1)
    assert found.by_split == {"train": 2}
    assert found.present_by_view == {"AP": (2, 2), "PA": (0, 1)}
    assert (found.median_age_present, found.median_age_absent) == (61, 20)


def test_masks_are_measured(tmp_path: Path) -> None:
    drawn = np.zeros((rle.SIDE, rle.SIDE), bool)
    drawn[:512, :256] = True
    item = Sample("a", "1", tmp_path, runs={"pneumothorax": (rle.encode(drawn),)})
    found = mask_places("pneumothorax", [item, Sample("b", "2", tmp_path, runs={"pneumothorax": ()})])
    assert (found.images, found.marked, found.marks_an_image, found.areas) == (2, 1, {0: 1, 1: 1}, (0.125,))
    assert found.grid[:16, :8].min() == 1.0
    assert found.grid.sum() == 16 * 8


def test_boxes_and_files_are_measured(tmp_path: Path) -> None:
    data = read_dataset.read(write_drawn(tmp_path / "d", 8))
    (tmp_path / "d" / "images" / "0003.png").write_bytes(b"nothing")
    found = explore(data, measure_images(data.samples))
    assert (found.images, found.patients, found.layout) == (8, 8, "cxr")
    assert found.files.sizes == {"96 x 96": 7}
    assert len(found.files.brightness) == 7
    assert [name for name, _ in found.problems] == ["0003.png"]
    (boxes,) = found.boxes
    assert (boxes.images, boxes.marked, boxes.marks_an_image) == (8, 4, {0: 4, 1: 4})
    assert boxes.areas == pytest.approx([(320 / 1024) ** 2] * 4)
    assert found.splits == {"train": (6, 6), "val": (2, 2)}
    assert measure_images(data.samples, decode=False).brightness == ()


def test_quantiles() -> None:
    assert quantiles([]) == {"count": 0}
    assert quantiles([1, 2, 3, 4, 9])["median"] == 3


def test_some_of_each_finding_are_shown_and_those_with_marks_first(tmp_path: Path) -> None:
    data = read_dataset.read(write_drawn(tmp_path / "d", 40))
    chosen = chosen_samples(data.samples)
    assert len(chosen) <= 24
    assert len({item.name for item in chosen}) == len(chosen)
    assert sum(bool(item.boxes) for item in chosen) >= 3
    assert len(truth_marks(next(item for item in chosen if item.boxes), 64)) == 1


def test_the_report_is_one_file_and_tells_everything(tmp_path: Path) -> None:
    rows = [(f"1.2.{number}", "-1" if number % 2 else "0 50 974 50") for number in range(6)] + [("1.9", "-1")]
    folder = made.siim(tmp_path / "<siim>", rows, {f"1.2.{number}": f"P{number}" for number in range(6)})
    explore_folder(folder, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert NOTICE in page
    assert "&lt;siim&gt;" in page
    assert "<siim>" not in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "<script" not in page
    assert "no file has this SOP Instance UID" in page
    assert page.count("<image ") == 6
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert figures["labels"]["pneumothorax"]["present"] == 3
    assert figures["masks"]["pneumothorax"]["marked"] == 3
    assert figures["masks"]["pneumothorax"]["area"]["median"] == pytest.approx(100 / 1024**2)
    assert figures["problems"] == [["1.9", "no file has this SOP Instance UID"]]
    assert figures["problem_counts"] == {"no file has this SOP Instance UID": 1}


def test_the_command(tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "d", 8)
    (data / "images" / "0003.png").unlink()
    done = CliRunner().invoke(cli, ["explore", "--data", str(data), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "7 images of 7 patients (layout cxr)" in done.output
    assert "1 x the image file is missing" in done.output
    assert (tmp_path / "out" / "report.html").is_file()


def test_the_command_tells_what_is_wrong(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["explore", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "no layout that is known" in done.output
