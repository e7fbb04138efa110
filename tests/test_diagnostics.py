"""The ladder: it fails a decoder that ignores u, passes a model that has learned; its figures mean what they say."""

from types import SimpleNamespace

import models
import numpy as np
import pytest
import torch

from lawm_data.nets.blocks import Noise
from lawm_train import diagnostics, idm

LENGTH = 12


@pytest.fixture(scope="module")
def trained():
    """A small model after a few hundred updates on a linear system that is pushed by its actions."""
    made = models.windows(counts=(8, 8), window=LENGTH, recorded=models.episodes(30, 60))
    world = models.world(
        made, deter=24, stoch=8, embed=16, hidden=24, units=32, latent_action=4, free_nats=0.0, lr=3e-3
    )
    for i in range(400):
        world.update(made.batch(i), Noise([0], "model", i))
    held_out = models.windows(counts=(32, 0), window=LENGTH, recorded=models.episodes(40, 60)[-6:])
    return world, held_out.batch(0)


def test_a_model_that_learned_passes_the_first_rung(trained):
    world, batch = trained
    with torch.no_grad():
        rung = diagnostics.labeled_path(world, batch)
    assert rung.passed, rung


def test_a_decoder_that_ignores_u_fails_the_first_rung(trained):
    world, batch = trained
    weight = world.action_decoder.layers[0].weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[:, -world.config.latent_action :] = 0
        rung = diagnostics.labeled_path(world, batch)
        weight.copy_(kept)
    assert not rung.passed and rung.figures["spread of the decoded action"] < 1e-6


def dataset_of(labeled, hidden):
    """What rung 2 asks of a dataset."""

    def episodes(slice_name, split, *, with_actions=False):
        return iter(labeled if split == "labeled" else hidden if with_actions else [e.stripped() for e in hidden])

    return SimpleNamespace(episodes=episodes, manifest=SimpleNamespace(action_size=2))


def test_inferred_actions_are_judged_against_the_withheld_ones(trained):
    world, _ = trained
    made = models.episodes(12, 60)
    config = idm.Config(updates=300, units=32, batch=64, dropout=0.0, lr=3e-3)
    with torch.no_grad():
        rung = diagnostics.inferred_actions(world, dataset_of(made[:3], made[3:]), "medium-replay", config)
    assert 0.5 < rung.figures["R2 inferred"] <= 1 and 0.5 < rung.figures["R2 supervised IDM"] <= 1


def test_open_loop_errors_grow_with_the_horizon_and_need_the_actions(trained, monkeypatch):
    world, _ = trained
    monkeypatch.setattr(diagnostics, "CONTEXT", 4)
    monkeypatch.setattr(diagnostics, "HORIZONS", (1, 3, 6))
    batch = models.windows(counts=(32, 0), window=LENGTH, recorded=models.episodes(50, 60)[-6:]).batch(1)
    with torch.no_grad():
        figures = diagnostics.open_loop(world, batch).figures
        shuffled = diagnostics._open_loop_errors(
            world, world.observe(batch, diagnostics.SilentNoise())._replace(action=batch.action.flip(2))
        )
    assert figures["true h=1"] < figures["true h=6"] < 1
    assert shuffled[6] > 1.5 * figures["true h=6"]


def test_r_squared_is_one_for_the_truth_and_zero_for_its_mean():
    truth = np.random.default_rng(0).normal(size=(50, 3))
    assert diagnostics.r_squared(truth, truth) == 1
    assert abs(diagnostics.r_squared(np.broadcast_to(truth.mean(0), truth.shape), truth)) < 1e-12
