"""The result of one check of ``pleura doctor``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """What was found of one part; ``remedy`` is empty if nothing needs to be done."""

    part: str
    ok: bool
    found: str
    remedy: str = ""
