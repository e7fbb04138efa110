"""Make the demo's data: what a policy search on a dm_control task did, from its first fall to its best gait.

The search is augmented random search (Mania, Guy and Recht 2018, arXiv 1803.07055, version V2 with every direction kept):
a linear policy of the normalised observation is tried with weights +- a random direction, and moves along the directions
by the difference in return. First come a few episodes of uniformly random actions; then every trial is an episode
with Gaussian noise on its actions, recorded as executed. The file holds a uniform draw of all these episodes, in order,
whatever their return. No policy from elsewhere and no expert is involved.

Shapes: P policies, O observation size, A action size, D directions, T agent steps. Weights are [A, O + 1], bias last.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import click
import h5py
import numpy as np
from tqdm import tqdm

from lawm_data import envs, files
from lawm_data.collect import env_seed, random_policy
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.rollout import Policy, rollout


@dataclass(frozen=True)
class Search:
    """Settings that let cheetah-run climb from standing to a gallop within the episodes tried."""

    random: int = 40  # episodes of uniformly random actions that come first
    generations: int = 29
    directions: int = 20  # of a generation; each is two episodes, one with + and one with -
    width: float = 0.25  # standard deviation of the change to a weight
    step: float = 0.15  # learning rate, in units of the generation's standard deviation of returns
    noise: float = 0.3  # standard deviation of the noise on actions
    kept: int = 400  # episodes drawn for the file
    batch: int = 10  # episodes rolled out in step; fixed, so that no result depends on the number of processes

    @property
    def episodes(self) -> int:
        """How many are tried in all."""
        return self.random + self.generations * 2 * self.directions


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares of the observations seen so far."""

    count: int
    total: np.ndarray
    squares: np.ndarray

    def including(self, episodes: list[Episode]) -> Moments:
        observation = np.concatenate([episode.observation for episode in episodes]).astype(np.float64)
        total, squares = self.total + observation.sum(0), self.squares + np.square(observation).sum(0)
        return Moments(self.count + len(observation), total, squares)

    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, each [O]."""
        mean = self.total / self.count
        return mean, np.sqrt(np.maximum(self.squares / self.count - mean**2, 1e-4))


@dataclass(frozen=True)
class Trials:
    """Consecutive episodes of one collector; without weights their actions are uniformly random."""

    env: str
    seed: int
    orders: range
    noise: float
    weights: np.ndarray | None = None  # [P, A, O + 1]
    mean: np.ndarray | None = None  # [O]
    std: np.ndarray | None = None  # [O]

    def part(self, start: int, size: int) -> Trials:
        weights = None if self.weights is None else self.weights[start : start + size]
        return Trials(
            self.env, self.seed, self.orders[start : start + size], self.noise, weights, self.mean, self.std
        )

    def policy(self) -> Policy:
        if self.weights is None:
            return random_policy(envs.spec(self.env).action_size, self.seed, self.orders)
        return partial(_act, self, [np.random.default_rng((self.seed, order)) for order in self.orders])


def history(env: str, seed: int, search: Search, processes: int = 2) -> Iterator[Episode]:
    """Every episode of the search, in order. It depends on (env, seed, search) alone."""
    spec = envs.spec(env)
    generator = np.random.default_rng(seed)
    weights = np.zeros((spec.action_size, spec.observation_size + 1))
    # spawned, not forked: a fork of a process that runs threads may hang
    with multiprocessing.get_context("spawn").Pool(processes) as pool:

        def tried(trials: Trials) -> list[Episode]:
            parts = [trials.part(start, search.batch) for start in range(0, len(trials.orders), search.batch)]
            return [episode for part in pool.map(_roll_out, parts, chunksize=1) for episode in part]

        episodes = tried(Trials(env, seed, range(search.random), search.noise))
        yield from episodes
        moments = Moments(0, np.zeros(spec.observation_size), np.zeros(spec.observation_size)).including(episodes)
        for first in range(search.random, search.episodes, 2 * search.directions):
            directions = generator.standard_normal((search.directions, *weights.shape))
            candidates = np.concatenate([weights + search.width * directions, weights - search.width * directions])
            orders = range(first, first + len(candidates))
            episodes = tried(Trials(env, seed, orders, search.noise, candidates, *moments.scale()))
            yield from episodes
            returns = np.array([episode.episode_return for episode in episodes]).reshape(2, -1)
            weights = weights + search.step * ascent(directions, returns)
            moments = moments.including(episodes)


def ascent(directions: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """The way up, shaped like one of `directions` [D, ...]; `returns` [2, D] are those of + and of - each direction."""
    spread = max(float(returns.std()), 1e-6)  # zero while no policy earns anything
    return np.tensordot(returns[0] - returns[1], directions, 1) / (len(directions) * spread)


def write(path: Path, episodes: list[Episode]) -> None:
    """Write D4RL's layout: flat float32 arrays; `terminals` or `timeouts` is 1 on the last row of an episode."""
    arrays = {
        "observations": [episode.observation[:-1] for episode in episodes],
        "next_observations": [episode.observation[1:] for episode in episodes],
        "actions": [episode.action for episode in episodes],
        "rewards": [episode.reward for episode in episodes],
        "terminals": [_last(episode.length, episode.terminal) for episode in episodes],
        "timeouts": [_last(episode.length, not episode.terminal) for episode in episodes],
    }
    with files.new_file(path) as temporary, h5py.File(temporary, "w") as file:
        for name, parts in arrays.items():
            file[name] = np.concatenate(parts, dtype=np.float32)


def make(path: Path, env: str, seed: int, search: Search, processes: int = 2) -> list[Episode]:
    """Search, write the episodes drawn to `path` and return them."""
    drawn = set(np.random.default_rng((seed, search.episodes)).permutation(search.episodes)[: search.kept].tolist())
    tried = history(env, seed, search, processes)
    bar = tqdm(tried, f"policy search on {env}", search.episodes, unit="episode", disable=None)
    episodes = [episode for episode in bar if episode.order in drawn]
    write(path, episodes)
    return episodes


def summary(episodes: list[Episode], search: Search) -> str:
    returns = np.sort([episode.episode_return for episode in episodes])
    random = sum(episode.order < search.random for episode in episodes)
    best = returns[-max(1, len(returns) // 10) :].mean()
    quantiles = " ".join(f"{value:.0f}" for value in np.quantile(returns, [0, 0.25, 0.5, 0.75, 0.9, 1]))
    return (
        f"{len(returns)} of {search.episodes} episodes, {random} with random actions; return min p25 median p75 p90 max "
        f"{quantiles}; mean {returns.mean():.0f}, best tenth {best:.0f} ({best / returns.mean():.2f} times the mean)"
    )


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="HDF5 file to write, in D4RL's layout")
@click.option("--env", default="cheetah-run", show_default=True, help="dm_control task as domain-task")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
def main(out: Path, env: str, seed: int) -> None:
    """Record a policy search: trajectories of every quality, for `lawm-data import d4rl OUT --env ENV`."""
    search = Search()
    try:
        click.echo(f"{out}: {summary(make(out, env, seed, search), search)}")
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


def _act(trials: Trials, noise: list[np.random.Generator], observation: np.ndarray, first: np.ndarray) -> np.ndarray:
    normalised = np.clip((observation - trials.mean) / trials.std, -5, 5)
    weights = trials.weights
    action = np.matmul(weights[..., :-1], normalised[..., None])[..., 0] + weights[..., -1]
    action += trials.noise * np.stack([generator.standard_normal(action.shape[1]) for generator in noise])
    return np.clip(action, -1, 1)


def _roll_out(trials: Trials) -> list[Episode]:
    starts = [env_seed(trials.seed, order) for order in trials.orders]
    names = {"env": trials.env, "source": "search", "seed": trials.seed, "first_order": trials.orders.start}
    return rollout([_env(trials.env, i) for i in range(len(starts))], trials.policy(), starts, **names)


@cache
def _env(env: str, place: int) -> envs.SuiteEnv:
    """An environment for each place in the batch, loaded once in a process."""
    return envs.make(env)


def _last(length: int, flag: bool) -> np.ndarray:
    flags = np.zeros(length, np.float32)
    flags[-1] = flag
    return flags


if __name__ == "__main__":
    main()
