"""Behaviour cloning on the labeled episodes: the floor that every other method has to beat.

Shapes: N models, B transitions, O observation, A action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lawm_data.config import POSITIVE, check_least
from lawm_data.nets.blocks import MLP, Init, Noise, Normalizer
from lawm_data.nets.optim import Optimizer
from lawm_data.nets.products import multiplying
from lawm_data.windows import Batch
from lawm_train.evaluate import Act, stateless


@dataclass(frozen=True)
class Config:
    """The recipe's `agent.bc` section; batch counts transitions."""

    updates: int = 50_000
    units: int = 256
    layers: int = 2
    batch: int = 256
    lr: float = 3e-4
    clip: float = 100.0

    def __post_init__(self) -> None:
        check_least("agent.bc", self, updates=1, units=1, layers=1, batch=1, lr=0, clip=POSITIVE)


class Cloner(nn.Module):
    """N deterministic policies, a = tanh(MLP(o))."""

    def __init__(self, config: Config, seeds: list[int], normalizer: Normalizer, action: int):
        super().__init__()
        self.config, self.normalizer = config, normalizer
        self.actor = MLP(Init(seeds), normalizer.mean.shape[-1], config.units, config.layers, action)
        self.optimizer = Optimizer([self.actor], len(seeds), config.lr, config.clip)

    def act(self, observation: Tensor) -> Tensor:
        """[..., N, B, O] -> [..., N, B, A]"""
        return torch.tanh(self.actor(self.normalizer(observation)))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Squared error summed over A, [L, N, B]."""
        return {"action": (self.act(batch.observation[:-1]) - batch.action).square().sum(-1)}

    def update(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """One gradient step, which needs no noise; returns metrics [N]."""
        with multiplying("float32", batch.reward.device):
            loss = self.loss(batch)["action"].mean((0, 2))
            return {"gradient_norm": self.optimizer.step(loss), "action": loss.detach()}

    def policy(self) -> Act:
        """Acts as cloned."""
        return stateless(self.act)
