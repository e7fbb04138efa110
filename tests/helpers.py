"""Small real data for the tests: nothing here touches the network or needs an account."""

from __future__ import annotations

import numpy as np

from lawm_data.episode import Episode


def counting_episode(
    order: int, length: int = 20, seed: int = 0, source: str = "count", actions: bool = True
) -> Episode:
    """Observation t is order * 1000 + t, action t is t / length, reward t (on the way to t + 1) is order + t / 1000.

    Whoever shifts, mixes or cuts time somewhere between a store and a batch breaks this count.
    """
    count = order * 1000 + np.arange(length + 1, dtype=np.float32)
    steps = np.arange(length, dtype=np.float32)
    return Episode(
        observation=np.stack([count, -count], axis=1),
        action=np.stack([steps / length], axis=1) if actions else None,
        reward=order + steps / 1000,
        terminal=False,
        env="custom:count",
        source=source,
        seed=seed,
        order=order,
    )


def random_episode(
    order: int,
    length: int = 60,
    observation_size: int = 5,
    action_size: int = 2,
    seed: int = 0,
    source: str = "made",
    env: str = "custom:made",
    mean_reward: float = 0.5,
) -> Episode:
    """A linear system pushed by random actions: the observation carries the action, as in a real recording."""
    rng = np.random.default_rng([seed, order, length])
    mix = np.random.default_rng(7).normal(size=(action_size, observation_size)).astype(np.float32)
    action = rng.uniform(-1, 1, (length, action_size)).astype(np.float32)
    observation = np.zeros((length + 1, observation_size), np.float32)
    observation[0] = rng.normal(size=observation_size)
    for t in range(length):
        observation[t + 1] = 0.9 * observation[t] + action[t] @ mix
    reward = np.clip(mean_reward + 0.3 * np.tanh(observation[1:, 0]), 0, 2).astype(np.float32)
    return Episode(observation, action, reward, False, env, source, seed, order)
