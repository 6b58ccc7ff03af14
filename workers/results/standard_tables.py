"""A question that highdicom asks its tables of the standard again for each object, and whose answer never changes.

Whether a kind of object has an attribute, or pixels, it finds by walking through the attributes of every module, a
dozen times for a SEG with its SR: a tenth of their time. The tables are files of highdicom.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from highdicom import _standard_utils as tables
from highdicom import base
from highdicom.sr import content

ASKS = (tables, base, content)
"""The modules of highdicom that call :data:`QUESTION` by this name."""
QUESTION = "is_attribute_in_iod"

_look_up = tables.is_attribute_in_iod
_remembered = cache(_look_up)


def is_attribute_in_iod(attribute: str, sop_class_uid: str, exclude_path_elements: Sequence[str] | None = None) -> bool:
    """The answer of highdicom's function, found once a process.

    Raises:
        KeyError: highdicom's tables have no such SOP class.
    """
    excluded = None if exclude_path_elements is None else tuple(exclude_path_elements)
    return bool(_remembered(attribute, sop_class_uid, excluded))


def remember_answers() -> None:
    """Let highdicom ask here."""
    for module in ASKS:
        if getattr(module, QUESTION) is _look_up:
            setattr(module, QUESTION, is_attribute_in_iod)
