"""Inverse dynamics model: the action between two observations, from their surroundings (Table 3; Baker et al. 2022).

Some of the labeled trajectories are held out; the weights with the lowest error on those are the ones that relabel.

Shapes: N models, B actions, W = 2 radius + 1 observations, O observation, A action.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lawm_data import windows
from lawm_data.config import Count, NonNegative, Part, Positive
from lawm_data.draw import rank, share
from lawm_data.episode import Episode
from lawm_data.nets.blocks import MLP, Init, Noise, Normalizer, detached, dropping
from lawm_data.nets.captured import Captured
from lawm_data.nets.optim import Optimizer
from lawm_data.nets.products import multiplying
from lawm_data.progress import Bar


@dataclass(frozen=True)
class Config:
    """The recipe's `agent.idm` section; the window is 2 radius + 1 observations, o_t and o_{t+1} among them."""

    updates: Count = 20_000
    units: Count = 256
    layers: Count = 3
    batch: Count = 256
    radius: Count = 2
    dropout: Part = 0.1
    lr: NonNegative = 3e-4  # Table 3 prints 3e-4 and 1e-4
    clip: Positive = 100.0
    held_out: Part = 0.1  # of the labeled trajectories; 0: train and choose on all of them
    choose_every: Count = 500  # updates


class Network(nn.Module):
    """a_t = tanh(MLP(o_{t-radius} .. o_{t+radius})), edges repeated."""

    def __init__(self, config: Config, seeds: list[int], normalizer: Normalizer, action: int):
        super().__init__()
        width = 2 * config.radius + 1
        self.normalizer = Normalizer(normalizer.mean.repeat(1, 1, width), normalizer.std.repeat(1, 1, width))
        inputs = self.normalizer.mean.shape[-1]
        self.mlp = MLP(Init(seeds), inputs, config.units, config.layers, action, dropout=config.dropout)

    def forward(self, context: Tensor) -> Tensor:
        """Surroundings [N, B, W * O] -> action [N, B, A]."""
        return torch.tanh(self.mlp(self.normalizer(context)))


class InverseDynamics(nn.Module):
    """N models: `network` learns, `chosen` is what it was when its held-out error was lowest."""

    error: Tensor

    def __init__(self, config: Config, seeds: list[int], normalizer: Normalizer, action: int):
        """normalizer: the labeled rows' statistics for one observation [N, 1, O]."""
        super().__init__()
        self.config = config
        self.network = Network(config, seeds, normalizer, action)
        self.chosen = copy.deepcopy(self.network).requires_grad_(False)
        # of `chosen`; before the first choice a finite number, as every number of a checkpoint has to be
        self.register_buffer("error", torch.full((len(seeds),), torch.finfo(torch.float32).max))
        self.optimizer = Optimizer([self.network], len(seeds), config.lr, config.clip)

    def loss(self, context: Tensor, action: Tensor) -> dict[str, Tensor]:
        """Squared error summed over A, [N, B]."""
        return {"action": (self.network(context) - action).square().sum(-1)}

    def update(self, context: Tensor, action: Tensor, noise: Noise) -> dict[str, Tensor]:
        """One gradient step; returns metrics [N]."""
        with multiplying("float32", action.device):
            with dropping(self.network, noise):
                loss = self.loss(context, action)["action"].mean(1)
            return {"gradient_norm": self.optimizer.step(loss), "action": loss.detach()}

    @torch.no_grad()
    def choose(self, held_out: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Keep each model's weights if its error on its own held-out rows is the lowest so far; metrics [N]."""
        errors = []
        for k, (context, action) in enumerate(held_out):
            predicted = self._predicted(self.network, context, k)
            errors.append((predicted - action).square().sum(-1).mean())
        error = torch.stack(errors)
        better = (error < self.error)[:, None, None]
        for kept, now in zip(self.chosen.parameters(), self.network.parameters(), strict=True):
            kept.copy_(torch.where(better, now, kept))
        self.error.copy_(torch.where(error < self.error, error, self.error))  # not minimum, which takes NaN
        return {"held_out": error}

    @torch.no_grad()
    def relabel(self, episodes: Iterable[Episode], model: int = 0) -> Iterator[Episode]:
        """Fill in missing actions with one model's predictions, without dropout; true actions stay."""
        for episode in episodes:
            if episode.action is None:
                context = torch.from_numpy(windows.contexts(episode.observation, self.config.radius))
                predicted = self._predicted(self.chosen, context.to(self.error.device), model)
                episode = replace(episode, action=predicted.cpu().numpy())
            yield episode

    def _predicted(self, network: Network, context: Tensor, model: int) -> Tensor:
        """Actions [B, A] of one model's network for contexts [B, ...]."""
        with multiplying("float32", context.device):
            return detached(network, context[None], slice(model, model + 1))[0]


def steps(
    model: InverseDynamics, seeds: Sequence[int], episodes: Sequence[Sequence[Episode]], device: str = "cpu"
) -> Callable[[int], dict[str, Tensor]]:
    """The updates 0, 1, ... of N models, each on its own labeled episodes: a function of the number alone."""
    c = model.config
    parts = [split(own, c.held_out) for own in episodes]
    learned = windows.Contexts([own for own, _ in parts], seeds, c.radius, c.batch, device)
    held_out = windows.Contexts([own for _, own in parts], seeds, c.radius, c.batch, device).pairs
    update = Captured(model.update)

    def step(i: int) -> dict[str, Tensor]:
        metrics = update(*learned.batch(i, "idm"), Noise(seeds, "idm", i, device))
        if (i + 1) % c.choose_every == 0 or i + 1 == c.updates:
            metrics |= model.choose(held_out)
        return metrics

    return step


def split(episodes: Sequence[Episode], held_out: float) -> tuple[Sequence[Episode], Sequence[Episode]]:
    """Trajectories to learn from and to choose by; the same where there is one alone, or nothing is to be held out."""
    if held_out == 0 or len(episodes) == 1:
        return episodes, episodes
    ranked = sorted(episodes, key=lambda episode: rank("idm", 0, episode.episode_id))
    count = min(max(share(held_out, len(episodes)), 1), len(episodes) - 1)
    return ranked[count:], ranked[:count]


def fit(config: Config, episodes: list[Episode], normalizer: Normalizer) -> InverseDynamics:
    """One model, of seed 0, trained on the labeled episodes."""
    first = episodes[0].action
    assert first is not None
    model = InverseDynamics(config, [0], normalizer, first.shape[1])
    step = steps(model, [0], [episodes])
    for i in Bar(range(config.updates), desc="idm", unit="update"):
        step(i)
    return model
