"""What a run must know of trajectories before it has read them all: how many rows, true ends, mean and spread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from lawm_data.episode import Episode

DIGITS = 9  # what float32 can tell apart
NARROW = 0.01  # standard deviation of an observation's dimension, below which it is not scaled up to 1


@dataclass(frozen=True)
class Summary:
    """Of the observations o_0 .. o_T of some trajectories: mean and standard deviation by dimension, float64 [O].

    rows: their number; ends: how many of the trajectories end truly. Of no trajectory, all is zero.
    """

    rows: int
    ends: int
    mean: list[float]
    std: list[float]

    @classmethod
    def of(cls, episodes: Iterable[Episode], size: int) -> Summary:
        """Read in one pass, an episode in memory at a time; `size` is O. Rounded, as float32 is what will be used."""
        found = cls.joined((_of_one(episode) for episode in episodes), size)
        return replace(found, mean=_rounded(found.mean), std=_rounded(found.std))

    @classmethod
    def joined(cls, parts: Iterable[Summary], size: int) -> Summary:
        """Of the trajectories of all parts together."""
        return reduce(_join, parts, cls(0, 0, [0.0] * size, [0.0] * size))

    @property
    def narrow(self) -> list[int]:
        """The dimensions that vary, but by less than `NARROW`."""
        rounding = np.finfo(np.float32).eps * np.abs(self.mean)
        return np.flatnonzero((self.std > rounding) & (np.array(self.std) < NARROW)).tolist()

    def matches(self, other: Summary) -> bool:
        """Equal but for the rounding of another machine."""
        most = 1e-6 * (1 + np.abs(self.mean) + np.array(self.std))  # by dimension
        counts = (self.rows, self.ends) == (other.rows, other.ends)
        return counts and all(
            np.allclose(ours, theirs, rtol=0, atol=most)
            for ours, theirs in ((self.mean, other.mean), (self.std, other.std))
        )


def _of_one(episode: Episode) -> Summary:
    rows = episode.observation.astype(np.float64)
    return Summary(len(rows), int(episode.terminal), rows.mean(0).tolist(), rows.std(0).tolist())


def _join(a: Summary, b: Summary) -> Summary:
    """Chan, Golub and LeVeque's update, which does not cancel where the mean is large beside the spread."""
    rows = a.rows + b.rows
    share = b.rows / rows
    mean, other, std, other_std = (np.array(values) for values in (a.mean, b.mean, a.std, b.std))
    variance = (1 - share) * std**2 + share * other_std**2 + share * (1 - share) * (other - mean) ** 2
    return Summary(rows, a.ends + b.ends, (mean + share * (other - mean)).tolist(), np.sqrt(variance).tolist())


def _rounded(values: list[float]) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]
