"""Dreamer: a world model of states, actor and critic in its imagination (Hafner et al. 2019b, 2020, 2023).

From DreamerV3: symlog observations, free nats, percentile return normalisation, a two-hot critic that starts at zero.
The actor follows the gradient of imagined returns through the dynamics. Nothing predicts an episode's end: of the
suite's tasks only lqr has one before the time limit, and `envs` refuses it.

Shapes: L transitions, H imagined steps, N models, B windows, P start states, O observation, A action, E embedding,
D deter, S stoch.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor, nn

from lawm_data.config import Bounds, Count, NonNegative, Positive, Share
from lawm_data.nets.blocks import MLP, Init, Noise
from lawm_data.nets.dists import Gaussian, TwoHot, balanced_kl, bounded_gaussian, gaussian_nll, symlog, tanh_gaussian
from lawm_data.nets.filtering import Filtering
from lawm_data.nets.optim import Optimizer, ema
from lawm_data.nets.products import Products, multiplying
from lawm_data.nets.returns import lambda_return
from lawm_data.nets.rssm import RSSM, Filter, State
from lawm_data.windows import Batch, check_stride


@dataclass(frozen=True)
class Config:
    """The recipe's `collect.dreamer` section."""

    updates: Count = 25  # an episode; few, so that the history is long: it is what the slices are cut from
    batch: Count = 16  # windows
    window: Count = 50  # transitions
    deter: Count = 128
    stoch: Count = 32
    embed: Count = 128
    hidden: Count = 128  # width of the RSSM's layers
    units: Count = 128
    layers: Count = 2
    observation_sigma: Positive = 0.3  # on symlog's scale
    reward_sigma: Positive = 0.3
    balance: Share = 0.8  # share of the state KL that trains the prior
    free_nats: NonNegative = 1.0
    horizon: Count = 15
    stride: Count = 4  # every stride-th posterior state starts an imagined rollout
    discount: Share = 0.99  # per agent step
    lambda_: Share = 0.95
    entropy: NonNegative = 3e-4
    target_rate: Share = 0.02
    bins: Annotated[int, Bounds(2)] = 101  # of the critic
    lr: NonNegative = 1e-3  # of the world model
    actor_lr: NonNegative = 3e-4
    critic_lr: NonNegative = 3e-4
    clip: Positive = 100.0
    products: Products = "float32"  # of actor and critic; or "bfloat16", see nets.products.multiplying

    def __post_init__(self) -> None:
        check_stride("collect.dreamer", self.stride, self.window)


class Reward(Protocol):
    """What the actor seeks, in place of the task's reward."""

    def __call__(self, feat: Tensor, action: Tensor) -> Tensor:
        """States feat [H+1, N, P, D+S] and the actions between them [H, N, P, A] -> rewards [H, N, P]."""
        ...

    def update(self, feat: Tensor, action: Tensor, observation: Tensor) -> dict[str, Tensor]:
        """Learn from states and observations [L+1, N, B, .] and actions [L, N, B, A]; metrics [N]."""
        ...


class Dreamer(nn.Module):
    """N agents side by side."""

    scale: Tensor

    def __init__(self, config: Config, seeds: list[int], observation: int, action: int, reward: Reward | None = None):
        """`reward`: what the actor seeks; None: the predicted reward of the task."""
        super().__init__()
        c, init, models = config, Init(seeds), len(seeds)
        feat = c.deter + c.stoch
        self.config, self.action_size = config, action
        object.__setattr__(self, "reward", reward)  # used, not owned: it is trained and saved on its own
        self.reward: Reward | None
        self.encoder = MLP(init, observation, c.units, c.layers, c.embed)
        self.rssm = RSSM(init, action, c.embed, c.deter, c.stoch, c.hidden)
        self.decoder = MLP(init, feat, c.units, c.layers, observation)
        self.reward_head = MLP(init, feat, c.units, c.layers, 1)
        self.actor = MLP(init, feat, c.units, c.layers, 2 * action)
        self.critic = MLP(init, feat, c.units, c.layers, c.bins)
        for parameter in self.critic.layers[-1].parameters():
            nn.init.zeros_(parameter)  # all values start at 0, not at a random guess
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.two_hot = TwoHot(c.bins)
        self.register_buffer("scale", torch.zeros(models, 1))  # moving range of the returns
        self.optimizer = Optimizer([self.encoder, self.rssm, self.decoder, self.reward_head], models, c.lr, c.clip)
        self.actor_optimizer = Optimizer([self.actor], models, c.actor_lr, c.clip)
        self.critic_optimizer = Optimizer([self.critic], models, c.critic_lr, c.clip)

    def embed(self, observation: Tensor) -> Tensor:
        """Raw observation [..., N, B, O] -> embedding [..., N, B, E]."""
        return self.encoder(symlog(observation))

    def world_loss(self, batch: Batch, noise: Noise) -> tuple[dict[str, Tensor], State]:
        """Unreduced terms [L or L+1, N, B] and the posterior states 0..L."""
        c, (length, _, size, _) = self.config, batch.action.shape
        state_noise = noise.normal(length + 1, size, c.stoch)
        embed = self.embed(batch.observation)
        states = Filtering(self.rssm, embed, batch.action, state_noise).states()
        prior = self.rssm.prior(states.parts[0])
        predicted = self.reward_head(states.feat[1:])
        terms = {
            "observation": gaussian_nll(self.decoder(states.feat), symlog(batch.observation), c.observation_sigma),
            "state_kl": balanced_kl(Gaussian(states.mean, states.std), prior, c.balance, c.free_nats),
            "reward": gaussian_nll(predicted, batch.reward[..., None], c.reward_sigma),
        }
        return terms, states

    def imagine(self, start: State, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
        """States 0..H as feat [H+1, N, P, D+S], actions [H, N, P, A] and log pi [H, N, P], from start [N, P, ...]."""
        horizon, points = self.config.horizon, start.feat.shape[1]
        action_noise = noise.normal(horizon, points, self.action_size)
        state_noise = noise.normal(horizon, points, self.config.stoch)
        log_pi = []

        def control(state: State, k: int) -> Tensor:
            action, log_probability = tanh_gaussian(*bounded_gaussian(self.actor(state.feat.detach())), action_noise[k])
            log_pi.append(log_probability)
            return action

        states, actions = self.rssm.imagine(start, control, state_noise)
        return torch.cat([start.feat[None], states.feat]), actions, torch.stack(log_pi)

    def loss(self, start: State, noise: Noise) -> dict[str, Tensor]:
        """Unreduced actor and critic losses [H, N, P] from detached posterior states [N, P, ...].

        Moves the range of returns that the actor's loss is divided by.
        """
        c = self.config
        feat, actions, log_pi = self.imagine(start, noise)
        reward = self.reward(feat, actions) if self.reward else self.reward_head(feat[1:])[..., 0]
        returns = lambda_return(reward, self.two_hot.mean(self.target(feat[1:])), c.discount, c.lambda_)
        scale = self._moved_scale(returns.detach())
        critic = self.two_hot.loss(self.critic(feat[:-1].detach()), returns.detach())
        return {"actor": c.entropy * log_pi - returns / scale.clamp(min=1), "critic": critic}

    def update(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """One step of world model, reward function, actor and critic; metrics [N]."""
        device = batch.reward.device
        with multiplying("float32", device):
            terms, states = self.world_loss(batch, noise)
            loss = torch.stack([term.mean((0, 2)) for term in terms.values()]).sum(0)
            metrics = {"world_norm": self.optimizer.step(loss)}
            states = states.map(torch.Tensor.detach)
            if self.reward:
                metrics |= self.reward.update(states.feat, batch.action, batch.observation)
        with multiplying(self.config.products, device):
            losses = self.loss(states.starts(noise.step, self.config.stride), noise)
            metrics["actor_norm"] = self.actor_optimizer.step(losses["actor"].mean((0, 2)))
            metrics["critic_norm"] = self.critic_optimizer.step(losses["critic"].mean((0, 2)))
        ema(self.target, self.critic, self.config.target_rate)
        means = {name: term.detach().mean((0, 2)) for name, term in (terms | losses).items()}
        return means | metrics | {"return_range": self.scale[:, 0].clone()}

    def policy(self, noise: Noise) -> Filter:
        """Acts with samples of the policy, as in training; each call draws from `noise` anew."""

        def act(feat: Tensor) -> Tensor:
            mean, std = bounded_gaussian(self.actor(feat))
            return torch.tanh(mean + std * noise.normal(1, feat.shape[1], self.action_size)[0])

        return Filter(self.rssm, self.embed, self.action_size, act)

    def _moved_scale(self, returns: Tensor) -> Tensor:
        """Moving 5% to 95% range of each model's returns [H, N, P], as [N, 1]."""
        flat = returns.transpose(0, 1).flatten(1)
        low, high = torch.quantile(flat, torch.linspace(0.05, 0.95, 2, device=flat.device), dim=1)[..., None]
        self.scale.copy_(torch.where(self.scale == 0, high - low, torch.lerp(self.scale, high - low, 0.01)))
        return self.scale
