"""Values of a header that may be empty, wrong or broken: what cannot be read counts as missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydicom.dataset import Dataset


class TolerantHeader:
    """Tolerant access to a data set: a value that cannot be read is empty."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def text(self, keyword: str) -> str:
        """Value as text; the first of several values; empty if there is none."""
        try:
            value = self._dataset.get(keyword)
        except Exception:  # see texts
            return ""
        if type(value) is str:  # nearly every value is one text
            return value.strip(" \0")
        values = _texts(value)
        return values[0] if values else ""

    def texts(self, keyword: str) -> list[str]:
        """Values as texts without padding."""
        try:
            value = self._dataset.get(keyword)
        except Exception:  # pydicom may raise anything on a malformed value; the value counts as missing
            return []
        return _texts(value)

    def number(self, keyword: str) -> int | None:
        """Value as a whole number, or None."""
        try:
            return int(self.text(keyword))
        except ValueError:
            return None

    def codes(self, keyword: str) -> Iterator[tuple[str, str, str]]:
        """Code value, scheme and meaning of each item of a code sequence (PS3.3 8.8)."""
        for code in self._items(keyword):
            yield code.text("CodeValue"), code.text("CodingSchemeDesignator"), code.text("CodeMeaning")

    def view_modifiers(self) -> Iterator[tuple[str, str, str]]:
        """View Modifier Code Sequence (0054,0222) of every coded view."""
        for view in self._items("ViewCodeSequence"):
            yield from view.codes("ViewModifierCodeSequence")

    def _items(self, keyword: str) -> Iterator[TolerantHeader]:
        try:
            items = list(self._dataset.get(keyword) or ())
        except Exception:  # pydicom may raise anything on a malformed value; the value counts as missing
            items = []
        yield from (TolerantHeader(item) for item in items if isinstance(item, Dataset))


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str | bytes | int) or not isinstance(value, Sequence):  # the last takes the longest
        value = [value]
    return [str(item).strip(" \0") for item in value]
