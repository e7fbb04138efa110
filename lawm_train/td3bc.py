"""TD3+BC (Fujimoto & Gu 2021): TD3 whose actor also clones the actions of the data. Nothing is imagined.

Hyper-parameters, network and normalisation are those of the authors' implementation (sfujim/TD3_BC).

Shapes: N models, B transitions, O observation, A action, E critics.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lawm_data.config import Count, NonNegative, Share
from lawm_data.nets.blocks import Init, Noise, Normalizer, PlainMLP, by_member, detached, to_members
from lawm_data.nets.optim import Optimizer, averaged, ema
from lawm_data.nets.products import Products, multiplying
from lawm_data.windows import Batch
from lawm_train.evaluate import Act, stateless

CRITICS = 2


@dataclass(frozen=True)
class Config:
    """The recipe's `agent.td3bc` section; batch counts transitions."""

    updates: Count = 200_000  # a fifth of the authors' million
    units: Count = 256
    layers: Count = 2
    batch: Count = 256
    lr: NonNegative = 3e-4
    discount: Share = 0.99  # per agent step
    target_rate: Share = 0.005
    target_noise: NonNegative = 0.2  # on the action of the target policy
    noise_clip: NonNegative = 0.5
    actor_every: Count = 2  # critic updates
    alpha: NonNegative = 2.5  # weight of the value against cloning
    acting_rate: Share = 1.0  # at which the actor that acts follows the trained one; 1: it is the trained one
    products: Products = "float32"  # or "bfloat16", see nets.products.multiplying


def normalizer(mean: Tensor, std: Tensor) -> Normalizer:
    """(x - mean) / (std + 0.001), not clipped."""
    return Normalizer(mean, std + 1e-3, floor=0.0, clip=math.inf)


class Agent(nn.Module):
    """N deterministic actors with two critics each."""

    def __init__(self, config: Config, seeds: list[int], normalizer: Normalizer, action: int):
        super().__init__()
        self.config, self.normalizer, models = config, normalizer, len(seeds)
        init, observation = Init(seeds), normalizer.mean.shape[-1]
        self.actor = PlainMLP(init, observation, config.units, config.layers, action)
        self.critics = PlainMLP(init.ensemble(CRITICS), observation + action, config.units, config.layers, 1)
        self.actor_target = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic_targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.averaged = averaged(self.actor, config.acting_rate)
        self.actor_optimizer = Optimizer([self.actor], models, config.lr, clip=math.inf)
        self.critic_optimizer = Optimizer([self.critics], models, config.lr, clip=math.inf)

    def critic_loss(self, batch: Batch, noise: Noise) -> Tensor:
        """Squared errors against the clipped double-Q target, summed over the critics, [N, B]."""
        c = self.config
        state, next_state = self.normalizer(batch.observation)  # of windows of one transition, [2, N, B, O]
        action, reward, alive = batch.action[0], batch.reward[0], ~batch.terminal
        with torch.no_grad():
            shift = (noise.normal(1, *action.shape[1:])[0] * c.target_noise).clamp(-c.noise_clip, c.noise_clip)
            next_action = (torch.tanh(self.actor_target(next_state)) + shift).clamp(-1, 1)
            value = _values(self.critic_targets, next_state, next_action).amin(0)
            target = reward + c.discount * alive * value
        return (_values(self.critics, state, action) - target).square().sum(0)

    def actor_loss(self, batch: Batch) -> Tensor:
        """Minus the first critic's value, scaled to alpha, and the squared distance to the data's action, [N, B]."""
        state = self.normalizer(batch.observation[0])
        action = torch.tanh(self.actor(state))
        # the first of each model's critics, without gradients into it
        value = detached(self.critics, torch.cat([state, action], -1), slice(0, None, CRITICS))[..., 0]
        scale = self.config.alpha / value.detach().abs().mean(1, keepdim=True)
        return (action - batch.action[0]).square().mean(-1) - scale * value

    def update(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """One step of the critics and, every `actor_every`-th time, of actor and targets; returns metrics [N]."""
        with multiplying(self.config.products, batch.reward.device):
            metrics = self._descend("critic", self.critic_loss(batch, noise), self.critic_optimizer)
            if (noise.step + 1) % self.config.actor_every == 0:
                metrics |= self._descend("actor", self.actor_loss(batch), self.actor_optimizer)
                ema(self.critic_targets, self.critics, self.config.target_rate)
                ema(self.actor_target, self.actor, self.config.target_rate)
                if self.averaged is not None:
                    ema(self.averaged, self.actor, self.config.acting_rate)
        return metrics

    def policy(self) -> Act:
        """Acts as the actor does, the averaged one if there is one, without noise."""
        return stateless(self.actor if self.averaged is None else self.averaged, self.normalizer)

    def _descend(self, name: str, loss: Tensor, optimizer: Optimizer) -> dict[str, Tensor]:
        loss = loss.mean(1)
        norm = optimizer.step(loss)
        return {name: loss.detach(), f"{name}_norm": norm}


def _values(critics: PlainMLP, state: Tensor, action: Tensor) -> Tensor:
    """[E, N, B]"""
    pairs = torch.cat([state, action], -1)
    return by_member(critics(to_members(pairs, CRITICS)), CRITICS)[..., 0]
