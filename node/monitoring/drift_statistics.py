"""The statistics of the drift report: pure functions of counts and values.

Intervals are 95 % intervals. Nothing here rounds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt

_Z = 1.959963984540054
_BINS = 10
# 95th percentile of the chi-squared distribution with 1 to 9 degrees of freedom.
_CHI_SQUARED = (3.841, 5.991, 7.815, 9.488, 11.070, 12.592, 14.067, 15.507, 16.919)


def wilson(hits: int, tries: int) -> tuple[float, float]:
    """Wilson's score interval of a share; the whole range if ``tries`` is 0."""
    if tries <= 0:
        return 0.0, 1.0
    share = hits / tries
    centre = share + _Z**2 / (2 * tries)
    half = _Z * sqrt(share * (1 - share) / tries + _Z**2 / (4 * tries**2))
    whole = 1 + _Z**2 / tries
    return max(0.0, (centre - half) / whole), min(1.0, (centre + half) / whole)


def quantile(counts: Mapping[float, int], share: float) -> float | None:
    """The value at or below which ``share`` of all counted values lie; None if there are none."""
    total = sum(counts.values())
    seen = 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= share * total:
            return value
    return None


@dataclass(frozen=True, slots=True)
class Shift:
    """Shift of a distribution: the population stability index, and the index that chance alone reaches.

    ``index``: by convention no change below 0.1, and a change from 0.25 on. ``noise`` is the 95th percentile of the
    index for two samples of these sizes from the same distribution; a small week has a large index by chance.
    """

    index: float
    noise: float

    @property
    def status(self) -> str:
        """``stable``, ``moving`` or ``drifted``; ``too few`` if chance alone may reach this index."""
        if self.index < 0.1:
            return "stable"
        if self.index <= self.noise:
            return "too few"
        return "moving" if self.index < 0.25 else "drifted"


def shift(reference: Mapping[float, int], current: Mapping[float, int]) -> Shift | None:
    """Population stability index over the tenths of ``reference``; None if either has fewer than ten values.

    Half a value is added to every bin, so that an empty bin gives a finite index.
    """
    before, after = sum(reference.values()), sum(current.values())
    if before < _BINS or after < _BINS:
        return None
    edges = _edges(reference)
    return _index(_binned(reference, edges), _binned(current, edges))


def shift_of_mix(reference: Mapping[str, int], current: Mapping[str, int]) -> Shift | None:
    """The same for categories: each of the nine most common is a bin, and all others together are one."""
    if sum(reference.values()) < _BINS or sum(current.values()) < _BINS:
        return None
    names = sorted(reference, key=lambda name: -reference[name])[: _BINS - 1]

    def binned(counts: Mapping[str, int]) -> list[int]:
        known = [counts.get(name, 0) for name in names]
        return [*known, sum(counts.values()) - sum(known)]

    return _index(binned(reference), binned(current))


def _index(old: Sequence[int], new: Sequence[int]) -> Shift:
    before, after, bins = sum(old), sum(new), len(old)
    index = 0.0
    for was, now in zip(old, new, strict=True):
        p, q = (was + 0.5) / (before + 0.5 * bins), (now + 0.5) / (after + 0.5 * bins)
        index += (q - p) * log(q / p)
    return Shift(index, _CHI_SQUARED[max(bins - 2, 0)] * (1 / before + 1 / after))


def _edges(counts: Mapping[float, int]) -> list[float]:
    """Upper edges of the tenths, without duplicates."""
    found = {quantile(counts, tenth / _BINS) for tenth in range(1, _BINS)}
    top = max(value for value, count in counts.items() if count)
    return sorted(edge for edge in found if edge is not None and edge < top)


def _binned(counts: Mapping[float, int], edges: Sequence[float]) -> list[int]:
    made = [0] * (len(edges) + 1)
    for value, count in counts.items():
        made[bisect_left(edges, value)] += count
    return made


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of two models on the same images, with Cohen's kappa.

    Kappa is undefined if both always give the same one result: agreement by chance is complete then.
    """

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def total(self) -> int:
        """Images that both have analysed."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def observed(self) -> float:
        """Share of images on which they agree."""
        return (self.both + self.neither) / self.total if self.total else 0.0

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa."""
        expected = self._expected
        return None if expected is None or expected >= 1 else (self.observed - expected) / (1 - expected)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its interval by the large-sample standard error."""
        kappa, expected = self.kappa, self._expected
        if kappa is None or expected is None:
            return None
        error = sqrt(self.observed * (1 - self.observed) / self.total) / (1 - expected)
        return max(-1.0, kappa - _Z * error), min(1.0, kappa + _Z * error)

    @property
    def _expected(self) -> float | None:
        if not self.total:
            return None
        first, second = (self.both + self.only_first) / self.total, (self.both + self.only_second) / self.total
        return first * second + (1 - first) * (1 - second)


def correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation; None for fewer than three pairs, or if one side is constant."""
    if len(pairs) < 3:
        return None
    first, second = _ranks([x for x, _ in pairs]), _ranks([y for _, y in pairs])
    mean = (len(pairs) + 1) / 2
    spread = sqrt(sum((a - mean) ** 2 for a in first) * sum((b - mean) ** 2 for b in second))
    if spread == 0:
        return None
    return sum((a - mean) * (b - mean) for a, b in zip(first, second, strict=True)) / spread


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of their ranks."""
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + 1 + bisect_right(ordered, value)) / 2 for value in values]
