"""Matrix products: by which library, and in which precision their factors are. The setting is the process's.

PyTorch gives a CPU's float32 products to MKL, and to oneDNN only where oneDNN may round them to bfloat16. On CPUs with
AVX-512 but no bfloat16 matrix unit it takes them and does not round: large ones then take less than half the time on
AMD's Zen 5, four fifths on Zen 4. On those with such a unit (Intel's AMX) it rounds, and large ones take a third of the
time. One processor of each was measured.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

Products = Literal["float32", "bfloat16"]

EXACT = 1e-5  # relative error: float32 leaves 1e-6, bfloat16 factors 2e-3
SMALL = 2e6  # floating-point operations, in which oneDNN gains the 9 us that a call to it takes longer (Zen 5)


@contextmanager
def multiplying(precision: Products, device: torch.device | str) -> Iterator[None]:
    """Within, matrix products take their factors in `precision`; sums stay float32.

    bfloat16: a GPU takes TF32, 11 bits; a CPU rounds to 8 bits where its kernels do, and else stays float32.
    """
    if torch.device(device).type == "cpu":
        with _may_round(precision == "bfloat16" or rounding_is_exact()):
            yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if precision == "bfloat16" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def step_by_step(h: Tensor) -> Iterator[None]:
    """Within, the products of a loop over states shaped as `h` [N, B, D] are float32 products of MKL on a CPU.

    Only large ones, where oneDNN does not round, keep the setting of `multiplying`. Where oneDNN rounds, it rounds the
    weights anew at every step, which costs what it gains even at the paper's sizes.
    """
    models, rows, size = h.shape
    if h.device.type == "cpu" and (2 * models * rows * size**2 < SMALL or not rounding_is_exact()):
        with _may_round(False):
            yield
    else:
        yield


@functools.cache
def rounding_is_exact() -> bool:
    """Whether float32 products that may be rounded to bfloat16 stay as they are on this CPU."""
    generator = torch.Generator("cpu").manual_seed(0)
    a, b = (torch.randn(1, 256, 256, generator=generator, dtype=torch.float64, device="cpu") for _ in range(2))
    x, y, zero = a.float(), b.float(), torch.zeros(1, 1, 256, device="cpu")
    with _may_round(True):
        found = [torch.bmm(x, y), torch.mm(x[0], y[0])[None], torch.baddbmm(zero, x, y)]
        found += [torch.bmm(x.mT.contiguous().mT, y), torch.bmm(x, y.mT.contiguous().mT)]
    return all(float((z - a @ b).abs().max() / (a @ b).abs().max()) < EXACT for z in found)


@contextmanager
def _may_round(yes: bool) -> Iterator[None]:
    """On a CPU. The setting of its own, as PyTorch's for all devices fails once a user has set one device's."""
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # torch declares the module without it
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16" if yes else "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before
