"""The short form of the fuzz campaign, and what the long form depends on: the same seed makes the same bytes."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz.campaign import run
from tests.fuzz.conversations import conversation
from tests.fuzz.data_sets import wire
from tests.fuzz.messages import hl7_message, http_request

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SEED = 11


def test_a_seed_makes_the_same_campaign_again() -> None:
    first, second = Random(SEED), Random(SEED)
    assert [wire(first, number) for number in range(50)] == [wire(second, number) for number in range(50)]
    assert [hl7_message(first, number) for number in range(50)] == [hl7_message(second, number) for number in range(50)]
    assert [http_request(first) for _ in range(50)] == [http_request(second) for _ in range(50)]
    assert [conversation(first) for _ in range(50)] == [conversation(second) for _ in range(50)]


@pytest.mark.parametrize(
    ("upper_layer", "count"),
    [pytest.param("fast", 150, marks=pytest.mark.campaign), pytest.param("stock", 40, marks=pytest.mark.nightly)],
)
def test_a_short_campaign_finds_nothing(tmp_path: Path, upper_layer: str, count: int) -> None:
    outcome = run(tmp_path / "node", SEED, count, patience=300, say=lambda text: None, upper_layer=upper_layer)
    assert outcome.faults == [], outcome.text()
