"""States along a window, filtered from its embeddings: the RSSM's loop as one node of autograd (see `unrolled`).

Shapes: T states, N models, B windows, E embedding, A action, D deterministic and S stochastic state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lawm_data.nets.fused import fused
from lawm_data.nets.products import step_by_step
from lawm_data.nets.rssm import RSSM, State, along_time
from lawm_data.nets.unrolled import UnrolledGRU, UnrolledMLP

aten = torch.ops.aten


class Filtering:
    """q(s_t | s_{t-1}, a_{t-1}, o_t) for t = 0..T-1, from the first state and zero action, under recorded actions.

    A subclass may choose actions on the way: `act` and its gradient `act_backward`, `begin` and `end` around the loop.
    It goes back once.
    """

    trained = 3  # the first results, which gradients come back through; the others have none

    def __init__(self, rssm: RSSM, embed: Tensor, action: Tensor, noise: Tensor):
        """embed [T, N, B, E], action [T-1, N, B, A], noise [T, N, B, S]."""
        self.rssm, self.embed, self.action, self.noise = rssm, embed, action, noise
        self.actions: Sequence[Tensor] = ()

    def __call__(self) -> tuple[Tensor, ...]:
        """feat [T, N, B, D+S], mean and std [T, N, B, S] of the states; then what `end` gives."""
        own = [parameter for module in self.modules() for parameter in module.parameters()]
        return _Node.apply(self, self.embed, *own)

    def states(self) -> State:
        """Of a filter without further results."""
        return State(*self())

    def modules(self) -> list[nn.Module]:
        """Whose parameters get gradients, in the order of `gradients`."""
        return [self.rssm.start, self.rssm.input, self.rssm.cell, self.rssm.posterior_head]

    def begin(self) -> None:
        self.actions = self.action.unbind()

    def act(self, feat: Tensor, t: int) -> Tensor:
        """The action [N, B, A] that leaves state t, from feat [N, B, D+S]."""
        return self.actions[t]

    def act_backward(self, grad_action: Tensor, grad_feat: Tensor, t: int) -> None:
        """Add what the gradient of the action that left state t makes of feat's, in place."""

    def end(self) -> tuple[Tensor, ...]:
        """Further results of the loop."""
        return ()

    def end_backward(self, *gradients: Tensor) -> None:
        """The gradients of these results, before the way back."""

    def gradients(self) -> list[Tensor | None]:
        """Of the parameters of `modules`, after the way back."""
        start = self.rssm.start.gradients(self.grad_start)
        return [*start, *self.input.gradients(), *self.cell.gradients(), *self.posterior.gradients()]

    def embed_gradient(self) -> Tensor:
        return self.posterior.given_gradient()

    def forward(self) -> tuple[Tensor, ...]:
        stoch, shape = self.rssm.sizes[1], self.embed.shape[1:3]
        steps = len(self.noise)
        self.input, self.cell = UnrolledMLP(self.rssm.input, steps), UnrolledGRU(self.rssm.cell, steps)
        self.posterior = UnrolledMLP(self.rssm.posterior_head, steps, self.embed)
        self.noises = self.noise.unbind()
        self.begin()
        h = self.rssm.start.state(self.embed[0])
        z, action = (self.embed.new_zeros(*shape, size) for size in (stoch, self.action.shape[-1]))
        self.curves: list[Tensor] = []
        states = []
        with step_by_step(h):
            for t, noise in enumerate(self.noises):
                h = self.cell.forward(self.input.forward(torch.cat([z, action], -1), t), h)
                feat, z, mean, std, curve = drawn(self.posterior.forward(h, t), noise, h, self.rssm.least_std)
                states.append((feat, mean, std))
                self.curves.append(curve)
                if t < len(self.action):
                    action = self.act(feat, t)
        return tuple(along_time(field) for field in zip(*states, strict=True)) + self.end()

    def backward(self, grad_feat: Tensor, grad_mean: Tensor, grad_std: Tensor, *others: Tensor) -> list[Tensor | None]:
        """Gradients of embed and of the modules' parameters from those of the loop's results."""
        self.end_backward(*others)
        with step_by_step(grad_feat[0, ..., : self.rssm.sizes[0]]):
            self.go_back(grad_feat, grad_mean, grad_std)
        own = self.gradients()
        return [self.embed_gradient(), *own]

    def go_back(self, grad_feat: Tensor, grad_mean: Tensor, grad_std: Tensor) -> None:
        """Step by step; each layer keeps the gradients of its own parameters."""
        deter, stoch = self.rssm.sizes
        grad_feat = grad_feat.clone()  # what later steps add is added in place, through the views below
        grad_feats, grad_means, grad_stds = grad_feat.unbind(), grad_mean.unbind(), grad_std.unbind()
        grad_h, grad_z = grad_feat[..., :deter].unbind(), grad_feat[..., deter:].unbind()
        grad_action: Tensor | None = None
        for t in reversed(range(len(grad_feats))):
            if grad_action is not None:
                self.act_backward(grad_action, grad_feats[t], t)
            grad_raw = drawn_backward(grad_means[t], grad_stds[t], grad_z[t], self.noises[t], self.curves[t])
            grad_x, from_h = self.cell.backward(self.posterior.backward(grad_raw, onto=grad_h[t]))
            grad_input = self.input.backward(grad_x)
            if t == 0:
                self.grad_start = from_h
                return
            from_z, grad_action = grad_input.split([stoch, self.action.shape[-1]], -1)
            grad_h[t - 1].add_(from_h)
            grad_z[t - 1].add_(from_z)


class _Node(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loop: Filtering, *_: Tensor) -> tuple[Tensor, ...]:
        ctx.loop = loop
        results = loop.forward()
        ctx.mark_non_differentiable(*results[loop.trained :])
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.loop.backward(*gradients))


@fused
def drawn(parameters: Tensor, noise: Tensor, before: Tensor, least: float) -> tuple[Tensor, ...]:
    """[before, sample]; sample, mean and std of the Gaussian that `dists.gaussian` makes of the parameters; its curve,
    which the gradient needs. [N, B, .] each.
    """
    mean, raw = parameters.chunk(2, -1)
    curve = torch.tanh(raw * 0.25)  # 2 sigmoid(x / 2) = 1 + tanh(x / 4)
    std = curve + (1 + least)
    sample = torch.addcmul(mean, std, noise)
    return torch.cat([before, sample], -1), sample, mean, std, curve


@fused
def drawn_backward(grad_mean: Tensor, grad_std: Tensor, grad_sample: Tensor, noise: Tensor, curve: Tensor) -> Tensor:
    """The gradient of the parameters of `drawn`, whose sample is mean + std noise."""
    grad_raw = aten.tanh_backward(torch.addcmul(grad_std, grad_sample, noise), curve)
    return torch.cat([grad_mean + grad_sample, grad_raw * 0.25], -1)
