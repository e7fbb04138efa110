"""The inverse dynamics model: it is chosen on trajectories that it never learned from, each model by its own."""

from dataclasses import replace

import models
import numpy as np
import pytest
import torch

from lawm_data.nets.blocks import Noise
from lawm_data.windows import Contexts
from lawm_train import idm

CONFIG = idm.Config(updates=60, units=8, layers=1, batch=16, lr=3e-3, held_out=0.2, choose_every=5)
EPISODES = models.episodes(10)


def trained(seeds=(0,), episodes=EPISODES, config=CONFIG):
    """The models, and the held-out error [N] of each choice."""
    model = idm.InverseDynamics(config, list(seeds), models.normalizer(models.windows(seeds)), 2)
    step = idm.steps(model, seeds, [episodes] * len(seeds))
    metrics = [step(i) for i in range(config.updates)]
    return model, torch.stack([row["held_out"] for row in metrics if "held_out" in row])


def test_held_out_trajectories_are_whole_and_the_same_in_any_order():
    learned, held_out = idm.split(EPISODES, 0.2)
    names = [episode.episode_id for episode in held_out]
    assert len(names) == 2 and len(learned) == 8 and not set(names) & {episode.episode_id for episode in learned}
    assert [episode.episode_id for episode in idm.split(EPISODES[::-1], 0.2)[1]] == names
    assert idm.split(EPISODES[:1], 0.2) == (EPISODES[:1], EPISODES[:1])
    assert idm.split(EPISODES, 0.0) == (EPISODES, EPISODES)
    learned, held_out = idm.split(EPISODES[:2], 0.9)
    assert len(learned) == len(held_out) == 1, "something is left to learn from"


def test_what_is_held_out_is_not_learned_from():
    held_out = {episode.episode_id for episode in idm.split(EPISODES, 0.2)[1]}
    other = [replace(e, action=-e.action) if e.episode_id in held_out else e for e in EPISODES]
    (ours, errors), (theirs, others) = trained(), trained(episodes=other)
    assert len(errors) == CONFIG.updates / CONFIG.choose_every
    for a, b in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(errors, others)


def test_the_chosen_weights_are_those_of_the_lowest_held_out_error():
    config = replace(CONFIG, lr=0.3, choose_every=1)  # so that the error goes up and down
    model, errors = trained((3, 4), config=config)
    assert torch.equal(model.error, errors.amin(0)) and (errors.argmin(0) < len(errors) - 1).any()
    ((context, action),) = Contexts([idm.split(EPISODES, 0.2)[1]], [0], 2, 1).pairs
    again = (model.chosen(context.expand(2, -1, -1)) - action).square().sum(-1).mean(1)
    torch.testing.assert_close(again, model.error)
    hidden = idm.split(EPISODES, 0.2)[1]
    for k in (0, 1):
        told = model.relabel([episode.stripped() for episode in hidden], k)
        rows = np.concatenate([a.action - b.action for a, b in zip(told, hidden, strict=True)])
        assert np.square(rows).sum(1).mean() == pytest.approx(float(model.error[k]), rel=1e-4), "relabels with them"


def test_the_last_update_chooses_too():
    """So a training that is shorter than `choose_every` does not infer by its initial weights."""
    model, errors = trained(config=replace(CONFIG, choose_every=CONFIG.updates + 1))
    assert len(errors) == 1
    for kept, now in zip(model.chosen.parameters(), model.network.parameters(), strict=True):
        assert torch.equal(kept, now)


def test_models_side_by_side_equal_lone_ones():
    both, errors = trained((3, 4))
    for k, seed in enumerate((3, 4)):
        alone, own = trained((seed,))
        torch.testing.assert_close(errors[:, k], own[:, 0], rtol=1e-4, atol=1e-6)
        hidden = EPISODES[0].stripped()
        (ours,), (theirs,) = both.relabel([hidden], k), alone.relabel([hidden])
        np.testing.assert_allclose(ours.action, theirs.action, rtol=1e-3, atol=1e-5)


def test_relabeling_keeps_true_actions_and_drops_nothing():
    model, _ = trained()
    assert list(model.relabel(EPISODES[:1]))[0] is EPISODES[0]
    one, two = (list(model.relabel([EPISODES[1].stripped()]))[0] for _ in range(2))
    assert np.array_equal(one.action, two.action) and one.action.shape == EPISODES[1].action.shape


def test_it_learns_to_tell_actions():
    model, errors = trained(config=replace(CONFIG, updates=300, units=32, dropout=0.0))
    truth = np.concatenate([episode.action for episode in EPISODES])
    assert float(errors.min()) < 0.2 * 2 * truth.var(), "a fifth of the variance, summed over two dimensions"


def test_dropout_follows_from_seed_and_update_alone():
    made, context = models.windows(), torch.randn(1, 16, 25)
    ours, theirs = (idm.InverseDynamics(CONFIG, [0], models.normalizer(made), 2) for _ in range(2))
    ours.update(context, torch.zeros(1, 16, 2), Noise([0], "idm", 7))
    torch.rand(1000)
    theirs.update(context, torch.zeros(1, 16, 2), Noise([0], "idm", 7))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
