"""Makes frozen records from columns of the database at a fifth of the time that their class takes.

A frozen dataclass sets each field by ``object.__setattr__``: 1.5 µs for a finding of 16 fields, of which a page of the
worklist has hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, make_dataclass
from typing import Any, TypeVar

T = TypeVar("T")


def maker(kind: type[T]) -> Callable[[Iterable[Iterable[Any]]], list[T]]:
    """A function that takes a column for each field of the frozen dataclass with slots ``kind``, in their order.

    It gives a record for each row. A record is made as one of a class that is alike and not frozen, and is then of its
    own class: the same slots lie in the same places. A ``__post_init__`` is not called, so ``kind`` must have none.
    """
    if hasattr(kind, "__post_init__"):
        raise TypeError(f"{kind.__name__} checks its fields")
    mutable: Any = make_dataclass(kind.__name__, [each.name for each in fields(kind)], slots=True)  # type: ignore[arg-type]

    def make(columns: Iterable[Iterable[Any]]) -> list[T]:
        records = list(map(mutable, *columns))
        for record in records:
            record.__class__ = kind
        return records

    return make
