"""The short forms of the campaigns about too much at once and about a long time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.campaigns import load, soak
from tests.campaigns.soak import Sample, equal_counts, growth

pytestmark = pytest.mark.timeout(900)

SEED = 5
MIB = 1024 * 1024


def sample(studies: int, memory: int = 100 * MIB, handles: int = 20, threads: int = 5, database: int = 0) -> Sample:
    return Sample(
        studies, {"listener": memory}, {"listener": handles}, {"listener": threads}, {"listener": 1}, MIB, database
    )


def test_what_grows_is_told() -> None:
    first = sample(400, database=400_000)
    assert growth(first, sample(1000, memory=112 * MIB, handles=24, threads=9, database=1_100_000)) == []
    grown = growth(first, sample(1000, memory=114 * MIB, handles=25, threads=10, database=1_200_000))
    assert [text.split(":")[0] for text in grown] == [
        "listener has grown",
        "listener holds 25 files, 20 before",
        "listener has 10 threads, 5 before",
        "a study takes 1 KiB in the database, more than at first",
    ]


def test_what_is_missing_at_the_end_is_told() -> None:
    counts = Counter({"instance": 10, "job done": 10, "study complete": 9, "delivery verified": 30})
    assert equal_counts(counts, 10, 3) == ["9 times study complete, not 10"]


def test_studies_are_sent_in_rounds_of_which_one_ends_with_the_warm_up() -> None:
    assert soak.rounds(40) == [16, 24, 32, 40]
    assert soak.rounds(10_000)[:6] == [200, 400, 600, 800, 1000, 1200]
    assert soak.rounds(500) == [200, 300, 400, 500]


@pytest.mark.campaign
def test_short_load(folder: Path) -> None:
    """Times are reported and not checked here: other tests run beside it."""
    outcome = load.run(folder, SEED, 40, 60, 4, "sqlite", lambda text: None, check_times=False)
    assert outcome.faults == [], outcome.text()


@pytest.mark.nightly
@pytest.mark.peer("postgres")
@pytest.mark.peer("redis-server")
def test_short_soak(folder: Path) -> None:
    outcome = soak.run(folder, SEED, 40, 600, lambda text: None)
    assert outcome.faults == [], outcome.text()
