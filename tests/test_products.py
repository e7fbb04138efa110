"""Who multiplies: the precision that products may have, where, and that it ends with its block."""

import models
import pytest
import test_dreamer
import torch
from test_train import CUTS, job
from torch.utils._python_dispatch import TorchDispatchMode

from lawm_data.nets import products
from lawm_data.nets.blocks import Noise
from lawm_data.nets.products import multiplying, rounding_is_exact, step_by_step
from lawm_train import train

MATMUL = torch.backends.mkldnn.matmul
PRODUCTS = {"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"}


class Watch(TorchDispatchMode):
    """The setting under which each product was made."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.name().split(".")[0] in PRODUCTS:
            self.seen.append(MATMUL.fp32_precision)
        return function(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def fresh():
    """As PyTorch begins; its own setting for all devices does not restore those of one."""
    MATMUL.fp32_precision = "none"


@pytest.fixture
def exact(monkeypatch, request):
    monkeypatch.setattr(products, "rounding_is_exact", lambda: request.param)
    return request.param


def settings_of():
    return MATMUL.fp32_precision, torch.backends.cuda.matmul.fp32_precision, torch.get_float32_matmul_precision()


def allowed(precision, exact):
    return "bf16" if precision == "bfloat16" or exact else "ieee"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_products_are_as_near_as_they_say_and_all_settings_end_with_their_block(precision):
    a, b = torch.randn(2, 64, 128), torch.randn(2, 128, 64)
    plain, before = torch.bmm(a, b), settings_of()
    with pytest.raises(RuntimeError, match="mine"), multiplying(precision, "cpu"):
        near = torch.bmm(a, b)
        raise RuntimeError("mine")
    assert settings_of() == before
    assert torch.equal(torch.bmm(a, b), plain)
    exact = torch.bmm(a.double(), b.double())
    bits = 7 if precision == "bfloat16" and not rounding_is_exact() else 19
    assert (near - exact).abs().max() < 2**-bits * (a.abs() @ b.abs()).max()


@pytest.mark.parametrize("setting", ["bf16", "ieee"])
def test_a_setting_of_the_users_is_no_obstacle_and_stays(setting):
    before, MATMUL.fp32_precision = MATMUL.fp32_precision, setting
    try:
        with multiplying("float32", "cpu"), step_by_step(torch.zeros(1, 16, 8)):
            pass
        assert MATMUL.fp32_precision == setting
    finally:
        MATMUL.fp32_precision = before


def test_a_gpu_is_told_in_pytorchs_own_words():
    for precision, told in (("float32", "highest"), ("bfloat16", "medium")):
        with multiplying(precision, "cuda"):
            assert torch.get_float32_matmul_precision() == told
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("exact", [True, False], indirect=True)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_are_left_to_pytorch_where_they_are_small_or_would_be_rounded(precision, exact):
    with multiplying(precision, "cpu"):
        assert MATMUL.fp32_precision == allowed(precision, exact)
        with step_by_step(torch.zeros(1, 16, 8)):
            assert MATMUL.fp32_precision == "ieee"
        for large in (torch.zeros(5, 16, 128), torch.zeros(1, 64, 512)):
            with step_by_step(large):
                assert MATMUL.fp32_precision == ("bf16" if exact else "ieee")
        with step_by_step(torch.zeros(1, 16, 8, device="meta")):
            assert MATMUL.fp32_precision == allowed(precision, exact)


def test_a_cpu_that_rounds_is_found_out(monkeypatch):
    bmm = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: bmm(a.bfloat16(), b.bfloat16()).float())
    assert not rounding_is_exact.__wrapped__()


@pytest.mark.parametrize("exact", [True, False], indirect=True)
@pytest.mark.parametrize("method", CUTS)
def test_every_product_of_every_methods_updates_is_told(dataset, monkeypatch, method, exact):  # noqa: F811
    monkeypatch.setattr(products, "SMALL", 0)
    asked = job(dataset, method)
    data = train.load_data(asked)
    for phase in train.build(asked, data).phases(data):
        with Watch() as watch:
            for i in range(4):
                phase.step(i)
        assert watch.seen and set(watch.seen) == {allowed("float32", exact)}, phase.name


@pytest.mark.parametrize("exact", [False], indirect=True)
@pytest.mark.parametrize(("method", "section"), [("lawm", "model"), ("lawm", "agent.clap"), ("td3bc", "agent.td3bc")])
def test_a_component_asks_for_itself(dataset, method, section, exact):  # noqa: F811
    asked = job(dataset, method, settings=[f"{section}.products=bfloat16"])
    data = train.load_data(asked)
    seen = {}
    for phase in train.build(asked, data).phases(data):
        with Watch() as watch:
            phase.step(0)
        seen[phase.name] = set(watch.seen)
    both = {"bf16", "ieee"}  # the filter's loop is never rounded; the agent starts from states that the model infers
    wanted = {"model": {"model": both, "agent": both}, "agent.clap": {"model": {"ieee"}, "agent": both}}
    assert seen == wanted.get(section, {"td3bc": {"bf16"}})


@pytest.mark.parametrize("exact", [True, False], indirect=True)
@pytest.mark.parametrize("curious", [False, True])
def test_every_product_of_a_collectors_update_is_told(monkeypatch, curious, exact):
    monkeypatch.setattr(products, "SMALL", 0)
    agent, made = test_dreamer.agent(curious=curious), test_dreamer.made()
    with Watch() as watch:
        agent.update(made.batch(0, "replay"), Noise([0], "learn", 0))
    assert watch.seen and set(watch.seen) == {allowed("float32", exact)}


def test_small_steps_of_the_filters_loop_there_and_back(monkeypatch):
    monkeypatch.setattr(products, "rounding_is_exact", lambda: True)
    made = models.windows()
    world = models.world(made)
    with Watch() as watch, multiplying("float32", "cpu"):
        there = len(watch.seen)
        terms, _ = world.loss(made.batch(0), Noise([0], "made", 0))
        forward = watch.seen[there:].count("ieee")
        back = len(watch.seen)
        world.total(terms, made.batch(0)).sum().backward()
        assert forward > 5 * 6 and watch.seen[back:].count("ieee") > 5 * 6
