"""The account of a study: its digest names the summary's UIDs, whatever the code calls its fields."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from models.model_spec import Code
from workers.results.study_account import (
    Change,
    ChangeKind,
    Comparison,
    Extent,
    ImageAccount,
    Reference,
    StudyAccount,
    SummaryFinding,
    account_digest,
)

IMAGE = Reference("1.2.840.10008.5.1.4.1.1.1", "1.2.3", "1.2.4")
FINDING = SummaryFinding(Code("36118008", "SCT", "Pneumothorax"), 0.875, "pneumothorax", "left")
ANALYSED = ImageAccount(IMAGE, True, findings=(FINDING,), reports=(Reference("1.2.5", "1.2.6", "1.2.7"),))
LATERAL = ImageAccount(Reference("1.2.840.10008.5.1.4.1.1.1", "1.2.8", "1.2.4"), False, "A lateral view.")
ACCOUNT = StudyAccount("critical", "pneumothorax 0.88", (ANALYSED, LATERAL))
CHANGE = Change(FINDING.code, "pneumothorax", "left", ChangeKind.LARGER, Extent(900.0, 0.1), Extent(400.0, 0.05))
COMPARED = replace(ACCOUNT, comparison=Comparison("1.2.20", "20260301", (IMAGE,), (CHANGE,)))


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, ChangeKind):
        return ChangeKind.SMALLER
    if isinstance(value, Extent):
        return replace(value, area_mm2=1.0)
    if isinstance(value, Comparison):
        return None
    if isinstance(value, Code):
        return replace(value, meaning=f"{value.meaning}, other")
    if isinstance(value, Reference):
        return replace(value, sop_instance_uid="1.2.9")
    if isinstance(value, tuple):
        return value[1:] if value else (FINDING,)
    return f"{value}0" if isinstance(value, str) else value / 2


def changed() -> list[tuple[str, StudyAccount]]:
    """The account with each field of each of its parts changed, by the name of the field."""

    def each(part: Any) -> list[tuple[str, Any]]:
        return [(f.name, replace(part, **{f.name: other(getattr(part, f.name))})) for f in fields(part)]

    def with_image(image: ImageAccount) -> StudyAccount:
        return replace(COMPARED, images=(image, LATERAL))

    def with_change(change: Change) -> StudyAccount:
        assert COMPARED.comparison
        return replace(COMPARED, comparison=replace(COMPARED.comparison, changes=(change,)))

    return [
        *each(COMPARED),
        *((f"comparison {name}", replace(COMPARED, comparison=one)) for name, one in each(COMPARED.comparison)),
        *((f"change {name}", with_change(change)) for name, change in each(CHANGE)),
        *((f"extent {name}", with_change(replace(CHANGE, now=one))) for name, one in each(CHANGE.now)),
        *((f"earlier extent {name}", with_change(replace(CHANGE, before=one))) for name, one in each(CHANGE.before)),
        *((f"image {name}", with_image(image)) for name, image in each(ANALYSED)),
        *((f"finding {name}", with_image(replace(ANALYSED, findings=(one,)))) for name, one in each(FINDING)),
        *((f"code {name}", with_image(replace(ANALYSED, findings=(replace(FINDING, code=code),))))
          for name, code in each(FINDING.code)),
        *((f"reference {name}", with_image(replace(ANALYSED, image=one))) for name, one in each(IMAGE)),
        *((f"report {name}", with_image(replace(ANALYSED, reports=(one,)))) for name, one in each(ANALYSED.reports[0])),
        ("order", replace(COMPARED, images=(LATERAL, ANALYSED))),
    ]  # fmt: skip


def test_no_name_in_the_code_is_part_of_the_digest() -> None:
    """The digest of these values; a name of ours that found its way in would change it with the next renaming."""
    assert account_digest(ACCOUNT) == "9fe5084f9ac4a8c1241d5e5ddff26d09980631a2d9f037b163f69430e6afec31"


@pytest.mark.parametrize(("field", "account"), changed(), ids=[name for name, _ in changed()])
def test_each_value_is_part_of_the_digest(field: str, account: StudyAccount) -> None:
    assert account_digest(account) != account_digest(COMPARED), field


def test_values_that_run_together_differ() -> None:
    one, two = (replace(ACCOUNT, priority=priority, reason=reason) for priority, reason in (("ab", "c"), ("a", "bc")))
    assert account_digest(one) != account_digest(two)
