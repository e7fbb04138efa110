"""Laws of the rollout: time is aligned, environments do not mix, what is recorded is what was executed."""

from __future__ import annotations

import numpy as np
import pytest

from lawm_data import envs
from lawm_data.episode import Episode
from lawm_data.rollout import episodes, rollout

NAMES = {"env": "custom:count", "source": "made", "seed": 3}


class CountingEnv:
    """Observation is seed * 1000 + t; ends after `length` steps; pays twice the action; keeps what it executed."""

    def __init__(self, length: int, terminal: bool = False):
        self.length, self.terminal = length, terminal

    def reset(self, seed: int) -> np.ndarray:
        self.seed, self.t, self.executed = seed, 0, []
        return self._observation()

    def step(self, action: np.ndarray) -> envs.Step:
        assert self.t < self.length, "stepped beyond the end"
        self.executed.append(action.copy())
        self.t += 1
        done = self.t == self.length
        return envs.Step(self._observation(), 2 * float(action[0]), done, done and self.terminal)

    def _observation(self) -> np.ndarray:
        return np.array([self.seed * 1000 + self.t], np.float32)


def returns_time(observation: np.ndarray, first: np.ndarray) -> np.ndarray:
    return observation % 1000


def test_time_is_aligned() -> None:
    counting = [CountingEnv(length) for length in (7, 3, 5)]
    found = rollout(counting, returns_time, [4, 9, 6], **NAMES, first_order=20)
    for i, (start, length) in enumerate([(4, 7), (9, 3), (6, 5)]):
        time = np.arange(length, dtype=np.float32)
        np.testing.assert_array_equal(found[i].observation[:, 0], start * 1000 + np.arange(length + 1))
        np.testing.assert_array_equal(found[i].action[:, 0], time)
        np.testing.assert_array_equal(found[i].reward, 2 * time)
        assert found[i].episode_id == f"custom:count/made/3/{20 + i:06d}"
        assert {found[i].observation.dtype, found[i].action.dtype, found[i].reward.dtype} == {np.dtype("float32")}


def test_true_end_is_recorded() -> None:
    found = rollout([CountingEnv(3, True), CountingEnv(5, False)], returns_time, [1, 2], **NAMES, first_order=0)
    assert [episode.terminal for episode in found] == [True, False]


def test_recorded_actions_are_the_executed_ones() -> None:
    env, buffer = CountingEnv(6), np.zeros((1, 1))

    def reuses_its_array(observation: np.ndarray, first: np.ndarray) -> np.ndarray:
        buffer[:] = 0.1 * (observation % 1000)  # float64: not what float32 holds
        return buffer

    (episode,) = rollout([env], reuses_its_array, [1], **NAMES, first_order=0)
    np.testing.assert_array_equal(episode.action, np.stack(env.executed))
    assert len(np.unique(episode.action)) == 6


def test_first_marks_the_beginning_alone() -> None:
    seen = []

    def policy(observation: np.ndarray, first: np.ndarray) -> np.ndarray:
        seen.append((len(observation), first.tolist()))
        return np.zeros((len(observation), 1))

    rollout([CountingEnv(2), CountingEnv(3)], policy, [1, 2], **NAMES, first_order=0)
    assert seen == [(2, [True, True]), (2, [False, False]), (2, [False, False])]


def test_many_episodes_over_few_environments() -> None:
    counting = [CountingEnv(2), CountingEnv(3)]
    found = list(episodes(counting, returns_time, range(5), **NAMES, first_order=10))
    assert [episode.order for episode in found] == [10, 11, 12, 13, 14]
    assert [episode.observation[0, 0] for episode in found] == [0, 1000, 2000, 3000, 4000]
    assert [episode.length for episode in found] == [2, 3, 2, 3, 2]


def test_a_seed_for_each_environment() -> None:
    with pytest.raises(ValueError):
        rollout([CountingEnv(2)], returns_time, [1, 2], **NAMES, first_order=0)


def test_batch_equals_one_by_one() -> None:
    def policy(observation: np.ndarray, first: np.ndarray) -> np.ndarray:
        return np.tanh(observation[:, :1])

    def record(made: int, seeds: list[int]) -> list[Episode]:
        batch = [envs.make("pendulum-swingup") for _ in range(made)]
        return list(episodes(batch, policy, seeds, env="pendulum-swingup", source="made", seed=0))

    together, alone = record(2, [7, 8]), record(1, [7, 8])
    for one, other in zip(together, alone, strict=True):
        one.validate(3, 1)
        np.testing.assert_array_equal(one.observation, other.observation)
        np.testing.assert_array_equal(one.reward, other.reward)
    assert not np.array_equal(together[0].observation, together[1].observation)
