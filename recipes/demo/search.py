"""Make the demo's data: all that a policy search on a dm_control task tried, from standing still to its best gait.

The search is augmented random search (Mania, Guy and Recht 2018, arXiv 1803.07055; V2, keeping every direction): a
linear policy of the normalised observation is tried with random directions added to and taken from its weights, and
moves along them by the difference in return. First come episodes of random actions. Every later generation tries the
policy itself a few times too. All actions carry Gaussian noise and are recorded as executed. The file holds a uniform
draw of these episodes, in order, whatever their return. No policy from elsewhere and no expert takes part.

Shapes: P policies, O observation size, A action size, D directions, T agent steps; weights are [A, O + 1], bias last.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing.pool import Pool
from pathlib import Path

import click
import h5py
import numpy as np
from tqdm import tqdm

from lawm_data import envs, files
from lawm_data.collect import env_seed
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.rollout import rollout

BATCH = 10  # episodes rolled out in step: fixed, so that no number depends on how many processes share them


@dataclass(frozen=True)
class Search:
    """The defaults take cheetah-run from a standstill to about 3 m/s, of the 10 that earn its full reward."""

    random: int = 120  # episodes that come first: Gaussian actions of standard deviation 1, clipped to [-1, 1]
    generations: int = 32
    directions: int = 18  # of a generation; each is two episodes, one with + and one with -
    repeats: int = 4  # episodes of the policy itself in a generation
    width: float = 0.25  # standard deviation of a direction's change to a weight
    step: float = 0.15  # learning rate, in units of the generation's standard deviation of returns
    noise: float = 0.25  # standard deviation of the noise on actions
    kept: int = 400  # episodes drawn for the file

    @property
    def episodes(self) -> int:
        """How many are tried in all."""
        return self.random + self.generations * (2 * self.directions + self.repeats)


@dataclass(frozen=True)
class Linear:
    """P linear policies, each for an episode of its own: weights [P, A, O + 1], mean and std [O], noise on actions."""

    weights: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    noise: float

    def part(self, start: int) -> Linear:
        return Linear(self.weights[start : start + BATCH], self.mean, self.std, self.noise)

    def act(self, observation: np.ndarray, generators: list[np.random.Generator]) -> np.ndarray:
        """observation [P, O], the generator of each episode's noise -> action [P, A]."""
        normalised = np.clip((observation - self.mean) / self.std, -5, 5)
        action = np.matmul(self.weights[..., :-1], normalised[..., None])[..., 0] + self.weights[..., -1]
        noise = np.stack([generator.standard_normal(action.shape[1]) for generator in generators])
        return np.clip(action + self.noise * noise, -1, 1)


class Moments:
    """Count, sum and sum of squares of the observations [O] seen so far."""

    def __init__(self, size: int) -> None:
        self.count, self.total, self.squares = 0, np.zeros(size), np.zeros(size)

    def add(self, episodes: list[Episode]) -> None:
        observation = np.concatenate([episode.observation for episode in episodes]).astype(np.float64)
        self.count += len(observation)
        self.total += observation.sum(axis=0)
        self.squares += np.square(observation).sum(axis=0)

    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, [O] each."""
        mean = self.total / self.count
        return mean, np.sqrt(np.maximum(self.squares / self.count - mean**2, 1e-4))


def history(env: str, seed: int, search: Search, processes: int = 2) -> Iterator[Episode]:
    """Every episode of the search, in order. It depends on (env, seed, search) alone."""
    spec = envs.spec(env)
    generator = np.random.default_rng(seed)
    moments, size = Moments(spec.observation_size), (spec.action_size, spec.observation_size + 1)
    # spawned, not forked: a fork of a process that runs threads may hang
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        noise_alone = Linear(np.zeros((search.random, *size)), np.zeros(size[1] - 1), np.ones(size[1] - 1), 1.0)
        episodes = _tried(pool, env, seed, 0, noise_alone)
        yield from episodes
        weights = np.zeros(size)
        for first in range(search.random, search.episodes, 2 * search.directions + search.repeats):
            moments.add(episodes)
            directions = generator.standard_normal((search.directions, *size))
            change = search.width * np.concatenate([directions, -directions, np.zeros((search.repeats, *size))])
            episodes = _tried(pool, env, seed, first, Linear(weights + change, *moments.scale(), search.noise))
            yield from episodes
            returns = [episode.episode_return for episode in episodes[: 2 * search.directions]]
            weights = weights + search.step * ascent(directions, np.reshape(returns, (2, -1)))


def ascent(directions: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """The way up, shaped like one of `directions` [D, ...]; `returns` [2, D] are those of + and of - each direction."""
    spread = max(float(returns.std()), 1e-6)  # zero where no policy earns anything
    return np.tensordot(returns[0] - returns[1], directions, axes=1) / (len(directions) * spread)


def write(path: Path, episodes: list[Episode]) -> None:
    """Write D4RL's layout: flat float32 arrays; `terminals` or `timeouts` is 1 on the last row of an episode."""
    arrays: dict[str, list] = {
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
    quantiles = " ".join(f"{value:.0f}" for value in np.quantile(returns, [0, 0.25, 0.5, 0.75, 0.9, 1]))
    best = returns[-max(1, len(returns) // 10) :].mean()
    return (
        f"{len(returns)} of the {search.episodes} episodes tried, {random} of them random; "
        f"return: min p25 median p75 p90 max {quantiles}, mean {returns.mean():.0f}, best tenth {best:.0f}"
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


def _tried(pool: Pool, env: str, seed: int, first: int, policies: Linear) -> list[Episode]:
    """One episode of each policy, in orders from `first`."""
    starts = range(0, len(policies.weights), BATCH)
    parts = [(env, seed, first + start, policies.part(start)) for start in starts]
    return [episode for part in pool.starmap(_roll_out, parts, chunksize=1) for episode in part]


def _roll_out(env: str, seed: int, first: int, policies: Linear) -> list[Episode]:
    orders = range(first, first + len(policies.weights))
    workers, starts = [_env(env, place) for place in range(len(orders))], [env_seed(seed, order) for order in orders]
    noise = [np.random.default_rng((seed, order)) for order in orders]

    def act(observation: np.ndarray, first: np.ndarray) -> np.ndarray:
        return policies.act(observation, noise)

    return rollout(workers, act, starts, env=env, source="search", seed=seed, first_order=orders.start)


@cache
def _env(env: str, place: int) -> envs.SuiteEnv:
    """An environment for each place in a batch, loaded once in a process."""
    return envs.make(env)


def _last(length: int, flag: bool) -> np.ndarray:
    return np.append(np.zeros(length - 1), flag)


if __name__ == "__main__":
    main()
