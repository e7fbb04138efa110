"""A method's whole state as named tensors, and a trained run as a policy: observation in, action out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lawm_data import config
from lawm_data.errors import UserError
from lawm_data.nets import snapshot
from lawm_data.parsing import parse
from lawm_data.runs import Position, Run, trained
from lawm_train import evaluate, lawm, methods, pretrained
from lawm_train.data import Sizes, Statistics
from lawm_train.evaluate import Act
from lawm_train.methods import AgentConfig, Method, TrainConfig

SECTIONS: dict[str, type] = {
    "model": lawm.Config,
    "agent": AgentConfig,
    "train": TrainConfig,
    "evaluate": evaluate.Config,
}


class Policy:
    """A trained policy: observations in, actions out, its state carried from call to call.

        policy = Policy.from_pretrained("org/lawm-walker-policy")  # or a run folder
        policy.reset()  # before each episode
        action = policy(observation)  # float32 [O] -> [A] in [-1, 1]; a batch [B, O] -> [B, A]
        command = policy.unscale_action(action)  # in the units of the recording

    `description` is what is known of it: env, action repeat, layout of the observation, method, dataset.
    """

    def __init__(self, description: Mapping[str, Any], act: Act):
        self.description = description
        self._act, self._first, self._shape = act, True, ()

    @classmethod
    def from_pretrained(cls, where: str | Path, policy: str = "agent") -> Policy:
        """Load from a run folder, a folder that `export` wrote, or `org/name[@revision]` on the Hub; on the CPU.

        policy: `agent`, or `prior` for the prior-policy control of a model-based run. UserError when there is none.
        """
        if (Path(where) / "config.json").is_file():
            run = trained(Path(where))
            return cls(run.config, acting(load_newest(run)[1], policy, str(where)))
        exported = pretrained.find(str(where))
        return cls(exported.description, acting(_build(exported), policy, str(where)))

    def reset(self) -> None:
        """Forget the episode so far; the next observation is the first of a new one."""
        self._first = True

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """ValueError for an observation of another size or that is not finite, and for another batch before `reset`."""
        given = np.array(observation, np.float32, order="C")  # torch takes no negative strides
        size = self.description["sizes"]["observation"]
        if given.ndim not in (1, 2) or given.shape[-1] != size:
            raise ValueError(f"observation has shape {given.shape}, expected ({size},) or (batch, {size})")
        if not np.isfinite(given).all():
            raise ValueError("observation has numbers that are not finite")
        if not self._first and given.shape != self._shape:
            raise ValueError(f"observation has shape {given.shape}, before it had {self._shape}; call reset() first")
        batch = torch.from_numpy(np.atleast_2d(given))[None]
        first = torch.full(batch.shape[:2], self._first)
        self._first, self._shape = False, given.shape
        action = self._act(batch, first)[0].numpy()
        return action.reshape(*given.shape[:-1], action.shape[-1]).copy()  # the filter remembers its own

    def unscale_action(self, action: np.ndarray) -> np.ndarray:
        """An action [..., A] in the units of the recordings that it was learned from: -1 is their least, 1 their most.

        float64, as bounds may have more digits than float32. ValueError for an action of another size, and where the
        dataset does not know its bounds (`action_bounds` in its lawm.json).
        """
        bounds = self.description["about"].get("action_bounds")
        if not bounds:
            raise ValueError("the dataset of this policy does not say what -1 and 1 were when it was recorded")
        given = np.asarray(action, np.float64)
        if given.shape[-1:] != (len(bounds),):
            raise ValueError(f"action has shape {given.shape}, expected (..., {len(bounds)})")
        low, high = np.array(bounds, np.float64).T
        return np.clip(low + (given + 1) / 2 * (high - low), low, high)  # which rounding would leave


def acting(method: Method, policy: str, where: str) -> Act:
    """How a method acts as `agent` or `prior`; UserError names `where` when it has no such policy."""
    if policy == "agent":
        return method.policy()
    if policy != "prior":
        raise UserError(f"{where}: no policy '{policy}'; there are agent and prior")
    world = method.modules.get("world")
    if not isinstance(world, lawm.WorldModel):
        raise UserError(f"{where}: its method has no world model, so no prior to act by; leave out --policy prior")
    return world.policy()


def load(run: Run, position: Position) -> Method:
    """A run's method (one model) at a checkpoint, on the CPU, wherever it was trained."""
    method = _blank(run.config, str(run.path / "config.json"), "cpu")
    restore(method, [run], position)
    return method


def load_newest(run: Run) -> tuple[Position, Method]:
    """The last checkpoint and the method at it, also while a training goes on that saves others and drops this one."""
    while True:
        position = run.newest
        try:
            return position, load(run, position)
        except UserError:
            if run.newest == position:
                raise


def export(run: Run, folder: Path) -> pretrained.Exported:
    """Write the run's last checkpoint, all but the optimisers' moments, as `folder`/policy.json and its tensors."""
    position, method = load_newest(run)
    return pretrained.write(folder, run.config, position, _states(method))


def _build(exported: pretrained.Exported) -> Method:
    """UserError where the tensors are not those of the method described, found before anything is allocated for it."""
    tensors, where = exported.tensors(), exported.where
    with torch.device("meta"):
        shapes = _states(_blank(exported.description, where, "meta"))
    if {key: value.shape for key, value in shapes.items()} != {key: value.shape for key, value in tensors.items()}:
        raise UserError(f"{where}: its tensors are not those of the method and sizes that it names; push it again")
    method = _blank(exported.description, where, "cpu")
    for name, module in method.modules.items():
        module.load_state_dict({key: tensors[f"{name}.{key}"] for key in module.state_dict()})
    return method


def _states(method: Method) -> dict[str, Tensor]:
    """Parameters and buffers of every module, as `export` names them."""
    return {f"{name}.{key}": x for name, module in method.modules.items() for key, x in module.state_dict().items()}


def _blank(saved: Mapping[str, Any], where: str, device: str) -> Method:
    """The method of saved settings, not yet trained."""
    methods.kind_of(saved["method"])  # UserError for an unknown method
    configs = config.from_dict(saved["settings"], SECTIONS, where)
    configs["train"] = replace(configs["train"], device=device)
    sizes = parse(Sizes, saved["sizes"], where, "train the run again")
    blank = Statistics.blank(sizes.observation)
    return methods.build(methods.Setup(saved["method"], configs, [saved["seed"]], sizes, blank))


def restore(method: Method, runs: list[Run], position: Position) -> list[dict[str, Any]]:
    """Load the runs' checkpoints, one a model, into a method that holds as many models; returns the state of each."""
    loaded = [run.load(position) for run in runs]
    where = " and ".join(str(run.checkpoint(position)) for run in runs)
    snapshot.restore(method.modules, [own for own, _ in loaded], loaded[0][1], where)
    return [state for _, state in loaded]
