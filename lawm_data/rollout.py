"""Environments x policy -> Episodes. The collectors and the evaluator both record through here.

Shapes: B environments in step, O observation size, A action size, T agent steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lawm_data.envs import Env
from lawm_data.episode import Episode

Policy = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""observation float32 [B, O], first bool [B] -> action [B, A] in [-1, 1].

`first` is true where an episode begins, and then true for the whole batch: there a policy clears its state.
"""


def rollout(
    envs: Sequence[Env], policy: Policy, seeds: Sequence[int], *, env: str, source: str, seed: int, first_order: int
) -> list[Episode]:
    """One episode of each environment, all in step; episode i starts from seeds[i] and has order first_order + i.

    An environment that ends early idles at its last observation until the last one ends.
    `env`, `source`, `seed`: what the episodes are called.
    """
    traces = [_Trace(one, start) for one, start in zip(envs, seeds, strict=True)]
    first = np.ones(len(traces), bool)
    while not all(trace.done for trace in traces):
        # float32 here, so that what is recorded is what was executed; copied, for a policy may reuse its array
        actions = np.array(policy(np.stack([trace.observation[-1] for trace in traces]), first), np.float32)
        for trace, action in zip(traces, actions, strict=True):
            if not trace.done:
                trace.step(action)
        first = np.zeros(len(traces), bool)
    return [trace.episode(env, source, seed, first_order + i) for i, trace in enumerate(traces)]


def episodes(
    envs: Sequence[Env], policy: Policy, seeds: Sequence[int], *, env: str, source: str, seed: int, first_order: int = 0
) -> Iterator[Episode]:
    """One episode for each of `seeds`, rolled out len(envs) at a time; the last batch may be smaller."""
    for start in range(0, len(seeds), len(envs)):
        batch = seeds[start : start + len(envs)]
        order = first_order + start
        yield from rollout(envs[: len(batch)], policy, batch, env=env, source=source, seed=seed, first_order=order)


class _Trace:
    """The growing record of one environment's episode."""

    def __init__(self, env: Env, seed: int):
        self.env = env
        self.observation = [env.reset(seed)]
        self.action: list[np.ndarray] = []
        self.reward: list[float] = []
        self.done = False
        self.terminal = False

    def step(self, action: np.ndarray) -> None:
        observation, reward, self.done, self.terminal = self.env.step(action)
        self.observation.append(observation)
        self.action.append(action)
        self.reward.append(reward)

    def episode(self, env: str, source: str, seed: int, order: int) -> Episode:
        return Episode(
            observation=np.stack(self.observation),
            action=np.stack(self.action),
            reward=np.array(self.reward, np.float32),
            terminal=self.terminal,
            env=env,
            source=source,
            seed=seed,
            order=order,
        )
