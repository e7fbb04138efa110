"""dm_control tasks by name, as `domain-task`: seeded episodes, action repeat, one fixed observation layout.

Shapes: O observation size, A action size. dm_control is imported with the first task, not with this module.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import math
import os
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from lawm_data.episode import ACTION_TOLERANCE
from lawm_data.errors import UserError

LARGEST_BOUND = 1e6  # of actions: beyond, [-1, 1] has no meaning


class Spec(NamedTuple):
    """What a recording of `env` looks like; `layout` is (name, size) of each part of the observation, in order.

    episode_length and control_steps: agent and control steps until the time limit.
    """

    env: str
    layout: tuple[tuple[str, int], ...]
    observation_size: int
    action_size: int
    repeat: int
    episode_length: int
    control_steps: int


class Step(NamedTuple):
    """observation: float32 [O]; reward: summed over the repeat; terminal: a true end, which a time limit is not."""

    observation: np.ndarray
    reward: float
    done: bool
    terminal: bool


class Env(Protocol):
    """What `rollout` needs of an environment."""

    def reset(self, seed: int) -> np.ndarray: ...

    def step(self, action: np.ndarray) -> Step: ...


def names() -> list[str]:
    """Every task of the suite, as `domain-task`."""
    return sorted(_tasks())


@cache
def spec(env: str, repeat: int = 2) -> Spec:
    """Sizes and layout of a task; UserError when there is none of that name, its actions have no bounds, or an episode
    has no `repeat` control steps.
    """
    task = _load(env)
    bounds = task.action_spec()
    # lqr alone: its bounds are +-1e10
    if max(np.abs(bounds.minimum).max(), np.abs(bounds.maximum).max()) > LARGEST_BOUND:
        raise UserError(f"{env}: its actions have no bounds to scale [-1, 1] to; choose another task")
    steps = math.ceil(task._step_limit)
    if not 1 <= repeat <= steps:
        raise UserError(f"action repeat {repeat}: expected 1 to {steps}, the control steps of an episode of {env}")
    layout = tuple((name, math.prod(part.shape)) for name, part in task.observation_spec().items())
    return Spec(
        env=env,
        layout=layout,
        observation_size=sum(size for _, size in layout),
        action_size=math.prod(bounds.shape),
        repeat=repeat,
        episode_length=math.ceil(steps / repeat),
        control_steps=steps,
    )


def make(env: str, repeat: int = 2) -> SuiteEnv:
    """An environment of its own: several share nothing."""
    return SuiteEnv(spec(env, repeat), _load(env))


class SuiteEnv:
    """A dm_control task whose episode depends on nothing but the seed given to `reset` and the actions."""

    def __init__(self, spec: Spec, task: Any):
        bounds = task.action_spec()
        self.spec = spec
        self._task = task
        self._center = (bounds.maximum + bounds.minimum) / 2
        self._half = (bounds.maximum - bounds.minimum) / 2

    def reset(self, seed: int) -> np.ndarray:
        """Begin the episode of that seed (any integer from 0); return o_0, float32 [O]."""
        # RandomState takes 32 bits as they are; a seed sequence spreads seeds of any size over the whole state
        self._task.task.random.seed(np.random.SeedSequence(seed).generate_state(8))
        try:
            return self._observation(self._task.reset())
        except RuntimeError as error:
            if "OpenGL" not in str(error):
                raise
            raise UserError(  # quadruped-escape alone: it uploads its terrain to a renderer
                f"{self.spec.env}: this task needs a renderer; set MUJOCO_GL=egl (or osmesa), or choose another task"
            ) from error

    def step(self, action: np.ndarray) -> Step:
        """Apply `action` [A] in [-1, 1] `repeat` times, or until the episode ends."""
        control = self._center + self._half * self._checked(action)
        reward = 0.0
        for _ in range(self.spec.repeat):
            time_step = self._task.step(control)
            if time_step.first():
                raise RuntimeError(f"{self.spec.env}: the episode is over; call reset(seed) first")
            reward += time_step.reward
            if time_step.last():
                break
        done = time_step.last()
        return Step(self._observation(time_step), float(reward), done, done and bool(time_step.discount == 0))

    @property
    def step_seconds(self) -> float:
        """Simulated time of an agent step."""
        return self._task.control_timestep() * self.spec.repeat

    def render(self, height: int, width: int) -> np.ndarray:
        """The present state as the task's first camera sees it, uint8 [height, width, 3].

        RuntimeError where MUJOCO_GL, read when the first task is made, is not a renderer that works.
        """
        camera = 0 if self._task.physics.model.ncam else -1
        return self._task.physics.render(height, width, camera_id=camera)

    def _observation(self, time_step: Any) -> np.ndarray:
        parts = time_step.observation
        return np.concatenate([np.ravel(parts[name]) for name, _ in self.spec.layout], dtype=np.float32)

    def _checked(self, action: np.ndarray) -> np.ndarray:
        if np.shape(action) != (self.spec.action_size,):
            raise ValueError(
                f"{self.spec.env}: action of shape {np.shape(action)}, expected ({self.spec.action_size},)"
            )
        beyond = ~(np.abs(action) <= 1 + ACTION_TOLERANCE)  # NaN is beyond too
        if beyond.any():
            # MuJoCo would clip it and so execute another action than the one recorded
            column = int(np.argmax(beyond))
            raise UserError(
                f"{self.spec.env}: column {column} of the policy's action is {action[column]:.6g}, expected a number "
                "in [-1, 1]; clip it, or train again with a lower learning rate if training diverged"
            )
        return action


@cache
def _tasks() -> dict[str, tuple[str, str]]:
    return {f"{domain}-{task}": (domain, task) for domain, task in _suite().ALL_TASKS}


def _load(env: str) -> Any:
    if env not in _tasks():
        near = difflib.get_close_matches(env, names(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "tasks are called domain-task, such as walker-walk"
        raise UserError(f"unknown env '{env}': {hint}")
    domain, task = _tasks()[env]
    with _quiet():
        return _suite().load(domain, task, task_kwargs={"random": 0})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # MuJoCo warns of a deprecated attribute in dm_control's own cheetah, once for every environment made
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _suite() -> Any:
    # states need no screen; without this dm_control looks for a renderer on import and warns where there is none
    os.environ.setdefault("MUJOCO_GL", "disable")
    from dm_control import suite

    return suite
