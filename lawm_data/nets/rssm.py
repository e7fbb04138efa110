"""The recurrent state-space model (Hafner et al. 2019a, with argmax-ai/aime's choices), and its one loop.

Shapes: T time, N models, B batch, D deterministic state, S stochastic state, A action, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lawm_data.nets.blocks import MLP, GRUCell, Init
from lawm_data.nets.dists import bounded_std


class State(NamedTuple):
    """s_t: deter [..., N, B, D]; stoch [..., N, B, S], drawn from N(mean, std^2)."""

    deter: Tensor
    stoch: Tensor
    mean: Tensor
    std: Tensor

    @property
    def feat(self) -> Tensor:
        """[..., N, B, D + S], what every head sees of a state."""
        return torch.cat([self.deter, self.stoch], -1)

    def map(self, function: Callable[[Tensor], Tensor]) -> State:
        return State(*(function(x) for x in self))


Control = Tensor | Callable[[State, int], Tensor]


class RSSM(nn.Module):
    """p(s_t | s_{t-1}, a_{t-1}) and q(s_t | s_{t-1}, a_{t-1}, o_t)."""

    def __init__(self, init: Init, action: int, embed: int, deter: int, stoch: int, hidden: int):
        super().__init__()
        self.sizes = (deter, stoch)
        self.input = MLP(init, stoch + action, hidden, 1)
        self.cell = GRUCell(init, hidden, deter)
        self.prior_head = MLP(init, deter, hidden, 1, 2 * stoch)
        self.posterior_head = MLP(init, deter + embed, hidden, 1, 2 * stoch)

    def zeros(self, like: Tensor) -> State:
        """The state before the first observation; `like` [N, B, ...] gives sizes and device."""
        deter, stoch = (like.new_zeros(*like.shape[:2], size) for size in self.sizes)
        return State(deter, stoch, stoch, stoch + 1)

    def prior(self, deter: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of p(s_t | h_t), [..., N, B, S] each."""
        return _gaussian(self.prior_head(deter))

    def step(self, state: State, action: Tensor, noise: Tensor, embed: Tensor | None = None) -> State:
        """One transition [N, B, ...]: the posterior given `embed` [N, B, E], else the prior; noise [N, B, S]."""
        x = self.input(torch.cat([state.stoch, action], -1))
        deter = self.cell(x, state.deter)
        if embed is None:
            mean, std = self.prior(deter)
        else:
            mean, std = _gaussian(self.posterior_head(torch.cat([deter, embed], -1)))
        return State(deter, torch.addcmul(mean, std, noise), mean, std)

    def first(self, embed: Tensor, action: int, noise: Tensor) -> State:
        """s_0 filtered from zero state, zero action (of size A) and the first embedding [N, B, E]; noise [N, B, S]."""
        return self.step(self.zeros(embed), embed.new_zeros(*embed.shape[:2], action), noise, embed)

    def rollout(
        self, state: State, control: Control, length: int, noise: Tensor, embed: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """`length` transitions from `state` [N, B, ...]: filtering with `embed` [T, N, B, E], imagining without.

        control: actions [T, N, B, A], or a function of (state, t) that gives the action leaving state t.
        Returns the states after each transition [T, N, B, ...] and the actions taken [T, N, B, A].
        """
        states, actions = [], []
        # unbound once: the gradient of embed[t] would be a tensor of zeros as large as embed, for every t
        embeds = [None] * length if embed is None else embed.unbind()
        for t in range(length):
            action = control[t] if isinstance(control, Tensor) else control(state, t)
            state = self.step(state, action, noise[t], embeds[t])
            states.append(state)
            actions.append(action)
        return State(*(torch.stack(field) for field in zip(*states, strict=True))), torch.stack(actions)


class Filter:
    """A policy: filters the state from observations, acts on it, and feeds the executed action back.

    The filter takes the posterior's mean. State is carried between calls.
    """

    def __init__(
        self, rssm: RSSM, embed: Callable[[Tensor], Tensor], action: int, act: Callable[[Tensor, int], Tensor]
    ):
        """embed: observation [N, B, O] -> [N, B, E]; action: A; act(feat [N, B, D+S], step) -> action [N, B, A]."""
        self.rssm, self.embed, self.action_size, self.act = rssm, embed, action, act
        self.state: State | None = None

    @torch.no_grad()
    def __call__(self, observation: Tensor, first: Tensor) -> Tensor:
        """Observation [N, B, O] and first [N, B] (True where an episode begins) -> action [N, B, A]."""
        embed = self.embed(observation)
        if self.state is None or bool(first.all()):
            self.state = self.rssm.zeros(embed)
            self.action = embed.new_zeros(*embed.shape[:2], self.action_size)
            self.steps = 0
        elif bool(first.any()):
            zeros, fresh = self.rssm.zeros(embed), first[..., None]
            self.state = State(*(torch.where(fresh, a, b) for a, b in zip(zeros, self.state, strict=True)))
            self.action = self.action.masked_fill(fresh, 0)
        self.state = self.rssm.step(self.state, self.action, torch.zeros_like(self.state.mean), embed)
        self.action = self.act(self.state.feat, self.steps)
        self.steps += 1
        return self.action


def _gaussian(parameters: Tensor) -> tuple[Tensor, Tensor]:
    mean, raw = parameters.chunk(2, -1)
    return mean, bounded_std(raw)
