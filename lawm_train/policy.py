"""A method's whole state as named tensors, and a trained run as a policy: observation in, action out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lawm_data import config
from lawm_data.errors import UserError
from lawm_data.nets import snapshot as snapshots
from lawm_data.runs import Position, Run
from lawm_train import evaluate, lawm, methods
from lawm_train.data import Sizes, Statistics
from lawm_train.methods import AgentConfig, Method, Policy, TrainConfig

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
    run = Run(path)
    method, size = load(run), run.config["sizes"]["observation"]
    if policy != "prior":
        return _checked(method.policy(), size, path)
    world = method.modules.get("world")
    if not isinstance(world, lawm.WorldModel):
        raise UserError(f"{path}: its method has no world model, so no prior to act by; leave out --policy prior")
    return _checked(world.policy(), size, path)


def load(run: Run, position: Position | None = None) -> Method:
    """A run's method (one model) at a checkpoint, the last one by default; on the CPU, wherever it was trained."""
    saved = run.config
    configs = config.from_dict(saved["settings"], SECTIONS, str(run.path / "config.json"))
    configs["train"] = replace(configs["train"], device="cpu")
    sizes = Sizes(**saved["sizes"])
    method = methods.build(saved["method"], configs, [saved["seed"]], sizes, Statistics.blank(sizes.observation))
    restore(method, [run], position)
    return method


def snapshot(method: Method, models: int) -> tuple[list[dict[str, Tensor]], dict[str, Any]]:
    """Each model's tensors and the rest of a checkpoint's state, see `Run.save`."""
    tensors, steps = snapshots.snapshot(method.modules, models)
    return tensors, {"optimizer_steps": steps}


def restore(method: Method, runs: list[Run], position: Position | None = None) -> dict[str, Any]:
    """Load the runs' checkpoints, one a model, into a method that holds as many models; returns their state."""
    loaded = [run.load(position) for run in runs]
    state = loaded[0][1]
    snapshots.restore(method.modules, [own for own, _ in loaded], state["optimizer_steps"])
    return state


def _checked(policy: Policy, size: int, path: Path) -> Policy:
    def act(observation: Tensor, first: Tensor) -> Tensor:
        if observation.shape[-1] != size:
            raise UserError(
                f"{path}: was trained on observations of size {size}, but is shown size {observation.shape[-1]}; "
                "evaluate it in the task of its dataset"
            )
        return policy(observation, first)

    return act
