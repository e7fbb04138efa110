"""Layers at every step of a loop over time, with their gradients written out.

Autograd would make a node of each small product, and add to every weight's gradient at every step. Here a step leaves
its inputs behind, goes back through a handful of kernels, and a layer's weights get their gradient in one product over
all steps. The maths is that of `blocks`; a test compares the two.

Shapes: T steps, N models, B batch, I inputs, F features, G given inputs, D deterministic state.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lawm_data.nets.blocks import MLP, GRUCell, Linear, Norm, over_time
from lawm_data.nets.elementwise import activated, gated, rows


class UnrolledMLP:
    """An MLP of `blocks`, step by step."""

    def __init__(self, mlp: MLP, steps: int, given: Tensor | None = None):
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
        self.blocks = [_Block(weight, layer.bias, own, steps) for weight, layer, own in layers]
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
            given = self.given.transpose(0, 1).flatten(1, 2)
            first[0] = torch.cat([first[0], given.mT @ self.blocks[0].into], 1)
        return [x for own in (first, *others, self.last.gradients() if self.last else []) for x in own]

    def given_gradient(self) -> Tensor:
        """Of `given`, [T, N, B, G], after `gradients`."""
        assert self.given is not None
        steps = torch.bmm(self.blocks[0].into, self.given_weight.mT).unflatten(1, (len(self.given), -1))
        return steps.transpose(0, 1)


class UnrolledGRU:
    """A GRUCell of `blocks`, step by step."""

    def __init__(self, cell: GRUCell, steps: int):
        weight = cell.gates.weight
        size = weight.shape[2] // 3
        self.of_input, self.of_state = _parts(weight, [weight.shape[1] - size, size])
        self.to_input, self.to_state = (part.mT.contiguous() for part in (self.of_input, self.of_state))
        self.bias, self.gated = cell.gates.bias, gated(cell.norm.scale, cell.norm.shift, steps)
        self.inputs: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """[N, B, I] and [N, B, D] -> the next [N, B, D]"""
        self.inputs.append((x, h))
        return self.gated.forward(x, h, self.of_input, self.of_state, self.bias)

    def backward(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the newest step's x and h from that of the state it led to."""
        into, of_h = self.gated.backward(gradient)
        return torch.bmm(into, self.to_input), torch.baddbmm(of_h, into, self.to_state, out=of_h)

    def gradients(self) -> list[Tensor]:
        into, others = self.gated.gradients()
        return [torch.cat([torch.bmm(rows(x).mT, into) for x in zip(*self.inputs, strict=True)], 1), *others]


class _Block:
    """Linear, LayerNorm and swish."""

    def __init__(self, weight: Tensor, bias: Tensor, norm: Norm, steps: int):
        self.weight, self.bias, self.transposed = weight, bias, weight.mT.contiguous()
        self.activated = activated(norm.scale, norm.shift, steps)
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor, projected: Tensor | None = None) -> Tensor:
        self.inputs.append(x)
        return self.activated.forward(x, self.weight, self.bias if projected is None else projected)

    def backward(self, gradient: Tensor, onto: Tensor | None = None) -> Tensor:
        into = self.activated.backward(gradient)
        return torch.bmm(into, self.transposed) if onto is None else torch.baddbmm(onto, into, self.transposed)

    def gradients(self) -> list[Tensor]:
        """Of weight, bias, scale and shift; keeps `into`, the gradient of Linear's result."""
        self.into, others = self.activated.gradients()
        return [torch.bmm(rows(self.inputs).mT, self.into), *others]


class _Linear:
    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias, self.transposed = weight, bias, weight.mT.contiguous()
        self.inputs: list[Tensor] = []
        self.back: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.inputs.append(x)
        return torch.baddbmm(self.bias, x, self.weight)

    def backward(self, gradient: Tensor) -> Tensor:
        self.back.append(gradient)
        return torch.bmm(gradient, self.transposed)

    def gradients(self) -> list[Tensor]:
        into = rows(self.back[::-1])
        return [torch.bmm(rows(self.inputs).mT, into), into.sum(1, keepdim=True)]


def _parts(weight: Tensor, inputs: list[int]) -> list[Tensor]:
    """[N, I, F] by inputs, each part dense: oneDNN would copy it at every product.

    It is also faster with what lies as it is multiplied, so that weights are transposed once for all steps.
    """
    return [part.contiguous() for part in weight.split(inputs, 1)]
