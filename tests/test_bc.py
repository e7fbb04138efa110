"""Behaviour cloning against its definition, and what it may not use."""

from dataclasses import replace

import models
import numpy as np
import torch
from test_lawm import mlp

from lawm_data.nets.blocks import Noise
from lawm_train import bc

CONFIG = bc.Config(units=8, layers=2)


def made(seeds=(0,)):
    return models.windows(seeds, counts=(16, 0), window=1)


def cloner(windows):
    return bc.Cloner(CONFIG, list(windows.seeds), models.normalizer(windows), 2)


def test_the_loss_is_the_squared_error_of_the_action_at_its_own_observation():
    windows = made()
    model, batch = cloner(windows).double(), models.as_double(windows.batch(0))
    mean, std = (x[0, 0].numpy() for x in (model.normalizer.mean, model.normalizer.std))
    for b, found in enumerate(model.loss(batch)["action"][0, 0].tolist()):
        o, a = batch.observation[0, 0, b].numpy(), batch.action[0, 0, b].numpy()
        acted = np.tanh(mlp(model.actor, np.clip((o - mean) / std, -10, 10)))
        np.testing.assert_allclose(found, np.sum((acted - a) ** 2), rtol=1e-10)


def test_an_update_is_a_step_of_adam_down_its_mean():
    windows = made()
    model, plain = cloner(windows), cloner(windows)
    adam = torch.optim.Adam(plain.actor.parameters(), lr=CONFIG.lr)
    for i in range(3):
        batch = windows.batch(i)
        model.update(batch, Noise([0], "bc", i))
        adam.zero_grad()
        plain.loss(batch)["action"].mean().backward()
        adam.step()
    for ours, theirs in zip(model.actor.parameters(), plain.actor.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_rewards_and_the_next_observation_are_no_matter():
    windows = made()
    model, batch = cloner(windows), windows.batch(0)
    following = torch.cat([batch.observation[:1], torch.full_like(batch.observation[1:], torch.nan)])
    other = replace(batch, reward=torch.full_like(batch.reward, torch.nan), observation=following)
    assert torch.equal(model.loss(other)["action"], model.loss(batch)["action"])


def test_seeds_side_by_side_equal_lone_ones():
    def trained(seeds):
        windows = made(seeds)
        model = cloner(windows)
        return torch.stack([model.update(windows.batch(i), Noise(seeds, "bc", i))["action"] for i in range(5)])

    both = trained([3, 4])
    for k, seed in enumerate((3, 4)):
        torch.testing.assert_close(both[:, k], trained([seed])[:, 0], rtol=1e-5, atol=1e-6)
