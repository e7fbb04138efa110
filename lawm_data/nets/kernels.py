"""Kernels in C for what stands between matrix products, where the package was installed with a C compiler.

For float32 on a CPU: a kernel passes once over the rows that PyTorch's own pass over several times. They give the same
but for rounding. `elementwise` and `blocks` have the maths in PyTorch.

Shapes: N models, B batch, I inputs, F features, D deterministic state. Scale, shift and bias [N, 1, F].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

try:
    import lawm_data.nets._kernels as _kernels
except ModuleNotFoundError:  # not built; one that cannot be loaded is an error
    BUILT = False
else:
    BUILT = True

SHARED = 32_768  # numbers, from which on PyTorch shares its elementwise work among threads; a kernel has one


def serve(x: Tensor) -> bool:
    """Whether to use the kernels for tensors like x. They gain beside two threads; more were not measured."""
    if not (BUILT and x.dtype == torch.float32 and x.device.type == "cpu"):
        return False
    return x.numel() < SHARED or torch.get_num_threads() <= 2


def activated(product: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, normed: Tensor, rstd: Tensor) -> None:
    """Put swish(LayerNorm(product + bias)) in the product's place; fill in normed [N, B, F] and rstd [N, B].

    bias [N, 1, F], or [N, B, F] of each row's own.
    """
    models, row, _ = bias.stride()
    sizes, at = product.shape, product.data_ptr()
    row = row if bias.shape[1] > 1 else 0
    _kernels.activated(*sizes, at, bias.data_ptr(), models, row, *_at(scale, shift, normed, rstd), at)


def activated_backward(
    gradient: Tensor, normed: Tensor, rstd: Tensor, scale: Tensor, shift: Tensor, into: Tensor, sums: Tensor
) -> None:
    """Fill in `into`, the gradient of product + bias; add to sums [N, 3, F] those of bias, scale and shift."""
    gradient = gradient.contiguous()
    _kernels.activated_backward(
        *into.shape, *_at(gradient, normed, rstd, scale, shift, into), into.stride(0), sums.data_ptr()
    )


def gated(
    product: Tensor, bias: Tensor, h: Tensor, scale: Tensor, shift: Tensor, normed: Tensor, rstd: Tensor, gates: Tensor
) -> Tensor:
    """The state [N, B, D] after h, from the product [N, B, 3 D] of its gates; fills in `gates` [N, B, 4 D] too."""
    after = torch.empty_like(h)
    _kernels.gated(*h.shape, *_at(product, bias, h, scale, shift, normed, rstd, gates, after))
    return after


def gated_backward(
    gradient: Tensor,
    h: Tensor,
    normed: Tensor,
    rstd: Tensor,
    gates: Tensor,
    scale: Tensor,
    into: Tensor,
    sums: Tensor,
) -> Tensor:
    """The gradient of h as the gates keep it; `into` and sums as above."""
    gradient, of_h = gradient.contiguous(), torch.empty_like(h)
    _kernels.gated_backward(
        *h.shape, *_at(gradient, h, normed, rstd, gates, scale, into), into.stride(0), *_at(of_h, sums)
    )
    return of_h


def block(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """swish(LayerNorm(x W + b)): [N, B, I] -> [N, B, F]"""
    return _Activated.apply(torch.bmm(x, weight), bias, scale, shift)


def gru(x: Tensor, h: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`blocks.GRUCell`: [N, B, I] and [N, B, D] -> [N, B, D]"""
    return _Gated.apply(torch.bmm(torch.cat([x, h], -1), weight), h, bias, scale, shift)


class _Activated(torch.autograd.Function):
    """The product is PyTorch's own, which alone knows whether a `backward(inputs=...)` wants the weights' gradient."""

    @staticmethod
    def forward(ctx: Any, product: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        normed, rstd = _kept(product)
        activated(product, bias, scale, shift, normed, rstd)
        ctx.mark_dirty(product)
        ctx.save_for_backward(scale, shift, normed, rstd)
        return product

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        scale, shift, normed, rstd = ctx.saved_tensors
        into, sums = torch.empty_like(normed), _sums(normed)
        activated_backward(gradient, normed, rstd, scale, shift, into, sums)
        return into, *sums.split(1, 1)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, product: Tensor, h: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        h, (normed, rstd) = h.contiguous(), _kept(product)
        gates = h.new_empty(*h.shape[:2], 4 * h.shape[2])
        after = gated(product, bias, h, scale, shift, normed, rstd, gates)
        ctx.save_for_backward(h, scale, normed, rstd, gates)
        return after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        h, scale, normed, rstd, gates = ctx.saved_tensors
        into, sums = torch.empty_like(normed), _sums(normed)
        of_h = gated_backward(gradient, h, normed, rstd, gates, scale, into, sums)
        return into, of_h, *sums.split(1, 1)


def _kept(product: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(product), product.new_empty(product.shape[:2])


def _sums(normed: Tensor) -> Tensor:
    return normed.new_zeros(len(normed), 3, normed.shape[2])


def _at(*tensors: Tensor) -> list[int]:
    return [x.data_ptr() for x in tensors]
