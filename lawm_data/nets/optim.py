"""Adam over stacked models: clipping and failure are per model, so seeds side by side never touch each other."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from lawm_data.errors import UserError, reason

M = TypeVar("M", bound=nn.Module)


class Optimizer:
    """Adam with the gradient norm of each of the N models clipped on its own.

    A model whose gradient is not finite gets none (`torch.nn.utils.clip_grad_norm_` over the stack would spread it).
    """

    def __init__(self, modules: Iterable[nn.Module], models: int, lr: float, clip: float, decay: float = 0.0):
        """decay: of every parameter, apart from its gradient (AdamW)."""
        self.named = [(f"{i}.{n}", p) for i, m in enumerate(modules) for n, p in m.named_parameters()]
        self.models, self.clip = models, clip
        weights = [p for _, p in self.named]
        self.adam = torch.optim.Adam(
            weights, lr=lr, weight_decay=decay, decoupled_weight_decay=True, fused=True, capturable=True
        )

    def step(self, loss: Tensor) -> Tensor:
        """One step down `loss` [N]; returns the gradient norms [N] before clipping."""
        self.adam.zero_grad(set_to_none=True)
        # none for what else the loss went through: an agent's goes through the world model
        loss.sum().backward(inputs=[p for _, p in self.named])
        gradients = [p.grad for _, p in self.named if p.grad is not None]
        norm = torch.stack([torch.linalg.vector_norm(g.view(self.models, -1), dim=1) for g in gradients]).norm(dim=0)
        scale = (self.clip / (norm + 1e-6)).clamp(max=1)  # 0 or NaN of a model that failed
        for g in gradients:
            g.view(self.models, -1).mul_(scale[:, None]).nan_to_num_(0)
        self.adam.step()
        return norm

    @property
    def steps(self) -> int:
        """Taken so far."""
        kept = next(iter(self.adam.state.values()), None)
        return int(kept["step"]) if kept else 0

    def state(self) -> dict[str, Tensor]:
        """First and second moments by parameter name, leading axis N * E like the parameters."""
        tensors = {}
        for name, p in self.named:
            kept = self.adam.state.get(p)
            if kept:
                tensors[f"{name}.exp_avg"], tensors[f"{name}.exp_avg_sq"] = kept["exp_avg"], kept["exp_avg_sq"]
        return tensors

    def load(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Continue after `steps` steps with the moments that `state` gave; ValueError where they are of others.

        A parameter that the loss has not reached so far has none.
        """
        moved = [(name, p) for name, p in self.named if f"{name}.exp_avg" in tensors]
        sizes = {f"{name}.{moment}": p.shape for name, p in moved for moment in ("exp_avg", "exp_avg_sq")}
        if {key: x.shape for key, x in tensors.items()} != sizes or bool(steps) != bool(moved):
            raise ValueError(f"not the moments of these parameters after {steps} steps")
        for name, p in moved:
            self.adam.state[p] = {
                "step": torch.tensor(float(steps), device=p.device),
                "exp_avg": tensors[f"{name}.exp_avg"].to(p).clone(),
                "exp_avg_sq": tensors[f"{name}.exp_avg_sq"].to(p).clone(),
            }


def usable_device(name: str, key: str) -> str:
    """`name`; UserError, with the setting `key` that it stands under, when PyTorch cannot use it here."""
    try:
        torch.zeros(1, device=name).item()  # the meta device makes tensors and holds no numbers
    except (AssertionError, RuntimeError) as error:  # PyTorch raises the former where it was built without CUDA
        raise UserError(f"{key} is {name}, which PyTorch cannot use here ({reason(error)}); set cpu") from None
    return name


def averaged(module: M, rate: float) -> M | None:
    """A copy that is to follow the module by `ema`; None at rate 1, where it would be the module itself."""
    return copy.deepcopy(module).requires_grad_(False) if rate < 1 else None


@torch.no_grad()
def ema(target: nn.Module, source: nn.Module, rate: float) -> None:
    """target += rate (source - target), parameter by parameter."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)
