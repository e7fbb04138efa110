"""Layers that hold N models' weights on a leading axis, so that several seeds train as one batch of matrix products.

Shapes: N models (seeds), E members of an ensemble, T time, B batch, F features. Weights are [N, in, out]; activations
[N, B, F] or [T, N, B, F]. An ensemble is N * E models on the same axis: `Init.ensemble`, `to_members`, `by_member`.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lawm_data.nets import kernels


class Init:
    """Draws initial weights, one generator a model: model k starts as a lone run of seed k would.

    Every `Init` of a seed begins with the same draws: modules made by several share them, differently scaled.
    """

    def __init__(self, seeds: Sequence[int]):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.members = 1

    def ensemble(self, members: int) -> Init:
        """The same generators, each drawing for `members` models in turn."""
        other = copy.copy(self)
        other.members = members
        return other

    def uniform(self, shape: tuple[int, ...], bound: float) -> nn.Parameter:
        """[N * E, *shape], uniform in +-bound."""
        drawn = [torch.rand(self.members, *shape, generator=generator) for generator in self.generators]
        return nn.Parameter((torch.cat(drawn) * 2 - 1) * bound)

    def constant(self, shape: tuple[int, ...], value: float) -> nn.Parameter:
        return nn.Parameter(torch.full((len(self.generators) * self.members, *shape), value))


class Linear(nn.Module):
    """x W + b for every model, with PyTorch's default initialisation."""

    def __init__(self, init: Init, inputs: int, outputs: int):
        super().__init__()
        self.weight = init.uniform((inputs, outputs), inputs**-0.5)
        self.bias = init.uniform((1, outputs), inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, B, inputs] -> [N, B, outputs]"""
        return torch.baddbmm(self.bias, x, self.weight)


class Norm(nn.Module):
    """LayerNorm with a scale and shift of each model's own."""

    def __init__(self, init: Init, size: int):
        super().__init__()
        self.scale = init.constant((1, size), 1.0)
        self.shift = init.constant((1, size), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-1:]
        if len(self.scale) == 1:  # one model's scale and shift are what the kernel itself can apply
            return F.layer_norm(x, size, self.scale[0, 0], self.shift[0, 0])
        return torch.addcmul(self.shift, F.layer_norm(x, size), self.scale)


class Dropout(nn.Module):
    """Drops features by masks that are drawn from `noise`; lets all pass while there is none. See `dropping`."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate
        self.noise: Noise | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[N, B, F] -> [N, B, F]"""
        if self.noise is None:
            return x
        return x * (self.noise.uniform(*x.shape[1:]) >= self.rate) / (1 - self.rate)


class MLP(nn.Module):
    """`layers` of Linear, LayerNorm, swish (and dropout); then a Linear to `outputs` where given."""

    def __init__(
        self, init: Init, inputs: int, units: int, layers: int, outputs: int | None = None, dropout: float = 0.0
    ):
        super().__init__()
        self.hidden: list[tuple[Linear, Norm, Dropout | None]] = []
        blocks: list[nn.Module] = []
        for size in [inputs] + [units] * (layers - 1):
            linear, norm, drop = Linear(init, size, units), Norm(init, units), Dropout(dropout) if dropout else None
            self.hidden.append((linear, norm, drop))
            blocks += [linear, norm, nn.SiLU()] + ([drop] if drop else [])
        blocks += [Linear(init, units, outputs)] if outputs is not None else []
        self.layers = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs or units]; x is [N, B, F] or [T, N, B, F]."""
        return over_time(self._by_kernels if kernels.serve(x) else self.layers, x)

    def _by_kernels(self, x: Tensor) -> Tensor:
        for linear, norm, drop in self.hidden:
            x = kernels.block(x, linear.weight, linear.bias, norm.scale, norm.shift)
            x = drop(x) if drop else x
        last = self.layers[-1]
        return last(x) if isinstance(last, Linear) else x


class PlainMLP(nn.Module):
    """`layers` of Linear and ReLU, then a Linear to `outputs`: the networks of TD3."""

    def __init__(self, init: Init, inputs: int, units: int, layers: int, outputs: int):
        super().__init__()
        blocks: list[nn.Module] = []
        for size in [inputs] + [units] * (layers - 1):
            blocks += [Linear(init, size, units), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*blocks, Linear(init, units, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[N, B, inputs] -> [N, B, outputs]"""
        return self.layers(x)


class GRUCell(nn.Module):
    """GRU with LayerNorm over its three gates, the update gate biased to keep (argmax-ai/aime, aime/models/ssm.py)."""

    def __init__(self, init: Init, inputs: int, size: int):
        super().__init__()
        self.gates = Linear(init, inputs + size, 3 * size)
        self.norm = Norm(init, 3 * size)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        if kernels.serve(x):
            return kernels.gru(x, h, self.gates.weight, self.gates.bias, self.norm.scale, self.norm.shift)
        reset, candidate, update = self.norm(self.gates(torch.cat([x, h], -1))).chunk(3, -1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        return torch.lerp(h, candidate, torch.sigmoid(update - 1))


class Normalizer(nn.Module):
    """(x - mean) / max(std, 0.01), clipped at +-10, with each model's own statistics [N, 1, O]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, floor: float = 0.01, clip: float = 10.0):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std.clamp(min=floor))
        self.clip = clip

    @classmethod
    def identity(cls, like: Tensor) -> Normalizer:
        """Leaves observations raw; `like` is a mean [N, 1, O]."""
        return cls(torch.zeros_like(like), torch.ones_like(like), clip=math.inf)

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / self.std).clamp(-self.clip, self.clip)


class Noise:
    """The random draws of one update: a pure function of (seed, stream, step), so resuming needs no random state.

    Model k draws what a lone run of seed k draws.
    """

    def __init__(self, seeds: Sequence[int], stream: str, step: int, device: torch.device | str = "cpu"):
        self.generators = [torch.Generator(device).manual_seed(_mix(seed, stream, step)) for seed in seeds]
        self.step, self.device = step, device

    def normal(self, time: int, batch: int, size: int) -> Tensor:
        """[T, N, B, size]"""
        drawn = [torch.randn(time, batch, size, generator=g, device=self.device) for g in self.generators]
        return torch.stack(drawn, dim=1)

    def uniform(self, batch: int, size: int) -> Tensor:
        """[N, B, size] in [0, 1)"""
        return torch.stack([torch.rand(batch, size, generator=g, device=self.device) for g in self.generators])


def _mix(seed: int, stream: str, step: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{stream}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # generators take 63 bits


def over_time(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of [N, B, F] to [T, N, B, F] (or to [N, B, F] as it is)."""
    if x.dim() == 3:
        return function(x)
    time, models, batch, size = x.shape
    # contiguous: oneDNN would copy the rows at each product, and once more, turned, for the gradient of the weights
    y = function(x.transpose(0, 1).reshape(models, time * batch, size).contiguous())
    return y.view(models, time, batch, y.shape[-1]).transpose(0, 1)


def to_members(x: Tensor, members: int) -> Tensor:
    """[..., N, B, F] -> [..., N * E, B, F]: each model's input for its E members."""
    return x.repeat_interleave(members, dim=-3)


def by_member(x: Tensor, members: int) -> Tensor:
    """[..., N * E, B, F] -> [E, ..., N, B, F]"""
    return x.unflatten(-3, (-1, members)).movedim(-3, 0)


@contextmanager
def dropping(module: nn.Module, noise: Noise) -> Iterator[None]:
    """Within, the dropout layers of `module` drop, by masks of `noise`."""
    layers = [part for part in module.modules() if isinstance(part, Dropout)]
    for layer in layers:
        layer.noise = noise
    try:
        yield
    finally:
        for layer in layers:
            layer.noise = None


def detached(module: nn.Module, x: Tensor, rows: slice = slice(None)) -> Tensor:
    """module(x) with gradients into x and none into the module's weights.

    `rows` of the leading axis alone: slice(k, k + 1) is model k, slice(0, None, E) the first member of each ensemble.
    """
    own = chain(module.named_parameters(), module.named_buffers())
    return torch.func.functional_call(module, {name: tensor.detach()[rows] for name, tensor in own}, (x,))


def split_models(tensors: dict[str, Tensor], models: int) -> list[dict[str, Tensor]]:
    """Stacked tensors [N * E, ...] -> each model's own [E, ...]: checkpoints on disk are per seed."""
    own = {name: x.detach().unflatten(0, (models, -1)) for name, x in tensors.items()}
    return [{name: x[k].contiguous() for name, x in own.items()} for k in range(models)]


def join_models(own: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The inverse of `split_models`."""
    return {name: torch.cat([tensors[name] for tensors in own]) for name in own[0]}
