"""Paired differences with Student's t-interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple


class Interval(NamedTuple):
    """mean ± half; half is infinite for a single difference."""

    mean: float
    half: float

    @property
    def excludes_zero(self) -> bool:
        return abs(self.mean) > self.half


def interval(differences: Sequence[float]) -> Interval:
    """The mean of one or more paired differences with its two-sided 95% t-interval."""
    count, mean = len(differences), fmean(differences)
    if count == 1:
        return Interval(mean, math.inf)
    return Interval(mean, t_quantile(0.95, count - 1) * stdev(differences) / math.sqrt(count))


def t_quantile(confidence: float, freedom: int) -> float:
    """The t with P(|T| <= t) = confidence for `freedom` degrees of freedom, by bisection; exact, so no table."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def _within(theta: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) tan theta): the finite sums of Abramowitz & Stegun 1964, 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(freedom // 2):
        total += term
        term *= cosine**2 * ((2 * k + 2) / (2 * k + 3) if odd else (2 * k + 1) / (2 * k + 2))
    return 2 / math.pi * (theta + sine * total) if odd else sine * total
