"""Each reason of a header has its meaning: a new one cannot be forgotten."""

from __future__ import annotations

from db.not_eligible_codes import FOR_A_READER, MAY_BE_CHEST, NO_CHEST_RADIOGRAPH, UNDECIDED, NotEligibleCode


def test_every_reason_says_whether_the_image_may_show_a_chest() -> None:
    assert set(NotEligibleCode) == NO_CHEST_RADIOGRAPH | MAY_BE_CHEST | UNDECIDED
    assert len(NO_CHEST_RADIOGRAPH) + len(MAY_BE_CHEST) + len(UNDECIDED) == len(NotEligibleCode)


def test_a_reason_is_found_by_the_text_in_the_database() -> None:
    assert "too-young" in MAY_BE_CHEST
    assert "scanned-document" not in FOR_A_READER
