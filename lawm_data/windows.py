"""Episodes -> Batch: the only place where time is cut and aligned.

A window of L transitions that starts at step k:

    observation  o_k   o_{k+1}  ...  o_{k+L}        [L+1, N, B, O]
    action          a_k     a_{k+1} ... a_{k+L-1}   [L, N, B, A], a_t leads from state t to t + 1
    reward          r_k     r_{k+1} ... r_{k+L-1}   [L, N, B], r_t is predicted from state t + 1

Shapes: L transitions, N models (each with its own pool), B windows, O observation size, A action size.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from lawm_data.episode import Episode
from lawm_data.errors import UserError

HIDDEN = 0.0  # what stands where an action is unknown; the tests poison it with NaN


@dataclass(frozen=True)
class Batch:
    """Windows of equal length; the first `num_labeled` of the B windows have their actions."""

    observation: Tensor
    action: Tensor
    reward: Tensor
    terminal: Tensor  # bool [N, B]: o_{k+L} is a true end
    labeled: Tensor  # bool [N, B]
    num_labeled: int


class Pool:
    """Episodes of one kind, packed as rows [o_t | a_t | r_t]; an episode's last row holds o_T alone."""

    def __init__(self, episodes: Iterable[Episode], labeled: bool, action_size: int, window: int = 1):
        """Raise UserError when there is no episode, or one is shorter than a window."""
        self.labeled, self.action_size, self.window = labeled, action_size, window
        self.rows, self.length, self.terminal = self._pack(episodes)  # rows: [sum(T + 1), O + A + 1]
        if not len(self):
            raise UserError(f"no {'labeled' if labeled else 'unlabeled'} episodes to train on")

    def extend(self, episodes: Iterable[Episode]) -> None:
        """Add episodes at the end."""
        new = self._pack(episodes)
        self.rows = torch.cat([self.rows, new[0]])
        self.length, self.terminal = (
            np.concatenate(pair) for pair in zip((self.length, self.terminal), new[1:], strict=True)
        )

    def _pack(self, episodes: Iterable[Episode]) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Rows, lengths and ends. Copies and frees one episode at a time, and so each mapped file once it is done."""
        left = deque(episodes)
        short = [episode for episode in left if episode.length < self.window]
        if short:
            least = min(short, key=lambda episode: episode.length)
            others = f", as are {len(short) - 1} others" if len(short) > 1 else ""
            raise UserError(
                f"{least.episode_id}: {least.length} steps, shorter than a window of {self.window}{others}; lower "
                f"train.window, or leave such out: lawm-data split --set split.min_steps={self.window}"
            )
        length = np.array([episode.length for episode in left], int)
        terminal = np.array([episode.terminal for episode in left], bool)
        width = left[0].observation.shape[1] + self.action_size + 1 if left else 0
        rows = np.zeros((np.sum(length + 1), width), np.float32)
        for end in np.cumsum(length + 1):
            episode = left.popleft()
            _pack_into(rows[end - episode.length - 1 : end], episode, self.labeled)
        return torch.from_numpy(rows), length, terminal

    @property
    def start(self) -> np.ndarray:
        """The first row of each episode."""
        return np.cumsum(self.length + 1) - (self.length + 1)

    def __len__(self) -> int:
        return len(self.length)

    @property
    def observation_size(self) -> int:
        return self.rows.shape[1] - self.action_size - 1

    def observations(self) -> Tensor:
        """All observations, [sum(T + 1), O], for statistics."""
        return self.rows[:, : self.observation_size]

    def draw(
        self, rng: np.random.Generator, count: int, window: int, even: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """First rows and terminal flags of `count` windows.

        k is uniform on [-(L-1), T-1], clipped to [0, T-L], or, if not `even`, uniform on [0, T-L]: that makes an
        episode's first and last steps L times rarer than its middle, and getting started is what evaluation tests.
        """
        over = window - 1 if even else 0  # how far a window may stand over an end before it is moved inside
        count_of = self.length - window + 1 + 2 * over
        places = np.cumsum(count_of)
        place = rng.integers(places[-1], size=count)
        episode = np.searchsorted(places, place, side="right")
        k = place - (places[episode] - count_of[episode]) - over
        k = np.clip(k, 0, self.length[episode] - window)
        return self.start[episode] + k, self.terminal[episode] & (k + window == self.length[episode])


class Windows:
    """Batches of windows for N models, a pure function of (seed, index): resuming needs only the index."""

    def __init__(
        self,
        pools: Sequence[Sequence[Pool]],
        seeds: Sequence[int],
        window: int,
        counts: Sequence[int],
        device: torch.device | str = "cpu",
        even: bool = True,
    ):
        """pools[n] are model n's pools, labeled before unlabeled; counts are the windows drawn from each.

        even: see `Pool.draw`.
        """
        assert all(window <= pool.length.min() for own in pools for pool in own), "see Pool's window"
        shared = {id(pool): pool.rows.to(device) for own in pools for pool in own}
        self.pools, self.seeds, self.window, self.counts, self.even = pools, seeds, window, list(counts), even
        self.rows = [[shared[id(pool)] for pool in own] for own in pools]
        self.offsets = torch.arange(window + 1, device=device)[:, None]
        flags = [pool.labeled for pool, count in zip(pools[0], counts, strict=True) for _ in range(count)]
        self.labeled = torch.tensor(flags, device=device).expand(len(seeds), -1)
        self.num_labeled = sum(flags)

    def batch(self, index: int, stream: str = "") -> Batch:
        """Batch number `index`; `stream` names independent sequences of batches."""
        firsts, ends = [], []
        for seed, pools in zip(self.seeds, self.pools, strict=True):
            rng = _generator(seed, stream, index)
            for pool, count in zip(pools, self.counts, strict=True):
                first, terminal = pool.draw(rng, count, self.window, self.even)
                firsts.append(first)
                ends.append(terminal)
        at = self.offsets + self._to_device(np.concatenate(firsts))  # [L+1, N * B]
        parts = [
            source.index_select(0, own.flatten()).view(*own.shape, -1)
            for source, own in zip(chain(*self.rows), at.split(self.counts * len(self.seeds), 1), strict=True)
        ]
        packed = torch.cat(parts, 1).unflatten(1, (len(self.seeds), -1))  # [L+1, N, B, O + A + 1]
        some = self.pools[0][0]
        observation, action, reward = packed.split([some.observation_size, some.action_size, 1], -1)
        end = self._to_device(np.concatenate(ends).reshape(len(self.seeds), -1))
        return Batch(observation, action[:-1], reward[:-1, ..., 0], end, self.labeled, self.num_labeled)

    def _to_device(self, x: np.ndarray) -> Tensor:
        """On the device of the rows; what copies it there is not waited for."""
        return torch.from_numpy(x).to(self.offsets.device, non_blocking=True)


class Contexts:
    """Actions with the observations around them for N models; batches are a pure function of (seed, index)."""

    def __init__(
        self,
        episodes: Sequence[Sequence[Episode]],
        seeds: Sequence[int],
        radius: int,
        count: int,
        device: torch.device | str = "cpu",
    ):
        """episodes[n] are model n's, all with actions; `count` is drawn of each model's."""
        self.seeds, self.count = seeds, count
        self.pairs = [
            (
                torch.from_numpy(np.concatenate([contexts(e.observation, radius) for e in own])).to(device),
                torch.from_numpy(np.concatenate([e.action for e in own if e.action is not None])).to(device),
            )
            for own in episodes
        ]

    def batch(self, index: int, stream: str = "") -> tuple[Tensor, Tensor]:
        """Surroundings [N, B, (2 radius + 1) O] and actions [N, B, A]; `stream` as in `Windows.batch`."""
        drawn = []
        for seed, (context, action) in zip(self.seeds, self.pairs, strict=True):
            rows = _generator(seed, stream, index).integers(len(action), size=self.count)
            at = torch.from_numpy(rows).to(action.device, non_blocking=True)
            drawn.append((context.index_select(0, at), action.index_select(0, at)))
        context, action = (torch.stack(part) for part in zip(*drawn, strict=True))
        return context, action


def check_stride(section: str, stride: int, window: int) -> None:
    """UserError where a window has too few states: update i starts from every `stride`-th, from i % stride on."""
    if stride > window + 1:
        raise UserError(f"{section}.stride is {stride}, expected {window + 1} or less, the states of a window")


def moments(pools: Sequence[Pool]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each observation dimension over exactly these pools' rows, [1, O] float32 each."""
    rows = sum(len(pool.rows) for pool in pools)
    mean = torch.stack([pool.observations().sum(0, dtype=torch.float64) for pool in pools]).sum(0) / rows
    # in place, as this is the most memory that a run takes: twice its observations
    squares = [pool.observations().double().sub_(mean).square_().sum(0) for pool in pools]
    return mean.float()[None], (torch.stack(squares).sum(0) / rows).sqrt().float()[None]


def contexts(observation: np.ndarray, radius: int) -> np.ndarray:
    """o_{t-radius} .. o_{t+radius} around each action a_t, edges repeated: [T+1, O] -> [T, (2 radius + 1) O]."""
    steps = len(observation) - 1
    around = np.arange(steps)[:, None] + np.arange(-radius, radius + 1)
    return observation[np.clip(around, 0, steps)].reshape(steps, -1)


def _generator(seed: int, stream: str, index: int) -> np.random.Generator:
    """Draws that depend on these three alone."""
    key = hashlib.blake2b(f"{seed}/{stream}/{index}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key, np.uint64)))


def _pack_into(rows: np.ndarray, episode: Episode, labeled: bool) -> None:
    """Fill zeros [T + 1, O + A + 1] with an episode. UserError for one that lacks numbers that it should have."""
    size = episode.observation.shape[1]
    rows[:, :size] = episode.observation
    if labeled:
        if episode.action is None:
            raise UserError(f"{episode.episode_id}: has no actions, but it is among the labeled episodes")
        rows[:-1, size:-1] = episode.action
    else:
        rows[:, size:-1] = HIDDEN
    rows[:-1, -1] = episode.reward
    if not all(np.isfinite(part).all() for part in ([rows] if labeled else [rows[:, :size], rows[:, -1]])):
        raise UserError(f"{episode.episode_id}: holds numbers that are not finite; leave the episode out")
