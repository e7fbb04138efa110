"""The world model's losses against a literal float64 re-derivation of the paper's equations, and what must not leak."""

from dataclasses import replace

import models
import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from lawm_data import windows as windows_module
from lawm_data.nets.blocks import Linear, Noise, Norm
from lawm_data.windows import Pool, Windows
from lawm_train import lawm


def mlp(net, x):
    """The layers of an MLP, written out in numpy."""
    for layer in net.layers:
        if isinstance(layer, Linear):
            x = x @ layer.weight[0].detach().numpy() + layer.bias[0, 0].detach().numpy()
        elif isinstance(layer, Norm):
            x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
            x = x * layer.scale[0, 0].detach().numpy() + layer.shift[0, 0].detach().numpy()
        else:
            x = x * sigmoid(x)
    return x


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gaussian(parameters, least):
    mean, raw = np.split(parameters, 2)
    return mean, 2 * sigmoid(raw / 2) + least


def kl(mean, std, other_mean, other_std):
    return np.sum(np.log(other_std / std) + (std**2 + (mean - other_mean) ** 2) / (2 * other_std**2) - 0.5)


def gru(cell, x, h):
    gates = cell.norm.scale[0, 0].detach().numpy(), cell.norm.shift[0, 0].detach().numpy()
    y = np.concatenate([x, h]) @ cell.gates.weight[0].detach().numpy() + cell.gates.bias[0, 0].detach().numpy()
    y = (y - y.mean()) / np.sqrt(y.var() + 1e-5) * gates[0] + gates[1]
    reset, candidate, update = np.split(y, 3)
    update = sigmoid(update - 1)
    return update * np.tanh(sigmoid(reset) * candidate) + (1 - update) * h


def window_loss(world, observation, action, reward, state_noise, latent_noise, action_noise, labeled, terminal):
    """-L of eq. 7 (labeled) or eq. 8 (not) plus eq. 11 for one window, one step at a time, each term weighted."""
    c, rssm = world.config, world.rssm
    w, kind = c.weights, 1.0 if labeled else c.unlabeled_weight
    o = (observation - world.normalizer.mean[0, 0].numpy()) / world.normalizer.std[0, 0].numpy()
    o = np.clip(o, -10, 10)
    embed = [mlp(world.encoder, x) for x in o]
    h, s, a = np.zeros(c.deter), np.zeros(c.stoch), np.zeros(2)
    if c.learned_start:
        h = np.tanh(rssm.start.raw[0, 0].detach().numpy())
    total = 0.0
    for t in range(len(o)):
        h = gru(rssm.cell, mlp(rssm.input, np.concatenate([s, a])), h)
        prior = gaussian(mlp(rssm.prior_head, h), c.least_std)
        posterior = gaussian(mlp(rssm.posterior_head, np.concatenate([h, embed[t]])), c.least_std)
        s = posterior[0] + posterior[1] * state_noise[t]
        feat = np.concatenate([h, s])
        total += w.observation * np.sum((mlp(world.decoder, feat) - o[t]) ** 2) / (2 * c.observation_sigma**2)
        total += w.state_kl * max(kl(*posterior, *prior), c.free_nats)
        if t > 0:
            error = mlp(world.reward_head, feat)[0] - reward[t - 1]
            total += w.reward * error**2 / (2 * c.reward_sigma**2)
        if t > 0 and world.continue_head is not None:
            alive = sigmoid(mlp(world.continue_head, feat)[0])
            total -= w.terminal * np.log(1 - alive if terminal and t == len(o) - 1 else alive)
        if t == len(o) - 1:
            return kind * total
        if labeled:
            q = gaussian(mlp(world.action_posterior, np.concatenate([feat, action[t]])), c.least_std)
        else:
            q = gaussian(mlp(world.inverse_dynamics, np.concatenate([feat, embed[t + 1]])), c.least_std)
        u = q[0] + q[1] * latent_noise[t] * (labeled or c.inferred_sample)
        decoded = np.tanh(mlp(world.action_decoder, np.concatenate([feat, u])))
        p = (
            gaussian(mlp(world.prior_head, feat), c.least_std)
            if world.prior_head
            else (np.zeros_like(u), np.ones_like(u))
        )
        total += w.latent_kl * max(kl(*q, *p), c.latent_free_nats)
        if labeled:
            total += w.action * np.sum((decoded - action[t]) ** 2) / (2 * c.action_sigma**2)
        a = action[t] if labeled else decoded + c.sample_action * c.action_sigma * action_noise[t]


WEIGHTS = lawm.Weights(observation=2.0, reward=3.0, action=0.5, state_kl=0.7, latent_kl=1.5, terminal=4.0)
UNUSUAL = {"observation_sigma": 0.5, "reward_sigma": 0.7, "action_sigma": 0.2, "unlabeled_weight": 0.25}


@pytest.mark.parametrize("prior", ["standard", "learned"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"free_nats": 1.0},
        {"latent_free_nats": 0.5},
        {**UNUSUAL, "weights": WEIGHTS},
        {"inferred_sample": False, "least_std": 0.03},
        {"sample_action": True, "learned_start": True, "rssm_layers": 2},
    ],
)
def test_the_mixed_objective_equals_its_equations(prior, changes):
    """Of windows that end in a true end and others, so that the continue head has both."""
    ended = [replace(episode, terminal=True) for episode in models.episodes(length=8)]
    made = models.windows(counts=(2, 3), recorded=ended)
    world = models.world(made, terminal=True, prior=prior, **changes).double()
    for raw in world.rssm.start.parameters():
        torch.nn.init.normal_(raw)
    ends = made.batch(0).terminal[0]
    assert ends[:2].any() and ends[2:].any() and not ends.all()
    batch, noise = models.as_double(made.batch(0)), models.DoubleNoise([0], "test", 0)
    terms, _ = world.loss(batch, noise)
    state_noise = noise_of(noise, "test", 7, 5, 4)
    latent_noise = noise_of(noise, "test", 6, 5, 3, [(7, 5, 4)])
    action_noise = np.pad(noise_of(noise, "test", 6, 3, 2, [(7, 5, 4), (6, 5, 3)]), ((0, 0), (2, 0), (0, 0)))
    each = [
        window_loss(
            world,
            batch.observation[:, 0, b].numpy(),
            batch.action[:, 0, b].numpy(),
            batch.reward[:, 0, b].numpy(),
            state_noise[:, b],
            latent_noise[:, b],
            action_noise[:, b],
            labeled=b < 2,
            terminal=bool(ends[b]),
        )
        for b in range(5)
    ]
    # eq. 9 and 10 over a batch of fixed counts: (B_lab mean_lab L_ac + B_unlab mean_unlab L_af) / B
    wanted = (2 * np.mean(each[:2]) + 3 * np.mean(each[2:])) / 5
    np.testing.assert_allclose(world.total(terms, batch).detach().numpy(), [wanted], rtol=1e-10)


@pytest.mark.parametrize(
    "changes",
    [
        {"prior": "standard"},
        {"prior": "learned"},
        {"inferred_sample": False, "least_std": 0.03},
        {"sample_action": True, "learned_start": True, "rssm_layers": 2},
    ],
)
def test_the_gradient_of_the_objective_equals_finite_differences(changes):
    """Along a random direction of each weight. What is stopped in the balanced KL stays what it was at the start."""
    made = models.windows(counts=(1, 2), window=3)
    world, batch = models.world(made, **changes).double(), models.as_double(made.batch(0))
    start = []

    def objective():
        terms, seen = world.loss(batch, models.DoubleNoise([0], "test", 0))
        posterior = Normal(seen.states.mean, seen.states.std)
        state_prior = Normal(*world.rssm.prior(seen.states.parts[0]))
        start.extend([] if start else [posterior, state_prior])
        balanced = 0.8 * kl_divergence(start[0], state_prior) + 0.2 * kl_divergence(posterior, start[1])
        own = world.total(terms, batch).sum()
        return own, world.total(terms | {"state_kl": balanced.sum(-1)}, batch).sum()

    own, _ = objective()
    own.backward()
    generator, step = torch.Generator().manual_seed(0), 1e-5
    for name, parameter in world.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                parameter.add_(direction, alpha=sign * step)
                ends.append(float(objective()[1]))
                parameter.sub_(direction, alpha=sign * step)
        along = 0.0 if parameter.grad is None else float((parameter.grad * direction).sum())
        np.testing.assert_allclose(along, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-6, err_msg=name)


def noise_of(noise, stream, time, batch, size, skip=()):
    """The draws of the model's loss, repeated: states first, then latent actions, then actions of unlabeled windows."""
    again = models.DoubleNoise([0], stream, noise.step)
    for shape in skip:
        again.normal(*shape)
    return again.normal(time, batch, size)[:, 0].numpy()


def test_hidden_actions_touch_no_loss_and_no_gradient(monkeypatch):
    def run():
        made = models.windows()
        world = models.world(made)
        assert bool(made.batch(0).action[:, :, 3:].isnan().any()) == np.isnan(windows_module.HIDDEN)
        terms, _ = world.loss(made.batch(0), Noise([0], "model", 0))
        world.total(terms, made.batch(0)).sum().backward()
        return terms, models.gradients(world), models.normalizer(made).mean

    clean = run()
    monkeypatch.setattr(windows_module, "HIDDEN", float("nan"))
    dirty = run()
    for part in (0, 1):
        assert clean[part].keys() == dirty[part].keys()
        for name, value in clean[part].items():
            assert value is None or (torch.isfinite(value).all() and torch.equal(value, dirty[part][name])), name
    assert torch.equal(clean[2], dirty[2])


def unlabeled_batch(made, window=6):
    hidden = Pool([e.stripped() for e in models.episodes()], False, 2, window)
    return Windows([[hidden]], [0], window, [4]).batch(0)


def test_the_next_states_kl_reaches_the_action_free_posterior():
    made = models.windows()
    world = models.world(made)
    terms, _ = world.loss(unlabeled_batch(made), Noise([0], "model", 0))
    terms["state_kl"][1:].sum().backward()
    for parameter in world.inverse_dynamics.parameters():
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("shared", [True, False])
def test_the_decoders_gradient_from_unlabeled_data_is_an_option(shared):
    made = models.windows()
    world = models.world(made, decoder_grad_unlabeled=shared)
    batch = unlabeled_batch(made)
    terms, _ = world.loss(batch, Noise([0], "model", 0))
    world.total(terms, batch).sum().backward()
    got = sum(0.0 if p.grad is None else float(p.grad.abs().sum()) for p in world.action_decoder.parameters())
    assert got > 0 if shared else got == 0
    assert all(p.grad.abs().sum() > 0 for p in world.inverse_dynamics.parameters())


def test_an_inferred_action_follows_from_the_next_observation_and_none_after_it():
    made = models.windows()
    world, batch = models.world(made), unlabeled_batch(made)
    noise = lambda: Noise([0], "model", 0)  # noqa: E731
    seen = world.observe(batch, noise())
    changed = batch.observation.clone()
    changed[-1] += 1
    other = world.observe(replace(batch, observation=changed), noise())
    assert torch.equal(seen.action[:-1], other.action[:-1]) and not torch.equal(seen.action[-1], other.action[-1])


def test_mixed_batches_equal_each_kind_alone():
    """The two paths share one model and nothing else: a window's terms do not depend on its neighbours."""
    made = models.windows(counts=(3, 4))
    world, batch = models.world(made), made.batch(0)

    class Zeros(Noise):
        def normal(self, time, batch, size):
            return torch.zeros(time, 1, batch, size)

    mixed, _ = world.loss(batch, Zeros([0], "", 0))
    for part, labeled in ((slice(0, 3), 3), (slice(3, 7), 0)):
        own = replace(
            batch,
            **{name: getattr(batch, name)[:, :, part] for name in ("observation", "action", "reward")},
            terminal=batch.terminal[:, part],
            labeled=batch.labeled[:, part],
            num_labeled=labeled,
        )
        alone, _ = world.loss(own, Zeros([0], "", 0))
        for name in mixed:
            torch.testing.assert_close(mixed[name][:, :, part], alone[name], rtol=1e-5, atol=1e-5)


def test_training_two_seeds_side_by_side_equals_training_each_alone():
    def trained(seeds):
        made = models.windows(seeds=seeds)
        world = models.world(made)
        totals = []
        for i in range(10):
            batch, noise = made.batch(i, "model"), Noise(seeds, "model", i)
            totals.append(world.total(world.loss(batch, noise)[0], batch).detach())
            world.update(batch, Noise(seeds, "model", i))
        return torch.stack(totals)

    both = trained([3, 4])
    for k, seed in enumerate((3, 4)):
        torch.testing.assert_close(both[:, k], trained([seed])[:, 0], rtol=1e-5, atol=0)


def test_the_continue_head_exists_only_with_true_ends_and_learns_them():
    ends = [replace(e, terminal=True) for e in models.episodes(length=8)]
    made = models.windows(counts=(7, 0), recorded=ends)
    assert models.world(made).continue_head is None
    world = models.world(made, terminal=True)
    batch = made.batch(0)
    assert batch.terminal.any() and not batch.terminal.all()
    terms, _ = world.loss(batch, Noise([0], "", 0))
    flipped, _ = world.loss(replace(batch, terminal=~batch.terminal), Noise([0], "", 0))
    assert torch.equal(terms["terminal"][:-1], flipped["terminal"][:-1])
    assert (terms["terminal"][-1] != flipped["terminal"][-1]).all()
