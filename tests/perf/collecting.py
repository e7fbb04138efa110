"""The collector: stepping alone, acting and stepping, learning, and what an episode costs of each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lawm_data import envs, rollout
from lawm_data.bench import Row, median_seconds
from lawm_data.collect import Config, env_seed, random_policy
from lawm_data.episode import Episode
from lawm_data.learner import Learner
from lawm_data.rollout import Policy
from lawm_data.runs import Run

ENV = "walker-walk"


def rows(repeats: int) -> Iterator[Row]:
    """With the defaults of the recipe `cpu`, one thread."""
    config = Config()
    spec = envs.spec(ENV, config.repeat)
    workers = [envs.make(ENV, config.repeat) for _ in range(config.round)]
    control_steps = config.round * spec.episode_length * config.repeat

    def episodes(policy: Policy) -> list[Episode]:
        starts = [env_seed(0, order) for order in range(config.round)]
        return rollout.rollout(workers, policy, starts, env=ENV, source="bench", seed=0, first_order=0)

    def still(observation: np.ndarray, first: np.ndarray) -> np.ndarray:
        return np.zeros((config.round, spec.action_size), np.float32)

    how = f"{ENV}, {config.round} environments in step; median of {repeats}"
    stepping = median_seconds(lambda: episodes(still), repeats)
    yield Row("collector: stepping alone", f"{control_steps / stepping:,.0f} control steps/s", "", how)
    with tempfile.TemporaryDirectory() as folder:
        learner = Learner(spec, config.dreamer, None, 0, Run(Path(folder)), "cpu", config.threads)
        seen = episodes(random_policy(spec.action_size, 0, range(config.round)))
        acting = median_seconds(lambda: episodes(learner.policy(0)), repeats)
        yield Row("collector: acting and stepping", f"{control_steps / acting:,.0f} control steps/s", "", how)
        learning = median_seconds(lambda: learner.learn(seen, {}, lambda share: None), repeats)
    updates = config.round * config.dreamer.updates
    how = f"{updates} updates, one thread, checkpoint included; median of {repeats}"
    yield Row("collector: learning", f"{updates / learning:.1f} updates/s", "", how)
    parts = {"stepping": stepping, "acting": acting - stepping, "learning": learning}
    split = ", ".join(f"{name} {seconds / config.round:.2f}" for name, seconds in parts.items())
    seconds = (acting + learning) / config.round
    yield Row("collector: one episode", f"{seconds:.2f} s", "", f"of these {split} s; {3600 / seconds:,.0f} episodes/h")
