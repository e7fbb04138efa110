"""The agent in imagination: who gets which gradient, what bounds the latent action, seeds side by side."""

from dataclasses import replace

import models
import pytest
import torch

from lawm_data.nets.blocks import Noise
from lawm_data.nets.returns import lambda_return
from lawm_train import clap

CONFIG = clap.Config(units=8, layers=1, horizon=3)


def agent_of(seeds=(0,), **changes):
    made = models.windows(seeds=seeds)
    world = models.world(made, **changes)
    return made, world, clap.Agent(CONFIG, world, list(seeds))


def states_of(made, world, step=0):
    with torch.no_grad():
        return world.observe(made.batch(step), Noise(made.seeds, "observe", step)).states


def start_of(states):
    return states.map(lambda x: x.transpose(0, 1).flatten(1, 2))


@pytest.mark.parametrize("critics", [1, 2, 3])
def test_the_actor_loss_is_minus_the_lambda_return_with_its_log_probability(critics):
    made, world, _ = agent_of()
    agent = clap.Agent(replace(CONFIG, critics=critics, discount=0.9, lambda_=0.7, entropy=0.2), world, [0])
    start = start_of(states_of(made, world))
    losses = agent.loss(start, Noise([0], "agent", 0))
    feat, log_pi = agent.imagine(start, Noise([0], "agent", 0))
    value = agent.targets(torch.cat([feat[1:]] * critics, 1))[..., 0]  # all see the same states
    reward = world.reward_head(feat[1:])[..., 0]
    returns = lambda_return(reward, value.amin(1, keepdim=True), 0.9, 0.7)
    torch.testing.assert_close(losses["actor"], 0.2 * log_pi - returns)


def test_true_ends_and_settings_enter_the_returns_where_the_equations_have_them():
    """Written out step by step: V_k = r_k + gamma p(alive at k+1) ((1 - lambda) v_{k+1} + lambda V_{k+1}), and each
    loss counts by the probability that no state up to its own is a true end."""
    made = models.windows()
    world = models.world(made, terminal=True)
    config = replace(CONFIG, discount=0.8, lambda_=0.6, entropy=0.3, eps=0.7)
    agent = clap.Agent(config, world, [0])
    start = start_of(states_of(made, world))
    losses = agent.loss(start, Noise([0], "agent", 0))
    feat, log_pi = agent.imagine(start, Noise([0], "agent", 0))
    value, alive = agent.value(feat[1:]), torch.sigmoid(world.continue_head(feat)[..., 0])
    assert alive.std() > 0
    weights = [alive[0]]
    for k in range(1, config.horizon):
        weights.append(weights[-1] * alive[k])
    reward, following = world.reward_head(feat[1:])[..., 0], value[-1]
    for k in reversed(range(config.horizon)):
        following = reward[k] + 0.8 * alive[k + 1] * (0.4 * value[k] + 0.6 * following)
        torch.testing.assert_close(losses["actor"][k], weights[k] * (0.3 * log_pi[k] - following))
        errors = agent._values(agent.critics, feat[k : k + 1])[:, 0] - following
        torch.testing.assert_close(losses["critic"][k], weights[k] * errors.square().sum(0) / 2)


def test_soft_returns_count_the_entropy_on_the_way():
    made, world, _ = agent_of()
    config = replace(CONFIG, discount=0.8, lambda_=0.6, entropy=0.3, soft_returns=True)
    agent = clap.Agent(config, world, [0])
    start = start_of(states_of(made, world))
    losses = agent.loss(start, Noise([0], "agent", 0))
    feat, log_pi = agent.imagine(start, Noise([0], "agent", 0))
    value = agent.value(feat[1:])
    reward, following = world.reward_head(feat[1:])[..., 0], value[-1]
    for k in reversed(range(config.horizon)):
        following = reward[k] - 0.3 * log_pi[k] + 0.8 * (0.4 * value[k] + 0.6 * following)
        torch.testing.assert_close(losses["actor"][k], -following)
        errors = agent._values(agent.critics, feat[k : k + 1])[:, 0] - following
        torch.testing.assert_close(losses["critic"][k], errors.square().sum(0) / 2)


@pytest.mark.parametrize("through", [False, True])
def test_what_a_policy_sees_passes_the_returns_gradient_on_if_asked(through):
    """By finite differences: the policy's part in log pi, in a state that an earlier action moved."""
    made, world, _ = agent_of()
    agent = clap.Agent(replace(CONFIG, state_gradient=through), world.double(), [0]).double()
    start = start_of(states_of(made, models.world(made))).map(torch.Tensor.double)
    bias = agent.actor.layers[-1].bias

    def log_pi_of_the_last(move):
        with torch.no_grad():
            bias[0, 0, 0] += move
        log_pi = agent.imagine(start, models.DoubleNoise([0], "agent", 0))[1][-1].sum()
        with torch.no_grad():
            bias[0, 0, 0] -= move
        return log_pi

    found = torch.autograd.grad(log_pi_of_the_last(0.0), bias)[0][0, 0, 0].item()
    step = 1e-5
    truth = (log_pi_of_the_last(step) - log_pi_of_the_last(-step)).item() / (2 * step)
    assert (abs(found - truth) < 1e-5 * abs(truth)) == through, (found, truth)


def test_imagined_actions_are_drawn_about_the_decoders_mean_if_asked():
    made, world, agent = agent_of(sample_action=True, action_sigma=0.2)
    start = start_of(states_of(made, world))
    taken, imagine = [], world.rssm.imagine

    def watched(state, control, noise):
        states, actions = imagine(state, control, noise)
        taken.append(actions)
        return states, actions

    world.rssm.imagine = watched
    decoded, decode = [], world.decode_action
    world.decode_action = lambda feat, u: decoded.append(decode(feat, u)) or decoded[-1]
    agent.imagine(start, Noise([0], "agent", 0))
    away = (taken[0] - torch.stack(decoded)) / 0.2
    assert abs(away.mean()) < 0.15 and abs(away.std() - 1) < 0.15, (away.numel(), away.mean(), away.std())


def test_the_state_is_drawn_while_acting_if_asked():
    made, world, agent = agent_of()
    observation, first = made.batch(0).observation[0], torch.ones(1, 7, dtype=torch.bool)
    acts = {}
    for drawn in (False, True):
        world.config = replace(world.config, sample_state=drawn)
        ours, theirs = agent.policy(), agent.policy()
        acts[drawn] = [ours(observation, first) for _ in range(2)]
        assert torch.equal(acts[drawn][0], theirs(observation, first)), "two policies see the same noise"
        noise = (ours.state.feat[..., -4:] - ours.state.mean) / ours.state.std
        assert bool(noise.any()) == drawn and (not drawn or 0.3 < noise.std() < 3)
    assert torch.equal(*acts[False]) and not torch.equal(*acts[True])


def test_the_policy_s_mean_stays_within_its_bound():
    made, world, _ = agent_of()
    agent = clap.Agent(replace(CONFIG, mean_bound=0.5, eps=1.0), world, [0])
    with torch.no_grad():
        agent.actor.layers[-1].bias.fill_(1e3)
    acted = []
    world.decode_action = lambda feat, u: acted.append(u) or world.action_decoder(torch.cat([feat, u], -1))
    agent.policy().act(states_of(made, world).feat[0])
    torch.testing.assert_close(acted[0], torch.full_like(acted[0], 0.5).tanh())
    acted.clear()
    quiet = Noise([0], "agent", 0)
    quiet.normal = lambda *shape: torch.zeros(shape[0], 1, *shape[1:])
    agent.imagine(start_of(states_of(made, world)), quiet)
    for u in acted:
        torch.testing.assert_close(u, torch.full_like(u, 0.5).tanh())


def test_the_chance_of_an_end_reaches_the_actor_through_the_returns_alone():
    """Not through the weights: else it would be paid for ending an episode."""
    made = models.windows()
    agent = clap.Agent(CONFIG, models.world(made, terminal=True), [0])
    start = start_of(states_of(made, agent.world))
    actor = list(agent.actor.parameters())
    ours = torch.autograd.grad(agent.loss(start, Noise([0], "agent", 0))["actor"].sum(), actor)
    feat, log_pi = agent.imagine(start, Noise([0], "agent", 0))
    alive, value = torch.sigmoid(agent.world.continue_head(feat)[..., 0]), agent.value(feat[1:])
    reward = agent.world.reward_head(feat[1:])[..., 0]
    returns = lambda_return(reward, value, CONFIG.discount * alive[1:], CONFIG.lambda_)
    weight = torch.tensor(alive[:-1].detach().numpy()).cumprod(0)
    theirs = torch.autograd.grad((weight * (CONFIG.entropy * log_pi - returns)).sum(), actor)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_states_behind_a_true_end_teach_nothing():
    made = models.windows()
    world = models.world(made, terminal=True)
    agent = clap.Agent(CONFIG, world, [0])
    with torch.no_grad():
        world.continue_head.layers[-1].weight.zero_()
        world.continue_head.layers[-1].bias.fill_(-1e4)  # every state is an end
    losses = agent.loss(start_of(states_of(made, world)), Noise([0], "agent", 0))
    for loss, network in (("actor", agent.actor), ("critic", agent.critics)):
        assert (losses[loss] == 0).all()
        losses[loss].sum().backward(retain_graph=True)
        assert all((p.grad == 0).all() for p in network.parameters())


def test_gradients_stay_where_they_belong():
    made, world, agent = agent_of()
    before = [p.clone() for p in world.parameters()]
    agent.update(states_of(made, world), Noise([0], "agent", 0))
    assert all(torch.equal(a, b) for a, b in zip(before, world.parameters(), strict=True))
    assert all(p.grad is None for p in world.parameters()) and all(p.requires_grad for p in world.parameters())
    losses = agent.loss(start_of(states_of(made, world)), Noise([0], "agent", 0))
    agent.zero_grad()
    losses["actor"].mean().backward(retain_graph=True)
    assert all(p.grad is None for p in agent.critics.parameters())
    assert all(p.grad.abs().sum() > 0 for p in agent.actor.parameters())
    agent.zero_grad()
    losses["critic"].mean().backward()
    assert all(p.grad is None for p in agent.actor.parameters())


def test_the_latent_action_stays_within_eps_standard_deviations_of_the_prior():
    for prior in ("standard", "learned"):
        for eps in (2.0, 0.5):
            made, world, _ = agent_of(prior=prior)
            agent = clap.Agent(replace(CONFIG, eps=eps), world, [0])
            feat = states_of(made, world).feat
            w = torch.empty(*feat.shape[:-1], 3).uniform_(-1, 1)
            p = world.latent_prior(feat)
            distance = ((agent.latent(feat, w) - p.mean) / p.std).abs()
            torch.testing.assert_close(distance, eps * w.abs(), rtol=1e-4, atol=1e-5)


def test_the_prior_policy_draws_from_the_learned_prior():
    made = models.windows()
    world = models.world(made, prior="learned")
    feat = torch.randn(1, 5, sum(world.rssm.sizes))
    prior = world.latent_prior(feat)
    assert prior.mean.abs().max() > 0.01 and (prior.std - 1).abs().max() > 0.01
    drawn = prior.mean + prior.std * Noise([0], "prior-policy", 0).normal(1, 5, prior.mean.shape[-1])[0]
    torch.testing.assert_close(world.policy().act(feat), world.decode_action(feat, drawn))


def test_agents_side_by_side_equal_lone_ones():
    def trained(seeds):
        made, world, agent = agent_of(seeds)
        metrics = []
        for i in range(10):
            states = world.observe(made.batch(i, "agent"), Noise(seeds, "observe", i)).states
            metrics.append(agent.update(states, Noise(seeds, "agent", i)))
        return {name: torch.stack([m[name] for m in metrics]) for name in metrics[0]}

    both = trained([3, 4])
    for k, seed in enumerate((3, 4)):
        for name, alone in trained([seed]).items():
            torch.testing.assert_close(both[name][:, k], alone[:, 0], rtol=1e-5, atol=1e-6)


def test_the_policy_executes_the_decoders_mean_and_feeds_the_filter_with_it():
    made, world, agent = agent_of()
    policy, observations = agent.policy(), made.batch(0).observation
    first = torch.ones(1, observations.shape[2], dtype=torch.bool)
    actions = [policy(o, first if t == 0 else ~first) for t, o in enumerate(observations)]
    embed = world.embed(observations)
    state = world.rssm.first(embed[0])
    action = torch.zeros_like(actions[0])
    for t in range(len(observations)):
        state = world.rssm.step(state, action, torch.zeros_like(state.mean), embed[t])
        mean = 5 * torch.tanh(agent.actor(state.feat).chunk(2, -1)[0] / 5)
        action = world.decode_action(state.feat, 2 * torch.tanh(mean))
        torch.testing.assert_close(actions[t], action)
    assert torch.equal(policy(observations[0], first), actions[0])  # a new episode starts from nothing
