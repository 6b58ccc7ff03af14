"""Masks as run-length text: the code of the SIIM-ACR challenge, and the absolute one of other Kaggle challenges.

Both walk the grid column by column, each from top to bottom, and list pairs of numbers; ``-1`` stands for no pixel.

* *relative* (SIIM-ACR): how many pixels to skip from the end of the run before (at first: from the first pixel), and
  the length of the run;
* *absolute*: the number of the run's first pixel, counted from 1, and its length.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from models.contract import Mask

SIDE = 1024
"""Rows and columns of the SIIM-ACR grid."""
NOTHING = "-1"

Numbers = NDArray[np.int64]


class RleCode(StrEnum):
    """How a run's beginning is written."""

    RELATIVE = "relative"
    ABSOLUTE = "absolute"


class RleError(ValueError):
    """A text is no run-length code of this grid; the message names the run and what is wrong with it."""


def decode(text: str, rows: int = SIDE, columns: int = SIDE, code: RleCode = RleCode.RELATIVE) -> Mask:
    """The mask ``bool[rows, columns]`` of one text.

    Raises:
        RleError: with the number of the run (from 1) and the mistake.
    """
    edges = _edges(text, rows * columns, code)
    flat = np.zeros(rows * columns, dtype=np.bool_)
    for start, end in edges.reshape(-1, 2).tolist():
        flat[start:end] = True
    mask: Mask = flat.reshape(columns, rows).T
    return mask


def decode_all(texts: Iterable[str], rows: int = SIDE, columns: int = SIDE, code: RleCode = RleCode.RELATIVE) -> Mask:
    """The union of several texts about one image: one for each region; no text, no pixel.

    Raises:
        RleError: one of them is wrong.
    """
    whole = np.zeros((columns, rows), dtype=np.bool_).T
    for text in texts:
        whole |= decode(text, rows, columns, code)
    return whole


def encode(mask: Mask, code: RleCode = RleCode.RELATIVE) -> str:
    """The text of a mask ``bool[rows, columns]``: each run as long as it can be."""
    if not mask.any():
        return NOTHING
    flat = np.asarray(mask, dtype=np.bool_).T.ravel()
    inner = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0] if flat[0] else [], inner, [flat.size] if flat[-1] else []]).astype(np.int64)
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    firsts = np.diff(edges, prepend=0)[::2] if code is RleCode.RELATIVE else starts + 1
    return " ".join(map(str, np.stack([firsts, lengths], axis=1).ravel().tolist()))


def area(text: str, rows: int = SIDE, columns: int = SIDE, code: RleCode = RleCode.RELATIVE) -> int:
    """How many pixels a text names, without drawing them.

    Raises:
        RleError: the text is wrong.
    """
    edges = _edges(text, rows * columns, code)
    return int((edges[1::2] - edges[::2]).sum())


def _edges(text: str, size: int, code: RleCode) -> Numbers:
    """First pixel and the one behind the last of each run, in one rising row."""
    pairs = _numbers(text)
    if not len(pairs):
        return pairs.ravel()
    firsts, lengths = pairs[:, 0], pairs[:, 1]
    _refuse(lengths < 1, "has no length", lengths)
    # A number beyond the grid is refused before any sum, which it could overflow.
    _refuse(np.maximum(firsts, lengths) > size, f"does not fit into {size} pixels", np.maximum(firsts, lengths))
    if code is RleCode.RELATIVE:
        _refuse(firsts < 0, "begins before the run before it ends", firsts)
        edges = np.cumsum(pairs.ravel())
    else:
        _refuse(firsts < 1, "begins before pixel 1", firsts)
        edges = np.stack([firsts - 1, firsts - 1 + lengths], axis=1).ravel()
        _refuse(np.append(False, edges[2::2] < edges[1:-1:2]), "begins before the run before it ends", firsts)
    _refuse(edges[1::2] > size, f"ends outside the image of {size} pixels", edges[1::2])
    return edges


def _numbers(text: str) -> Numbers:
    """Pairs ``int64[runs, 2]`` as they stand in the text."""
    words = text.split()
    if words == [NOTHING]:
        return np.zeros((0, 2), dtype=np.int64)
    if not words:
        raise RleError("the text is empty; no pixel is written as -1")
    try:
        numbers = np.array(words, dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise RleError(f"the text holds something that is no whole number: {error}") from error
    if len(numbers) % 2:
        raise RleError(f"{len(numbers)} numbers make no pairs of beginning and length")
    return numbers.reshape(-1, 2)


def _refuse(wrong: NDArray[np.bool_], words: str, values: Numbers) -> None:
    if wrong.any():
        run = int(np.argmax(wrong))
        raise RleError(f"run {run + 1} of {len(wrong)} {words} ({int(values[run])})")
