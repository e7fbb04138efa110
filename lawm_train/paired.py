"""Paired differences with Student's t-interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.special import stdtrit

CONFIDENCE = 0.95


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
    quantile = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    return Interval(mean, quantile * stdev(differences) / math.sqrt(count))
