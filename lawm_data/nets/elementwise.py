"""What stands between two matrix products of a loop over time, at every step, and its gradient (see `unrolled`).

In PyTorch, and by the kernels of `kernels` where these serve; both take their steps back last to first.

Shapes: T steps, N models, B batch, I inputs, F features, D deterministic state. Scale, shift and bias [N, 1, F].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lawm_data.nets import kernels
from lawm_data.nets.fused import fused

aten = torch.ops.aten
INPUT_ALONE = [True, False, False]


class Activated:
    """swish(Norm(x W + b))"""

    def __init__(self, scale: Tensor, shift: Tensor):
        self.scale, self.shift = _applied(scale), _applied(shift)
        self.steps: list[tuple[Tensor, ...]] = []
        self.back: list[tuple[Tensor, ...]] = []

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """[N, B, I] -> [N, B, F]; bias [N, 1, F], or [N, B, F] of each row's own."""
        before = torch.baddbmm(bias, x, weight)
        after, *kept = _activated(before, self.scale, self.shift)
        self.steps.append((before, *kept))
        return after

    def backward(self, gradient: Tensor) -> Tensor:
        """The gradient of x W of the newest step from that of its result."""
        before, mean, rstd, normed, y = self.steps.pop()
        gradient, into = _activated_backward(gradient, before, mean, rstd, y, self.scale)
        self.back.append((gradient, into, *_needed(self.scale, before, mean, rstd, normed)))
        return into

    def gradients(self) -> tuple[Tensor, list[Tensor]]:
        """Of x W, rows [N, T * B, F] in order of time; of bias, scale and shift [N, 1, F]."""
        return _gradients(self.back)


class Gated:
    """The state that follows h, of a GRU whose gates are Norm(x W + h V + b), the update gate's less 1: to keep."""

    def __init__(self, scale: Tensor, shift: Tensor):
        shift = shift.clone()
        shift[..., 2 * (shift.shape[2] // 3) :] -= 1
        self.scale, self.shift = _applied(scale), _applied(shift)
        self.steps: list[tuple[Tensor, ...]] = []
        self.back: list[tuple[Tensor, ...]] = []

    def forward(self, x: Tensor, h: Tensor, of_input: Tensor, of_state: Tensor, bias: Tensor) -> Tensor:
        """[N, B, I] and [N, B, D] -> the next [N, B, D]"""
        before = torch.baddbmm(bias, x, of_input)
        torch.baddbmm(before, h, of_state, out=before)  # PyTorch's counter of operations does not know baddbmm_
        after, *kept = _gated(before, h, self.scale, self.shift)
        self.steps.append((h, before, *kept))
        return after

    def backward(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the gates' products, and of h as the gates keep it."""
        h, before, mean, rstd, normed, *gates = self.steps.pop()
        of_gates, into, of_h = _gated_backward(gradient, h, before, mean, rstd, self.scale, *gates)
        self.back.append((of_gates, into, *_needed(self.scale, before, mean, rstd, normed)))
        return into, of_h

    def gradients(self) -> tuple[Tensor, list[Tensor]]:
        """As `Activated`'s, of the gates' products."""
        return _gradients(self.back)


class _Kept:
    """What kernels leave of T steps, and gradients: `into` of products, `sums` [N, 3, F] of bias, scale and shift."""

    def __init__(self, scale: Tensor, shift: Tensor, steps: int):
        self.scale, self.shift, self.steps, self.t = scale, shift, steps, -1

    def further(self, product: Tensor) -> tuple[Tensor, Tensor]:
        """`normed` [N, B, F] and `rstd` [N, B] of a step, to be filled in."""
        self.t += 1
        if self.t == 0:
            models, rows, size = product.shape
            self.normed = product.new_empty(self.steps, models, rows, size).unbind()
            self.rstd = product.new_empty(self.steps, models, rows).unbind()
        return self.normed[self.t], self.rstd[self.t]

    def back(self) -> tuple[Tensor, Tensor, Tensor]:
        """`normed` and `rstd` of the newest step left, and its `into`, to be filled in."""
        t, last = self.t, self.t == self.steps - 1
        if last:
            models, rows, size = self.normed[t].shape
            self.into = self.scale.new_empty(models, self.steps, rows, size)
            self.intos = self.into.unbind(1)
            self.sums = self.scale.new_zeros(models, 3, size)
        self.t -= 1
        return self.normed[t], self.rstd[t], self.intos[t]

    def gradients(self) -> tuple[Tensor, list[Tensor]]:
        return self.into.flatten(1, 2), list(self.sums.split(1, 1))


class ActivatedByKernel(_Kept):
    """`Activated`"""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        after = torch.bmm(x, weight)
        kernels.activated(after, bias, self.scale, self.shift, *self.further(after))
        return after

    def backward(self, gradient: Tensor) -> Tensor:
        normed, rstd, into = self.back()
        kernels.activated_backward(gradient, normed, rstd, self.scale, self.shift, into, self.sums)
        return into


class GatedByKernel(_Kept):
    """`Gated`"""

    def __init__(self, scale: Tensor, shift: Tensor, steps: int):
        super().__init__(scale, shift, steps)
        self.states: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, h: Tensor, of_input: Tensor, of_state: Tensor, bias: Tensor) -> Tensor:
        product, h = torch.bmm(x, of_input), h.contiguous()
        torch.baddbmm(product, h, of_state, out=product)
        gates = h.new_empty(*h.shape[:2], 4 * h.shape[2])
        self.states.append((h, gates))
        return kernels.gated(product, bias, h, self.scale, self.shift, *self.further(product), gates)

    def backward(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (h, gates), (normed, rstd, into) = self.states.pop(), self.back()
        return into, kernels.gated_backward(gradient, h, normed, rstd, gates, self.scale, into, self.sums)


def activated(scale: Tensor, shift: Tensor, steps: int) -> Activated | ActivatedByKernel:
    return ActivatedByKernel(scale, shift, steps) if kernels.serve(scale) else Activated(scale, shift)


def gated(scale: Tensor, shift: Tensor, steps: int) -> Gated | GatedByKernel:
    return GatedByKernel(scale, shift, steps) if kernels.serve(scale) else Gated(scale, shift)


def rows(steps: Sequence[Tensor]) -> Tensor:
    """T tensors [N, B, F] -> [N, T * B, F]"""
    return torch.stack(tuple(steps), 1).flatten(1, 2)


def _applied(scale: Tensor) -> Tensor:
    """A norm's scale or shift [N, 1, F] as its kernel takes it: [F] of one model, which it can apply itself."""
    return scale[0, 0] if len(scale) == 1 else scale


@fused
def _activated(before: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
    """swish(Norm(before)); mean, reciprocal deviation and `normed` of `before`, and Norm(before)."""
    y, *kept = _normed(before, scale, shift)
    return F.silu(y), *kept, y


@fused
def _activated_backward(
    gradient: Tensor, before: Tensor, mean: Tensor, rstd: Tensor, y: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of Norm's result and of `before`."""
    gradient = aten.silu_backward(gradient, y)
    return gradient, _normed_backward(gradient, before, mean, rstd, scale)


@fused
def _gated(before: Tensor, h: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
    """The state after h; mean, reciprocal deviation and `normed` of `before`, and the gates."""
    gates, *kept = _normed(before, scale, shift)
    reset, proposal, update = gates.chunk(3, -1)
    reset, update = torch.sigmoid(reset), torch.sigmoid(update)
    candidate = torch.tanh(reset * proposal)
    return torch.lerp(h, candidate, update), *kept, reset, proposal, update, candidate


@fused
def _gated_backward(
    gradient: Tensor,
    h: Tensor,
    before: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scale: Tensor,
    reset: Tensor,
    proposal: Tensor,
    update: Tensor,
    candidate: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of Norm's result, of `before`, and of h as the gates keep it."""
    kept = gradient * update
    inner = aten.tanh_backward(kept, candidate)
    parts = (
        aten.sigmoid_backward(inner * proposal, reset),
        inner * reset,
        aten.sigmoid_backward(gradient * (candidate - h), update),
    )
    gates = torch.cat(parts, -1)
    return gates, _normed_backward(gates, before, mean, rstd, scale), gradient - kept


def _normed(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Norm(x); the mean and reciprocal deviation [N, B, 1] of x; x less its mean, over its deviation, or x itself."""
    size = x.shape[-1:]
    if scale.dim() == 1:
        return *torch.native_layer_norm(x, size, scale, shift, 1e-5), x
    normed, mean, rstd = torch.native_layer_norm(x, size, None, None, 1e-5)
    return torch.addcmul(shift, normed, scale), mean, rstd, normed


def _normed_backward(gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, scale: Tensor) -> Tensor:
    size, own = x.shape[-1:], None
    if scale.dim() == 1:
        own = scale
    else:
        gradient = gradient * scale
    return aten.native_layer_norm_backward(gradient, x, size, mean, rstd, own, None, INPUT_ALONE)[0]


def _needed(scale: Tensor, before: Tensor, mean: Tensor, rstd: Tensor, normed: Tensor) -> tuple[Tensor, ...]:
    """What the gradient of `scale` needs of `_normed`."""
    return (before, mean, rstd) if scale.dim() == 1 else (normed,)


def _gradients(back: list[tuple[Tensor, ...]]) -> tuple[Tensor, list[Tensor]]:
    """From what the steps left, last first: gradients of the results of norm and linear layer, what is `_needed`."""
    gradient, into, x, *moments = (rows(steps) for steps in zip(*reversed(back), strict=True))
    if moments:
        mean, rstd = moments
        x = (x - mean).mul_(rstd)
    return into, [one.sum(1, keepdim=True) for one in (into, x.mul_(gradient), gradient)]
