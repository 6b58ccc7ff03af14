"""Records that are made quickly are what their class makes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, fields

import pytest

from db.frozen_records import maker
from db.records import FindingRecord
from db.shown_records import WorklistRow


@pytest.mark.parametrize("kind", [FindingRecord, WorklistRow])
def test_a_record_is_the_same_and_stays_as_it_is(kind: type) -> None:
    values = [f"value {number}" for number in range(len(fields(kind)))]
    made, _ = maker(kind)([(value, "of another") for value in values])
    assert type(made) is kind
    assert made == kind(*values)
    assert hash(made) == hash(kind(*values))
    with pytest.raises(FrozenInstanceError):
        setattr(made, fields(kind)[0].name, "other")


def test_a_record_that_checks_its_fields_is_not_made_without_it() -> None:
    @dataclass(frozen=True, slots=True)
    class Checked:
        number: int

        def __post_init__(self) -> None:
            assert self.number > 0

    with pytest.raises(TypeError, match="Checked"):
        maker(Checked)
