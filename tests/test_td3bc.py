"""TD3+BC: who gets which gradient, and seeds side by side; perf/test_plain.py has the published algorithm."""

import models
import torch

from lawm_data.nets.blocks import Noise
from lawm_data.windows import moments
from lawm_train import td3bc

CONFIG = td3bc.Config(units=16)


def agent_of(made):
    mean, std = moments(made.pools[0])
    many = len(made.seeds)
    statistics = mean.repeat(many, 1, 1), std.repeat(many, 1, 1)
    return td3bc.Agent(CONFIG, list(made.seeds), td3bc.normalizer(*statistics), 2)


def transitions(seeds=(0,), **kwargs):
    return models.windows(seeds, counts=(32, 0), window=1, **kwargs)


def test_the_actors_gradient_stays_out_of_the_critics():
    made = transitions()
    agent = agent_of(made)
    agent.actor_loss(made.batch(0)).mean().backward()
    assert all(p.grad is None for p in agent.critics.parameters())
    assert all(p.grad.abs().sum() > 0 for p in agent.actor.parameters())


def test_observations_far_from_the_data_are_not_clipped():
    mean, std = torch.full((1, 1, 3), 5.0), torch.full((1, 1, 3), 2.0)
    normalized = td3bc.normalizer(mean, std)(mean + 50 * std)
    torch.testing.assert_close(normalized, torch.full((1, 1, 3), 100 / 2.001))


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
