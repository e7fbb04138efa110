"""Modules and their optimisers as named tensors, one set a model: what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lawm_data.errors import UserError
from lawm_data.nets.blocks import join_models, split_models
from lawm_data.nets.optim import Optimizer

Modules = Mapping[str, nn.Module]
STEPS = "optimizer_steps"


def snapshot(modules: Modules, models: int) -> tuple[list[dict[str, Tensor]], dict[str, Any]]:
    """Each model's tensors (parameters, buffers, optimiser moments), and the state beside them: how many steps the
    optimisers took. See `Run.save`.
    """
    tensors: dict[str, Tensor] = {}
    steps: dict[str, int] = {}
    for name, module in modules.items():
        tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
        for part, optimizer in _optimizers(module).items():
            tensors |= {f"{name}.{part}.{key}": value for key, value in optimizer.state().items()}
            steps[f"{name}.{part}"] = optimizer.steps
    return split_models(tensors, models), {STEPS: steps}


def restore(modules: Modules, own: Sequence[Mapping[str, Tensor]], state: Mapping[str, Any], where: str) -> None:
    """Load the tensors of as many models as the modules hold; UserError names `where` when they are of others."""
    steps = state.get(STEPS, {})
    refused = UserError(f"{where}: no checkpoint of these settings; remove its folder to go back one")
    wanted = {
        f"{name}.{key}": (x.shape[0] // len(own), *x.shape[1:])
        for name, module in modules.items()
        for key, x in module.state_dict().items()
    }
    counted = {f"{name}.{part}" for name, module in modules.items() for part in _optimizers(module)}
    if not isinstance(steps, dict) or not all(isinstance(taken, int) for taken in steps.values()):
        raise refused
    for tensors in own:
        found = {key: tuple(tensors[key].shape) for key in wanted.keys() & tensors.keys()}
        if found != wanted or steps.keys() != counted:
            raise refused
    tensors = join_models(own)
    for name, module in modules.items():
        module.load_state_dict({key: tensors[f"{name}.{key}"] for key in module.state_dict()})
        for part, optimizer in _optimizers(module).items():
            prefix = f"{name}.{part}."
            moments = {key.removeprefix(prefix): x for key, x in tensors.items() if key.startswith(prefix)}
            try:
                optimizer.load(moments, steps[f"{name}.{part}"])
            except ValueError:
                raise refused from None


def _optimizers(module: nn.Module) -> dict[str, Optimizer]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Optimizer)}
