"""Draws that depend on a seed and an episode's name alone: not on the order of the rows, the machine or a library."""

from __future__ import annotations

import hashlib
from decimal import ROUND_HALF_UP, Decimal


def rank(purpose: str, seed: int, episode_id: str) -> bytes:
    """A keyed hash: the k episodes of lowest rank are a uniform draw of k, another for each purpose and seed."""
    return hashlib.blake2b(episode_id.encode(), key=f"{purpose}:{seed}".encode(), digest_size=16).digest()


def labels_of(fraction: float, count: int) -> int:
    """How many of `count` episodes keep their actions: their share, at least one and at least one not."""
    return max(1, min(share(fraction, count), count - 1))


def share(fraction: float, count: int) -> int:
    """round-half-up(fraction x count), of the decimal that the user wrote: in binary 0.29 x 50 is below 14.5."""
    return int((Decimal(repr(fraction)) * count).quantize(Decimal(1), ROUND_HALF_UP))
