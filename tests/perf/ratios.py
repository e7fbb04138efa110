"""The world model's update beside a plain loop's, in turn in one process: what slows the machine slows both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import plain
from learning import RECIPE, Bench

from lawm_data.bench import Row
from lawm_data.nets.blocks import Noise
from lawm_train.lawm import WorldModel

SIDE = 5  # seeds side by side
UPDATES = 3  # of each variant, in turn
TURNS = 6


def rows(bench: Bench) -> Iterator[Row]:
    lone, alone = _ours(bench, 1)
    _, together = _ours(bench, SIDE)
    taken = _in_turn({"plain": _plain(bench, lone), "lone": alone, "side": together})
    how = f"recipe {RECIPE}, {UPDATES} updates in turn, best of {TURNS}, processor time; the plain loop {{:.0f}} ms"
    how = how.format(1000 * taken["plain"])
    for what, ratio, target in (
        ("model update, 1 seed, against a plain loop", taken["plain"] / taken["lone"], "≥ 1.8"),
        (f"{SIDE} seeds side by side against a plain loop", SIDE * taken["plain"] / taken["side"], "≥ 2.5"),
        (f"{SIDE} seeds side by side against lone runs", SIDE * taken["lone"] / taken["side"], "≥ 1.5"),
    ):
        yield Row(what, f"{ratio:.2f} times as fast", target, how)


def _ours(bench: Bench, seeds: int) -> tuple[WorldModel, Callable[[int], object]]:
    world, windows = bench.world(seeds)
    return world, lambda i: world.update(windows.batch(i, "model"), Noise(range(seeds), "model", i))


def _plain(bench: Bench, world: WorldModel) -> Callable[[int], object]:
    windows = bench.world(1)[1]
    loop = plain.WorldModel(world.config, world.normalizer.mean.shape[-1], world.action_size)
    plain.copy_weights(loop, world)

    def update(i: int) -> float:
        batch = windows.batch(i, "model")
        return loop.update(batch, *plain.inputs(world, batch, Noise([0], "model", i)))

    return update


def _in_turn(variants: dict[str, Callable[[int], object]]) -> dict[str, float]:
    """Seconds of processor time for an update of each, after a warm-up."""
    best = dict.fromkeys(variants, float("inf"))
    for turn in range(TURNS + 1):
        for name, update in variants.items():
            began = time.process_time()
            for i in range(UPDATES):
                update(turn * UPDATES + i)
            if turn:
                best[name] = min(best[name], (time.process_time() - began) / UPDATES)
    return best
