"""Behaviour cloning on the labeled episodes: the floor that every other method has to beat.

Shapes: N models, B transitions, O observation, A action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lawm_data.config import Count, NonNegative, Positive, Share
from lawm_data.nets.blocks import MLP, Init, Noise, Normalizer
from lawm_data.nets.optim import Optimizer, averaged, ema
from lawm_data.nets.products import multiplying
from lawm_data.windows import Batch
from lawm_train.evaluate import Act, stateless


@dataclass(frozen=True)
class Config:
    """The recipe's `agent.bc` section; batch counts transitions."""

    updates: Count = 50_000
    units: Count = 256
    layers: Count = 2
    batch: Count = 256
    lr: NonNegative = 3e-4
    clip: Positive = 100.0
    acting_rate: Share = 1.0  # at which the actor that acts follows the trained one; 1: it is the trained one


class Cloner(nn.Module):
    """N deterministic policies, a = tanh(MLP(o))."""

    def __init__(self, config: Config, seeds: list[int], normalizer: Normalizer, action: int):
        super().__init__()
        self.config, self.normalizer = config, normalizer
        self.actor = MLP(Init(seeds), normalizer.mean.shape[-1], config.units, config.layers, action)
        self.averaged = averaged(self.actor, config.acting_rate)
        self.optimizer = Optimizer([self.actor], len(seeds), config.lr, config.clip)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Squared error summed over A, [L, N, B]."""
        action = torch.tanh(self.actor(self.normalizer(batch.observation[:-1])))
        return {"action": (action - batch.action).square().sum(-1)}

    def update(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """One gradient step, which needs no noise; returns metrics [N]."""
        with multiplying("float32", batch.reward.device):
            loss = self.loss(batch)["action"].mean((0, 2))
            norm = self.optimizer.step(loss)
        if self.averaged is not None:
            ema(self.averaged, self.actor, self.config.acting_rate)
        return {"gradient_norm": norm, "action": loss.detach()}

    def policy(self) -> Act:
        """Acts as the actor does, the averaged one if there is one."""
        return stateless(self.actor if self.averaged is None else self.averaged, self.normalizer)
