"""Distributions, as functions of their parameters. Sums run over the last axis, so [T, N, B, F] gives [T, N, B]."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_nll(mean: Tensor, value: Tensor, sigma: float) -> Tensor:
    """-log N(value; mean, sigma^2) without its constant: half the squared error over sigma^2."""
    return ((value - mean) / sigma).square().sum(-1) / 2


def kl_gaussian(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(other_mean, other_std^2)) in nats."""
    ratio = (std / other_std).square()
    distance = ((mean - other_mean) / other_std).square()
    return (ratio + distance - 1 - ratio.log()).sum(-1) / 2


def kl_standard(mean: Tensor, std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, I)) in nats."""
    return (std.square() + mean.square() - 1).sum(-1) / 2 - std.log().sum(-1)


def bounded_std(x: Tensor) -> Tensor:
    """2 sigmoid(x / 2) + 0.1: standard deviations in (0.1, 2.1), 1.1 at zero (argmax-ai/aime, aime/models/ssm.py)."""
    return 2 * torch.sigmoid(x / 2) + 0.1


def tanh_gaussian(mean: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A sample of tanh(N(mean, std^2)) and its log-density with the tanh Jacobian, [..., F] and [...]."""
    x = mean + std * noise
    log_normal = -noise.square() / 2 - std.log() - math.log(2 * math.pi) / 2
    # log(1 - tanh(x)^2), stable for large |x|
    log_jacobian = 2 * (math.log(2) - x - F.softplus(-2 * x))
    return torch.tanh(x), (log_normal - log_jacobian).sum(-1)
