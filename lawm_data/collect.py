"""The collector: rounds of episodes into the raw store, each made durable before the checkpoint that names the next.

An episode depends on (seed, order) and, where an agent learns, on the episodes before it; never on interruptions.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import click
import numpy as np

from lawm_data import curves, dreamer, envs, files, parallel, plan2explore
from lawm_data.checkout import code_commit
from lawm_data.config import Count, as_dict
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.learner import Learner
from lawm_data.nets.optim import usable_device
from lawm_data.progress import Bar
from lawm_data.rollout import Policy, rollout
from lawm_data.runs import Run
from lawm_data.slicing import TRAILING
from lawm_data.store import Store


@dataclass(frozen=True)
class Config:
    """The recipe's `collect` section."""

    policy: Literal["dreamer", "plan2explore", "random"] = "dreamer"
    seeds: Count = 1  # collectors, with seeds 0, 1, ...
    episodes: Count = 600  # of each seed
    repeat: Count = 2  # simulator steps to an agent step
    round: Count = 5  # episodes rolled out in step and stored together; a kill costs at most these
    prefill: Count = 5  # episodes of random actions before an agent acts
    tensorboard: bool = False  # events beside metrics.jsonl
    threads: Count = 1  # of PyTorch, each seed; another number gives other rounding and so another history
    device: str = "cpu"
    dreamer: dreamer.Config = field(default_factory=dreamer.Config)
    plan2explore: plan2explore.Config = field(default_factory=plan2explore.Config)


_DEFAULTS = as_dict({"collect": Config()})


def collect(root: Path, env: str, config: Config) -> None:
    """Collect `config.episodes` episodes of each seed into `<root>/raw/<env>/<policy>`, or what is missing of them.

    Several seeds run as processes, as many at a time as there are cores.
    """
    spec = envs.spec(env, config.repeat)
    if config.policy != "random" and config.dreamer.window > spec.episode_length:
        raise UserError(
            f"collect.dreamer.window is {config.dreamer.window}, an episode of {env} has {spec.episode_length} steps "
            f"with repeat {config.repeat}; lower one of them"
        )
    usable_device(config.device, "collect.device")
    store, source = Store(root / "raw"), config.policy
    folder = store.root / env / source
    files.sweep(folder.parent)
    for seed in range(config.seeds):
        run = run_of(root, env, source, seed)
        run.check_begun()
        if run.exists:  # one source holds collectors of one setting; UserError names the first that differs
            run.is_extended(_run_config(spec, config, seed), None, _DEFAULTS)
    if source not in store.sources(env):
        store.create(env, source, _meta(spec, config))
    elif not store.rows(env, source):  # begun, perhaps by other settings, and nothing kept
        store.describe(env, source, _meta(spec, config))
    elif (made_with := store.meta(env, source)["repeat"]) != config.repeat:
        raise UserError(f"{folder}: collected with repeat {made_with}, now {config.repeat}; use another --root")
    before = [store.resume(env, source, seed) for seed in range(config.seeds)]
    left = [seed for seed, order in enumerate(before) if order < config.episodes]
    parallel.run(_collect_seed, [(root, env, config, seed) for seed in left])
    picture = root / "figures" / f"collect-{env}-{source}.png"
    curves.write(store.rows(env, source), spec, picture)
    new = sum(config.episodes - before[seed] for seed in left)
    step = files.typed(f"lawm-data split --env {env}", root)
    click.echo(f"{folder}: {new} episodes collected, {sum(before)} were there; curve: {picture}; next: {step}")


def env_seed(seed: int, order: int) -> int:
    """The simulator's seed for episode `order` of collector `seed`, 64 bits, apart from those of evaluation.

    Collectors of one seed begin alike, whatever their policy, and so does what tops them up.
    """
    digest = hashlib.blake2b(f"{seed}/{order}".encode(), key=b"lawm collect", digest_size=8).digest()
    return int.from_bytes(digest)


def random_policy(action_size: int, seed: int, orders: Sequence[int]) -> Policy:
    """Uniform in [-1, 1] at every agent step; the draws for an episode follow from (seed, order)."""
    generators = [np.random.default_rng((seed, order)) for order in orders]

    def act(observation: np.ndarray, first: np.ndarray) -> np.ndarray:
        return np.stack([generator.uniform(-1, 1, action_size) for generator in generators])

    return act


def record(
    store: Store,
    spec: envs.Spec,
    workers: Sequence[envs.SuiteEnv],
    policy: Policy,
    source: str,
    seed: int,
    orders: range,
) -> list[Episode]:
    """Roll out the episodes `orders` of a collector in step, and append them to the store, uncommitted."""
    starts = [env_seed(seed, order) for order in orders]
    episodes = rollout(
        workers[: len(orders)], policy, starts, env=spec.env, source=source, seed=seed, first_order=orders.start
    )
    for episode in episodes:
        episode.validate(spec.observation_size, spec.action_size)
    store.append(spec.env, source, seed, episodes)
    return episodes


def run_of(root: Path, env: str, policy: str, seed: int, tensorboard: bool = False) -> Run:
    """The run folder of a collector that learns."""
    return Run(root / "runs" / f"collect-{env}-{policy}-s{seed}", tensorboard)


def rounds(order: int, episodes: int, size: int) -> Iterator[range]:
    """The rounds from episode `order` on; they end at multiples of `size`, wherever a run was cut."""
    while order < episodes:
        end = min(order - order % size + size, episodes)
        yield range(order, end)
        order = end


def _collect_seed(root: Path, env: str, config: Config, seed: int, place: int) -> None:
    _Collector(root, env, config, seed).run(place)


class _Collector:
    """One seed: rolls out a round, stores it, learns from it, commits."""

    def __init__(self, root: Path, env: str, config: Config, seed: int):
        self.spec, self.config, self.seed = envs.spec(env, config.repeat), config, seed
        self.store, self.source = Store(root / "raw"), config.policy
        self.order = self.store.resume(env, self.source, seed)
        rows = self.store.rows(env, self.source, seed)
        self.returns = [row.episode_return for row in rows]
        self.learner = None
        if config.policy != "random":
            run = run_of(root, env, self.source, seed, config.tensorboard)
            run.begin(_run_config(self.spec, config, seed), None, _DEFAULTS)
            explore = config.plan2explore if config.policy == "plan2explore" else None
            self.learner = Learner(self.spec, config.dreamer, explore, seed, run, config.device, config.threads)
            self.learner.resume(self.order, self.store.read(rows))
        self.workers = [envs.make(env, config.repeat) for _ in range(min(config.round, config.episodes - self.order))]

    def run(self, place: int) -> None:
        """Everything that is missing; `place`: the line of the progress bar."""
        label, total = f"{self.spec.env} {self.source} s{self.seed}", self.config.episodes
        with Bar(total=total, initial=self.order, desc=label, unit="episode", position=place) as bar:
            for orders in rounds(self.order, total, self.config.round):
                self._round(orders, bar)
                self.store.commit(self.spec.env, self.source, self.seed, orders.stop)

    def _round(self, orders: range, bar: Bar) -> None:
        begins = orders.start - orders.start % self.config.round  # of the whole round, wherever a run was cut
        learner = self.learner if begins >= self.config.prefill else None
        policy = learner.policy(orders.start) if learner else random_policy(self.spec.action_size, self.seed, orders)
        began = time.perf_counter()
        episodes = record(self.store, self.spec, self.workers, policy, self.source, self.seed, orders)
        seconds = time.perf_counter() - began
        self.returns += [episode.episode_return for episode in episodes]
        said = f"return {np.mean(self.returns[-TRAILING:]):.0f}"
        bar.update(len(orders))
        bar.say(said)
        if self.learner:
            logged = {"return": float(np.mean(self.returns[-len(orders) :])), "rollout_seconds": round(seconds, 3)}
            self.learner.learn(episodes, logged, lambda share: bar.say(f"{said}, learning {share:.0%}"))


def _run_config(spec: envs.Spec, config: Config, seed: int) -> dict[str, object]:
    """Everything that a learner's history depends on; more episodes or seeds may be asked for later.

    A number of episodes that is no multiple of `round` ends with a shorter round: what follows is then another history
    than that of more episodes at once.
    """
    settings = as_dict({"collect": config})
    for key in ("seeds", "episodes", "tensorboard"):
        del settings["collect"][key]
    return {"env": spec.env, "seed": seed, "settings": settings, "code": code_commit()}


def _meta(spec: envs.Spec, config: Config) -> dict[str, object]:
    return {
        "layout": [list(part) for part in spec.layout],
        "action_size": spec.action_size,
        "repeat": spec.repeat,
        "collected": _described(spec, config),
        "credits": None,
        "slice": "plan2explore" if config.policy == "plan2explore" else None,
    }


def _described(spec: envs.Spec, config: Config) -> str:
    """How widely actions are covered follows from the acting noise and the train ratio, so the card says both."""
    if config.policy == "random":
        return "random policy, uniform in [-1, 1] at every agent step"
    c = config.dreamer
    ratio = c.updates * c.batch * c.window / spec.episode_length
    drawn = -(-config.prefill // config.round) * config.round  # whole rounds
    learned = (
        f"first {drawn} episodes random; {c.updates} updates of {c.batch} windows of {c.window} an episode "
        f"(train ratio {ratio:.0f})"
    )
    explore = config.plan2explore
    agent, entropy = {
        "dreamer": ("Dreamer", c.entropy),
        "plan2explore": (f"Plan2Explore (Dreamer rewarded where {explore.members} models disagree)", explore.entropy),
    }[config.policy]
    return f"{agent}, actions sampled from the policy (entropy weight {entropy:g}), no other noise; {learned}"
