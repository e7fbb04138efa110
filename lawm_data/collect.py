"""The collector: rounds of episodes into the raw store, each made durable before the checkpoint that names the next.

Episode k of seed s depends on (s, k) alone, whatever the round size and however often the collection was interrupted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from lawm_data import envs, files
from lawm_data.config import check_least
from lawm_data.errors import UserError
from lawm_data.rollout import Policy, rollout
from lawm_data.store import Store


@dataclass(frozen=True)
class Config:
    """The recipe's `collect` section."""

    policy: Literal["random"] = "random"
    seeds: int = 1  # collectors, with seeds 0, 1, ...
    episodes: int = 600  # of each seed
    repeat: int = 2  # simulator steps to an agent step
    round: int = 10  # episodes rolled out in step and stored together; a kill costs at most these

    def __post_init__(self) -> None:
        check_least("collect", self, seeds=1, episodes=1, repeat=1, round=1)


def collect(raw_root: Path, env: str, config: Config) -> None:
    """Collect `config.episodes` episodes of each seed into `<raw_root>/<env>/<policy>`, or what is missing of them."""
    spec = envs.spec(env, config.repeat)
    store, source = Store(raw_root), config.policy
    folder = store.root / env / source
    files.sweep(folder.parent)
    if source not in store.sources(env):
        store.create(env, source, _meta(spec))
    made_with = store.meta(env, source)["repeat"]
    if made_with != config.repeat:
        raise UserError(f"{folder}: collected with repeat {made_with}, now {config.repeat}; use another --root")
    orders = [_resume(store, env, source, seed) for seed in range(config.seeds)]
    total, done = config.seeds * config.episodes, sum(min(order, config.episodes) for order in orders)
    workers = [envs.make(env, config.repeat) for _ in range(min(config.round, total - done))]
    with tqdm(total=total, initial=done, desc=f"collect {env}", unit="episode", disable=None) as bar:
        for seed, order in enumerate(orders):
            _collect_seed(store, spec, config, seed, order, workers, bar)
    print(f"{folder}: {total - done} episodes collected, {done} were there; next: lawm-data split")


def env_seed(seed: int, order: int) -> int:
    """The simulator's seed for episode `order` of collector `seed`: 64 bits that no other use of seeds will hit."""
    digest = hashlib.blake2b(f"{seed}/{order}".encode(), key=b"lawm collect", digest_size=8).digest()
    return int.from_bytes(digest)


def random_policy(action_size: int, seed: int, orders: Sequence[int]) -> Policy:
    """Uniform in [-1, 1] at every agent step; the draws for an episode follow from (seed, order)."""
    generators = [np.random.default_rng((seed, order)) for order in orders]

    def act(observation: np.ndarray, first: np.ndarray) -> np.ndarray:
        return np.stack([generator.uniform(-1, 1, action_size) for generator in generators])

    return act


def _collect_seed(
    store: Store, spec: envs.Spec, config: Config, seed: int, order: int, workers: list[envs.SuiteEnv], bar: tqdm
) -> None:
    while order < config.episodes:
        orders = range(order, min(order + config.round, config.episodes))
        episodes = rollout(
            workers[: len(orders)],
            random_policy(spec.action_size, seed, orders),
            [env_seed(seed, k) for k in orders],
            env=spec.env,
            source=config.policy,
            seed=seed,
            first_order=order,
        )
        for episode in episodes:
            episode.validate(spec.observation_size, spec.action_size)
        store.append(spec.env, config.policy, seed, episodes)
        order = orders.stop
        files.write_json(_checkpoint(store, spec.env, config.policy, seed), {"next_order": order})
        bar.update(len(orders))


def _checkpoint(store: Store, env: str, source: str, seed: int) -> Path:
    return store.root / env / source / str(seed) / "checkpoint.json"


def _resume(store: Store, env: str, source: str, seed: int) -> int:
    """The next order of a seed, after what lies beyond its checkpoint was discarded."""
    checkpoint = _checkpoint(store, env, source, seed)
    saved = files.read_json(checkpoint) if checkpoint.exists() else {"next_order": 0}
    if not isinstance(saved, dict) or not isinstance(saved.get("next_order"), int):
        raise UserError(f"{checkpoint}: no checkpoint, 'next_order' is missing; delete {checkpoint.parent}")
    order = saved["next_order"]
    store.discard(env, source, seed, order)
    stored = sum(row.seed == seed for row in store.rows(env, source))
    if stored != order:
        raise UserError(
            f"{checkpoint}: says {order} episodes, {stored} are there; delete {checkpoint.parent} to collect again"
        )
    return order


def _meta(spec: envs.Spec) -> dict:
    return {
        "layout": [list(part) for part in spec.layout],
        "action_size": spec.action_size,
        "repeat": spec.repeat,
        "collected": "random policy, uniform in [-1, 1] at every agent step",
        "credits": None,
        "slice": None,
    }
