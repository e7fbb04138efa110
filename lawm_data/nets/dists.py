"""Distributions, as functions of their parameters. Sums run over the last axis, so [T, N, B, F] gives [T, N, B]."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_STD = 0.1
LIMIT = 10.0  # the largest |symlog(x)| that `TwoHot` tells apart: |x| of 22,025


class Gaussian(NamedTuple):
    """Mean and standard deviation, [..., F] each."""

    mean: Tensor
    std: Tensor


def gaussian(parameters: Tensor, least: float = LEAST_STD) -> Gaussian:
    """A network's output [..., 2 F] -> mean and standard deviation, [..., F] each.

    The latter is 2 sigmoid(x / 2) + least: in (0.1, 2.1), 1.1 at zero (argmax-ai/aime, aime/models/ssm.py).
    """
    mean, raw = parameters.chunk(2, -1)
    return Gaussian(mean, 2 * torch.sigmoid(raw / 2) + least)


def bounded_gaussian(parameters: Tensor, bound: float = 5.0, least: float = LEAST_STD) -> Gaussian:
    """As `gaussian`, the mean within +-bound, for what a tanh follows: beyond +-5 it has hardly any gradient."""
    mean, std = gaussian(parameters, least)
    return Gaussian(bound * torch.tanh(mean / bound), std)


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


def tanh_gaussian(mean: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A sample of tanh(N(mean, std^2)) and its log-density with the tanh Jacobian, [..., F] and [...]."""
    x = mean + std * noise
    log_normal = -noise.square() / 2 - std.log() - math.log(2 * math.pi) / 2
    # log(1 - tanh(x)^2), stable for large |x|
    log_jacobian = 2 * (math.log(2) - x - F.softplus(-2 * x))
    return torch.tanh(x), (log_normal - log_jacobian).sum(-1)


def balanced_kl(posterior: Gaussian, prior: Gaussian, balance: float, free: float) -> Tensor:
    """KL(posterior || prior): `balance` of it trains the prior, the rest the posterior.

    The nats below `free`, of each entry of [...], are free (Hafner et al. 2020, KL balancing).
    """
    towards = kl_gaussian(posterior.mean.detach(), posterior.std.detach(), *prior).clamp(min=free)
    back = kl_gaussian(*posterior, prior.mean.detach(), prior.std.detach()).clamp(min=free)
    return balance * towards + (1 - balance) * back


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): squashes large values of either sign (Hafner et al. 2023)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


class TwoHot:
    """A scalar as weights of `bins` points, evenly spaced on symlog's scale (Hafner et al. 2023)."""

    def __init__(self, bins: int):
        self.bins = bins

    def mean(self, logits: Tensor) -> Tensor:
        """symexp of the expected point, [..., bins] -> [...]; smooth in the logits, so gradients may pass it."""
        points = torch.linspace(-LIMIT, LIMIT, self.bins, device=logits.device)
        return symexp(logits.softmax(-1) @ points)

    def loss(self, logits: Tensor, value: Tensor) -> Tensor:
        """Cross-entropy of the value [...] spread over the two nearest points, under logits [..., bins]."""
        place = (symlog(value).clamp(-LIMIT, LIMIT) + LIMIT) * ((self.bins - 1) / (2 * LIMIT))
        at = place.long().clamp(0, self.bins - 2)[..., None]  # also where the value is NaN, which `above` passes on
        above = place[..., None] - at
        log_p = logits.log_softmax(-1)
        return -(log_p.gather(-1, at) * (1 - above) + log_p.gather(-1, at + 1) * above)[..., 0]
