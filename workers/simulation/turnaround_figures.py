"""Figures of a comparison: mean, 95th percentile and longest turnaround, each with its 95 % interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, fmean, stdev

import numpy as np

ALL = "all studies"
NONE = "no finding"
MISSED = "not found"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over replications with its 95 % interval (Student's t); with one replication the interval is the mean."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Turnaround in minutes of one group of studies under one policy.

    Each estimate is a mean over the replications: of their means, 95th percentiles and maxima. ``extreme`` is the
    maximum over all replications.
    """

    mean: Estimate
    p95: Estimate
    longest: Estimate
    extreme: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of a simulation.

    ``figures`` is keyed by policy and then by group. ``studies`` has the number of studies of each group. ``curve`` has
    the 0th, 1st, … 100th percentile of the turnaround of critical studies by policy, over all replications.
    """

    replications: int
    seed: int
    groups: tuple[str, ...]
    critical: str
    figures: Mapping[str, Mapping[str, Figures]]
    studies: Mapping[str, int]
    curve: Mapping[str, tuple[float, ...]]


def estimate(values: Sequence[float]) -> Estimate:
    """Estimate a mean from one value for each replication."""
    mean = fmean(values)
    if len(values) < 2:
        return Estimate(mean, mean, mean)
    half = student_t(len(values) - 1) * stdev(values) / sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def student_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: exact for one and two degrees of freedom, else from the normal one.

    The expansion is Abramowitz and Stegun 26.7.5, exact to 0.02 from three degrees of freedom on.
    """
    exact = {1: 12.7062, 2: 4.3027}
    if freedom in exact:
        return exact[freedom]
    z = NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + float(sum(term / freedom ** (power + 1) for power, term in enumerate(terms)))


def figures_of(replications: Sequence[np.ndarray]) -> Figures:
    """Figures of one group under one policy; each array has the turnarounds of one replication and is not empty."""
    longest = [float(one.max()) for one in replications]
    return Figures(
        mean=estimate([float(one.mean()) for one in replications]),
        p95=estimate([float(np.percentile(one, 95)) for one in replications]),
        longest=estimate(longest),
        extreme=max(longest),
    )
