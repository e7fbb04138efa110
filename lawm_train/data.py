"""What a run learns from: the episodes of a slice, and whose actions it may read.

Shapes: N models (seeds side by side), O observation size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from lawm_data import labels
from lawm_data.draw import rank
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.manifest import Manifest
from lawm_data.windows import Batch, Pool, Windows, moments
from lawm_train.stream import Dataset

Pair = tuple[list[Episode], list[Episode]]
"""Labeled and unlabeled episodes of one model."""
Draw = tuple[float, int]  # of labels: the fraction that keeps its actions, and the seed
FREE_NATS_SLICES = ("medium-replay", "plan2explore")  # Table 2
Moments = tuple[Tensor, Tensor]
"""Mean and standard deviation of each observation dimension, [N, 1, O] each."""


@dataclass(frozen=True)
class Labels:
    """Whose actions may be read: those of the dataset's own draw, of a draw made anew, or (oracle) everybody's.

    fraction, seed: of the new draw; where None, as the dataset has it. Seed `own` is the training seed of each model.
    """

    oracle: bool = False
    fraction: float | None = None
    seed: int | Literal["own"] | None = None

    @property
    def named(self) -> bool:
        """Whether a fraction or a seed was asked for."""
        return self.fraction is not None or self.seed is not None

    def redrawn(self, manifest: Manifest, seeds: Sequence[int]) -> bool:
        """Whether labels are drawn anew: where every recorded action is kept, a seed alone draws nothing."""
        return self.named and any(self.draws(manifest, seeds))

    def describe(self, manifest: Manifest, seeds: Sequence[int]) -> str:
        """For the first line that a training prints."""
        if self.oracle:
            return " with all actions given (oracle)"
        return " with labels drawn anew" if self.redrawn(manifest, seeds) else ""

    def draw(self, manifest: Manifest, seed: int) -> tuple[float | None, int]:
        """Fraction and label seed of the model with training seed `seed`; the dataset's where nothing is drawn."""
        fraction = manifest.label_fraction if self.fraction is None else self.fraction
        if fraction is None or self.seed is None:
            return fraction, manifest.label_seed
        return fraction, seed if self.seed == "own" else self.seed

    def draws(self, manifest: Manifest, seeds: Sequence[int]) -> list[Draw | None]:
        """What decides whose actions each model reads; None where all that were recorded are kept."""
        draws = (self.draw(manifest, seed) for seed in seeds)
        return [None if fraction is None else (fraction, seed) for fraction, seed in draws]


@dataclass(frozen=True)
class Sizes:
    """What a method must know of the data before it sees any. free_nats: what Table 2 gives the slice."""

    observation: int
    action: int
    terminal: bool
    free_nats: float


class Statistics(NamedTuple):
    """Of exactly the rows that each model trains on: the labeled ones alone, and all."""

    labeled: Moments
    all: Moments

    @classmethod
    def blank(cls, observation: int) -> Statistics:
        """For one model, to be overwritten by a checkpoint's."""
        moments = torch.zeros(1, 1, observation), torch.ones(1, 1, observation)
        return cls(moments, moments)


class Batches(Protocol):
    """`Windows`, or what draws from a pool that moves; see `Windows.batch`."""

    def batch(self, index: int, stream: str = "") -> Batch: ...


class Windowed(Protocol):
    """What methods learn from: windows of the episodes of N models, drawn from all of them or from a moving pool."""

    @property
    def sizes(self) -> Sizes: ...

    @property
    def kinds(self) -> int:
        """2 where there are unlabeled episodes beside the labeled, else 1."""

    @property
    def labeled_counts(self) -> list[int]:
        """How many labeled episodes each model has."""

    def describe(self) -> str:
        """What the pool holds, for the first line that a training prints."""

    def windows(self, seeds: Sequence[int], counts: Sequence[int], device: str, even: bool = True) -> Batches:
        """counts: windows a batch of each kind, labeled before unlabeled; kinds without a count are left out.

        even: see `Pool.draw`.
        """

    def statistics(self) -> Statistics: ...

    def sample(self) -> Data:
        """One episode of each kind, to time updates with."""


@dataclass(frozen=True)
class Data:
    """The episodes of each model: `labeled[n]`, and `unlabeled[n]`, empty where everything is labeled.

    window: steps that every episode must have.
    """

    sizes: Sizes
    labeled: Sequence[list[Episode]]
    unlabeled: Sequence[list[Episode]]
    window: int = 1

    @cached_property
    def pools(self) -> list[list[Pool]]:
        """Each model's pools, labeled before unlabeled; models of the same episodes share one."""
        made: dict[int, Pool] = {}

        def pool(episodes: list[Episode], labeled: bool) -> Pool:
            if id(episodes) not in made:
                made[id(episodes)] = Pool(episodes, labeled, self.sizes.action, self.window)
            return made[id(episodes)]

        pairs = zip(self.labeled, self.unlabeled, strict=True)
        return [[pool(known, True), *([pool(hidden, False)] if hidden else [])] for known, hidden in pairs]

    @property
    def kinds(self) -> int:
        return len(self.pools[0])

    @property
    def labeled_counts(self) -> list[int]:
        return [len(own) for own in self.labeled]

    def describe(self) -> str:
        return "windows drawn uniformly from all"

    def windows(self, seeds: Sequence[int], counts: Sequence[int], device: str, even: bool = True) -> Windows:
        return Windows([pools[: len(counts)] for pools in self.pools], seeds, self.window, counts, device, even)

    def statistics(self) -> Statistics:
        own = [(moments(pools[:1]), moments(pools)) for pools in self.pools]
        return Statistics(*(_stacked(part) for part in zip(*own, strict=True)))

    def sample(self) -> Data:
        return replace(self, labeled=[own[:1] for own in self.labeled], unlabeled=[own[:1] for own in self.unlabeled])


def load(dataset: Dataset, slice_name: str, wanted: Labels, seeds: Sequence[int], unlabeled: bool, window: int) -> Data:
    """Read a slice for one model a seed; its action-free episodes only if the method wants them (`unlabeled`).

    The order of the episodes is that of a keyed hash, whichever of them are labeled: a draw made anew gives the very
    batches of a dataset that was split with it.
    """
    redrawn = wanted.redrawn(dataset.manifest, seeds)
    if wanted.oracle:
        pairs: list[Pair] = [(_all_known(dataset, slice_name), [])] * len(seeds)
    elif redrawn:
        pairs = _redrawn(dataset, slice_name, wanted, seeds)
    else:
        hidden = _ordered(dataset.episodes(slice_name, "unlabeled")) if unlabeled else []
        pairs = [(_ordered(dataset.episodes(slice_name, "labeled")), hidden)] * len(seeds)
    known, others = [pair[0] for pair in pairs], [pair[1] if unlabeled else [] for pair in pairs]
    # of the splits that are read, whichever of their episodes a seed draws: it has the heads that it has alone
    summaries = dataset.manifest.slices[slice_name].summaries
    both = unlabeled or wanted.oracle or redrawn
    terminal = any(summary.ends for split, summary in summaries.items() if both or split == "labeled")
    return Data(sizes_of(dataset.manifest, slice_name, terminal), known, others, window)


def check_labeled(dataset: Dataset, slice_name: str, method: str) -> None:
    """UserError where no episode is labeled."""
    if not dataset.manifest.slices[slice_name].splits.get("labeled"):
        raise UserError(
            f"{dataset.describe()}: slice {slice_name} has no labeled episodes, and method {method} needs some; "
            "import episodes with actions and split again"
        )


def sizes_of(manifest: Manifest, slice_name: str, terminal: bool) -> Sizes:
    free_nats = 1.0 if slice_name in FREE_NATS_SLICES else 0.0
    return Sizes(manifest.observation_size, manifest.action_size, terminal, free_nats)


def everything(dataset: Dataset, slice_name: str) -> list[Episode]:
    """The whole slice, with the actions that were withheld. UserError where their files are not there."""
    withheld = bool(dataset.manifest.slices[slice_name].splits.get("withheld"))
    hidden = dataset.episodes(slice_name, "unlabeled", with_actions=withheld)
    return _ordered([*dataset.episodes(slice_name, "labeled"), *hidden])


def _all_known(dataset: Dataset, slice_name: str) -> list[Episode]:
    """`everything`; UserError where some of it was recorded without actions."""
    episodes = everything(dataset, slice_name)
    if lacking := sum(episode.action is None for episode in episodes):
        raise UserError(
            f"{dataset.describe()}: {lacking} of {len(episodes)} episodes in slice {slice_name} were recorded without "
            "actions, so there is no oracle; leave out --oracle, or set grid.oracle=[]"
        )
    return episodes


def _redrawn(dataset: Dataset, slice_name: str, wanted: Labels, seeds: Sequence[int]) -> list[Pair]:
    """The pair of each model by the rule of `split`, the rest stripped; equal draws share their lists."""
    episodes, draws = everything(dataset, slice_name), wanted.draws(dataset.manifest, seeds)
    pairs: dict[Draw | None, Pair] = {}
    for draw in set(draws):
        known, others = parted_by_draw(episodes, *(draw or (None, 0)))
        pairs[draw] = known, [episode.stripped() for episode in others]
    return [pairs[draw] for draw in draws]


def parted_by_draw(episodes: Sequence[Episode], fraction: float | None, seed: int) -> Pair:
    """The episodes whose actions a draw of the labels keeps, and the others, not stripped; both in their order."""
    known = [episode.episode_id for episode in episodes if episode.action is not None]
    drawn = labels.drawn(known, len(episodes), fraction, seed)
    return (
        [episode for episode in episodes if episode.episode_id in drawn],
        [episode for episode in episodes if episode.episode_id not in drawn],
    )


def _ordered(episodes: Iterable[Episode]) -> list[Episode]:
    return sorted(episodes, key=lambda episode: rank("shard", 0, episode.episode_id))


def _stacked(own: Sequence[Moments]) -> Moments:
    mean, std = zip(*own, strict=True)
    return torch.stack(mean), torch.stack(std)
