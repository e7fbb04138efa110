"""The plain loops that speed is compared with are the same models: equal losses, gradients and updates."""

import models
import plain
import torch


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
