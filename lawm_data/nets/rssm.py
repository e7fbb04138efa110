"""The recurrent state-space model (Hafner et al. 2019a, with argmax-ai/aime's choices): its step, and imagination.

`filtering` has the loop along observations.

Shapes: T time, N models, B batch, D deterministic state, S stochastic state, A action, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lawm_data.nets.blocks import MLP, GRUCell, Init
from lawm_data.nets.dists import LEAST_STD, Gaussian, gaussian


class State(NamedTuple):
    """s_t: feat [..., N, B, D + S], what every head sees: deter, then stoch, which is drawn from N(mean, std^2)."""

    feat: Tensor
    mean: Tensor
    std: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """deter [..., N, B, D] and stoch [..., N, B, S]."""
        stoch = self.mean.shape[-1]
        return self.feat.split([self.feat.shape[-1] - stoch, stoch], -1)

    def map(self, function: Callable[[Tensor], Tensor]) -> State:
        return State(*(function(x) for x in self))

    def starts(self, first: int, stride: int) -> State:
        """Every stride-th of states [T, N, B, ...] from `first` (modulo stride) on, detached, as points [N, P, ...]."""
        return self.map(lambda x: x[first % stride :: stride].detach().transpose(0, 1).flatten(1, 2))


class Start(nn.Module):
    """The deterministic state before a window or an episode: zero, or tanh of learned weights that begin at zero."""

    def __init__(self, init: Init, deter: int, learned: bool):
        super().__init__()
        self.deter = deter
        self.raw = init.constant((1, deter), 0.0) if learned else None

    def state(self, like: Tensor) -> Tensor:
        """[N, B, D]; `like` [N, B, ...] gives sizes and device."""
        if self.raw is None:
            return like.new_zeros(*like.shape[:2], self.deter)
        return torch.tanh(self.raw).expand(-1, like.shape[1], -1)

    def gradients(self, of_start: Tensor) -> list[Tensor]:
        """Of the parameters, from that of what `state` gave."""
        if self.raw is None:
            return []
        return [of_start.sum(1, keepdim=True) * (1 - torch.tanh(self.raw.detach()).square())]


Control = Tensor | Callable[[State, int], Tensor]


class RSSM(nn.Module):
    """p(s_t | s_{t-1}, a_{t-1}) and q(s_t | s_{t-1}, a_{t-1}, o_t)."""

    def __init__(
        self,
        init: Init,
        action: int,
        embed: int,
        deter: int,
        stoch: int,
        hidden: int,
        *,
        layers: int = 1,
        learned_start: bool = False,
        least_std: float = LEAST_STD,
    ):
        """layers: hidden, of prior and posterior; learned_start: of `start`; least_std: of the stochastic state."""
        super().__init__()
        self.sizes, self.least_std = (deter, stoch), least_std
        self.start = Start(init, deter, learned_start)
        self.input = MLP(init, stoch + action, hidden, 1)
        self.cell = GRUCell(init, hidden, deter)
        self.prior_head = MLP(init, deter, hidden, layers, 2 * stoch)
        self.posterior_head = MLP(init, deter + embed, hidden, layers, 2 * stoch)

    def first(self, like: Tensor) -> State:
        """The state before the first observation; `like` [N, B, ...] gives sizes and device."""
        mean = like.new_zeros(*like.shape[:2], self.sizes[1])
        return State(torch.cat([self.start.state(like), mean], -1), mean, mean + 1)

    def prior(self, deter: Tensor) -> Gaussian:
        """p(s_t | h_t), [..., N, B, S]."""
        return gaussian(self.prior_head(deter), self.least_std)

    def step(self, state: State, action: Tensor, noise: Tensor, embed: Tensor | None = None) -> State:
        """One transition [N, B, ...]: the posterior given `embed` [N, B, E], else the prior; noise [N, B, S]."""
        before, stoch = state.parts
        deter = self.cell(self.input(torch.cat([stoch, action], -1)), before)
        if embed is None:
            mean, std = self.prior(deter)
        else:
            mean, std = gaussian(self.posterior_head(torch.cat([deter, embed], -1)), self.least_std)
        return State(torch.cat([deter, torch.addcmul(mean, std, noise)], -1), mean, std)

    def imagine(self, state: State, control: Control, noise: Tensor) -> tuple[State, Tensor]:
        """As many transitions from `state` [N, B, ...] as there is noise [T, N, B, S].

        control: actions [T, N, B, A], or a function of (state, t) that gives the action leaving state t.
        Returns the states after each transition [T, N, B, ...] and the actions taken [T, N, B, A].
        """
        states, actions = [], []
        for t, drawn in enumerate(noise.unbind()):
            action = control[t] if isinstance(control, Tensor) else control(state, t)
            state = self.step(state, action, drawn)
            states.append(state)
            actions.append(action)
        return State(*(along_time(field) for field in zip(*states, strict=True))), along_time(actions)


def along_time(steps: Sequence[Tensor]) -> Tensor:
    """T tensors [N, B, F] -> [T, N, B, F], laid out model by model: a head takes each model's rows without a copy."""
    return torch.stack(tuple(steps), 1).transpose(0, 1)


class Filter:
    """A policy: filters the state from observations, acts on it, and feeds the executed action back.

    State is carried between calls.
    """

    def __init__(
        self,
        rssm: RSSM,
        embed: Callable[[Tensor], Tensor],
        action: int,
        act: Callable[[Tensor], Tensor],
        noise: Callable[[Tensor], Tensor] = torch.zeros_like,
    ):
        """embed: observation [N, B, O] -> [N, B, E]; action: A; act: feat [N, B, D+S] -> action [N, B, A].

        noise: of the state, shaped as its mean [N, B, S]; without, the filter takes the posterior's mean.
        """
        self.rssm, self.embed, self.action_size, self.act, self.noise = rssm, embed, action, act, noise
        self.state: State | None = None

    @torch.no_grad()
    def __call__(self, observation: Tensor, first: Tensor) -> Tensor:
        """Observation [N, B, O] and first [N, B] (True where an episode begins) -> action [N, B, A]."""
        embed = self.embed(observation)
        if self.state is None or bool(first.all()):  # in all environments or in none, see `rollout`
            self.state = self.rssm.first(embed)
            self.action = embed.new_zeros(*embed.shape[:2], self.action_size)
        self.state = self.rssm.step(self.state, self.action, self.noise(self.state.mean), embed)
        self.action = self.act(self.state.feat)
        return self.action
