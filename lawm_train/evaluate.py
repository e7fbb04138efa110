"""Policies -> rollouts -> scores: many episodes in step, several seeds' policies in one batch.

Shapes: N models, B episodes each, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lawm_data import envs, rollout
from lawm_data.config import Count
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.nets.blocks import Normalizer

# Collectors start their episodes from keyed hashes of (seed, order) in [0, 2^64); evaluation from these few.
FIRST_SEED = 1_000_000
AT_ONCE = 20  # episodes in step, each model; an environment takes 11 MB
Act = Callable[[Tensor, Tensor], Tensor]
"""observation [N, B, O], first [N, B] -> action [N, B, A]"""


@dataclass(frozen=True)
class Config:
    """The recipe's `evaluate` section."""

    episodes: Count = 20  # at the end of a phase and every `every` updates
    every: Count = 2_500  # of the world model; a phase of more or fewer updates is evaluated as many times


def stateless(actor: nn.Module, normalizer: Normalizer) -> Act:
    """a = tanh(actor(o)), o normalised: nothing is carried from one observation [N, B, O] to the next."""

    @torch.no_grad()
    def act(observation: Tensor, first: Tensor) -> Tensor:
        return torch.tanh(actor(normalizer(observation)))

    return act


def check_sizes(where: str, env: str, repeat: int, observation: int, action: int) -> None:
    """UserError when the simulator's observations or actions are not of these sizes."""
    spec = envs.spec(env, repeat)
    if (observation, action) != (spec.observation_size, spec.action_size):
        raise UserError(
            f"{where}: observations of size {observation} and actions of size {action}, but {env} has "
            f"{spec.observation_size} and {spec.action_size}; import such data as --env custom:NAME"
        )


class Evaluator:
    """The same episodes (fixed environment seeds, which no collection uses) for every policy that it is given."""

    def __init__(self, env: str, repeat: int, models: int, episodes: int, device: str = "cpu"):
        self.env, self.models, self.episodes, self.device = env, models, episodes, device
        self.envs = [envs.make(env, repeat) for _ in range(models * min(episodes, AT_ONCE))]

    def run(self, policy: Act) -> list[list[Episode]]:
        """Episodes of each of the N models."""

        def act(observation: np.ndarray, first: np.ndarray) -> np.ndarray:
            shaped = torch.from_numpy(observation).to(self.device).unflatten(0, (self.models, -1))
            action = policy(shaped, torch.from_numpy(first).to(self.device).view(self.models, -1))
            return action.flatten(0, 1).cpu().numpy()

        starts = range(0, self.episodes, AT_ONCE)
        batches = [range(start, min(start + AT_ONCE, self.episodes)) for start in starts]
        plan = [(k, FIRST_SEED + order) for batch in batches for k in range(self.models) for order in batch]
        seeds = [seed for _, seed in plan]
        own: list[list[Episode]] = [[] for _ in range(self.models)]
        done = rollout.episodes(self.envs, act, seeds, env=self.env, source="evaluate", seed=0)
        for (k, _), episode in zip(plan, done, strict=True):
            own[k].append(episode)
        return own

    def returns(self, policy: Act) -> list[list[float]]:
        """Raw returns [N][B]. UserError from a policy that gives NaN."""
        return [[episode.episode_return for episode in own] for own in self.run(policy)]
