"""The plain loops that speed is compared with are the same models: equal losses, gradients and updates."""

from dataclasses import replace

import models
import plain
import pytest
import torch
from published import Published, network

from lawm_train import td3bc


def lone_world(counts=(3, 4)):
    made = models.windows(counts=counts)
    world = models.world(made, layers=2, idm_layers=2, free_nats=1.0).double()
    plainly = plain.WorldModel(world.config, 5, 2).double()
    plain.copy_weights(plainly, world)
    return made, world, plainly


def test_world_model_has_the_plain_models_loss_and_gradients():
    made, world, plainly = lone_world()
    batch = models.as_double(made.batch(0))
    terms, _ = world.loss(batch, models.DoubleNoise([0], "test", 0))
    ours = world.total(terms, batch).sum()
    theirs = plainly.loss(batch, *plain.inputs(world, batch, models.DoubleNoise([0], "test", 0)))
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    compared = plain.parameters(plainly, world)
    assert len(compared) == len(list(plainly.parameters())) == len(list(world.parameters()))
    for mine, own in compared:
        torch.testing.assert_close(mine.grad, plain.as_plain(own.grad))


def test_world_models_stay_equal_over_updates():
    made, world, plainly = lone_world()
    for i in range(3):
        batch = models.as_double(made.batch(i))
        world.update(batch, models.DoubleNoise([0], "test", i))
        plainly.update(batch, *plain.inputs(world, batch, models.DoubleNoise([0], "test", i)))
    for mine, own in plain.parameters(plainly, world):
        torch.testing.assert_close(mine, plain.as_plain(own))


@pytest.mark.parametrize("scale", [1.0, 20.0], ids=["", "near saturation"])
def test_losses_and_weights_equal_the_published_algorithm_step_for_step(scale):
    """In float64, but for the bias corrections of the fused Adam, which are float32. scale: of the actor's last layer,
    so that the noise on the target's action reaches beyond 1.
    """
    ended = [replace(episode, terminal=True) for episode in models.episodes(length=8)]
    made = models.windows(counts=(32, 0), window=1, recorded=ended)
    rows = torch.cat([pool.observations() for pool in made.pools[0]]).double()
    mean, std = rows.mean(0), rows.std(0, correction=0)
    normalizer = td3bc.normalizer(mean.float()[None, None], std.float()[None, None])
    agent = td3bc.Agent(td3bc.Config(units=16), [0], normalizer, 2).double()
    for actor in (agent.actor, agent.actor_target):
        actor.layers[-1].weight.data.mul_(scale)
    published = Published(agent)
    terminals = 0
    for i in range(12):
        batch = models.as_double(made.batch(i))
        terminals += int(batch.terminal.sum())
        s, s_next = agent.normalizer(batch.observation)[:, 0]
        torch.testing.assert_close(s, (batch.observation[0, 0] - mean) / (std + 1e-3), rtol=1e-5, atol=1e-5)
        normal = models.DoubleNoise([0], "td3bc", i).normal(1, 32, 2)[0, 0]
        wanted = published.train(
            s, batch.action[0, 0], batch.reward[0, 0, :, None], s_next, batch.terminal[0, :, None].double(), normal
        )
        found = agent.update(batch, models.DoubleNoise([0], "td3bc", i))
        torch.testing.assert_close(found["critic"][0], wanted[0].detach(), rtol=1e-7, atol=0)
        assert ("actor" in found) == (wanted[1] is not None)
        if wanted[1] is not None:
            torch.testing.assert_close(found["actor"][0], wanted[1].detach(), rtol=1e-7, atol=0)
    assert terminals, "no true end was drawn: (1 - done) was not tested"
    nets = [(agent.actor, 0, published.actor), (agent.actor_target, 0, published.old_actor)]
    nets += [(agent.critics, k, net) for k, net in enumerate((published.q1, published.q2))]
    nets += [(agent.critic_targets, k, net) for k, net in enumerate((published.old_q1, published.old_q2))]
    for ours, row, theirs in nets:
        for a, b in zip(network(ours, row).parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
