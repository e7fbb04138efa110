"""Matrix products: by which library, and in which precision their factors are.

Shapes: N models, B rows, F features.
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
SMALL = 1.5e6  # floating-point operations, in which oneDNN gains the 9 us that a call to it takes longer (Zen 5)


@contextmanager
def multiplying(products: Products, device: torch.device | str) -> Iterator[None]:
    """Within, matrix products take their factors in `products`, where the device can; sums stay float32.

    A CPU rounds to bfloat16, 8 bits, if it has AMX; a GPU to TF32, 11 bits. On other CPUs both mean float32, by oneDNN:
    where the processor is AMD's, large products then take less than half of what MKL, PyTorch's choice, takes.
    """
    on_cpu = torch.device(device).type == "cpu"
    rounds = products == "bfloat16" or (on_cpu and onednn_is_exact())
    with _precision("medium" if rounds else "highest"):
        yield


@contextmanager
def step_by_step(like: Tensor) -> Iterator[None]:
    """Within, products of one step's rows, `like` [..., N, B, F]: small ones of a lone model by PyTorch's choice."""
    *_, models, rows, size = like.shape
    small = like.device.type == "cpu" and models == 1 and 2 * rows * size**2 < SMALL
    with _precision("highest" if small else torch.get_float32_matmul_precision()):
        yield


@functools.cache
def onednn_is_exact() -> bool:
    """Whether "medium" leaves float32 products as they are on this CPU.

    PyTorch hands float32 products to oneDNN only where it may round them, which oneDNN does on processors with AMX.
    """
    a, b = torch.randn(2, 1, 256, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with _precision("medium"):
        found = [torch.bmm(a.float(), b.float()), torch.mm(a[0].float(), b[0].float())[None]]
    return all(float((x - a @ b).abs().max() / (a @ b).abs().max()) < EXACT for x in found)


@contextmanager
def _precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
