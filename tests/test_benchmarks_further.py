"""The classifier on further images: what is told of a finding, and of the size of a file."""

from pathlib import Path

from benchmarks.further import any_finding, cells
from models.training.datasets.cxr import NIH_FINDINGS
from models.training.datasets.sample import Sample


def sample(number: int, **present: float) -> Sample:
    labels = {name.lower(): 0.0 for name in NIH_FINDINGS} | present
    return Sample(f"{number}.jpg", str(number // 2), Path(f"{number}.jpg"), labels=labels)


SAMPLES = [sample(number, effusion=float(number < 4)) for number in range(12)]


def test_a_finding_is_told_with_its_figures_unless_hardly_any_image_has_it() -> None:
    said = {item.name: 0.9 if item.labels["effusion"] else 0.1 for item in SAMPLES}
    found = cells("effusion", SAMPLES, said, 0.5, 20)
    assert (found[0], found[1][:4], found[2][:4]) == ("4 / 12", "1.00", "1.00")
    assert found[-2:] == ("0.367", "0.100")
    assert cells("mass", SAMPLES, said, 0.5, 20) == ()


def test_what_has_nothing_to_do_with_anatomy_can_tell_findings() -> None:
    assert any_finding(SAMPLES, {item.name: float(item.labels["effusion"]) for item in SAMPLES}) == 1.0
    assert any_finding(SAMPLES, {item.name: 1.0 for item in SAMPLES}) == 0.5
