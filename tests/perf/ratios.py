"""Updates beside those of plain loops, in turn in one process: what slows the machine slows both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from unittest import mock

import plain
import torch
from learning import RECIPE, Bench
from published import Published

from lawm_data.bench import Row
from lawm_data.nets.blocks import Noise
from lawm_data.nets.products import multiplying
from lawm_train import td3bc
from lawm_train.data import Windowed
from lawm_train.methods import Method, ModelBased, ModelFree

SIDE = 5  # seeds side by side
UPDATES = 4  # of each variant, in turn: a multiple of agent.clap.stride and agent.td3bc.actor_every
TURNS = 6
HOW = f"recipe {RECIPE}, {UPDATES} updates in turn, best of {TURNS}, processor time"
Update = Callable[[int], object]


def rows(bench: Bench) -> Iterator[Row]:
    yield from _world_model(bench)
    yield from _agent(bench)
    yield from _td3bc(bench)


def _world_model(bench: Bench) -> Iterator[Row]:
    one, many = (bench.built(seeds, "lawm", "train.joint=false") for seeds in (1, SIDE))
    lone, side = (method.phases(data)[0].step for method, data in (one, many))
    loop = _plain_world(*one)
    variants = {"plain": loop, "plain onednn": _by_onednn(loop), "lone": lone, "side": side}
    taken = _in_turn(variants | {"mkl": _by_mkl(lone), "side mkl": _by_mkl(side)})
    how = f"{HOW}; the plain loop {_ms(taken['plain'])}"
    for what, ratio, target in (
        ("model update, 1 seed, against a plain loop", taken["plain"] / taken["lone"], "≥ 1.8"),
        (
            f"model update, {SIDE} seeds side by side, against a plain loop",
            SIDE * taken["plain"] / taken["side"],
            "≥ 2.5",
        ),
        (f"model update, {SIDE} seeds side by side, against lone runs", SIDE * taken["lone"] / taken["side"], "≥ 1.5"),
        ("model update, 1 seed, against a plain loop by oneDNN", taken["plain onednn"] / taken["lone"], ""),
        (
            f"model update, {SIDE} seeds side by side, against a plain loop by oneDNN",
            SIDE * taken["plain onednn"] / taken["side"],
            "",
        ),
        ("model update, 1 seed, against the same without oneDNN", taken["mkl"] / taken["lone"], ""),
        (f"model update, {SIDE} seeds, against the same without oneDNN", taken["side mkl"] / taken["side"], ""),
    ):
        yield _row(what, ratio, target, how)
    method, data = bench.built(1, "lawm", recipe="paper")
    taken = _in_turn({"plain": _plain_world(method, data), "lone": method.phases(data)[0].step}, updates=1, turns=3)
    how = f"recipe paper, 1 update in turn, best of 3, processor time; the plain loop {_ms(taken['plain'])}"
    yield _row("model update, 1 seed, paper sizes, against a plain loop", taken["plain"] / taken["lone"], "", how)


def _agent(bench: Bench) -> Iterator[Row]:
    """What oneDNN gains; there is no plain agent."""
    for seeds, many in ((1, "1 seed"), (SIDE, f"{SIDE} seeds")):
        update = _imagining(bench, seeds)
        taken = _in_turn({"mkl": _by_mkl(update), "onednn": update})
        how = f"{HOW}; with it {_ms(taken['onednn'])}"
        ratio = taken["mkl"] / taken["onednn"]
        yield _row(f"agent update, {many}, against the same without oneDNN", ratio, "", how)


def _td3bc(bench: Bench) -> Iterator[Row]:
    method, data = bench.built(SIDE, "td3bc")
    loop = _published(*bench.built(1, "td3bc"))
    taken = _in_turn({"plain": loop, "by oneDNN": _by_onednn(loop), "side": method.phases(data)[0].step})
    how = f"{HOW}; the plain loop {_ms(taken['plain'])}"
    what = f"TD3+BC, {SIDE} seeds side by side, against a plain loop"
    yield _row(what, SIDE * taken["plain"] / taken["side"], "≥ 3", how)
    yield _row(f"{what} by oneDNN", SIDE * taken["by oneDNN"] / taken["side"], "", how)


def _by_mkl(update: Update) -> Update:
    """The same with the library that PyTorch chooses for float32, MKL where it was built with that."""

    def slower(i: int) -> object:
        with mock.patch("lawm_data.nets.products.rounding_is_exact", lambda: False):
            return update(i)

    return slower


def _by_onednn(update: Update) -> Update:
    """A plain loop with the products that ours have."""

    def faster(i: int) -> object:
        with multiplying("float32", "cpu"):
            return update(i)

    return faster


def _imagining(bench: Bench, seeds: int) -> Update:
    """Updates of the agent from states that stay the same."""
    method, data = bench.built(seeds, "lawm")
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


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.{0 if seconds > 0.01 else 1}f} ms"


def _in_turn(variants: dict[str, Update], updates: int = UPDATES, turns: int = TURNS) -> dict[str, float]:
    """Seconds of processor time for an update of each, after a warm-up."""
    best = dict.fromkeys(variants, float("inf"))
    for turn in range(turns + 1):
        for name, update in variants.items():
            began = time.process_time()
            for i in range(updates):
                update(turn * updates + i)
            if turn:
                best[name] = min(best[name], (time.process_time() - began) / updates)
    return best
