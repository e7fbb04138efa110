"""Laws of Dreamer, of its parts and of the ensemble's disagreement, against slower truths."""

from dataclasses import replace

import models
import pytest
import torch

from lawm_data import dreamer, plan2explore
from lawm_data.dreamer import Dreamer
from lawm_data.nets import dists
from lawm_data.nets.blocks import Noise
from lawm_data.nets.rssm import State
from lawm_data.plan2explore import Disagreement

SMALL = dreamer.Config(
    batch=4, window=6, deter=7, stoch=4, embed=6, hidden=5, units=6, layers=1, horizon=3, stride=2, bins=11
)
CURIOUS = plan2explore.Config(members=3, units=6, layers=1)
OBSERVATION, ACTION = 5, 2


def made(seeds=(0,)):
    return models.windows(seeds, (4, 0))


def agent(seeds=(0,), curious=False, **changes):
    config = replace(SMALL, **changes)
    reward = Disagreement(CURIOUS, list(seeds), 11, ACTION, OBSERVATION) if curious else None
    return Dreamer(config, list(seeds), OBSERVATION, ACTION, reward)


def starts(seeds=(0,), points=8):
    noise = Noise(seeds, "start", 0)
    deter, stoch = noise.normal(1, points, SMALL.deter)[0], noise.normal(1, points, SMALL.stoch)[0]
    return State(torch.cat([deter, stoch], -1), stoch, torch.ones_like(stoch))


def trained(made, model, updates=3):
    return [model.update(made.batch(i, "replay"), Noise(made.seeds, "learn", i)) for i in range(updates)]


def test_two_hot_spreads_a_value_over_its_two_nearest_points():
    two_hot = dists.TwoHot(41)
    value = torch.tensor([0.0, 0.3, -7.0, 250.0, 1e9])
    points = torch.linspace(-10, 10, 41)
    weights = (1 - (dists.symlog(value).clamp(-10, 10)[:, None] - points).abs() / 0.5).clamp(min=0)
    logits = torch.randn(5, 41, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(two_hot.loss(logits, value), -(weights * logits.log_softmax(-1)).sum(-1))
    torch.testing.assert_close(two_hot.mean(weights.log())[:4], value[:4], rtol=1e-4, atol=1e-4)


def test_symexp_undoes_symlog():
    x = torch.tensor([-300.0, -0.5, 0.0, 1e-3, 20.0])
    torch.testing.assert_close(dists.symexp(dists.symlog(x)), x)


def test_balanced_kl_is_the_kl_and_only_its_gradients_are_shared_out():
    parts = [torch.randn(6, 3, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in range(4)]
    parts = [part.exp() if k % 2 else part for k, part in enumerate(parts)]
    whole = [part.clone().requires_grad_() for part in parts]
    dists.kl_gaussian(*whole).sum().backward()
    shared = [part.clone().requires_grad_() for part in parts]
    found = dists.balanced_kl(dists.Gaussian(*shared[:2]), dists.Gaussian(*shared[2:]), 0.8, 0.0)
    torch.testing.assert_close(found, dists.kl_gaussian(*parts))
    found.sum().backward()
    for ours, true, part in zip(shared, whole, (0.2, 0.2, 0.8, 0.8), strict=True):
        torch.testing.assert_close(ours.grad, part * true.grad)
    assert (dists.balanced_kl(dists.Gaussian(*parts[:2]), dists.Gaussian(*parts[2:]), 0.8, 1e3) == 1e3).all()


def test_imagination_takes_the_actors_actions_and_the_priors_states():
    model, start = agent(), starts()
    feat, actions, log_pi = model.imagine(start, Noise([0], "imagine", 0))
    noise = Noise([0], "imagine", 0)
    action_noise, state_noise = noise.normal(3, 8, ACTION), noise.normal(3, 8, SMALL.stoch)
    state = start
    for k in range(3):
        torch.testing.assert_close(feat[k], state.feat)
        mean, std = dists.bounded_gaussian(model.actor(state.feat))
        torch.testing.assert_close(actions[k], torch.tanh(mean + std * action_noise[k]))
        density = torch.distributions.Normal(mean, std).log_prob(mean + std * action_noise[k])
        jacobian = (1 - actions[k].square()).log()
        torch.testing.assert_close(log_pi[k], (density - jacobian).sum(-1), rtol=1e-3, atol=1e-4)
        state = model.rssm.step(state, actions[k], state_noise[k])


def test_actor_and_critic_leave_the_world_alone_and_each_other():
    model = agent()
    before = {name: p.clone() for name, p in model.named_parameters()}
    losses = model.loss(starts(), Noise([0], "agent", 0))
    model.actor_optimizer.step(losses["actor"].mean((0, 2)))
    moved = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"actor"}
    model.critic_optimizer.step(losses["critic"].mean((0, 2)))
    moved = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"actor", "critic"}


def test_values_start_at_zero_and_the_range_of_returns_is_that_of_each_model():
    model, start = agent((0, 1)), starts((0, 1))
    values = model.two_hot.mean(model.critic(start.feat))
    torch.testing.assert_close(values, torch.zeros_like(values), rtol=0, atol=1e-5)
    returns = torch.stack([torch.linspace(0, 100, 101), torch.linspace(0, 10, 101)])[None]
    torch.testing.assert_close(model._moved_scale(returns), torch.tensor([[90.0], [9.0]]))
    torch.testing.assert_close(model._moved_scale(2 * returns), torch.tensor([[90.9], [9.09]]))


def test_small_returns_are_not_scaled_up():
    model, found = agent(), []
    for scale in (0.01, 0.5):
        model.scale.fill_(scale)
        found.append(model.loss(starts(), Noise([0], "learn", 0))["actor"])
        assert model.scale.max() < 1
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("curious", [False, True])
def test_seeds_side_by_side_are_lone_runs(curious):
    together = trained(made((3, 5)), agent((3, 5), curious))
    for k, seed in enumerate((3, 5)):
        alone = trained(made((seed,)), agent((seed,), curious))
        for ours, theirs in zip(together, alone, strict=True):
            assert ours.keys() == theirs.keys()
            for name in ours:
                torch.testing.assert_close(ours[name][k : k + 1], theirs[name], rtol=1e-4, atol=1e-5)


def test_the_world_model_learns_and_sees_no_future():
    batch, noise = made().batch(0), lambda: Noise([0], "learn", 0)
    model = agent()
    _, states = model.world_loss(batch, noise())
    later = replace(batch, observation=batch.observation.clone(), action=batch.action.clone())
    later.observation[4:] += 1
    later.action[3:] += 1
    _, changed = model.world_loss(later, noise())
    assert torch.equal(states.feat[:4], changed.feat[:4]) and not torch.equal(states.feat[4], changed.feat[4])
    losses = [model.update(batch, noise())["observation"] for _ in range(100)]
    assert losses[-1] < 0.7 * losses[0], (losses[0], losses[-1])


def test_disagreement_is_the_standardised_spread_of_its_members():
    ensemble = Disagreement(CURIOUS, [0], 11, ACTION, OBSERVATION)
    noise = Noise([0], "data", 0)
    feat, action = noise.normal(4, 8, 11), noise.normal(3, 8, ACTION)
    predictions = ensemble.predict(feat[:-1], action)
    assert predictions.shape == (3, 3, 1, 8, OBSERVATION)
    predictions = predictions.sign() * predictions.abs().expm1()  # out of symlog, into the observation's units
    mean = predictions.mean(0)
    spread = ((predictions - mean).square().sum(0) / 2).sqrt().mean(-1).log()
    torch.testing.assert_close(ensemble(feat, action), (spread - spread.mean()) / spread.std())


def test_rewards_for_disagreement_keep_their_level_while_the_members_learn():
    """Log std falls by nats as they learn: rewards that fell with it would teach the critic little else."""
    ensemble = Disagreement(CURIOUS, [0], 11, ACTION, OBSERVATION)
    noise = Noise([0], "data", 0)
    feat, action = noise.normal(4, 8, 11), noise.normal(3, 8, ACTION)
    ensemble(feat, action)
    before = ensemble.moments.clone()
    with torch.no_grad():
        for head in (ensemble.heads.layers[-1].weight, ensemble.heads.layers[-1].bias):
            head.mul_(0.1)
        for _ in range(600):
            reward = ensemble(feat, action)
    assert ensemble.moments[0, 0] < before[0, 0] - 2
    assert abs(reward.mean()) < 0.1 and abs(reward.std() - 1) < 0.1


def test_members_come_to_agree_on_what_they_have_seen():
    ensemble = Disagreement(CURIOUS, [0], 11, ACTION, OBSERVATION)
    noise = Noise([0], "data", 0)
    feat, action, observation = noise.normal(4, 8, 11), noise.normal(3, 8, ACTION), noise.normal(4, 8, OBSERVATION)
    other = Noise([0], "other", 0).normal(4, 8, 11)
    for _ in range(300):
        ensemble.update(feat, action, observation)
    assert ensemble(feat, action).mean() < ensemble(other, action).mean() - 0.5


def test_acting_carries_its_state_and_samples():
    model = agent()
    observation = Noise([0], "observation", 0).normal(3, 4, OBSERVATION)
    first, later = torch.ones(1, 4, dtype=torch.bool), torch.zeros(1, 4, dtype=torch.bool)

    def act(policy):
        return torch.stack([policy(o, later if t else first) for t, o in enumerate(observation)])

    drawn, same, other = (act(model.policy(Noise([0], "act", step))) for step in (0, 0, 1))
    assert torch.equal(drawn, same) and not torch.equal(drawn, other)
    noise = Noise([0], "act", 0)
    for _ in range(2):  # as many draws as came before the third action
        noise.normal(1, 4, ACTION)
    fresh = model.policy(noise)(observation[2], first)
    assert not torch.equal(fresh, drawn[2])


def test_acting_draws_from_the_policy_that_is_trained():
    model = agent()
    policy = model.policy(Noise([0], "act", 0))
    acted = policy(Noise([0], "observation", 0).normal(1, 4, OBSERVATION)[0], torch.ones(1, 4, dtype=torch.bool))
    mean, std = dists.bounded_gaussian(model.actor(policy.state.feat))
    noise = Noise([0], "act", 0).normal(1, 4, ACTION)[0]
    torch.testing.assert_close(acted, torch.tanh(mean + std * noise))
