"""Updates beside those of plain loops, in turn in one process: what slows the machine slows both.

Where oneDNN multiplies in float32 (see nets.products) the rows tell what it gains, where it rounds what bfloat16 gains.
Where there are kernels in C (see nets.kernels) they tell what these gain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from unittest import mock

import plain
import torch
from learning import RECIPE, Bench
from published import Published

from lawm_data.bench import Row
from lawm_data.nets import kernels
from lawm_data.nets.blocks import Noise
from lawm_data.nets.products import multiplying, rounding_is_exact
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
    yield from _paper(bench)
    yield from _agent(bench)
    yield from _td3bc(bench)


def _world_model(bench: Bench) -> Iterator[Row]:
    two_phases = "train.joint=false"
    one = bench.built(1, "lawm", two_phases)
    lone, side = _step(one), _step(bench.built(SIDE, "lawm", two_phases))
    loop = _plain_world(*one)
    variants = {"plain": loop, "lone": lone, "side": side}
    if rounding_is_exact():
        variants |= {"plain onednn": _by_onednn(loop), "mkl": _by_mkl(lone), "side mkl": _by_mkl(side)}
    else:
        rounding = (two_phases, "model.products=bfloat16")
        variants |= {name: _step(bench.built(n, "lawm", *rounding)) for name, n in (("bf16", 1), ("side bf16", SIDE))}
    if kernels.BUILT:
        variants |= {"pytorch": _without_kernels(lone), "side pytorch": _without_kernels(side)}
    many = f"model update, {SIDE} seeds side by side"
    yield from _compared(
        _in_turn(variants),
        f"{HOW}; the plain loop",
        ("model update, 1 seed, against a plain loop", "plain", 1, "lone", "≥ 1.8"),
        (f"{many}, against a plain loop", "plain", SIDE, "side", "≥ 2.5"),
        (f"{many}, against lone runs", "lone", SIDE, "side", "≥ 1.5"),
        ("model update, 1 seed, against a plain loop by oneDNN", "plain onednn", 1, "lone", ""),
        (f"{many}, against a plain loop by oneDNN", "plain onednn", SIDE, "side", ""),
        ("model update, 1 seed, against the same without oneDNN", "mkl", 1, "lone", ""),
        (f"{many}, against the same without oneDNN", "side mkl", 1, "side", ""),
        ("model update, 1 seed, against the same without kernels in C", "pytorch", 1, "lone", ""),
        (f"{many}, against the same without kernels in C", "side pytorch", 1, "side", ""),
        ("model update, 1 seed, bfloat16, against a plain loop", "plain", 1, "bf16", ""),
        (f"{many}, bfloat16, against a plain loop", "plain", SIDE, "side bf16", ""),
    )


def _paper(bench: Bench) -> Iterator[Row]:
    one = bench.built(1, "lawm", recipe="paper")
    variants = {"plain": _plain_world(*one), "lone": _step(one)}
    if not rounding_is_exact():
        variants["bf16"] = _step(bench.built(1, "lawm", "model.products=bfloat16", recipe="paper"))
    yield from _compared(
        _in_turn(variants, updates=1, turns=3),
        "recipe paper, 1 update in turn, best of 3, processor time; the plain loop",
        ("model update, 1 seed, paper sizes, against a plain loop", "plain", 1, "lone", ""),
        ("model update, 1 seed, paper sizes, bfloat16, against a plain loop", "plain", 1, "bf16", "≥ 1.5 with AMX"),
    )


def _agent(bench: Bench) -> Iterator[Row]:
    """What libraries, precision and kernels gain; there is no plain agent."""
    for seeds, many in ((1, "1 seed"), (SIDE, f"{SIDE} seeds")):
        own = _imagining(bench, seeds)
        variants = {"plain": own}
        if rounding_is_exact():
            variants["mkl"] = _by_mkl(own)
        else:
            variants["bf16"] = _imagining(bench, seeds, "agent.clap.products=bfloat16")
        if kernels.BUILT:
            variants["pytorch"] = _without_kernels(own)
        yield from _compared(
            _in_turn(variants),
            f"{HOW}; the update",
            (f"agent update, {many}, against the same without oneDNN", "mkl", 1, "plain", ""),
            (f"agent update, {many}, bfloat16, against float32", "plain", 1, "bf16", ""),
            (f"agent update, {many}, against the same without kernels in C", "pytorch", 1, "plain", ""),
        )


def _td3bc(bench: Bench) -> Iterator[Row]:
    loop = _published(*bench.built(1, "td3bc"))
    variants = {"plain": loop, "side": _step(bench.built(SIDE, "td3bc"))}
    if rounding_is_exact():
        variants["plain onednn"] = _by_onednn(loop)
    else:
        variants["side bf16"] = _step(bench.built(SIDE, "td3bc", "agent.td3bc.products=bfloat16"))
    what = f"TD3+BC, {SIDE} seeds side by side"
    yield from _compared(
        _in_turn(variants),
        f"{HOW}; the plain loop",
        (f"{what}, against a plain loop", "plain", SIDE, "side", "≥ 3"),
        (f"{what}, against a plain loop by oneDNN", "plain onednn", SIDE, "side", ""),
        (f"{what}, bfloat16, against a plain loop", "plain", SIDE, "side bf16", "≥ 3"),
    )


def _compared(taken: dict[str, float], how: str, *pairs: tuple[str, str, int, str, str]) -> Iterator[Row]:
    """A row for each (what, slower, how many runs of it, faster, target) of which both were timed.

    how: ends with whose time `plain` is.
    """
    how = f"{how} {_ms(taken['plain'])}"
    for what, slower, runs, faster, target in pairs:
        if slower in taken and faster in taken:
            yield Row(what, f"{runs * taken[slower] / taken[faster]:.2f} times as fast", target, how)


def _step(built: tuple[Method, Windowed]) -> Update:
    method, data = built
    return method.phases(data)[0].step


def _by_mkl(update: Update) -> Update:
    """The same with the library that PyTorch chooses for float32, MKL where it was built with that."""

    def slower(i: int) -> object:
        with mock.patch("lawm_data.nets.products.rounding_is_exact", lambda: False):
            return update(i)

    return slower


def _without_kernels(update: Update) -> Update:
    def slower(i: int) -> object:
        with mock.patch.object(kernels, "BUILT", False):
            return update(i)

    return slower


def _by_onednn(update: Update) -> Update:
    """A plain loop with the products that ours have."""

    def faster(i: int) -> object:
        with multiplying("float32", "cpu"):
            return update(i)

    return faster


def _imagining(bench: Bench, seeds: int, *settings: str) -> Update:
    """Updates of the agent from states that stay the same."""
    method, data = bench.built(seeds, "lawm", *settings)
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
