"""Questions that highdicom and pydicom ask again for each object, and whose answers never change.

Whether a kind of object has an attribute, or pixels, highdicom finds by walking through the attributes of every module,
a dozen times for a SEG with its SR: a tenth of their time. The tables are files of highdicom. Which tag a keyword or a
number names pydicom works out seven thousand times for them, another tenth; and of one tag that is made twice a
dictionary has to compare the values, in Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from highdicom import _standard_utils as tables
from highdicom import base
from highdicom.sr import content
from pydicom import datadict, dataelem, dataset
from pydicom import tag as tags
from pydicom.tag import BaseTag

ASKS = (tables, base, content)
"""The modules of highdicom that call :data:`QUESTION` by this name."""
QUESTION = "is_attribute_in_iod"
NAMES = (datadict, dataelem, dataset)
"""The modules of pydicom that call :data:`NAMED` by this name, for each element."""
NAMED = "Tag"
_TAGS = 4096  # of some 5,000 in the standard; a process meets a few hundred

_look_up = tables.is_attribute_in_iod
_remembered = cache(_look_up)
_make: Any = tags.Tag
_made = lru_cache(_TAGS, typed=True)(_make)


def is_attribute_in_iod(attribute: str, sop_class_uid: str, exclude_path_elements: Sequence[str] | None = None) -> bool:
    """The answer of highdicom's function, found once a process.

    Raises:
        KeyError: highdicom's tables have no such SOP class.
    """
    excluded = None if exclude_path_elements is None else tuple(exclude_path_elements)
    return bool(_remembered(attribute, sop_class_uid, excluded))


def named_tag(arg: Any, arg2: int | None = None) -> BaseTag:
    """What pydicom's ``Tag`` makes of its arguments; of the same ones the same object.

    Raises:
        ValueError, TypeError, OverflowError: as ``Tag`` does.
    """
    if type(arg) is BaseTag:
        return arg
    try:
        made: BaseTag = _made(arg, arg2)
    except TypeError:  # a list cannot be remembered
        made = _make(arg, arg2)
    return made


def remember_answers() -> None:
    """Let highdicom and pydicom ask here."""
    for modules, name, theirs, ours in (
        (ASKS, QUESTION, _look_up, is_attribute_in_iod),
        (NAMES, NAMED, _make, named_tag),
    ):
        for module in modules:
            if getattr(module, name) is theirs:
                setattr(module, name, ours)
