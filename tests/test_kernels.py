"""The kernels in C against the same in PyTorch, in float64 where it can be."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from lawm_data.nets import elementwise, kernels
from lawm_data.nets.blocks import MLP, GRUCell, Init

pytestmark = pytest.mark.skipif(not kernels.BUILT, reason="installed without a C compiler")

SIZES = [(1, 1, 3), (1, 16, 128), (3, 5, 37), (2, 7, 200)]  # models, rows, features
CLOSE = {"rtol": 2e-5, "atol": 2e-6}
STEPS = 3


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spread(module: nn.Module) -> nn.Module:
    """Parameters as if trained: norms' scales and shifts begin at 1 and 0, which would hide an error."""
    with torch.no_grad():
        for k, parameter in enumerate(module.parameters()):
            parameter += draw(*parameter.shape, seed=k, scale=0.3)
    return module


def results(module: nn.Module, *inputs: Tensor) -> list[Tensor]:
    """Of the module, of a loss of it, and the gradients of inputs and parameters."""
    module.zero_grad()
    wanted = [x.clone().requires_grad_() for x in inputs]
    result = module(*wanted)
    weights = draw(*result.shape, seed=99).to(result.dtype)
    (result * weights).sum().backward()
    gradients = [x.grad for x in [*wanted, *module.parameters()]]
    assert all(gradient is not None for gradient in gradients)
    return [result.detach(), *gradients]


def compare(module: nn.Module, *inputs: Tensor) -> None:
    exact = results(copy.deepcopy(module).double(), *(x.double() for x in inputs))
    with mock.patch.object(torch.nn.functional, "layer_norm", side_effect=AssertionError("not by kernels")):
        found = results(module, *inputs)
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5 * (1 + float(b.abs().max())))


@pytest.mark.parametrize(("models", "rows", "size"), SIZES)
@pytest.mark.parametrize("outputs", [None, 3])
def test_mlp_is_what_its_layers_are_in_float64(models: int, rows: int, size: int, outputs: int | None) -> None:
    mlp = spread(MLP(Init(range(models)), 4, size + 1, 2, outputs))  # one feature alone would be normed to zero
    compare(mlp, draw(models, rows, 4))
    compare(mlp, draw(2, models, rows, 4))


@pytest.mark.parametrize(("models", "rows", "size"), SIZES)
def test_gru_is_what_its_layers_are_in_float64(models: int, rows: int, size: int) -> None:
    cell = spread(GRUCell(Init(range(models)), 6, size))
    compare(cell, draw(models, rows, 6), draw(models, rows, size, seed=1))
    compare(cell, draw(models, rows, 6), draw(models, rows, 2 * size, seed=1)[..., ::2])  # not dense


@pytest.mark.parametrize(("models", "rows", "size"), SIZES)
def test_steps_are_those_of_pytorch(models: int, rows: int, size: int) -> None:
    scale, shift = 1 + draw(models, 1, size, scale=0.3), draw(models, 1, size, seed=1)
    weight, bias = draw(models, 4, size, seed=2), draw(STEPS, models, rows, size, seed=3)
    ours, truth = elementwise.ActivatedByKernel(scale, shift, STEPS), elementwise.Activated(scale, shift)
    for t in range(STEPS):
        own = bias.transpose(0, 1).contiguous().transpose(0, 1)[t] if t else bias[0, :, :1]  # of each row, or of all
        x = draw(models, rows, 4, seed=4 + t)
        torch.testing.assert_close(ours.forward(x, weight, own), truth.forward(x, weight, own), **CLOSE)
    for t in range(STEPS):
        gradient = draw(models, rows, 2 * size, seed=t)[..., ::2]
        torch.testing.assert_close(ours.backward(gradient), truth.backward(gradient), **CLOSE)
    torch.testing.assert_close(ours.gradients(), truth.gradients(), **CLOSE)


@pytest.mark.parametrize(("models", "rows", "size"), SIZES)
def test_steps_of_a_gru_are_those_of_pytorch(models: int, rows: int, size: int) -> None:
    scale, shift = 1 + draw(models, 1, 3 * size, scale=0.3), draw(models, 1, 3 * size, seed=1)
    weights = draw(models, 4, 3 * size), draw(models, size, 3 * size, seed=2), draw(models, 1, 3 * size, seed=3)
    ours, truth = elementwise.GatedByKernel(scale, shift, STEPS), elementwise.Gated(scale, shift)
    h = draw(models, 1, size, seed=4).expand(-1, rows, -1)  # as a learned start is
    for t in range(STEPS):
        x = draw(models, rows, 4, seed=5 + t)
        after = truth.forward(x, h, *weights)
        torch.testing.assert_close(ours.forward(x, h, *weights), after, **CLOSE)
        h = after
    for t in range(STEPS):
        gradient = draw(models, rows, size, seed=t)
        torch.testing.assert_close(ours.backward(gradient), truth.backward(gradient), **CLOSE)
    torch.testing.assert_close(ours.gradients(), truth.gradients(), **CLOSE)


def test_copies_have_weights_of_their_own() -> None:
    mlp = MLP(Init([0]), 4, 8, 1, 3)
    other, x = copy.deepcopy(mlp), draw(1, 5, 4)
    with torch.no_grad():
        mlp.layers[0].weight.zero_()
    assert not torch.equal(other(x), mlp(x))
    torch.testing.assert_close(other(x), other.layers(x), **CLOSE)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    """`backward(inputs=...)` spares frozen weights their products, which are most of an agent's update."""
    first, second, x = MLP(Init([0]), 4, 8, 1, 3), MLP(Init([1]), 3, 8, 1, 1), draw(1, 5, 4)
    with torch.profiler.profile() as profile:
        second(first(x)).sum().backward(inputs=list(first.parameters()))
    counts = {event.key: event.count for event in profile.key_averages()}
    # 4 forward; back 2 through the second, 1 through the first, 2 for its weights: the second's weights would be 2 more
    assert counts["aten::bmm"] + counts["aten::baddbmm"] == 4 + 5
    assert all(parameter.grad is None for parameter in second.parameters())


@pytest.mark.parametrize("value", [0.0, 1e-6, 1.0, 1e4, -1e4])
def test_large_small_and_equal_numbers(value: float) -> None:
    mlp, cell = spread(MLP(Init([0]), 4, 9, 1)), spread(GRUCell(Init([0]), 4, 9))
    x = torch.full((1, 3, 4), value)
    compare(mlp, x)
    compare(cell, x, torch.zeros(1, 3, 9))


def test_tanh_and_sigmoid_everywhere() -> None:
    """A GRU's state from gates that scale and shift make what they are: what is normed is 0, so shift alone counts."""
    size = 4096
    x = torch.cat([torch.linspace(-30, 30, size - 8), torch.tensor([-1e4, -1e-4, -1e-6, 0, 1e-6, 1e-4, 1e4, 89.0])])
    gates, shift = torch.empty(1, 1, 4 * size), torch.cat([torch.full((size,), 1e3), x, x])[None, None]
    zero = torch.zeros(1, 1, 3 * size)
    kept = torch.empty_like(zero), torch.empty(1, 1)
    kernels.gated(zero, zero, torch.zeros(1, 1, size), zero, shift, *kept, gates)
    reset, proposal, update, candidate = gates[0, 0].double().chunk(4)
    torch.testing.assert_close(reset, torch.ones_like(reset), rtol=0, atol=0)
    torch.testing.assert_close(proposal, x.double(), rtol=0, atol=0)
    torch.testing.assert_close(candidate, x.double().tanh(), rtol=5e-7, atol=1e-30)
    torch.testing.assert_close(update, (x.double() - 1).sigmoid(), rtol=4e-6, atol=1e-30)


def test_what_is_not_a_number_stays_in_its_row() -> None:
    mlp, x = MLP(Init([0]), 4, 20, 1), draw(1, 5, 4)
    x[0, 2, 1] = torch.nan
    result = mlp(x)
    assert result[0, 2].isnan().all() and result[0, [0, 1, 3, 4]].isfinite().all()
    cell, h = GRUCell(Init([0]), 4, 20), draw(1, 5, 20)
    result = cell(x, h)
    assert result[0, 2].isnan().all() and result[0, [0, 1, 3, 4]].isfinite().all()


def test_a_wrong_number_of_arguments_is_an_error() -> None:
    with pytest.raises(TypeError, match="takes 12 integers, not 1"):
        kernels._kernels.activated(1)
    with pytest.raises(TypeError):
        kernels._kernels.activated(*["one"] * 12)


def test_what_they_serve() -> None:
    x = torch.zeros(2)
    assert kernels.serve(x) and not kernels.serve(x.double()) and not kernels.serve(x.to("meta"))
    with mock.patch("torch.get_num_threads", lambda: 3):
        assert kernels.serve(x) and not kernels.serve(torch.zeros(kernels.SHARED))
    with mock.patch.object(kernels, "BUILT", False):
        assert not kernels.serve(x)
