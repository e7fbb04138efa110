"""The actor that acts where a method has its average: the same laws for every method that has one."""

import models
import pytest
import torch

from lawm_data.nets.blocks import Noise
from lawm_data.windows import moments
from lawm_train import bc, clap, td3bc

METHODS = ("clap", "td3bc", "bc")


def parameters(module):
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def made(method, rate, actor_every=1):
    """An agent, a function that makes its update number i, and the batches that both see."""
    windows = models.windows((0,), counts=(16, 0), window=5 if method == "clap" else 1)
    if method == "clap":
        world = models.world(windows)
        agent = clap.Agent(clap.Config(units=8, layers=1, horizon=3, lr=1e-2, acting_rate=rate), world, [0])

        def update(i):
            with torch.no_grad():
                states = world.observe(windows.batch(i), Noise([0], "observe", i)).states
            agent.update(states, Noise([0], method, i))

        return agent, update, windows
    if method == "td3bc":
        mean, std = (x.view(1, 1, -1) for x in moments(windows.pools[0]))
        config = td3bc.Config(units=16, lr=1e-2, actor_every=actor_every, acting_rate=rate)
        agent = td3bc.Agent(config, [0], td3bc.normalizer(mean, std), 2)
    else:
        agent = bc.Cloner(bc.Config(units=8, lr=1e-2, acting_rate=rate), [0], models.normalizer(windows), 2)
    return agent, lambda i: agent.update(windows.batch(i), Noise([0], method, i)), windows


@pytest.mark.parametrize("method", METHODS)
def test_the_acting_actor_is_the_running_average_of_the_trained_one(method):
    agent, update, windows = made(method, 0.25)
    expected = parameters(agent.actor)
    for i in range(4):
        update(i)
        expected += 0.25 * (parameters(agent.actor) - expected)
    observation = windows.batch(0).observation[0]
    first = torch.ones(observation.shape[:2], dtype=torch.bool)
    acted = agent.policy()(observation, first)
    agent.averaged = None  # acts by the trained actor
    assert not torch.allclose(agent.policy()(observation, first), acted)
    torch.nn.utils.vector_to_parameters(expected, agent.actor.parameters())
    torch.testing.assert_close(agent.policy()(observation, first), acted)


@pytest.mark.parametrize("method", ["td3bc", "bc"])
@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_the_actor_that_acts_sees_what_it_was_trained_on(method, rate):
    """The normalised observation."""
    agent, update, windows = made(method, rate)
    update(0)
    agent.normalizer.mean.add_(3)
    observation = windows.batch(0).observation[0]
    actor = agent.actor if agent.averaged is None else agent.averaged
    acted = agent.policy()(observation, torch.ones(observation.shape[:2], dtype=torch.bool))
    torch.testing.assert_close(acted, torch.tanh(actor(agent.normalizer(observation))))


@pytest.mark.parametrize("method", METHODS)
def test_an_average_leaves_training_as_it_is(method):
    trained = []
    for rate in (1.0, 0.25):
        agent, update, _ = made(method, rate)
        for i in range(3):
            update(i)
        trained.append(parameters(agent.actor))
    assert torch.equal(*trained)


def test_an_average_follows_the_steps_of_the_actor_not_of_the_critics():
    agent, update, _ = made("td3bc", 0.25, actor_every=2)
    start = parameters(agent.actor)
    for i in range(3):
        update(i)
    torch.testing.assert_close(parameters(agent.averaged), start + 0.25 * (parameters(agent.actor) - start))
