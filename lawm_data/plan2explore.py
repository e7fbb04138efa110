"""Plan2Explore (Sekar et al. 2020): a reward function for Dreamer, what an ensemble disagrees on.

The sizes and the reward are those of IcarusWizard/AIME-NoB, whose data the paper uses: mean log std x 0.1.

Shapes: L transitions, H imagined steps, N models, B windows, P start states, M members, A action, E embedding,
D + S state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lawm_data.config import check_least
from lawm_data.nets.blocks import MLP, Init, by_member, to_members
from lawm_data.nets.dists import gaussian_nll
from lawm_data.nets.optim import Optimizer


@dataclass(frozen=True)
class Config:
    """The recipe's `collect.plan2explore` section."""

    members: int = 5
    units: int = 128
    layers: int = 2
    lr: float = 1e-3
    clip: float = 100.0
    scale: float = 0.1  # of the reward

    def __post_init__(self) -> None:
        check_least("collect.plan2explore", self, members=2, units=1, layers=1, lr=0)


class Disagreement(nn.Module):
    """N ensembles that predict the next embedding from state and action."""

    def __init__(self, config: Config, seeds: list[int], feat: int, action: int, embed: int):
        super().__init__()
        c, self.config = config, config
        self.heads = MLP(Init(seeds).ensemble(c.members), feat + action, c.units, c.layers, embed)
        self.optimizer = Optimizer([self.heads], len(seeds), c.lr, c.clip)

    def __call__(self, feat: Tensor, action: Tensor) -> Tensor:
        """States feat [H+1, N, P, D+S] and the actions between them [H, N, P, A] -> rewards [H, N, P]."""
        spread = self.predict(feat[:-1], action).std(0)
        return self.config.scale * spread.log().mean(-1)

    def predict(self, feat: Tensor, action: Tensor) -> Tensor:
        """[..., N, B, D+S] and [..., N, B, A] -> each member's embedding of the next observation, [M, ..., N, B, E]."""
        members = self.config.members
        return by_member(self.heads(to_members(torch.cat([feat, action], -1), members)), members)

    def loss(self, feat: Tensor, action: Tensor, embed: Tensor) -> Tensor:
        """Half squared error [L, N, B], summed over members and E; states and embeddings 0..L, actions 0..L-1."""
        return gaussian_nll(self.predict(feat[:-1], action), embed[1:], 1.0).sum(0)

    def update(self, feat: Tensor, action: Tensor, embed: Tensor) -> dict[str, Tensor]:
        """One step of the ensemble; returns metrics [N]."""
        loss = self.loss(feat, action, embed).mean((0, 2))
        return {"disagreement_norm": self.optimizer.step(loss), "disagreement": loss.detach()}
