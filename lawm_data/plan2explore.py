"""Plan2Explore (Sekar et al. 2020): a reward function for Dreamer, what an ensemble disagrees on.

The members predict the next observation, which is the embedding of a state in argmax-ai/aime's recipe (an identity
encoder). Disagreement counts in the observation's own units: on symlog's scale, which squashes velocities, a new way to
lie still outweighs motion (walker-walk, recipes/results/collectors.md). Its log is standardised, for it lies far below
zero, and the critic would have to learn that offset first.

Shapes: L transitions, H imagined steps, N models, B windows, P start states, M members, A action, O observation,
D + S state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from lawm_data.config import Bounds, Count, NonNegative, Positive
from lawm_data.nets.blocks import MLP, Init, by_member, to_members
from lawm_data.nets.dists import gaussian_nll, symexp, symlog
from lawm_data.nets.optim import Optimizer


@dataclass(frozen=True)
class Config:
    """The recipe's `collect.plan2explore` section."""

    members: Annotated[int, Bounds(2)] = 5
    units: Count = 128
    layers: Count = 2
    lr: NonNegative = 1e-3
    clip: Positive = 100.0
    entropy: NonNegative = 0.03  # of the actor, in place of collect.dreamer.entropy: keeps its actions off the limits


class Disagreement(nn.Module):
    """N ensembles that predict the next observation from state and action."""

    moments: Tensor

    def __init__(self, config: Config, seeds: list[int], feat: int, action: int, observation: int):
        super().__init__()
        c, self.config = config, config
        self.heads = MLP(Init(seeds).ensemble(c.members), feat + action, c.units, c.layers, observation)
        self.register_buffer("moments", torch.zeros(len(seeds), 2))  # moving, of the log
        self.optimizer = Optimizer([self.heads], len(seeds), c.lr, c.clip)

    def __call__(self, feat: Tensor, action: Tensor) -> Tensor:
        """States feat [H+1, N, P, D+S] and the actions between them [H, N, P, A] -> rewards [H, N, P].

        Moves the moments that the reward is standardised by.
        """
        disagreement = symexp(self.predict(feat[:-1], action)).std(0).mean(-1).log()
        mean, std = self._moved_moments(disagreement.detach())[..., None].unbind(1)
        return (disagreement - mean) / std

    def predict(self, feat: Tensor, action: Tensor) -> Tensor:
        """[..., N, B, D+S] and [..., N, B, A] -> each member's next observation (symlog), [M, ..., N, B, O]."""
        members = self.config.members
        return by_member(self.heads(to_members(torch.cat([feat, action], -1), members)), members)

    def loss(self, feat: Tensor, action: Tensor, observation: Tensor) -> Tensor:
        """Half squared error [L, N, B], summed over members and O; states and observations 0..L, actions 0..L-1."""
        return gaussian_nll(self.predict(feat[:-1], action), symlog(observation[1:]), 1.0).sum(0)

    def update(self, feat: Tensor, action: Tensor, observation: Tensor) -> dict[str, Tensor]:
        """One step of the ensemble; returns metrics [N]."""
        loss = self.loss(feat, action, observation).mean((0, 2))
        return {"ensemble_norm": self.optimizer.step(loss), "ensemble": loss.detach()}

    def _moved_moments(self, disagreement: Tensor) -> Tensor:
        """Moving mean and standard deviation of each model's log disagreement [H, N, P], as [N, 2]."""
        flat = disagreement.transpose(0, 1).flatten(1)
        found = torch.stack([flat.mean(1), flat.std(1)], 1)
        self.moments.copy_(torch.where(self.moments[:, 1:] == 0, found, torch.lerp(self.moments, found, 0.01)))
        return self.moments
