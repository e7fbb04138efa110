"""Updates beside those of plain loops, in turn in one process: what slows the machine slows both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import plain
import torch
from learning import RECIPE, Bench
from published import Published

from lawm_data.bench import Row
from lawm_data.nets.blocks import Noise
from lawm_train import td3bc
from lawm_train.data import Windowed
from lawm_train.methods import Method, ModelBased, ModelFree

SIDE = 5  # seeds side by side
UPDATES = 4  # of each variant, in turn: a multiple of agent.clap.stride and agent.td3bc.actor_every
TURNS = 6
HOW = f"recipe {RECIPE}, {UPDATES} updates in turn, best of {TURNS}, processor time"
PRODUCTS = ("float32", "bfloat16")
Update = Callable[[int], object]


def rows(bench: Bench) -> Iterator[Row]:
    yield from _world_model(bench)
    yield from _agent(bench)
    yield from _td3bc(bench)


def _world_model(bench: Bench) -> Iterator[Row]:
    one, many = (bench.built(seeds, "lawm", "train.joint=false") for seeds in (1, SIDE))
    lone, side = (method.phases(data)[0].step for method, data in (one, many))
    taken = _in_turn({"plain": _plain_world(*one), "lone": lone, "side": side})
    how = f"{HOW}; the plain loop {1000 * taken['plain']:.0f} ms"
    for what, ratio, target in (
        ("model update, 1 seed, against a plain loop", taken["plain"] / taken["lone"], "≥ 1.8"),
        (
            f"model update, {SIDE} seeds side by side, against a plain loop",
            SIDE * taken["plain"] / taken["side"],
            "≥ 2.5",
        ),
        (f"model update, {SIDE} seeds side by side, against lone runs", SIDE * taken["lone"] / taken["side"], "≥ 1.5"),
    ):
        yield _row(what, ratio, target, how)


def _agent(bench: Bench) -> Iterator[Row]:
    """What bfloat16 gains; there is no plain agent."""
    for seeds, many in ((1, "1 seed"), (SIDE, f"{SIDE} seeds side by side")):
        variants = {products: _imagining(bench, seeds, products) for products in PRODUCTS}
        exact, rounded = _in_turn(variants).values()
        how = f"{HOW}; in float32 {1000 * exact:.0f} ms"
        yield _row(f"agent update, {many}, products in bfloat16 against float32", exact / rounded, "", how)


def _td3bc(bench: Bench) -> Iterator[Row]:
    variants = {"plain": _published(*bench.built(1, "td3bc"))}
    for products in PRODUCTS:
        method, data = bench.built(SIDE, "td3bc", f"agent.td3bc.products={products}")
        variants[products] = method.phases(data)[0].step
    taken = _in_turn(variants)
    for products in PRODUCTS:
        how = f"{HOW}; the plain loop {1000 * taken['plain']:.1f} ms, in float32"
        what = f"TD3+BC, {SIDE} seeds side by side, products in {products}, against a plain loop"
        yield _row(what, SIDE * taken["plain"] / taken[products], "≥ 3", how)


def _imagining(bench: Bench, seeds: int, products: str) -> Update:
    """Updates of the agent from states that stay the same."""
    method, data = bench.built(seeds, "lawm", f"agent.clap.products={products}")
    assert isinstance(method, ModelBased)
    numbers = range(seeds)
    with torch.no_grad():
        batch = data.windows(numbers, [8, 8], "cpu").batch(0, "agent")
        states = method.world.observe(batch, Noise(numbers, "observe", 0)).states
    return lambda i: method.agent.update(states, Noise(numbers, "agent", i))


def _plain_world(method: Method, data: Windowed) -> Update:
    assert isinstance(method, ModelBased)
    world, train = method.world, method.setup.train
    loop = plain.WorldModel(world.config, world.normalizer.mean.shape[-1], world.action_size)
    plain.copy_weights(loop, world)
    windows = data.windows([0], [train.batch // 2, train.batch // 2], "cpu")

    def update(i: int) -> float:
        batch = windows.batch(i, "model")
        return loop.update(batch, *plain.inputs(world, batch, Noise([0], "model", i)))

    return update


def _published(method: Method, data: Windowed) -> Update:
    assert isinstance(method, ModelFree) and isinstance(method.learner, td3bc.Agent)
    agent = method.learner
    published, windows = Published(agent), data.windows([0], [agent.config.batch], "cpu")

    def update(i: int) -> object:
        batch = windows.batch(i, "td3bc")
        state, following = agent.normalizer(batch.observation)[:, 0]
        noise = Noise([0], "td3bc", i).normal(1, len(state), batch.action.shape[-1])[0, 0]
        ended = batch.terminal[0, :, None].float()
        return published.train(state, batch.action[0, 0], batch.reward[0, 0, :, None], following, ended, noise)

    return update


def _row(what: str, ratio: float, target: str, how: str) -> Row:
    return Row(what, f"{ratio:.2f} times as fast", target, how)


def _in_turn(variants: dict[str, Update]) -> dict[str, float]:
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
