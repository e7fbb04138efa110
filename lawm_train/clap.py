"""The C-LAP agent (Alles et al. 2024): policy and value in latent-action space, trained in imagination.

The policy's w in (-1, 1) is mapped through the latent-action prior, u = mu(s) + eps sigma(s) w, so that it can only
choose actions within the support of the data. LAWM and C-LAP share it; they differ in the world model alone.

Shapes: H imagined steps, N models, P start states, U latent action, E critics.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lawm_data.config import Count, NonNegative, Positive, Share
from lawm_data.nets.blocks import MLP, Init, Noise, by_member, to_members
from lawm_data.nets.dists import bounded_gaussian, tanh_gaussian
from lawm_data.nets.optim import Optimizer, averaged, ema
from lawm_data.nets.products import Products, multiplying
from lawm_data.nets.returns import lambda_return
from lawm_data.nets.rssm import Filter, State
from lawm_train.lawm import WorldModel


@dataclass(frozen=True)
class Config:
    """The recipe's `agent.clap` section (Table 2, Agent)."""

    updates: Count = 10_000  # of the agent's own phase; none with train.joint
    units: Count = 128
    layers: Count = 3
    lr: NonNegative = 3e-4
    horizon: Count = 5
    discount: Share = 0.99  # per agent step
    lambda_: Share = 0.95
    eps: NonNegative = 2.0  # half width of the support, in standard deviations of the prior
    entropy: NonNegative = 0.01
    soft_returns: bool = False  # whether returns count the entropy on the way too, as SAC's do
    state_gradient: bool = False  # whether the returns' gradient reaches the policy through the states it sees, too
    mean_bound: Positive = 5.0  # of the policy's mean before the tanh
    least_std: Positive = 0.1  # of the policy before the tanh
    critics: Count = 2  # a value is the least that their targets give; argmax-ai/aime's number
    target_rate: Share = 0.01
    acting_rate: Share = 1.0  # at which the actor that acts follows the trained one; 1: it is the trained one
    stride: Count = 4  # every stride-th posterior state starts an imagined rollout
    clip: Positive = 100.0
    products: Products = "float32"  # or "bfloat16", see nets.products.multiplying


class Agent(nn.Module):
    """N actors, each with its critics."""

    def __init__(self, config: Config, world: WorldModel, seeds: list[int]):
        super().__init__()
        self.config, models = config, len(seeds)
        object.__setattr__(self, "world", world)  # used, not owned: no submodule, so neither trained nor saved here
        self.world: WorldModel
        feat, u = sum(world.rssm.sizes), world.config.latent_action
        init = Init(seeds)
        self.actor = MLP(init, feat, config.units, config.layers, 2 * u)
        self.critics = MLP(init.ensemble(config.critics), feat, config.units, config.layers, 1)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.averaged = averaged(self.actor, config.acting_rate)
        self.actor_optimizer = Optimizer([self.actor], models, config.lr, config.clip)
        self.critic_optimizer = Optimizer([self.critics], models, config.lr, config.clip)

    def latent(self, feat: Tensor, w: Tensor) -> Tensor:
        """u = mu + eps sigma w, within eps standard deviations of the latent-action prior."""
        prior = self.world.latent_prior(feat)
        return prior.mean + self.config.eps * prior.std * w

    def imagine(self, start: State, noise: Noise) -> tuple[Tensor, Tensor]:
        """Imagined states 0..H as feat [H+1, N, P, D+S] and log pi(w_k | s_k) [H, N, P], from start [N, P, ...]."""
        c, points = self.config, start.feat.shape[1]
        w_noise = noise.normal(c.horizon, points, self.world.config.latent_action)
        state_noise = noise.normal(c.horizon, points, self.world.config.stoch)
        spread = self.world.spread(noise, c.horizon, points)
        log_pi = []

        def control(state: State, k: int) -> Tensor:
            feat = state.feat if c.state_gradient else state.feat.detach()
            w, log_w = tanh_gaussian(*bounded_gaussian(self.actor(feat), c.mean_bound, c.least_std), w_noise[k])
            log_pi.append(log_w)
            action = self.world.decode_action(state.feat, self.latent(state.feat, w))
            return action if spread is None else action + spread[k]

        states, _ = self.world.rssm.imagine(start, control, state_noise)
        return torch.cat([start.feat[None], states.feat]), torch.stack(log_pi)

    def loss(self, start: State, noise: Noise) -> dict[str, Tensor]:
        """Unreduced actor and critic losses [H, N, P] from detached posterior states [N, P, ...].

        Where data have true ends, each is weighted by the probability that its state is not behind one (after Hafner
        et al. 2021): there is no experience of what would follow.
        """
        c = self.config
        feat, log_pi = self.imagine(start, noise)
        reward = self.world.reward_head(feat[1:])[..., 0]
        if c.soft_returns:
            reward = reward - c.entropy * log_pi
        value = self.value(feat[1:])
        discount: Tensor | float = c.discount
        weight: Tensor | float = 1.0
        if self.world.continue_head is not None:
            alive = torch.sigmoid(self.world.continue_head(feat)[..., 0])
            discount, weight = c.discount * alive[1:], alive[:-1].detach().cumprod(0)
        returns = lambda_return(reward, value, discount, c.lambda_)
        errors = self._values(self.critics, feat[:-1].detach()) - returns.detach()
        actor = -returns if c.soft_returns else c.entropy * log_pi - returns
        return {"actor": weight * actor, "critic": weight * errors.square().sum(0) / 2}

    def update(self, states: State, noise: Noise) -> dict[str, Tensor]:
        """One step of actor and critics from posterior states [T, N, B, ...]; returns metrics [N]."""
        with multiplying(self.config.products, states.feat.device):
            losses = self.loss(states.starts(noise.step, self.config.stride), noise)
            norms = {
                "actor_norm": self.actor_optimizer.step(losses["actor"].mean((0, 2))),
                "critic_norm": self.critic_optimizer.step(losses["critic"].mean((0, 2))),
            }
        ema(self.targets, self.critics, self.config.target_rate)
        if self.averaged is not None:
            ema(self.averaged, self.actor, self.config.acting_rate)
        return {name: loss.detach().mean((0, 2)) for name, loss in losses.items()} | norms

    def policy(self, width: float = 1.0) -> Filter:
        """Acts with w = tanh(mean), the actor averaged; with less `width`, drawn towards the prior's mean."""
        actor = self.actor if self.averaged is None else self.averaged

        def choose(feat: Tensor) -> Tensor:
            mean, _ = bounded_gaussian(actor(feat), self.config.mean_bound)
            return self.latent(feat, width * torch.tanh(mean))

        return self.world.filter(choose)

    def value(self, feat: Tensor) -> Tensor:
        """v(s): the minimum of the target critics, [T, N, P, D+S] -> [T, N, P]."""
        return self._values(self.targets, feat).amin(0)

    def _values(self, critics: MLP, feat: Tensor) -> Tensor:
        """[T, N, P, D+S] -> [E, T, N, P]"""
        members = self.config.critics
        return by_member(critics(to_members(feat, members)), members)[..., 0]
