"""Laws of the environments: over a few tasks of every shape, and over the whole suite in the slow run."""

from __future__ import annotations

import numpy as np
import pytest

from lawm_data import envs
from lawm_data.errors import UserError

REPRESENTATIVE = [
    "walker-walk",
    "cheetah-run",
    "hopper-stand",
    "ball_in_cup-catch",  # an underscore in the domain
    "finger-turn_easy",  # a scalar in the observation, a target drawn at reset
    "quadruped-walk",  # bounds other than [-1, 1]
]
REFUSED = {"lqr-lqr_2_1", "lqr-lqr_6_2", "quadruped-escape"}


def every_task() -> list:
    others = sorted(set(envs.names()) - set(REPRESENTATIVE) - REFUSED)
    return REPRESENTATIVE + [pytest.param(name, marks=pytest.mark.slow) for name in others]


def play(env: envs.SuiteEnv, seed: int, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    observations, rewards = [env.reset(seed)], []
    for action in actions:
        observation, reward, _, _ = env.step(action)
        observations.append(observation)
        rewards.append(reward)
    return np.stack(observations), np.array(rewards)


def random_actions(spec: envs.Spec, length: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(-1, 1, (length, spec.action_size)).astype(np.float32)


@pytest.mark.parametrize("name", every_task())
def test_task_keeps_the_laws(name: str) -> None:
    spec, env = envs.spec(name), envs.make(name)
    actions = random_actions(spec, 12)
    observations, rewards = play(env, 5, actions)

    assert spec.env == name and spec.episode_length == 500
    assert observations.shape == (13, spec.observation_size) and observations.dtype == np.float32
    assert sum(size for _, size in spec.layout) == spec.observation_size
    assert np.all(rewards >= 0) and np.all(rewards <= 2)

    play(env, 6, actions[::-1])  # an episode between must leave no trace
    again, rewards_again = play(env, 5, actions)
    np.testing.assert_array_equal(again, observations)
    np.testing.assert_array_equal(rewards_again, rewards)
    fresh, _ = play(envs.make(name), 5, actions)
    np.testing.assert_array_equal(fresh, observations)
    assert not np.array_equal(env.reset(6), observations[0])


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_repeat_is_that_many_single_steps(name: str) -> None:
    once, thrice = envs.make(name, repeat=1), envs.make(name, repeat=3)
    actions = random_actions(envs.spec(name), 8)
    single, single_rewards = play(once, 1, np.repeat(actions, 3, axis=0))
    repeated, repeated_rewards = play(thrice, 1, actions)
    np.testing.assert_array_equal(repeated, single[::3])
    np.testing.assert_allclose(repeated_rewards, single_rewards.reshape(8, 3).sum(1))


def test_observations_share_no_memory() -> None:
    env = envs.make("walker-walk")
    first = env.reset(0)
    kept = first.copy()
    second, *_ = env.step(np.ones(6, np.float32))
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)


def test_layout_follows_the_observation() -> None:
    assert envs.spec("walker-walk").layout == (("orientations", 14), ("height", 1), ("velocity", 9))
    env = envs.make("walker-walk")
    env.reset(0)
    parts = env._task.task.get_observation(env._task.physics)
    observation = env.reset(0)
    assert observation[14] == np.float32(parts["height"])
    np.testing.assert_array_equal(observation[15:], parts["velocity"].astype(np.float32))


def test_actions_span_the_bounds_of_the_task() -> None:
    env = envs.make("quadruped-walk", repeat=1)
    bounds = env._task.action_spec()
    assert bounds.maximum.max() > 1
    for action, control in [(1.0, bounds.maximum), (-1.0, bounds.minimum)]:
        env.reset(0)
        env.step(np.full(bounds.shape, action, np.float32))
        np.testing.assert_allclose(env._task.physics.control(), control)


@pytest.mark.parametrize("repeat", [0, 1001, 10**23])
def test_an_episode_has_the_control_steps_that_a_repeat_takes(repeat: int) -> None:
    assert envs.spec("pendulum-swingup", 1000).episode_length == 1
    with pytest.raises(UserError, match=f"action repeat {repeat}: expected 1 to 1000, the control steps of an episode"):
        envs.spec("pendulum-swingup", repeat)


@pytest.mark.parametrize(("repeat", "length"), [(2, 500), (3, 334)])
def test_time_limit_is_done_and_not_terminal(repeat: int, length: int) -> None:
    env, still = envs.make("pendulum-swingup", repeat), np.zeros(1, np.float32)
    env.reset(0)
    steps = [env.step(still) for _ in range(length)]
    assert [step.done for step in steps] == [False] * (length - 1) + [True]
    assert not any(step.terminal for step in steps)
    assert envs.spec("pendulum-swingup", repeat).episode_length == length
    with pytest.raises(RuntimeError, match="reset"):
        env.step(still)


def test_last_step_without_discount_is_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    env = envs.make("pendulum-swingup")
    env.reset(0)
    monkeypatch.setattr(env._task.task, "get_termination", lambda physics: 0.0)
    step = env.step(np.zeros(1, np.float32))
    assert step.done and step.terminal


def test_large_seeds_differ() -> None:
    env = envs.make("pendulum-swingup")
    starts = {env.reset(seed).tobytes() for seed in (1, 1 + 2**32, 1 + 2**63)}
    assert len(starts) == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.5])
def test_action_that_cannot_be_executed(bad: float) -> None:
    env = envs.make("walker-walk")
    env.reset(0)
    action = np.zeros(6, np.float32)
    action[4] = bad
    with pytest.raises(UserError, match="walker-walk: column 4 .* is (nan|inf|-1.5)"):
        env.step(action)


def test_task_that_needs_a_renderer() -> None:
    with pytest.raises(UserError, match="quadruped-escape: .* MUJOCO_GL=egl"):
        envs.make("quadruped-escape").reset(0)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("walker-wlak", "did you mean walker-walk"),
        ("walker_walk", "did you mean walker-walk"),
        ("ball-in-cup-catch", "did you mean ball_in_cup-catch"),
        ("x", "domain-task"),
        ("lqr-lqr_2_1", "lqr-lqr_2_1: its actions have no bounds"),
    ],
)
def test_no_such_task(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        envs.make(name)
