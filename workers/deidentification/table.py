"""Table E.1-1 of PS3.15: what the Basic Application Level Confidentiality Profile does with an attribute.

``table_e1_1.csv`` beside this file has the rows, and says where they come from. A compound action (``X/Z/D``) leaves
the choice to the IOD: remove an optional attribute (type 3), empty one of type 2, give one of type 1 a dummy.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from pydicom.tag import BaseTag

from config.deidentification import Deidentification

EDITION = "2026c"
_TABLE = Path(__file__).with_name("table_e1_1.csv")
_REPEATING = {0x50: "50", 0x60: "60"}
_BY_TYPE = {
    "X/Z": {1: "Z", 2: "Z", 3: "X"},
    "X/D": {1: "D", 2: "X", 3: "X"},
    "Z/D": {1: "D", 2: "Z", 3: "Z"},
    "X/Z/D": {1: "D", 2: "Z", 3: "X"},
    # A result without references to its image would be worth nothing.
    "X/Z/U*": {1: "U", 2: "U", 3: "U"},
}


class Action(StrEnum):
    """An action code of the table."""

    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    UID = "U"
    KEEP = "K"
    CLEAN = "C"


@dataclass(frozen=True, slots=True)
class Rule:
    """A row: the action of the profile, what each option makes of it (empty: nothing), and the attribute's type."""

    keyword: str
    basic: str
    device: str
    patient: str
    dates: str
    descriptors: str
    content: str
    graphics: str
    type: int

    def action(self, options: Deidentification, *, ours: bool) -> Action:
        """The action under ``options``; those for content and graphics hold for objects that are ``ours`` alone."""
        asked = (
            (self.device, options.device_identity),
            (self.patient, options.patient_characteristics),
            (self.dates, options.dates == "shifted"),
            (self.descriptors, options.clean_descriptors),
            (self.content, ours),
            (self.graphics, ours),
        )
        chosen = [code for code, wanted in asked if code and wanted]
        return Action(chosen[0]) if chosen else self.fallback

    @property
    def fallback(self) -> Action:
        """The action of the profile itself, which also holds where nothing is left after cleaning."""
        return Action(_BY_TYPE[self.basic][self.type] if "/" in self.basic else self.basic)


def rule_of(tag: BaseTag) -> Rule | None:
    """The row of an attribute, those of repeating groups included; None if the table does not name it."""
    rules = _rules()
    high = _REPEATING.get(tag.group >> 8)
    if high is None:
        return rules.get(f"{tag:08x}")
    return rules.get("50xxxxxx" if high == "50" else f"60xx{tag.element:04x}")


@cache
def _rules() -> Mapping[str, Rule]:
    with _TABLE.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {row.pop("tag"): Rule(type=int(row.pop("type") or 3), **row) for row in rows}
