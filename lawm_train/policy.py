"""A method's whole state as named tensors, and a trained run as a policy: observation in, action out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lawm_data import config
from lawm_data.errors import UserError
from lawm_data.nets import snapshot as snapshots
from lawm_data.nets.blocks import Normalizer
from lawm_data.runs import Position, Run
from lawm_train import evaluate, lawm, methods
from lawm_train.methods import AgentConfig, Method, Policy, Sizes, TrainConfig

SECTIONS: dict[str, type] = {
    "model": lawm.Config,
    "agent": AgentConfig,
    "train": TrainConfig,
    "evaluate": evaluate.Config,
}


def from_pretrained(path: Path, policy: str = "agent") -> Policy:
    """The policy of a run's last checkpoint, for observation [1, B, O] and first [1, B]; state is carried.

    policy: `agent`, or `prior` for the prior-policy control of a model-based run. UserError when there is no such run.
    """
    method = load(Run(path))
    if policy != "prior":
        return method.policy()
    world = method.modules.get("world")
    if not isinstance(world, lawm.WorldModel):
        raise UserError(f"{path}: its method has no world model, so no prior to act by; leave out --policy prior")
    return world.policy()


def load(run: Run, position: Position | None = None) -> Method:
    """A run's method (one model) at a checkpoint, the last one by default."""
    saved = run.config
    configs = config.from_dict(saved["settings"], SECTIONS, str(run.path / "config.json"))
    sizes = Sizes(**saved["sizes"])
    blank = torch.zeros(1, 1, sizes.observation)
    method = methods.build(saved["method"], configs, [saved["seed"]], sizes, Normalizer(blank, blank))
    restore(method, [run], position)
    return method


def snapshot(method: Method, models: int) -> tuple[list[dict[str, Tensor]], dict[str, Any]]:
    """Each model's tensors and the rest of a checkpoint's state, see `Run.save`."""
    tensors, steps = snapshots.snapshot(method.modules, models)
    return tensors, {"optimizer_steps": steps}


def restore(method: Method, runs: list[Run], position: Position | None = None) -> None:
    """Load the runs' checkpoints, one a model, into a method that holds as many models."""
    loaded = [run.load(position) for run in runs]
    snapshots.restore(method.modules, [own for own, _ in loaded], loaded[0][1]["optimizer_steps"])
