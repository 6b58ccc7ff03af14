"""``benchmarks.experts``: experts and NIH apart, on the same images."""

from __future__ import annotations

from pathlib import Path

from benchmarks.experts import line, readings


def test_experts_and_reports_are_told_apart_on_the_same_images(tmp_path: Path) -> None:
    for folder in ("cxr", "cxr_expert"):
        (tmp_path / folder).mkdir()
    nih = "image,Pneumothorax\na.jpg,1\nb.jpg,0\nc.jpg,1\nd.jpg,0\n"
    (tmp_path / "cxr" / "labels.csv").write_text(nih)
    (tmp_path / "cxr_expert" / "chestxdet.csv").write_text("image,Pneumothorax\na.jpg,0\nb.jpg,1\nelsewhere.jpg,1\n")
    (tmp_path / "cxr_expert" / "google2019.csv").write_text("image,Pneumothorax\nc.jpg,YES\n")
    found = dict(readings(tmp_path, "pneumothorax"))
    assert found == {
        "ChestX-Det": {"a.jpg": False, "b.jpg": True},
        "NIH, on the images of ChestX-Det": {"a.jpg": True, "b.jpg": False},
        "Majkowska et al.": {"c.jpg": True},
        "NIH, on the images of Majkowska et al.": {"c.jpg": True},
        "NIH, all images": {"a.jpg": True, "b.jpg": False, "c.jpg": True, "d.jpg": False},
    }
    said = {"a.jpg": 0.1, "b.jpg": 0.9, "c.jpg": 0.2, "d.jpg": 0.3}
    patients = {image: image for image in said}
    experts = line(found["ChestX-Det"], said, patients, 0.5, rounds=20)
    reports = line(found["NIH, on the images of ChestX-Det"], said, patients, 0.5, rounds=20)
    assert [cell.split()[0] for cell in experts] == ["1", "1.00", "1.00", "1.00"]
    assert [cell.split()[0] for cell in reports] == ["1", "0.00", "0.00", "0.00"]
    assert line(found["Majkowska et al."], said, patients, 0.5, rounds=20)[1] == "not known"
