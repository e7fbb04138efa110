"""Inverse dynamics model: the action between two observations, from their surroundings (Table 3; Baker et al. 2022).

Shapes: N models, B actions, W = 5 observations, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from lawm_data import windows
from lawm_data.config import check_least
from lawm_data.episode import Episode
from lawm_data.nets.blocks import MLP, Init, Normalizer
from lawm_data.nets.optim import Optimizer


@dataclass(frozen=True)
class Config:
    """The recipe's `agent.idm` section; the window is 2 radius + 1 observations, o_t and o_{t+1} among them."""

    updates: int = 20_000
    units: int = 256
    layers: int = 3
    batch: int = 256
    radius: int = 2
    dropout: float = 0.1
    lr: float = 3e-4  # Table 3 prints 3e-4 and 1e-4
    clip: float = 100.0

    def __post_init__(self) -> None:
        check_least("agent.idm", self, updates=1, units=1, layers=1, batch=1, radius=1, lr=0)


class InverseDynamics(nn.Module):
    """N models a_t = tanh(MLP(o_{t-2} .. o_{t+2})), edges repeated."""

    def __init__(self, config: Config, seeds: list[int], normalizer: Normalizer, action: int):
        """normalizer: the labeled rows' statistics for one observation [N, 1, O]."""
        super().__init__()
        self.config, self.normalizer = config, normalizer
        inputs = normalizer.mean.shape[-1] * (2 * config.radius + 1)
        self.mlp = MLP(Init(seeds), inputs, config.units, config.layers, action, dropout=config.dropout)
        self.optimizer = Optimizer([self.mlp], len(seeds), config.lr, config.clip)

    def act(self, context: Tensor) -> Tensor:
        """Surroundings [N, B, W * O] -> action [N, B, A]."""
        size = self.normalizer.mean.shape[-1]
        parts = context.unflatten(-1, (-1, size)).flatten(1, 2)  # [N, B * W, O]
        return torch.tanh(self.mlp(self.normalizer(parts).reshape(context.shape)))

    def loss(self, context: Tensor, action: Tensor) -> dict[str, Tensor]:
        """Squared error summed over A, [N, B]."""
        return {"action": (self.act(context) - action).square().sum(-1)}

    def update(self, context: Tensor, action: Tensor) -> dict[str, Tensor]:
        """One gradient step; returns metrics [N]."""
        loss = self.loss(context, action)["action"].mean(1)
        return {"gradient_norm": self.optimizer.step(loss), "action": loss.detach()}

    @torch.no_grad()
    def relabel(self, episodes: Iterable[Episode], model: int = 0) -> Iterator[Episode]:
        """Fill in missing actions with one model's predictions, without dropout; true actions stay."""
        self.eval()
        for episode in episodes:
            if episode.action is None:
                context = torch.from_numpy(windows.contexts(episode.observation, self.config.radius))
                predicted = self.act(context.expand(len(self.normalizer.mean), -1, -1))[model]
                episode = replace(episode, action=predicted.numpy())
            yield episode


def fit(config: Config, seeds: list[int], episodes: list[Episode], normalizer: Normalizer) -> InverseDynamics:
    """Train on the labeled episodes; every model sees the same episodes in an order of its own seed's."""
    context = torch.from_numpy(np.concatenate([windows.contexts(e.observation, config.radius) for e in episodes]))
    actions = torch.from_numpy(np.concatenate([e.action for e in episodes if e.action is not None]))
    model = InverseDynamics(config, seeds, normalizer, actions.shape[1])
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    model.train()
    for _ in range(config.updates):
        rows = torch.stack([torch.randint(len(actions), (config.batch,), generator=g) for g in generators])
        model.update(context[rows], actions[rows])
    return model.eval()
