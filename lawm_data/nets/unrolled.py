"""Layers at every step of a loop over time, with their gradients written out.

Autograd would make a node of each small product, and add to every weight's gradient at every step. Here a step leaves
its inputs behind, goes back through a handful of kernels, and a layer's weights get their gradient in one product over
all steps. The maths is that of `blocks`; a test compares the two.

Shapes: T steps, N models, B batch, I inputs, F features, G given inputs, D deterministic state.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lawm_data.nets.blocks import MLP, GRUCell, Linear, Norm, over_time
from lawm_data.nets.fused import fused

aten = torch.ops.aten
INPUT_ALONE = [True, False, False]


class UnrolledMLP:
    """An MLP of `blocks`, step by step."""

    def __init__(self, mlp: MLP, given: Tensor | None = None):
        """given [T, N, B, G]: the last G inputs where all steps' are known beforehand, projected in one product."""
        linear = [part for part in mlp.layers if isinstance(part, Linear)]
        norm = [part for part in mlp.layers if isinstance(part, Norm)]
        weights: list[Tensor] = [layer.weight for layer in linear]
        self.given, self.projected = given, None
        if given is not None:
            sizes = [weights[0].shape[1] - given.shape[-1], given.shape[-1]]
            weights[0], self.given_weight = _parts(weights[0], sizes)
            self.projected = over_time(lambda x: torch.baddbmm(linear[0].bias, x, self.given_weight), given).unbind()
        layers = zip(weights, linear, norm, strict=False)  # behind a last Linear there is no norm
        self.blocks = [_Block(weight, layer.bias, own) for weight, layer, own in layers]
        self.last = _Linear(weights[-1], linear[-1].bias) if len(linear) > len(norm) else None

    def forward(self, x: Tensor, t: int) -> Tensor:
        """[N, B, I] -> [N, B, outputs]; with `given`, x lacks the given inputs."""
        x = self.blocks[0].forward(x, None if self.projected is None else self.projected[t])
        for block in self.blocks[1:]:
            x = block.forward(x)
        return self.last.forward(x) if self.last else x

    def backward(self, gradient: Tensor, onto: Tensor | None = None) -> Tensor:
        """The gradient of the newest step's x from that of its result, added to `onto`; steps go last to first."""
        if self.last:
            gradient = self.last.backward(gradient)
        for block in reversed(self.blocks[1:]):
            gradient = block.backward(gradient)
        return self.blocks[0].backward(gradient, onto)

    def gradients(self) -> list[Tensor]:
        """Of the MLP's parameters, in their order, after all steps have gone back."""
        first, *others = (block.gradients() for block in self.blocks)
        if self.given is not None:
            rows = self.given.transpose(0, 1).flatten(1, 2)
            first[0] = torch.cat([first[0], rows.mT @ self.blocks[0].into], 1)
        return [x for own in (first, *others, self.last.gradients() if self.last else []) for x in own]

    def given_gradient(self) -> Tensor:
        """Of `given`, [T, N, B, G], after `gradients`."""
        assert self.given is not None
        steps = torch.bmm(self.blocks[0].into, self.given_weight.mT).unflatten(1, (len(self.given), -1))
        return steps.transpose(0, 1)


class UnrolledGRU:
    """A GRUCell of `blocks`, step by step."""

    def __init__(self, cell: GRUCell):
        weight = cell.gates.weight
        self.size = weight.shape[2] // 3
        self.of_input, self.of_state = _parts(weight, [weight.shape[1] - self.size, self.size])
        self.to_input, self.to_state = (part.mT.contiguous() for part in (self.of_input, self.of_state))
        shift = cell.norm.shift.clone()
        shift[..., 2 * self.size :] -= 1  # the update gate's bias to keep
        self.bias, self.scale, self.shift = cell.gates.bias, _applied(cell.norm.scale), _applied(shift)
        self.steps: list[tuple[Tensor, ...]] = []
        self.back: list[tuple[Tensor, ...]] = []

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """[N, B, I] and [N, B, D] -> the next [N, B, D]"""
        before = torch.baddbmm(torch.baddbmm(self.bias, x, self.of_input), h, self.of_state)
        after, *kept = _gated(before, h, self.scale, self.shift)
        self.steps.append((x, h, before, *kept))
        return after

    def backward(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the newest step's x and h from that of the state it led to."""
        x, h, before, mean, rstd, normed, *gates = self.steps.pop()
        of_gates, into, of_h = _gated_backward(gradient, h, before, mean, rstd, self.scale, *gates)
        self.back.append((x, h, of_gates, into, *_needed(self.scale, before, mean, rstd, normed)))
        return torch.bmm(into, self.to_input), torch.baddbmm(of_h, into, self.to_state)

    def gradients(self) -> list[Tensor]:
        x, h, gradient, into, *norm = _rows(self.back)
        weight = torch.bmm(torch.cat([x, h], -1).mT, into)
        return [weight, *_bias_and_norm(gradient, into, *norm)]


class _Block:
    """Linear, LayerNorm and swish."""

    def __init__(self, weight: Tensor, bias: Tensor, norm: Norm):
        self.weight, self.bias = weight, bias
        self.scale, self.shift = _applied(norm.scale), _applied(norm.shift)
        self.transposed = weight.mT.contiguous()
        self.steps: list[tuple[Tensor, ...]] = []
        self.back: list[tuple[Tensor, ...]] = []

    def forward(self, x: Tensor, projected: Tensor | None = None) -> Tensor:
        before = torch.baddbmm(self.bias if projected is None else projected, x, self.weight)
        after, *kept = _activated(before, self.scale, self.shift)
        self.steps.append((x, before, *kept))
        return after

    def backward(self, gradient: Tensor, onto: Tensor | None = None) -> Tensor:
        x, before, mean, rstd, normed, y = self.steps.pop()
        gradient, into = _activated_backward(gradient, before, mean, rstd, y, self.scale)
        self.back.append((x, gradient, into, *_needed(self.scale, before, mean, rstd, normed)))
        return torch.bmm(into, self.transposed) if onto is None else torch.baddbmm(onto, into, self.transposed)

    def gradients(self) -> list[Tensor]:
        """Of weight, bias, scale and shift; keeps `into`, the gradient of Linear's result."""
        x, gradient, self.into, *norm = _rows(self.back)
        return [torch.bmm(x.mT, self.into), *_bias_and_norm(gradient, self.into, *norm)]


class _Linear:
    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias, self.transposed = weight, bias, weight.mT.contiguous()
        self.steps: list[Tensor] = []
        self.back: list[tuple[Tensor, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.steps.append(x)
        return torch.baddbmm(self.bias, x, self.weight)

    def backward(self, gradient: Tensor) -> Tensor:
        self.back.append((self.steps.pop(), gradient))
        return torch.bmm(gradient, self.transposed)

    def gradients(self) -> list[Tensor]:
        x, into = _rows(self.back)
        return [torch.bmm(x.mT, into), into.sum(1, keepdim=True)]


def _parts(weight: Tensor, inputs: list[int]) -> list[Tensor]:
    """[N, I, F] by inputs, each part dense: oneDNN would copy it at every product.

    It is also faster with what lies as it is multiplied, so that weights are transposed once for all steps.
    """
    return [part.contiguous() for part in weight.split(inputs, 1)]


def _applied(scale: Tensor) -> Tensor:
    """A norm's scale or shift [N, 1, F] as its kernel takes it: [F] of one model, which it can apply itself."""
    return scale[0, 0] if len(scale) == 1 else scale


def _rows(back: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """What T steps left, last step first, each tensor [N, B, F] -> in order of time, [N, T * B, F]."""
    return [torch.stack(steps, 1).flatten(1, 2) for steps in zip(*reversed(back), strict=True)]


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


def _bias_and_norm(gradient: Tensor, into: Tensor, x: Tensor, *moments: Tensor) -> list[Tensor]:
    """Gradients of a linear layer's bias, and of the scale and shift of the norm behind it, from rows [N, T * B, F].

    gradient and into: of the results of norm and linear layer; x and moments: what is `_needed`.
    """
    if moments:
        mean, rstd = moments
        x = (x - mean).mul_(rstd)
    return [one.sum(1, keepdim=True) for one in (into, x.mul_(gradient), gradient)]
