"""Blocks, distributions, returns, RSSM and optimiser against slower truths, and the laws of the model axis."""

import pytest
import torch
from torch.distributions import Normal, TransformedDistribution, kl_divergence
from torch.distributions.transforms import TanhTransform

from lawm_data.nets import dists
from lawm_data.nets.blocks import (
    MLP,
    Dropout,
    Init,
    Noise,
    Normalizer,
    by_member,
    detached,
    dropping,
    join_models,
    split_models,
    to_members,
)
from lawm_data.nets.filtering import Filtering
from lawm_data.nets.optim import Optimizer, ema
from lawm_data.nets.returns import lambda_return
from lawm_data.nets.rssm import RSSM, State


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_kl_equals_torch_distributions():
    mean, other = drawn(7, 3), drawn(7, 3, seed=1)
    std, other_std = drawn(7, 3, seed=2).exp(), drawn(7, 3, seed=3).exp()
    truth = kl_divergence(Normal(mean, std), Normal(other, other_std)).sum(-1)
    torch.testing.assert_close(dists.kl_gaussian(mean, std, other, other_std), truth)
    standard = kl_divergence(Normal(mean, std), Normal(torch.zeros_like(mean), 1.0)).sum(-1)
    torch.testing.assert_close(dists.kl_standard(mean, std), standard)


def test_gaussian_nll_is_the_log_density_less_its_constant():
    mean, value, sigma = drawn(5, 4), drawn(5, 4, seed=1), 0.3
    density = -Normal(mean, sigma).log_prob(value).sum(-1)
    constant = -Normal(mean, sigma).log_prob(mean).sum(-1)
    torch.testing.assert_close(dists.gaussian_nll(mean, value, sigma), density - constant)


def test_tanh_gaussian_density_equals_torch_distributions():
    mean, std, noise = drawn(6, 3), drawn(6, 3, seed=1).exp(), drawn(6, 3, seed=2)
    w, log_w = dists.tanh_gaussian(mean, std, noise)
    truth = TransformedDistribution(Normal(mean, std), TanhTransform()).log_prob(w).sum(-1)
    torch.testing.assert_close(log_w, truth, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("discount", [0.9, drawn(5, 2, seed=2).sigmoid()], ids=["number", "by step"])
def test_lambda_return_equals_its_definition(discount):
    """The weighted sum of n-step returns, written out (Sutton & Barto 2018, eq. 12.3)."""
    reward, value, lambda_ = drawn(5, 2), drawn(5, 2, seed=1), 0.8
    horizon = len(reward)
    gamma = discount * torch.ones_like(reward)

    def n_step(k, n):
        rewards = sum(gamma[k : k + i].prod(0) * reward[k + i] for i in range(n))
        return rewards + gamma[k : k + n].prod(0) * value[k + n - 1]

    for k in range(horizon):
        left = horizon - k
        truth = sum((1 - lambda_) * lambda_ ** (n - 1) * n_step(k, n) for n in range(1, left))
        truth = truth + lambda_ ** (left - 1) * n_step(k, left)
        torch.testing.assert_close(lambda_return(reward, value, discount, lambda_)[k], truth)


def test_observations_are_normalised_within_bounds():
    normalizer = Normalizer(torch.tensor([[[1.0, 5.0]]]), torch.tensor([[[2.0, 0.0]]]))
    x = torch.tensor([[[3.0, 5.05], [1e3, 5.2], [-1e3, 4.8]]])
    torch.testing.assert_close(
        normalizer(x), torch.tensor([[[1.0, 5.0], [10.0, 10.0], [-10.0, -10.0]]]), atol=1e-4, rtol=0
    )


def make_rssm(seeds=(0,), **choices):
    rssm = RSSM(Init(seeds), action=2, embed=4, deter=6, stoch=3, hidden=5, **choices)
    for raw in rssm.start.parameters():
        torch.nn.init.normal_(raw)
    return rssm


def test_imagination_equals_single_steps():
    rssm, noise, actions = make_rssm(), torch.randn(8, 1, 3, 3), torch.randn(8, 1, 3, 2)
    state = start = rssm.first(torch.zeros(1, 3, 1))
    states, taken = rssm.imagine(start, actions, noise)
    for t in range(8):
        state = rssm.step(state, actions[t], noise[t])
        for whole, single in zip(states, state, strict=True):
            assert torch.equal(whole[t], single)
    assert torch.equal(taken, actions)


def test_imagination_with_a_function_equals_imagination_with_its_actions():
    rssm, noise = make_rssm(), torch.randn(5, 1, 3, 3)
    start = rssm.first(torch.zeros(1, 3, 1))
    states, actions = rssm.imagine(start, lambda state, t: torch.tanh(state.parts[1][..., :2] + t), noise)
    again, _ = rssm.imagine(start, actions, noise)
    assert torch.equal(states.feat, again.feat)


def by_steps(rssm, embed, actions, noise):
    """What `Filtering` does, by autograd."""
    state, action, states = rssm.first(embed[0]), torch.zeros_like(actions[0]), []
    for t in range(len(embed)):
        state = rssm.step(state, action, noise[t], embed[t])
        states.append(state)
        action = actions[t] if t < len(actions) else action
    return State(*(torch.stack(field) for field in zip(*states, strict=True)))


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
@pytest.mark.parametrize("choices", [{}, {"layers": 3}, {"learned_start": True}, {"least_std": 0.02}])
def test_filtering_equals_single_steps_and_so_do_its_gradients(seeds, choices):
    rssm, models = make_rssm(seeds, **choices).double(), len(seeds)
    noise, actions = torch.randn(8, models, 3, 3).double(), torch.randn(7, models, 3, 2).double()
    embed = torch.randn(8, models, 3, 4).double().requires_grad_()
    found, wanted = Filtering(rssm, embed, actions, noise).states(), by_steps(rssm, embed, actions, noise)
    trained = [embed, *(p for name, p in rssm.named_parameters() if not name.startswith("prior_head"))]
    weights = [torch.randn_like(field) for field in wanted]  # each result takes part
    gradients = []
    for states in (found, wanted):
        total = sum((field * weight).sum() for field, weight in zip(states, weights, strict=True))
        gradients.append(torch.autograd.grad(total, trained))
    for ours, theirs in zip((*found, *gradients[0]), (*wanted, *gradients[1]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_prior_of_a_filtered_state_ignores_the_observation():
    rssm, noise = make_rssm(), torch.randn(1, 1, 3, 3)
    start, action = rssm.first(torch.zeros(1, 3, 1)), torch.randn(1, 3, 2)
    one, other = (rssm.step(start, action, noise[0], torch.randn(1, 3, 4)) for _ in range(2))
    assert torch.equal(one.parts[0], other.parts[0])
    assert not torch.equal(one.mean, other.mean)


def test_stacked_models_start_and_compute_as_lone_ones():
    stacked, x = MLP(Init([3, 4]), 5, 7, 2, 2), torch.randn(2, 6, 5)
    for k, seed in enumerate((3, 4)):
        lone = MLP(Init([seed]), 5, 7, 2, 2)
        for (_, a), (_, b) in zip(stacked.named_parameters(), lone.named_parameters(), strict=True):
            assert torch.equal(a[k], b[0])
        torch.testing.assert_close(stacked(x)[k], lone(x[k : k + 1])[0])


def test_layers_agree_over_time_and_without_it():
    mlp, x = MLP(Init([0, 1]), 5, 7, 2, 3), torch.randn(4, 2, 6, 5)
    torch.testing.assert_close(mlp(x), torch.stack([mlp(step) for step in x]))


def test_ensemble_members_differ_and_see_their_own_model_only():
    members = MLP(Init([0, 1]).ensemble(2), 3, 4, 1, 1)
    x = torch.randn(2, 5, 3)
    values = by_member(members(to_members(x, 2)), 2)  # [E, N, B, 1]
    assert values.shape == (2, 2, 5, 1) and not torch.equal(values[0], values[1])
    changed = x.clone()
    changed[1] += 1
    again = by_member(members(to_members(changed, 2)), 2)
    assert torch.equal(values[:, 0], again[:, 0]) and not torch.equal(values[:, 1], again[:, 1])


def test_noise_depends_on_seed_stream_and_step_alone():
    both = Noise([5, 6], "model", 9).normal(4, 3, 2)
    assert torch.equal(both[:, 1], Noise([6], "model", 9).normal(4, 3, 2)[:, 0])
    for other in (Noise([5, 6], "agent", 9), Noise([5, 6], "model", 10)):
        assert not torch.equal(both, other.normal(4, 3, 2))
    assert abs(float(Noise([0], "", 0).normal(100, 100, 10).std()) - 1) < 0.01


def test_dropout_masks_are_each_models_own_and_only_while_dropping():
    x, layer = torch.ones(2, 50, 8), Dropout(0.25)
    with dropping(layer, Noise([3, 4], "idm", 9)):
        both = layer(x)
    with dropping(layer, Noise([4], "idm", 9)):
        assert torch.equal(both[1], layer(x[:1])[0])
    with dropping(layer, Noise([0], "idm", 0)):
        kept = layer(torch.ones(1, 1000, 10))
    assert abs(float(kept.mean()) - 1) < 0.03 and 0.2 < float((kept == 0).float().mean()) < 0.3
    assert torch.equal(layer(x), x)


def test_detached_gives_gradients_to_the_input_alone():
    mlp, x = MLP(Init([0]), 3, 4, 1, 2), torch.randn(1, 5, 3, requires_grad=True)
    torch.testing.assert_close(detached(mlp, x), mlp(x))
    detached(mlp, x).sum().backward()
    assert x.grad.abs().sum() > 0 and all(p.grad is None for p in mlp.parameters())


def test_detached_can_take_single_models_and_members():
    mlp, x = MLP(Init([0, 1]).ensemble(2), 3, 4, 1, 2), torch.randn(4, 5, 3)
    torch.testing.assert_close(detached(mlp, x[2:3], slice(2, 3)), mlp(x)[2:3])
    torch.testing.assert_close(detached(mlp, x[::2], slice(0, None, 2)), mlp(x)[::2])


def test_split_and_join_models_are_inverse():
    tensors = {"weight": torch.randn(2, 3), "ensemble": torch.randn(4, 5)}
    own = split_models(tensors, 2)
    assert own[0]["ensemble"].shape == (2, 5)
    joined = join_models(own)
    assert all(torch.equal(joined[name], tensors[name]) for name in tensors)


def regression(mlp, x):
    return (mlp(x) - x.sum(-1, keepdim=True)).square().mean((1, 2))


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_optimizer_equals_adamw_with_clipped_gradients_on_a_lone_model(decay):
    ours, theirs = MLP(Init([0]), 3, 8, 1, 1), MLP(Init([0]), 3, 8, 1, 1)
    optimizer = Optimizer([ours], 1, lr=1e-2, clip=0.1, decay=decay)
    adam = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=decay)
    for step in range(5):
        x = drawn(1, 16, 3, seed=step).float()
        optimizer.step(regression(ours, x))
        adam.zero_grad()
        regression(theirs, x).sum().backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
        adam.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_poisoning_one_model_leaves_the_other(value):
    def trained(poison):
        mlp = MLP(Init([0, 1]), 3, 8, 1, 1)
        optimizer = Optimizer([mlp], 2, lr=1e-2, clip=0.1)
        for step in range(4):
            x = drawn(2, 16, 3, seed=step).float()
            if poison:
                x[1] = value
            optimizer.step(regression(mlp, x))
        assert all(torch.isfinite(moments).all() for moments in optimizer.state().values())
        return [p.detach() for p in mlp.parameters()]

    for healthy, beside in zip(trained(False), trained(True), strict=True):
        assert torch.equal(healthy[0], beside[0]) and not torch.equal(healthy[1], beside[1])
        assert torch.isfinite(beside).all()


def test_moments_of_other_parameters_are_refused():
    mlp = MLP(Init([0]), 3, 8, 1, 1)
    optimizer = Optimizer([mlp], 1, lr=1e-3, clip=1.0)
    optimizer.step(regression(mlp, drawn(1, 16, 3).float()))
    kept = optimizer.state()
    some = next(iter(kept))
    others = [{}, {**kept, some: kept[some][..., :1]}, {**kept, "no.exp_avg": kept[some]}]
    for moments in (*others, {key: x for key, x in kept.items() if key != some}):
        with pytest.raises(ValueError, match="moments of these parameters after 1 steps"):
            Optimizer([mlp], 1, lr=1e-3, clip=1.0).load(moments, 1)
    with pytest.raises(ValueError, match="after 0 steps"):
        Optimizer([mlp], 1, lr=1e-3, clip=1.0).load(kept, 0)


def test_what_an_optimizer_continues_with_lies_where_its_parameters_do():
    """The fused Adam keeps the step beside the parameter; a device without numbers stands for the one of a GPU."""
    with torch.device("meta"):
        mlp = MLP(Init([0]), 3, 8, 1, 1)
        optimizer = Optimizer([mlp], 1, lr=1e-2, clip=0.1)
    moments = [(f"{name}.{part}", p) for name, p in optimizer.named for part in ("exp_avg", "exp_avg_sq")]
    optimizer.load({name: torch.zeros(p.shape) for name, p in moments}, 3)
    places = {tensor.device.type for state in optimizer.adam.state.values() for tensor in state.values()}
    assert places == {"meta"} and len(optimizer.adam.state) == len(optimizer.named)


def test_ema_moves_by_its_rate():
    target, source = MLP(Init([0]), 2, 3, 1), MLP(Init([1]), 2, 3, 1)
    before = [p.clone() for p in target.parameters()]
    ema(target, source, 0.25)
    for old, new, goal in zip(before, target.parameters(), source.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25 * (goal - old))
