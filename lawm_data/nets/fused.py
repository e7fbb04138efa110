"""Elementwise work between two matrix products as one kernel, on a GPU: there a small kernel costs its launch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def fused(function: Callable[P, T]) -> Callable[P, T]:
    """`function` of tensors: compiled for each of their shapes where they are on a GPU; as it is elsewhere.

    Compiling needs a C compiler. PyTorch's TORCH_COMPILE_DISABLE=1 does without, slower.
    """

    @functools.cache
    def compiled() -> Callable[P, T]:
        return torch.compile(function, dynamic=False)  # only now: the compiler takes long to import

    @functools.wraps(function)
    def either(*args: P.args, **kwargs: P.kwargs) -> T:
        first = args[0]
        own = compiled() if isinstance(first, Tensor) and first.is_cuda else function
        return own(*args, **kwargs)

    return either
