"""TD3+BC: who gets which gradient, and seeds side by side; perf/test_plain.py has the published algorithm."""

from dataclasses import replace

import models
import torch

from lawm_data.nets.blocks import Noise
from lawm_data.windows import moments
from lawm_train import td3bc

CONFIG = td3bc.Config(units=16)


def agent_of(made, **changes):
    mean, std = moments(made.pools[0])
    many = len(made.seeds)
    statistics = mean.repeat(many, 1, 1), std.repeat(many, 1, 1)
    return td3bc.Agent(replace(CONFIG, **changes), list(made.seeds), td3bc.normalizer(*statistics), 2)


def transitions(seeds=(0,), **kwargs):
    return models.windows(seeds, counts=(32, 0), window=1, **kwargs)


def test_the_actors_gradient_stays_out_of_the_critics():
    made = transitions()
    agent = agent_of(made)
    agent.actor_loss(made.batch(0)).mean().backward()
    assert all(p.grad is None for p in agent.critics.parameters())
    assert all(p.grad.abs().sum() > 0 for p in agent.actor.parameters())


def test_agents_side_by_side_equal_lone_ones():
    def trained(seeds):
        made = transitions(seeds)
        agent = agent_of(made)
        metrics = [agent.update(made.batch(i), Noise(seeds, "td3bc", i)) for i in range(10)]
        return {name: torch.stack([m[name] for m in metrics if name in m]) for name in metrics[-1]}

    both = trained([3, 4])
    for k, seed in enumerate((3, 4)):
        for name, alone in trained([seed]).items():
            torch.testing.assert_close(both[name][:, k], alone[:, 0], rtol=1e-5, atol=1e-6)


def test_the_acting_actor_is_the_running_average_of_the_trained_one():
    made = transitions()
    agent = agent_of(made, lr=1e-2, actor_every=1, acting_rate=0.25)

    def update(i):
        agent.update(made.batch(i), Noise([0], "td3bc", i))

    acted, trained, averaged = models.actions_after(agent, made, update, 0.25)
    torch.testing.assert_close(acted, averaged)
    assert not torch.allclose(acted, trained)


def test_the_average_follows_the_actors_steps_and_leaves_training_as_it_is():
    trained = []
    for rate in (1.0, 0.25):
        made = transitions()
        agent = agent_of(made, lr=1e-2, actor_every=2, acting_rate=rate)
        start = torch.nn.utils.parameters_to_vector(agent.actor.parameters())
        for i in range(3):
            agent.update(made.batch(i), Noise([0], "td3bc", i))
        trained.append(torch.nn.utils.parameters_to_vector(agent.actor.parameters()))
    assert torch.equal(*trained)
    averaged = torch.nn.utils.parameters_to_vector(agent.averaged.parameters())
    torch.testing.assert_close(averaged, start + 0.25 * (trained[1] - start))  # one step of the actor's in three
