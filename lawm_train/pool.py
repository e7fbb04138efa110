"""Training on more than memory holds: a pool of trajectories that moves over the shards.

    epoch 0                          epoch 1
    | generation | generation | ...  | generation | ...

Every epoch permutes the shards of a split; consecutive ones make a generation. While one is in use the next is fetched,
checked and packed in the background, so the pool holds two, and beside them the one shard that is being packed. A
generation is used until each of its steps was drawn once on average: over an epoch a trajectory gives windows in
proportion to its length. A split that fits into its part of the pool is one generation for ever.

Which shards are held at a batch is a pure function of the dataset's digest, of what a pool of which size reads of it,
and of the batch's number, the same for all seeds: a resumed run reads the generation that it needs and none before. The
windows drawn are each seed's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, dropwhile
from typing import NamedTuple

import numpy as np
import torch

from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.summary import Summary
from lawm_data.windows import Batch, Pool, Windows
from lawm_train.data import Data, Moments, Sizes, Statistics, sizes_of
from lawm_train.stream import Dataset, ahead

GIGABYTE = 1e9


class Generation(NamedTuple):
    """The shards held from batch `begin` until `end`."""

    begin: int
    end: int
    paths: Sequence[str]


@dataclass(frozen=True)
class Split:
    """The shards of one split, not yet read. window: steps of a window."""

    dataset: Dataset
    slice_name: str
    name: str
    window: int

    @property
    def labeled(self) -> bool:
        return self.name == "labeled"

    @property
    def paths(self) -> list[str]:
        return self.dataset.manifest.slices[self.slice_name].splits.get(self.name, [])

    @property
    def trajectories(self) -> int:
        return self._rows(self.paths)

    @property
    def size(self) -> float:
        """Bytes that all its trajectories take in a `Pool`."""
        return sum(map(self.size_of, self.paths))

    def size_of(self, path: str) -> float:
        """A file holds a step's observation, reward and, if labeled, action; a `Pool` has room for all three."""
        manifest = self.dataset.manifest
        width = manifest.observation_size + 1 + manifest.action_size
        return manifest.files[path].bytes * width / (width if self.labeled else width - manifest.action_size)

    def check(self, most: float, pool_gb: float) -> None:
        """UserError where there is no trajectory, or a shard takes more than `most` bytes."""
        if not self.trajectories:
            raise UserError(f"{self.dataset.describe()}: no {self.name} episodes to train on; push or split it again")
        largest = max(self.paths, key=self.size_of)
        if self.size_of(largest) > most:
            raise UserError(
                f"{largest} takes {self.size_of(largest) / GIGABYTE:.2g} GB in memory, and a pool of {pool_gb:g} GB "
                f"has {most / GIGABYTE:.2g} for it; raise --pool-gb, or split again with a lower split.shard_mb"
            )

    @property
    def summary(self) -> Summary:
        return self.dataset.manifest.slices[self.slice_name].summaries[self.name]

    def generations(self, most: float, length: float, windows: int) -> Iterator[Generation]:
        """Of at most `most` bytes, for `windows` windows a batch and `length` steps a trajectory; without end."""
        if self.size <= most:
            yield Generation(0, sys.maxsize, self.paths)
            return
        begin = 0
        for epoch in count():
            for paths in self._grouped(self.dataset.permuted(self.paths, epoch), most):
                end = begin + max(1, round(self._rows(paths) * length / (self.window * windows)))
                yield Generation(begin, end, paths)
                begin = end

    def load(self, generation: Generation) -> tuple[Generation, Pool]:
        """Fetch the shards, check and pack them."""
        episodes = self.dataset.read(generation.paths)
        return generation, Pool(episodes, self.labeled, self.dataset.manifest.action_size, self.window)

    def _grouped(self, paths: Sequence[str], most: float) -> Iterator[list[str]]:
        group: list[str] = []
        for path in paths:
            if group and sum(map(self.size_of, [*group, path])) > most:
                yield group
                group = []
            group.append(path)
        yield group

    def _rows(self, paths: Sequence[str]) -> int:
        return sum(self.dataset.manifest.files[path].rows for path in paths)


class _Reader:
    """The generation of a split that a batch needs, the next one being loaded meanwhile."""

    def __init__(self, split: Split, most: float, length: float, windows: int):
        self.split, self.how = split, (most, length, windows)
        self.generation = Generation(-1, -1, [])  # none yet

    def holds(self, index: int) -> bool:
        return self.generation.begin <= index < self.generation.end

    def at(self, index: int) -> Pool:
        """The pool of batch `index`; any index may be asked for, the following ones are ready sooner."""
        if not self.holds(index):
            if index != self.generation.end:
                left = dropwhile(lambda one: one.end <= index, self.split.generations(*self.how))
                self.loaded = ahead(self.split.load, left)
            self.generation, self.pool = next(self.loaded)
        return self.pool


class MovingWindows:
    """As `Windows`, from the pools of `readers` as they are at each batch."""

    def __init__(
        self,
        readers: Sequence[_Reader],
        seeds: Sequence[int],
        window: int,
        counts: Sequence[int],
        device: str,
        even: bool,
    ):
        """See `Windows`."""
        self.readers, self.seeds, self.how = readers, seeds, (window, counts, device, even)
        self.windows: Windows | None = None

    def batch(self, index: int, stream: str = "") -> Batch:
        """See `Windows.batch`. UserError where a shard that it needs is damaged or cannot be fetched."""
        if self.windows is None or not all(reader.holds(index) for reader in self.readers):
            self.windows = None  # lets go of what is to be replaced
            pools = [reader.at(index) for reader in self.readers]
            self.windows = Windows([pools] * len(self.seeds), self.seeds, *self.how)
        return self.windows.batch(index, stream)


@dataclass(frozen=True)
class Moving:
    """The episodes of `models` models, of which a pool holds a part at a time; see `data.Windowed`.

    summaries, most: of each split, labeled before unlabeled; the latter bytes of a generation.
    """

    sizes: Sizes
    splits: Sequence[Split]
    summaries: Sequence[Summary]
    most: Sequence[float]
    models: int
    pool_gb: float

    @property
    def kinds(self) -> int:
        return len(self.splits)

    @property
    def labeled_counts(self) -> list[int]:
        return [self.splits[0].trajectories] * self.models

    def describe(self) -> str:
        everything = sum(split.size for split in self.splits)
        return f"windows from a moving pool, {self.pool_gb:g} of {everything / GIGABYTE:.2g} GB at a time"

    def windows(self, seeds: Sequence[int], counts: Sequence[int], device: str, even: bool = True) -> MovingWindows:
        readers = [
            _Reader(split, most, summary.rows / split.trajectories - 1, windows)
            for split, most, summary, windows in zip(self.splits, self.most, self.summaries, counts, strict=False)
        ]
        return MovingWindows(readers, seeds, self.splits[0].window, counts, device, even)

    def statistics(self) -> Statistics:
        everything = Summary.joined(self.summaries, self.sizes.observation)
        return Statistics(self._moments(self.summaries[0]), self._moments(everything))

    def sample(self) -> Data:
        """Zeros, as what an update costs depends on sizes alone: nothing is fetched for them."""
        window = self.splits[0].window
        observation = np.zeros((window + 1, self.sizes.observation), np.float32)
        action, reward = np.zeros((window, self.sizes.action), np.float32), np.zeros(window, np.float32)
        episode = Episode(observation, action, reward, terminal=False, env="zeros", source="", seed=0, order=0)
        unlabeled = [episode.stripped()] if self.kinds == 2 else []
        return Data(self.sizes, [[episode]] * self.models, [unlabeled] * self.models, window)

    def _moments(self, summary: Summary) -> Moments:
        mean, std = (torch.tensor(values).repeat(self.models, 1, 1) for values in (summary.mean, summary.std))
        return mean, std


def moving(splits: Sequence[Split], models: int, pool_gb: float) -> Moving:
    """Episodes that do not fit, labeled before unlabeled. UserError where the pool is too small for a shard."""
    most = _shares([split.size for split in splits], pool_gb * GIGABYTE)
    for split, own in zip(splits, most, strict=True):
        split.check(own, pool_gb)
    summaries = [split.summary for split in splits]
    terminal = any(summary.ends for summary in summaries)
    sizes = sizes_of(splits[0].dataset.manifest, splits[0].slice_name, terminal)
    return Moving(sizes, splits, summaries, most, models, pool_gb)


def _shares(sizes: Sequence[float], budget: float) -> list[float]:
    """Bytes to hold of each split at a time, smallest first: all of one that fits an equal part of what is left,
    half of that part of others, as their next generation is loaded meanwhile.
    """
    shares = [0.0] * len(sizes)
    by_size = sorted(range(len(sizes)), key=sizes.__getitem__)
    for rank, k in enumerate(by_size):
        part = budget / (len(sizes) - rank)
        shares[k] = sizes[k] if sizes[k] <= part else part / 2
        budget -= min(sizes[k], part)
    return shares
