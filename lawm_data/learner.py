"""A Dreamer collector between two rounds of episodes: networks, replay, run folder.

Everything it does is a pure function of (seed, the episodes so far), so that a checkpoint is tensors and a count.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from lawm_data import dreamer, files, plan2explore
from lawm_data.dreamer import Dreamer
from lawm_data.envs import Spec
from lawm_data.episode import Episode
from lawm_data.errors import UserError, reason
from lawm_data.nets.blocks import Noise
from lawm_data.nets.captured import Captured
from lawm_data.nets.snapshot import restore, snapshot
from lawm_data.plan2explore import Disagreement
from lawm_data.rollout import Policy
from lawm_data.runs import Position, Run
from lawm_data.windows import Pool, Windows

KEEP_EVERY = 25  # episodes between two policies that are kept for good
ACTING = ("encoder", "rssm", "actor")  # what a kept policy needs of a Dreamer


class Learner:
    """One seed's Dreamer, with the task's reward or, given `explore`, with that of an ensemble's disagreement."""

    def __init__(
        self,
        spec: Spec,
        config: dreamer.Config,
        explore: plan2explore.Config | None,
        seed: int,
        run: Run,
        device: str,
        threads: int,
    ):
        torch.set_num_threads(threads)
        curiosity = None
        if explore:
            feat, config = config.deter + config.stoch, replace(config, entropy=explore.entropy)
            curiosity = Disagreement(explore, [seed], feat, spec.action_size, spec.observation_size).to(device)
        self.spec, self.config, self.seed, self.run, self.device = spec, config, seed, run, device
        self.agent = build(spec, config, seed, curiosity).to(device)
        self.modules: dict[str, nn.Module] = {"agent": self.agent} | ({"curiosity": curiosity} if curiosity else {})
        self.replay: Pool | None = None
        self.update = Captured(self.agent.update, config.stride)

    def resume(self, order: int, episodes: Iterable[Episode]) -> None:
        """Continue after the first `order` episodes; UserError when there is no checkpoint of that time."""
        position = Position(0, order)
        kept = [one for one in self.run.positions() if one <= position]
        if order and position not in kept:
            cure = ""
            if kept:
                last = kept[-1].update
                cure = (
                    f"or, under raw/, move the seed's files from {last:06d}.h5 on away and set next_order to {last} in "
                    "its checkpoint.json, "
                )
            raise UserError(
                f"{self.run.path}: no checkpoint of the learner after {order} episodes; restore the folder, {cure}or "
                "collect into another --root"
            )
        self.run.discard(position)
        for learned, path in kept_policies(self.run).items():
            if learned > order:  # of episodes that are no more
                path.unlink()
        if order == 0:
            return
        tensors, state = self.run.load(position)
        restore(self.modules, [tensors], state, str(self.run.checkpoint(position)))
        self._remember(episodes)

    def policy(self, order: int) -> Policy:
        """Acts in the round that begins with episode `order`, with samples."""
        return on_arrays(self.agent.policy(Noise([self.seed], f"act/{order}", 0, self.device)), self.device)

    def learn(self, episodes: Sequence[Episode], logged: dict[str, float], watch: Callable[[float], None]) -> None:
        """Learn from a round and all before it; log metrics and `logged`, then write the checkpoint.

        watch(share of the updates done). UserError when a metric is not finite.
        """
        began = time.perf_counter()
        self._remember(episodes)
        orders = range(episodes[0].order, episodes[-1].order + 1)
        means = self._updates(orders, watch)
        seconds = {"learn_seconds": round(time.perf_counter() - began, 3)}
        self.run.log({"kind": "collect", "phase": "collect", "update": orders.stop, **logged, **seconds, **means})
        tensors, state = snapshot(self.modules, 1)
        if orders.stop // KEEP_EVERY > orders.start // KEEP_EVERY:
            acting = {key: x for key, x in tensors[0].items() if key.split(".")[1] in ACTING}
            files.write_bytes(self.run.path / f"policy-{orders.stop:06d}.safetensors", safetensors.torch.save(acting))
        self.run.save(Position(0, orders.stop), tensors[0], state)

    def _remember(self, episodes: Iterable[Episode]) -> None:
        if self.replay is None:
            self.replay = Pool(episodes, True, self.spec.action_size, self.config.window)
        else:
            self.replay.extend(episodes)

    def _updates(self, orders: range, watch: Callable[[float], None]) -> dict[str, float]:
        """`config.updates` updates for each of the episodes `orders`; the means of their metrics."""
        assert self.replay is not None
        c = self.config
        windows = Windows([[self.replay]], [self.seed], c.window, [c.batch], self.device)
        updates = range(orders.start * c.updates, orders.stop * c.updates)
        sums: dict[str, Tensor] = {}
        for update in updates:
            noise = Noise([self.seed], "learn", update, self.device)
            for name, value in self.update(windows.batch(update, "replay"), noise).items():
                sums[name] = sums[name] + value if name in sums else value
            watch((update + 1 - updates.start) / len(updates))
        means = {name: float(total) / len(updates) for name, total in sums.items()}
        broken = [name for name, mean in means.items() if not math.isfinite(mean)]
        if broken:
            raise UserError(
                f"{self.run.path}: {broken[0]} is not finite by episode {orders.stop}, last good checkpoint: episode "
                f"{orders.start}; lower collect.dreamer.lr and collect into another --root"
            )
        return means


def build(spec: Spec, config: dreamer.Config, seed: int, curiosity: Disagreement | None = None) -> Dreamer:
    """A Dreamer of the env's sizes with the initial weights of the seed."""
    return Dreamer(config, [seed], spec.observation_size, spec.action_size, curiosity)


def kept_policies(run: Run) -> dict[int, Path]:
    """The files of the kept policies, by the number of episodes that each had learned from."""
    named = ((re.fullmatch(r"policy-(\d+)\.safetensors", path.name), path) for path in run.path.glob("policy-*"))
    return {int(match[1]): path for match, path in sorted(named, key=lambda pair: pair[1]) if match}


def load_kept(path: Path, spec: Spec, config: dreamer.Config, noise: Noise) -> Policy:
    """A kept policy, sampled. UserError when the file is damaged or of other sizes."""
    agent = build(spec, config, 0)
    try:
        tensors = safetensors.torch.load_file(path)
        for part in ACTING:
            prefix = f"agent.{part}."
            own = {key.removeprefix(prefix): x for key, x in tensors.items() if key.startswith(prefix)}
            agent.get_submodule(part).load_state_dict(own)
    except (safetensors.SafetensorError, OSError, RuntimeError) as error:
        raise UserError(f"{path}: not a kept policy of this collector ({reason(error)}); remove it") from None
    return on_arrays(agent.policy(noise), "cpu")


def on_arrays(policy: Callable[[Tensor, Tensor], Tensor], device: str) -> Policy:
    """A policy of one model on tensors [1, B, ...] as one on arrays [B, ...]."""

    def act(observation: np.ndarray, first: np.ndarray) -> np.ndarray:
        tensors = (torch.from_numpy(x)[None].to(device) for x in (observation, first))
        return policy(*tensors)[0].cpu().numpy()

    return act
